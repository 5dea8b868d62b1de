package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"rouse/client"
	"rouse/config"
	"rouse/ident"
	"rouse/providers"
	"rouse/providers/sim"
	"rouse/store"
	"rouse/tokens"
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
	ca := filepath.Join(r.dir, "ca.pem")
	return []string{
		"ROUSE_DB=sqlite:" + filepath.Join(r.dir, "rouse.db"), "ROUSE_ADMIN_KEY=" + r.admin,
		"ROUSE_LISTEN=" + strings.TrimPrefix(r.child.at.api, "http://"), "ROUSE_OPS_LISTEN=" + strings.TrimPrefix(r.child.at.ops, "http://"),
		"ROUSE_APNS_ENDPOINT=" + r.sim.APNsURL(), "ROUSE_APNS_SANDBOX_ENDPOINT=" + r.sim.APNsSandboxURL(), "ROUSE_APNS_CA=" + ca,
		"ROUSE_FCM_ENDPOINT=" + r.sim.FCMURL(), "ROUSE_FCM_TOKEN_ENDPOINT=" + r.sim.FCMTokenURL(), "ROUSE_FCM_CA=" + ca,
	}
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

const healthy = `ok    configuration            Every setting is right.
ok    database                 DIR/rouse.db can be read.
ok    permissions              The files are this user's to write and nobody else's to read.
ok    schema                   Schema N is what this program wants.
ok    integrity                No page of the database is damaged.
ok    wal_size                 The database has SIZE, its log SIZE.
ok    master_keys              Every master key that sealed here opens ("k1").
ok    disk_space               SIZE are left on the disk of DIR.
ok    server                   A server runs and is ready.
ok    listen                   The API answers at 127.0.0.1:PORT.
ok    endpoint_apns_production Apple's production environment at 127.0.0.1:PORT can be reached.
ok    endpoint_apns_sandbox    Apple's sandbox at 127.0.0.1:PORT can be reached.
ok    endpoint_fcm             Google's FCM at 127.0.0.1:PORT can be reached.
ok    endpoint_fcm_token       Google's OAuth at 127.0.0.1:PORT can be reached.
ok    clock                    The clock of this machine is within 30s of that of 127.0.0.1:PORT.

APP (TestDoctorOfAHealthyNode)
ok    apns_credential          The credential opens, and it has no end.
ok    fcm_credential           The credential opens, and it has no end.
ok    circuits                 No way to the app's phones is closed.
`

// TestDoctorOfAHealthyNode looks at a node that runs: all is well, nothing is changed, and the node does not notice.
func TestDoctorOfAHealthyNode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.enrol("phone", "fcm")
	before := r.folder()
	var out, log bytes.Buffer
	if code := run(t.Context(), []string{"doctor"}, r.doctorEnv(), strings.NewReader(""), &out, &log); code != exitOK || log.Len() > 0 {
		t.Errorf("exit %d\n%s", code, log.String())
	}
	r.noSecret(out.String())
	text := strings.ReplaceAll(out.String(), r.dir, "DIR")
	for pattern, name := range map[string]string{`127\.0\.0\.1:\d+`: "127.0.0.1:PORT", `app_\w+`: "APP", `[0-9.]+ [GMK]iB`: "SIZE", `Schema \d+`: "Schema N"} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, name)
	}
	if !strings.HasPrefix(text, healthy) {
		t.Errorf("it says\n%s\nwant\n%s", text, healthy)
	}
	if !regexp.MustCompile(`\n0 failed, 0 to look at, \d+ fine\.\n$`).MatchString(text) {
		t.Errorf("it ends otherwise:\n%s", text)
	}
	code, x := r.doctor()
	if code != exitOK || count(x.Findings, providers.FindingWarn) > 0 {
		t.Errorf("exit %d, %+v", code, x.Findings)
	}
	for _, check := range []string{"apns_production", "apns_sandbox", "fcm_access_token", "fcm_send"} {
		x.want(t, check, providers.FindingOK, "")
	}
	if after := r.folder(); after != before {
		t.Errorf("files before: %s\nafter: %s", before, after)
	}
	if len(r.sim.Pushes(p.token)) > 0 {
		t.Error("somebody was woken")
	}
	r.mustSend(p.device, `1`)
	r.awaitPush(p, 0)
	if code, took := r.terminate(); code != exitOK {
		t.Errorf("the server stops with %d after %v", code, took)
	}
}

// TestDoctorOfANodeThatIsDown: stopped in order and killed, both can be looked at and are started afterwards as if nobody had.
func TestDoctorOfANodeThatIsDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.enrol("phone", "none")
	id := r.mustSend(p.device, `"kept"`)
	r.kill()
	for _, how := range []string{"killed", "stopped"} {
		before := r.folder()
		code, x := r.doctor()
		if code != exitOK {
			t.Errorf("%s: exit %d: %+v", how, code, x.Findings)
		}
		x.want(t, "server", providers.FindingWarn, "not_running")
		for _, check := range []string{"database", "integrity", "schema", "master_keys", "listen", "ops_listen", "apns_credential"} {
			x.want(t, check, providers.FindingOK, "")
		}
		if after := r.folder(); after != before {
			t.Errorf("%s: files before: %s\nafter: %s", how, before, after)
		}
		r.start()
		if how == "killed" {
			if code, _ := r.terminate(); code != exitOK {
				t.Errorf("exit %d", code)
			}
		}
	}
	r.again(p)
	compareIDs(t, 0, p.device, []string{id}, r.drain(p))
}

func TestDoctorTellsAddressesThatAreTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.kill()
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	code, x := r.doctor("--offline", "--listen", taken.Addr().String(), "--ops-listen", "192.0.2.1:9090")
	if code != exitFailed {
		t.Errorf("exit %d", code)
	}
	f := x.want(t, "listen", providers.FindingFail, "address_in_use")
	if !strings.Contains(f.Cure, "ROUSE_LISTEN") {
		t.Errorf("the cure is %q", f.Cure)
	}
	x.want(t, "ops_listen", providers.FindingFail, "address_not_here")
}

// TestDoctorTellsAServerInTrouble: one that hangs, one that cannot write, one that is somewhere else.
func TestDoctorTellsAServerInTrouble(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	process := r.child.cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, x := r.doctor("--offline")
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	f := x.want(t, "server", providers.FindingFail, "silent")
	if !strings.Contains(f.Cause, fmt.Sprintf("process %d", process.Pid)) {
		t.Errorf("which process is not told: %s", f.Cause)
	}
	_, x = r.doctor("--offline", "--ops-listen", "127.0.0.1:0")
	x.want(t, "server", providers.FindingWarn, "unknown_address")
	_, x = r.doctor("--offline", "--listen", "127.0.0.1:1")
	x.want(t, "listen", providers.FindingFail, "silent")
	other := newRig(t)
	_, x = other.doctor("--offline", "--ops-listen", strings.TrimPrefix(r.child.at.ops, "http://"))
	x.want(t, "server", providers.FindingOK, "") // both have a server, and which answers cannot be told
	other.kill()
	_, x = other.doctor("--offline", "--ops-listen", strings.TrimPrefix(r.child.at.ops, "http://"))
	x.want(t, "server", providers.FindingWarn, "other_database")
	_, x = other.doctor("--offline", "--db", "sqlite:"+filepath.Join(other.dir, "absent.db"), "--ops-listen", strings.TrimPrefix(r.child.at.ops, "http://"))
	x.want(t, "server", providers.FindingWarn, "other_database")
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	_, x = r.doctor("--offline", "--ops-listen", stranger.Listener.Addr().String())
	x.want(t, "server", providers.FindingFail, "not_rouse")
}

// TestDoctorTellsWhatKeysAndSchemaLack: what serve would refuse to start with.
func TestDoctorTellsWhatKeysAndSchemaLack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if code, _ := r.terminate(); code != exitOK {
		t.Fatal("the server does not stop")
	}
	path := filepath.Join(r.dir, "rouse.db")
	keys := config.KeyFile(path)
	content, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	r.secret(strings.TrimSpace(string(content)), strings.TrimPrefix(strings.TrimSpace(string(content)), "k1:"))

	other := tokens.NewRingKey("k1")
	r.secret(other, strings.TrimPrefix(other, "k1:"))
	code, x := doctorWith(r, append(r.doctorEnv(), "ROUSE_MASTER_KEYS="+other), "--offline")
	if code != exitFailed {
		t.Errorf("exit %d with another key", code)
	}
	if f := x.want(t, "master_keys", providers.FindingFail, "key_missing"); !strings.Contains(f.Cause, `"k1"`) {
		t.Errorf("which key is not told: %s", f.Cause)
	}
	x.want(t, "apns_credential", providers.FindingFail, "sealed")

	if err := os.Chmod(keys, 0o644); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "master_keys", providers.FindingFail, "key_file_open")
	if err := os.Rename(keys, keys+".away"); err != nil {
		t.Fatal(err)
	}
	before := r.folder()
	_, x = r.doctor("--offline")
	x.want(t, "master_keys", providers.FindingFail, "key_file_missing")
	if after := r.folder(); after != before {
		t.Errorf("files before: %s\nafter: %s", before, after)
	}
	if err := os.WriteFile(keys, []byte("k1:garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "master_keys", providers.FindingFail, "keys_unreadable")
	if err := os.Rename(keys+".away", keys); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(keys, 0o600); err != nil {
		t.Fatal(err)
	}

	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "permissions", providers.FindingWarn, "open_to_others")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "permissions", providers.FindingWarn, "folder_open")
	if err := os.Chmod(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}

	if os.Geteuid() == 0 { // nobody else may give files away
		if err := os.Chown(keys, 65532, -1); err != nil {
			t.Fatal(err)
		}
		_, x = r.doctor("--offline")
		x.want(t, "permissions", providers.FindingWarn, "owners_differ")
		if err := os.Chown(keys, 0, -1); err != nil {
			t.Fatal(err)
		}
	}

	r.inDatabase("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
	code, x = r.doctor("--offline")
	if code != exitFailed {
		t.Errorf("exit %d with a newer schema", code)
	}
	x.want(t, "schema", providers.FindingFail, "newer")
	if x.has("apns_credential") {
		t.Error("tables of another program were read")
	}
	r.inDatabase("DELETE FROM goose_db_version WHERE version_id >= (SELECT MAX(version_id) FROM goose_db_version WHERE version_id < 9999)")
	code, x = r.doctor("--offline")
	if code != exitOK {
		t.Errorf("exit %d with an older schema", code)
	}
	x.want(t, "schema", providers.FindingWarn, "older")
}

func TestDoctorTellsADatabaseThatIsNone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.kill()
	dir := t.TempDir()
	code, x := r.doctor("--offline", "--db", "sqlite:"+filepath.Join(dir, "sub", "rouse.db"))
	if code != exitOK {
		t.Errorf("exit %d", code)
	}
	x.want(t, "database", providers.FindingWarn, "absent")
	x.want(t, "master_keys", providers.FindingOK, "")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("it made %v, %v", entries, err)
	}
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("no database\n", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline", "--db", "sqlite:"+text)
	x.want(t, "database", providers.FindingFail, "unusable")
	// What a killed server left, with a log that is longer than it would ever be.
	if err := os.Truncate(filepath.Join(r.dir, "rouse.db-wal"), longLog+1); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "wal_size", providers.FindingWarn, "long_log")
	x.want(t, "integrity", providers.FindingOK, "")
	if err := os.Remove(filepath.Join(r.dir, "rouse.db-shm")); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "database", providers.FindingWarn, "needs_repair")
	r.start()
	if code, _ := r.terminate(); code != exitOK {
		t.Fatalf("exit %d", code)
	}
	r.overwrite("devices_app")
	_, x = r.doctor("--offline")
	x.want(t, "integrity", providers.FindingFail, "damaged")
	r.overwrite("sqlite_schema")
	_, x = r.doctor("--offline")
	x.want(t, "database", providers.FindingFail, "damaged")
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

func TestDoctorTellsTheMistakesInTheSettings(t *testing.T) {
	t.Parallel()
	var out, log bytes.Buffer
	env := []string{"ROUSE_ADMIN_KEY=canary-short", "ROUSE_DB=postgres://rouse:canary-password@db/rouse", "ROUSE_GRACE=soon"}
	if code := run(t.Context(), []string{"doctor", "--json"}, env, strings.NewReader(""), &out, &log); code != exitUsage {
		t.Errorf("exit %d", code)
	}
	var x examined
	if err := json.Unmarshal(out.Bytes(), &x); err != nil {
		t.Fatal(err)
	}
	if len(x.Findings) != 3 || x.OK {
		t.Errorf("%+v", x)
	}
	for _, setting := range []string{"ROUSE_ADMIN_KEY", "ROUSE_DB", "ROUSE_GRACE"} {
		if !strings.Contains(out.String(), setting) {
			t.Errorf("nothing about %s", setting)
		}
	}
	if strings.Contains(out.String()+log.String(), "canary") {
		t.Errorf("a secret is in\n%s%s", out.String(), log.String())
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

// TestDoctorTellsWhyAnEndpointCannotBeReached meets each kind of trouble for real; all at once, within the limit of the whole.
func TestDoctorTellsWhyAnEndpointCannotBeReached(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var lc net.ListenConfig
	closed, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	silent, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	old := httptest.NewTLSServer(http.NotFoundHandler()) // HTTP/1.1 alone
	defer old.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	stranger, err := sim.Start(context.Background(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	ca := authorities(t, r, old)
	address := func(l net.Listener) string { return "https://" + l.Addr().String() }
	code, x := r.doctor("--apns-endpoint", address(closed), "--apns-sandbox-endpoint", address(silent), "--apns-ca", ca,
		"--fcm-endpoint", stranger.FCMURL(), "--fcm-token-endpoint", "https://does-not-exist.invalid/token")
	if code != exitFailed {
		t.Errorf("exit %d", code)
	}
	if f := x.want(t, "endpoint_apns_production", providers.FindingFail, "connect_refused"); !strings.Contains(f.Cure, "ROUSE_APNS_ENDPOINT") {
		t.Errorf("the cure is %q", f.Cure)
	}
	x.want(t, "endpoint_apns_sandbox", providers.FindingFail, "tls_timeout")
	if f := x.want(t, "endpoint_fcm", providers.FindingFail, "untrusted_certificate"); !strings.Contains(f.Cure, "ROUSE_FCM_CA") {
		t.Errorf("the cure is %q", f.Cure)
	}
	x.want(t, "endpoint_fcm_token", providers.FindingFail, "dns_failed")
	x.want(t, "clock", providers.FindingWarn, "no_time")

	_, x = r.doctor("--apns-endpoint", old.URL, "--apns-sandbox-endpoint", "https://"+plain.Listener.Addr().String(), "--apns-ca", ca,
		"--fcm-endpoint", old.URL+"/v1", "--fcm-token-endpoint", old.URL+"/token", "--fcm-ca", ca)
	x.want(t, "endpoint_apns_production", providers.FindingFail, "no_http2")
	x.want(t, "endpoint_apns_sandbox", providers.FindingFail, "not_tls")
	x.want(t, "endpoint_fcm", providers.FindingWarn, "no_http2")
	x.want(t, "endpoint_fcm_token", providers.FindingOK, "")
}

// TestDoctorForgivesAnEndpointThatNobodyUses: an app with Google alone needs no way to Apple.
func TestDoctorForgivesAnEndpointThatNobodyUses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if _, err := answer[nothing](r.client(r.admin).DeleteApnsCredential(t.Context(), r.app.Id)); err != nil {
		t.Fatal(err)
	}
	code, x := r.doctor("--apns-endpoint", "https://does-not-exist.invalid")
	x.want(t, "endpoint_apns_production", providers.FindingWarn, "dns_failed")
	if code != exitOK {
		t.Errorf("exit %d: %+v", code, x.Findings)
	}
}

func TestDoctorComparesTheClock(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct {
		ahead  time.Duration
		status providers.FindingStatus
		says   string
	}{
		{time.Minute, providers.FindingWarn, "behind"},
		{-time.Hour, providers.FindingFail, "ahead of"},
		{20 * time.Second, providers.FindingOK, ""},
	} {
		google := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(c.ahead).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusNotFound)
		}))
		_, x := r.doctor("--fcm-token-endpoint", google.URL, "--fcm-ca", authorities(t, r, google))
		reason := "clock_skew"
		if c.status == providers.FindingOK {
			reason = ""
		}
		if f := x.want(t, "clock", c.status, reason); !strings.Contains(f.Cause, c.says) {
			t.Errorf("%v: %s", c.ahead, f.Cause)
		}
		google.Close()
	}
}

// TestDoctorTellsWhatTheProvidersSay: keys that they do not take any more.
func TestDoctorTellsWhatTheProvidersSay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.sim.NewAPNsKey(demoTeam, demoKeyID, demoTopic) // takes the place of the one that is stored
	r.sim.AddRule(sim.Rule{Provider: sim.Token, Action: sim.Action{Status: http.StatusBadRequest, Reason: "invalid_grant"}})
	code, x := r.doctor()
	if code != exitFailed {
		t.Errorf("exit %d: %+v", code, x.Findings)
	}
	f := x.want(t, "apns_production", providers.FindingFail, "InvalidProviderToken")
	if f.App != r.app.Id || f.AppName != t.Name() {
		t.Errorf("whose it is: %q (%q)", f.App, f.AppName)
	}
	if f := x.get(t, "fcm_access_token"); f.Status != providers.FindingFail {
		t.Errorf("%+v", f)
	}
	// The server finds out, too, and both say the same.
	r.mustSend(r.enrol("phone", "apns").device, `1`)
	r.awaitMetric(`rouse_circuit_open{app="`+r.app.Id+`",cause="credential",environment="production",onward="",provider="apns"}`, 1)
	r.awaitCircuit()
	_, x = r.doctor()
	x.want(t, "apns_production_circuit", providers.FindingFail, "InvalidProviderToken")
	x.want(t, "apns_production", providers.FindingFail, "InvalidProviderToken")
	_, x = r.doctor("--offline")
	if x.has("apns_production") || x.has("fcm_access_token") || x.has("endpoint_fcm") || x.has("clock") {
		t.Errorf("it asked somebody: %+v", x.Findings)
	}
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

// TestDoctorLooksAtOneApp by id and by name.
func TestDoctorLooksAtOneApp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	mustCommand(t, []string{"ROUSE_URL=" + r.child.at.api, "ROUSE_ADMIN_KEY=" + r.admin}, "apps", "create", "bare")
	_, x := r.doctor("--offline")
	if f := x.want(t, "credentials", providers.FindingWarn, "no_credentials"); f.AppName != "bare" {
		t.Errorf("%+v", f)
	}
	for _, which := range []string{r.app.Id, t.Name()} {
		_, x = r.doctor("--offline", "--app", which)
		if x.has("credentials") || x.get(t, "apns_credential").App != r.app.Id {
			t.Errorf("--app %s: %+v", which, x.Findings)
		}
	}
	code, x := r.doctor("--offline", "--app", "nobody")
	if code != exitFailed {
		t.Errorf("exit %d", code)
	}
	x.want(t, "apps", providers.FindingFail, "app_not_found")
}

// TestDoctorTellsOfExpiryAndCircuits has the store hold what the worker and the years would.
func TestDoctorTellsOfExpiryAndCircuits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.enrol("one", "apns")
	r.enrol("another", "apns")
	r.enrol("third", "fcm")
	r.kill()
	app, now := ident.App(r.app.Id), time.Now()
	put := func(end time.Time) {
		r.inStore(func(s *store.Store) {
			c, err := s.Credential(t.Context(), app, tokens.APNs)
			if err != nil {
				t.Fatal(err)
			}
			c.ExpiresAt, c.UpdatedAt = end, now
			if err := s.PutCredential(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		})
	}
	put(now.Add(-time.Hour))
	code, x := r.doctor("--offline")
	if code != exitFailed {
		t.Errorf("exit %d", code)
	}
	x.want(t, "apns_credential", providers.FindingFail, "expired")
	put(now.Add(10*24*time.Hour + time.Hour))
	_, x = r.doctor("--offline")
	if f := x.want(t, "apns_credential", providers.FindingWarn, "expires_soon"); !strings.Contains(f.Cause, "in 10 days") {
		t.Errorf("%s", f.Cause)
	}
	put(now.Add(60 * 24 * time.Hour))
	_, x = r.doctor("--offline")
	x.want(t, "apns_credential", providers.FindingOK, "")

	r.inStore(func(s *store.Store) {
		for _, c := range []tokens.Circuit{
			{Outlet: tokens.Outlet{App: app, Provider: tokens.APNs, Environment: tokens.Production}, State: tokens.CircuitOpen, Cause: tokens.CauseCredential, Reason: "InvalidProviderToken"},
			{Outlet: tokens.Outlet{App: app, Provider: tokens.FCM, Onward: tokens.OnwardApple}, State: tokens.CircuitOpen, Cause: tokens.CauseCredential, Reason: "THIRD_PARTY_AUTH_ERROR"},
			{Outlet: tokens.Outlet{App: app, Provider: tokens.FCM}, State: tokens.CircuitOpen, Cause: tokens.CauseThrottled, Reason: "QUOTA_EXCEEDED"},
			{Outlet: tokens.Outlet{App: app, Provider: tokens.APNs}, State: tokens.CircuitOpen, Cause: tokens.CauseMassDeath, Reason: "BadDeviceToken"},
		} {
			c.OpenedAt, c.RetryAt, c.Pauses = now, now.Add(5*time.Minute), 2
			if err := s.NoteCircuit(t.Context(), c, now); err != nil {
				t.Fatal(err)
			}
		}
	})
	_, x = r.doctor("--offline")
	f := x.want(t, "apns_production_circuit", providers.FindingFail, "InvalidProviderToken")
	if until := at(now.Add(5 * time.Minute)); !strings.Contains(f.Cause, until) || !strings.Contains(f.Cure, "rouse credentials put apns") {
		t.Errorf("until when and what cures it is not told: %s %s", f.Cause, f.Cure)
	}
	if f := x.want(t, "fcm_apple_circuit", providers.FindingFail, "THIRD_PARTY_AUTH_ERROR"); !strings.Contains(f.Cure, "Firebase") {
		t.Errorf("the cure is %q", f.Cure)
	}
	x.want(t, "fcm_circuit", providers.FindingWarn, "QUOTA_EXCEEDED")
	if f := x.want(t, "apns_circuit", providers.FindingFail, "BadDeviceToken"); !strings.Contains(f.Cause, "Of the 2 devices registered there, 2 have a good token") {
		t.Errorf("the numbers are not told: %s", f.Cause)
	}
	if x.has("circuits") {
		t.Error("all circuits are said to be closed")
	}
}

func TestDoctorMeasuresTheRoomLeft(t *testing.T) {
	t.Parallel()
	for free, want := range map[uint64]providers.FindingStatus{
		full - 1: providers.FindingFail, full: providers.FindingWarn, crowded - 1: providers.FindingWarn, crowded: providers.FindingOK, 1 << 63: providers.FindingOK,
	} {
		if f := roomFor("/", free); f.Status != want {
			t.Errorf("%d bytes: %+v", free, f)
		}
	}
}

// TestDoctorsReasonsAreTold: each check and reason in the code has its row in the page.
func TestDoctorsReasonsAreTold(t *testing.T) {
	t.Parallel()
	page := readPage(t, filepath.Join("docs", "doctor.md"))
	calls := regexp.MustCompile(`(?:broken|doubtful)\((?:"([a-z_]+)"|[^,"]+), (?:"([a-z_0-9]+)"|[^,"]+)`)
	n := 0
	for _, file := range []string{"doctor.go", "doctor_apps.go", "doctor_database.go", "doctor_endpoints.go", "doctor_server.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range calls.FindAllStringSubmatch(string(source), -1) {
			for _, word := range call[1:] {
				if word != "" && !strings.Contains(page, "`"+word+"`") {
					t.Errorf("docs/doctor.md says nothing about %s", word)
				}
				n++
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d checks and reasons were found in the code", n)
	}
}
