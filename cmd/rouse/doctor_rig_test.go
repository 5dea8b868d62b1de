package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/client"
	"rouse/config"
	"rouse/providers"
	"rouse/store"
)

// examined is what rouse doctor --json wrote.
type examined struct {
	OK       bool    `json:"ok"`
	Findings []found `json:"findings"`
}

// get returns the finding of a check; the worst, if there are several.
func (x examined) get(t *testing.T, check string) found {
	t.Helper()
	var worst *found
	rank := map[providers.FindingStatus]int{providers.FindingOK: 1, providers.FindingWarn: 2, providers.FindingFail: 3}
	for _, f := range x.Findings {
		if f.Check == check && (worst == nil || rank[f.Status] > rank[worst.Status]) {
			worst = &f
		}
	}
	if worst == nil {
		t.Fatalf("nothing was found on %s: %+v", check, x.Findings)
	}
	return *worst
}

// want checks status and reason of a check, and that what is wrong has a cause and a cure.
func (x examined) want(t *testing.T, check string, status providers.FindingStatus, reason string) found {
	t.Helper()
	f := x.get(t, check)
	if f.Status != status || f.Reason != reason {
		t.Errorf("%s is %s (%s), want %s (%s): %s", check, f.Status, f.Reason, status, reason, f.Cause)
	}
	if f.Cause == "" || (status != providers.FindingOK && f.Cure == "") {
		t.Errorf("%s has the cause %q and the cure %q", check, f.Cause, f.Cure)
	}
	return f
}

// checks is all that was looked at.
func (x examined) has(check string) bool {
	for _, f := range x.Findings {
		if f.Check == check {
			return true
		}
	}
	return false
}

// doctorEnv is the settings of the rig's server.
func (r *rig) doctorEnv() []string {
	return append(r.env(), "ROUSE_LISTEN="+strings.TrimPrefix(r.child.at.api, "http://"), "ROUSE_OPS_LISTEN="+strings.TrimPrefix(r.child.at.ops, "http://"))
}

// doctor runs rouse doctor --json beside the rig's server, with the flags in place of its settings.
func (r *rig) doctor(flags ...string) (int, examined) {
	r.t.Helper()
	return doctorWith(r, r.doctorEnv(), flags...)
}

func doctorWith(r *rig, env []string, flags ...string) (int, examined) {
	r.t.Helper()
	var out, log bytes.Buffer
	begun := time.Now()
	code := run(r.t.Context(), append([]string{"doctor", "--json"}, flags...), env, strings.NewReader(""), &out, &log)
	if took := time.Since(begun); took > doctorLimit+5*time.Second {
		r.t.Errorf("it took %v", took)
	}
	r.noSecret(out.String() + log.String())
	var x examined
	dec := json.NewDecoder(&out)
	if err := dec.Decode(&x); err != nil {
		r.t.Fatalf("exit %d, no JSON: %v\n%s", code, err, log.String())
	}
	if dec.More() {
		r.t.Error("more than JSON was written")
	}
	failed := 0
	for _, f := range x.Findings {
		if f.Status == providers.FindingFail {
			failed++
		}
	}
	if x.OK != (failed == 0) || (code == exitOK) != x.OK {
		r.t.Errorf("ok is %v, exit %d, %d failed", x.OK, code, failed)
	}
	return code, x
}

// noSecret fails if what doctor wrote holds one.
func (r *rig) noSecret(text string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, secret := range append(r.secrets, "PRIVATE KEY", "ya29.", secretWords) {
		if strings.Contains(text, secret) {
			r.t.Errorf("a secret (%.14s...) is in:\n%s", secret, text)
		}
	}
}

// folder is the names and times in the rig's folder.
func (r *rig) folder() string {
	r.t.Helper()
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// inStore changes the database while the server is down.
func (r *rig) inStore(change func(*store.Store)) {
	r.t.Helper()
	path := filepath.Join(r.dir, "rouse.db")
	ring, _, err := config.Ring("", path)
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := store.Open(r.t.Context(), store.Options{DSN: "sqlite:" + path, Ring: ring})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	change(s)
	cancel()
	if err := <-done; err != nil {
		r.t.Error(err)
	}
	if err := s.Close(); err != nil {
		r.t.Error(err)
	}
}

// inDatabase runs a statement while the server is down.
func (r *rig) inDatabase(statement string) {
	r.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(r.dir, "rouse.db"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		r.t.Fatal(err)
	}
}

// overwrite damages the first page of a table or an index; of sqlite_schema, what follows the header of the file.
func (r *rig) overwrite(name string) {
	r.t.Helper()
	path, at := filepath.Join(r.dir, "rouse.db"), int64(100)
	if name != "sqlite_schema" {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			r.t.Fatal(err)
		}
		var page, size int64
		err = errors.Join(db.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = ?", name).Scan(&page), db.QueryRow("PRAGMA page_size").Scan(&size), db.Close())
		if err != nil {
			r.t.Fatal(err)
		}
		at = (page - 1) * size
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("not how a page begins"), at); err != nil {
		r.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// authorities writes the certificates into one file of the test.
func authorities(t *testing.T, r *rig, servers ...*httptest.Server) string {
	t.Helper()
	all := r.sim.CAPEM()
	for _, s := range servers {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})...)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// awaitCircuit returns once the API tells of an open circuit: the metric comes before it is stored.
func (r *rig) awaitCircuit() {
	r.t.Helper()
	deadline := time.After(patient)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		app, err := answer[client.App](r.client(r.admin).GetApp(r.t.Context(), r.app.Id))
		if err != nil {
			r.t.Fatal(err)
		}
		if app.Circuits != nil && len(*app.Circuits) > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatal("no circuit opened")
		}
	}
}
