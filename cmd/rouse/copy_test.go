package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rouse/internal/testkit"
	"rouse/store"
)

// keep is what a phone has and expects when its server moves.
type keep struct {
	*testPhone
	cursor  string   // where it stands
	pending []string // what it has not acked, in order
}

// usePhones has phones come, get messages, and read some.
func usePhones(t *testing.T, r *rig, n int) (all []*keep) {
	t.Helper()
	all = make([]*keep, n)
	const hands = 16
	var busy sync.WaitGroup
	for hand := range hands {
		busy.Go(func() {
			for i := hand; i < n; i += hands {
				p := &keep{testPhone: r.enrol(fmt.Sprintf("phone-%d", i), []string{"fcm", "apns", "none"}[i%3])}
				all[i] = p
				for range 2 + i%5 {
					p.pending = append(p.pending, r.mustSend(p.device, `{"text":"hello"}`))
				}
				if i%2 == 0 {
					page, err := p.page(t.Context(), "", 2, 0)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := p.ackAll(t.Context(), page.Cursor); err != nil {
						t.Error(err)
						return
					}
					p.cursor, p.pending = page.Cursor, p.pending[len(page.Messages):]
				}
			}
		})
	}
	busy.Wait()
	return all
}

// readsOn has the phones fetch from a server that they do not know to be another, each from its old cursor on.
func readsOn(t *testing.T, r *rig, all []*keep) {
	t.Helper()
	lost, doubled := 0, 0
	for _, p := range all {
		r.again(p.testPhone)
		var got []string
		for cursor := p.cursor; ; {
			page, err := p.page(t.Context(), cursor, maxPage, 0)
			if err != nil {
				t.Fatalf("%s with its old secret and cursor: %v", p.device, err)
			}
			for _, m := range page.Messages {
				got = append(got, m.Id)
			}
			if cursor = page.Cursor; len(page.Messages) == 0 {
				break
			}
		}
		if !slices.Equal(got, p.pending) {
			t.Errorf("%s got %d messages, %d were pending", p.device, len(got), len(p.pending))
			lost += max(0, len(p.pending)-len(got))
			doubled += max(0, len(got)-len(p.pending))
		}
	}
	t.Logf("%d phones, %d lost, %d twice", len(all), lost, doubled)
}

// TestCopyIsKilledAndGoesOn moves a server that was used from SQLite to PostgreSQL, and is killed on the way again and again.
func TestCopyIsKilledAndGoesOn(t *testing.T) {
	t.Parallel()
	target := testkit.QuickPostgres(t)
	r := newRig(t)
	phones := usePhones(t, r, 200)
	source := filepath.Join(r.dir, "rouse.db")
	copying := []string{"copy", "--from", "sqlite:" + source, "--to", withPassword(t, target), "--page-rows", "20"}
	if code, out := command(t, nil, copying...); code != exitFailed || !strings.Contains(out, "stop it") {
		t.Errorf("beside a node: exit %d\n%s", code, out)
	}
	if code, _ := r.terminate(); code != exitOK {
		t.Fatalf("the node stopped with %d", code)
	}
	kills := killCopies(t, copying, withPassword(t, target))
	code, out := command(t, nil, append(copying, "-o", "json")...)
	if code != exitOK || strings.Contains(out, dbPassword) || !strings.Contains(out, source+".keys") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	t.Logf("killed %d times, %d of them half way", kills[0], kills[1])
	if kills[1] < len(heldTables) {
		t.Error("hardly a kill hit a copy half way")
	}
	if out := mustCommand(t, nil, copying...); !strings.Contains(out, "finished before") {
		t.Errorf("once more:\n%s", out)
	}
	master, err := os.ReadFile(source + ".keys")
	if err != nil {
		t.Fatal(err)
	}
	r.db = []string{"ROUSE_DB=" + withPassword(t, target), "ROUSE_MASTER_KEYS=" + strings.TrimSpace(string(master))}
	r.start()
	readsOn(t, r, phones)
	p := phones[0]
	before := r.heard(p.testPhone)
	r.mustSend(p.device, `{"text":"after"}`)
	r.awaitPush(p.testPhone, before)
}

// heldTables are those at which a copy is sure to be killed half way: it has said something before it comes to them.
var heldTables = []string{"devices", "deliveries"}

// killCopies starts copies and kills each: the first before it has said anything, the next ones while they cannot go on with one of
// heldTables, the others a moment after they said something. It returns how many it killed, and how many of them had begun and were
// not done.
func killCopies(t *testing.T, args []string, target string) (kills [2]int) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(` (copied|compared)\n`)
	for n := range 8 {
		release := func() {}
		if held := n - 1; n > 0 && held < len(heldTables) {
			mustCommand(t, []string{"ROUSE_DB=" + target}, "migrate", "up") // for the one before may not have come so far
			release = holdTable(t, target, heldTables[held])
		}
		c := startChild(t, exec.Command(path, args...))
		moment := time.Duration(n) * 7 * time.Millisecond
		if n > 0 {
			c.log.await(t, said, c.exited)
		}
		select {
		case <-c.exited:
		case <-time.After(moment):
			c.kill()
		}
		release()
		switch c.cmd.ProcessState.ExitCode() {
		case exitOK: // it was done before it was killed
			return kills
		case exitFailed:
			t.Fatalf("a copy failed:\n%s", c.log)
		}
		awaitNobody(t, target) // its last commit may have been on its way
		kills[0]++
		if said.MatchString(c.log.String()) {
			kills[1]++
		}
	}
	return kills
}

// holdTable lets nobody write a table until it is released.
func holdTable(t *testing.T, dsn, table string) (release func()) {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	held, err := db.BeginTx(t.Context(), nil)
	if err == nil {
		_, err = held.ExecContext(t.Context(), "LOCK TABLE "+table+" IN SHARE MODE")
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = held.Rollback(); _ = db.Close() }
}

// awaitNobody returns once nobody else is connected to the database: what a process that is gone had under way there is over.
func awaitNobody(t *testing.T, dsn string) {
	t.Helper()
	testkit.Command(t, dsn, `DO $$ BEGIN
		WHILE EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()) LOOP
			PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
		END LOOP;
	END $$`)
}

func TestCopyTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := []string{"ROUSE_DB=sqlite:" + filepath.Join(dir, "rouse.db")}
	mustCommand(t, env, "migrate", "up")
	source, target := "sqlite:"+filepath.Join(dir, "rouse.db"), "sqlite:"+filepath.Join(dir, "copy.db")
	for _, c := range []struct {
		args []string
		env  []string
		code int
		word string
	}{
		{[]string{"--from", source}, nil, exitUsage, "--to"},
		{[]string{"--from", "mysql://u:hunter2@x/y", "--to", target}, nil, exitUsage, "--from"},
		{[]string{"--from", "postgres://u:hunter2@127.0.0.1:1/y", "--to", target}, nil, exitUsage, "ROUSE_MASTER_KEYS"},
		{[]string{"--from", "postgres://u:hunter2@127.0.0.1:1/y", "--to", target}, []string{"ROUSE_MASTER_KEYS=" + firstLine(mustCommand(t, nil, "keys", "generate", "master"))}, exitFailed, "source"},
		{[]string{"--from", source, "--to", "postgres://u:hunter2@127.0.0.1:1/y"}, nil, exitFailed, "target"},
		{[]string{"--from", source + "x", "--to", target}, nil, exitFailed, "no database at"},
		{[]string{"--from", source, "--to", source}, nil, exitFailed, "same file"},
		{nil, []string{"ROUSE_COPY_FROM=" + source, "ROUSE_COPY_TO=" + target}, exitOK, fileOf(target) + ".keys"},
		{[]string{"--from", source, "--to", target}, nil, exitOK, "Do not start a node on " + source + " again"},
		{[]string{"--from", source, "--to", target, "-o", "json"}, nil, exitOK, `"tables": []`},
	} {
		code, out := command(t, c.env, append([]string{"copy"}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.word) || strings.Contains(out, "hunter2") {
			t.Errorf("%v: exit %d, want %d and %q\n%s", c.args, code, c.code, c.word, out)
		}
	}
	backup := filepath.Join(dir, "backup.db")
	mustCommand(t, env, "backup", "--to", backup)
	mustCommand(t, []string{"ROUSE_DB=sqlite:" + backup}, "migrate", "status") // which no key is needed for
	if _, out := command(t, env, "backup", "--to", backup); strings.Count(out, "already") != 1 {
		t.Errorf("a backup over a backup: %s", out)
	}
	if _, out := command(t, nil, "backup", "--db", source+"x", "--to", backup); !strings.Contains(out, "--db") {
		t.Errorf("a backup of nothing: %s", out)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"copy", "--from", source, "--to", target + "2"}, {"backup", "--db", source, "--to", backup + "2"}} {
		var out strings.Builder
		if code := run(ended, args, nil, strings.NewReader(""), &out, &out); code != exitFailed || !strings.Contains(out.String(), "interrupted") || strings.Contains(out.String(), "canceled") {
			t.Errorf("%v, interrupted: exit %d, %s", args, code, out.String())
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "rouse.dbx.keys")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("looking made a key file: %v", err)
	}
}

func fileOf(dsn string) string { return strings.TrimPrefix(dsn, "sqlite:") }

// TestBackupWhileANodeRuns takes a backup of a node under load, and runs a node on it.
func TestBackupWhileANodeRuns(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, on engine) {
		r := newRigOn(t, on)
		var phones []*testPhone
		for i := range 6 {
			phones = append(phones, r.enrol(fmt.Sprintf("phone-%d", i), "none"))
		}
		l := startLoad(r, phones, 100)
		<-l.enough
		l.mu.Lock()
		known := map[string][]string{}
		for d, ids := range l.accepted {
			known[d] = slices.Clone(ids)
		}
		l.mu.Unlock()
		file := filepath.Join(t.TempDir(), "backup.db")
		env := slices.Clone(r.db)
		args := []string{"backup", "--to", file, "-o", "json"}
		if on.name == onSQLite.name {
			args = append(args, "--with-keys")
		}
		code, out := command(t, env, args...)
		l.end()
		var report store.BackupReport
		if err := json.NewDecoder(strings.NewReader(out[max(0, strings.Index(out, "{")):])).Decode(&report); err != nil || code != exitOK || report.Bytes == 0 {
			t.Fatalf("exit %d, %v\n%s", code, err, out)
		}
		if strings.Contains(out, dbPassword) {
			t.Errorf("the database's password is in\n%s", out)
		}
		if code, out := command(t, env, "backup", "--to", file); code != exitFailed || !strings.Contains(out, "there already") {
			t.Errorf("over a file: exit %d\n%s", code, out)
		}
		for _, name := range []string{file, file + ".keys"} {
			if info, err := os.Stat(name); err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
		}
		r.kill()
		r.db = slices.DeleteFunc(env, func(s string) bool { return strings.HasPrefix(s, "ROUSE_DB=") })
		r.db = append(r.db, "ROUSE_DB=sqlite:"+file)
		r.start()
		for _, p := range phones {
			r.again(p)
			compareIDs(t, 0, p.device, known[p.device], r.drain(p))
		}
	})
}

func TestMigrateOnPostgres(t *testing.T) {
	t.Parallel()
	env := []string{"ROUSE_DB=" + withPassword(t, testkit.QuickPostgres(t))}
	code, out := command(t, env, "migrate", "status", "-o", "json")
	if code != exitFailed || !strings.Contains(out, `"0001_apps"`) || !strings.Contains(out, `"have": 0`) {
		t.Errorf("status of an empty database: exit %d\n%s", code, out)
	}
	if out := mustCommand(t, env, "migrate", "up"); !strings.Contains(out, "applied: 0001_apps") {
		t.Errorf("up said\n%s", out)
	}
	if out := mustCommand(t, env, "migrate", "up", "-o", "json"); !strings.Contains(out, `"pending": []`) || strings.Contains(out, "applied") {
		t.Errorf("up once more said\n%s", out)
	}
	if out := mustCommand(t, env, "migrate", "status"); strings.Contains(out, "pending") {
		t.Errorf("status said\n%s", out)
	}
}
