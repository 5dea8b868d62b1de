package store

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

// trouble checks that err is what a sender is told when the database cannot be written.
func trouble(t testing.TB, err error) {
	t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != fault.Unavailable || e.Code != "storage_unavailable" || e.RetryAfter != 5*time.Second || e.Unwrap() == nil {
		t.Fatalf("told %v", err)
	}
	if strings.Contains(e.Detail, "SQLITE") || strings.Contains(e.Detail, "database or disk") {
		t.Errorf("the client is told too much: %s", e.Detail)
	}
}

// inInbox are the ids a device would be handed.
func inInbox(t testing.TB, s *Store, device ident.Device) (ids []ident.Message) {
	t.Helper()
	var after messages.Seq
	for {
		p, err := s.Inbox(context.Background(), messages.Query{Device: device, After: &after, Limit: 100, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range p.Items {
			ids = append(ids, item.ID)
		}
		if after = p.Last; !p.More {
			return ids
		}
	}
}

func TestAFullDiskIsToldAndPasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, fullDisk) // the writer looks again after a second, and what it does then needs no room
}

func fullDisk(t *testing.T) {
	var log bytes.Buffer
	s := openFile(t, "", func(o *Options) { o.Log, o.InboxMessages = slog.New(slog.NewTextHandler(&log, nil)), 1<<20 })
	stop := start(t, s)
	app, device := populate(t, s)
	pragma := s.connection(t)
	pragma("max_page_count = 200")
	var accepted []ident.Message
	var failure error
	large := bytes.Repeat([]byte("1"), 20_000)
	for failure == nil {
		m := sendTo(app, device)
		m.Data = large
		r, err := s.Accept(context.Background(), m)
		if failure = err; err == nil {
			accepted = append(accepted, r.ID)
		}
	}
	trouble(t, failure)
	if err := s.Ready(context.Background()); err == nil {
		t.Error("ready on a full disk")
	}
	if got := inInbox(t, s, device); !slices.Equal(got, accepted) {
		t.Errorf("accepted %d, stored %d", len(accepted), len(got))
	}
	s.RecordWake(messages.Wake{Device: device, At: time.Now(), Accepted: true, Head: messages.Marks{High: 1}})
	pragma("max_page_count = 100000")
	waitFor(t, func() bool { return s.Ready(context.Background()) == nil })
	r, err := s.Accept(context.Background(), sendTo(app, device))
	if err != nil {
		t.Fatal(err)
	}
	if got := inInbox(t, s, device); !slices.Equal(got, append(accepted, r.ID)) {
		t.Errorf("accepted %d, stored %d", len(accepted)+1, len(got))
	}
	stop()
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

func TestAReadOnlyDatabaseIsToldAndPasses(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	stop := start(t, s)
	app, device := populate(t, s)
	kept, err := s.Accept(context.Background(), sendTo(app, device))
	if err != nil {
		t.Fatal(err)
	}
	pragma := s.connection(t)
	pragma("query_only = 1")
	for range 3 {
		_, err = s.Accept(context.Background(), sendTo(app, device))
		trouble(t, err)
	}
	_, err = s.AckUpTo(context.Background(), device, kept.Pending[0].Seq, time.Now())
	trouble(t, err)
	if err := s.Ready(context.Background()); err == nil {
		t.Error("ready without being able to write")
	}
	if got := inInbox(t, s, device); !slices.Equal(got, []ident.Message{kept.ID}) {
		t.Errorf("stored %v", got)
	}
	pragma("query_only = 0")
	waitFor(t, func() bool { return s.Ready(context.Background()) == nil }) // it finds out by itself
	if n, err := s.AckUpTo(context.Background(), device, kept.Pending[0].Seq, time.Now()); n != 1 || err != nil {
		t.Errorf("acked %d, %v", n, err)
	}
	stop()
}

// lockerArg makes the test binary the other process: it locks the file that follows.
const lockerArg = "-lock-this-database="

// TestLocker is the other process; without its argument it has nothing to do.
func TestLocker(t *testing.T) {
	t.Parallel()
	path := ""
	for _, arg := range os.Args {
		if p, ok := strings.CutPrefix(arg, lockerArg); ok {
			path = p
		}
	}
	if path == "" {
		return
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("PRAGMA busy_timeout = 10000; BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	fmt.Println("locked")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		t.Log(err)
	}
	if _, err := db.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
}

// lock has another process lock the database and returns what makes it let go.
func lock(t *testing.T, path string) (unlock func()) {
	t.Helper()
	other := exec.Command(os.Args[0], "-test.run=^TestLocker$", "-test.count=1", "-test.v", "--", lockerArg+path)
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "locked") {
	}
	return func() {
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Error(err)
		}
		for lines.Scan() {
		}
		if err := other.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestALockedDatabaseIsWaitedForThenTold(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/rouse.db"
	s := openFile(t, path)
	stop := start(t, s)
	app, device := populate(t, s)
	send := func() error {
		_, err := s.Accept(context.Background(), sendTo(app, device))
		return err
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}

	s.connection(t)("busy_timeout = 60000") // the other lets go when it comes to it
	unlock := lock(t, path)
	waited := make(chan error, 1)
	go func() { waited <- send() }()
	waitFor(t, func() bool { return s.queued() == 1 })
	if got := inInbox(t, s, device); len(got) != 1 {
		t.Errorf("readers see %d under the other's lock", len(got))
	}
	unlock()
	if err := <-waited; err != nil {
		t.Errorf("one that only had to wait was told %v", err)
	}

	s.connection(t)("busy_timeout = 50")
	unlock = lock(t, path)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := send(); fault.From(err).Code != "storage_unavailable" {
				t.Errorf("told %v", err)
			}
		})
	}
	all.Wait()
	if err := s.Ready(context.Background()); err == nil {
		t.Error("ready while another holds the database")
	}
	unlock()
	waitFor(t, func() bool { return s.Ready(context.Background()) == nil })
	if err := send(); err != nil {
		t.Error(err)
	}
	if got := inInbox(t, s, device); len(got) != 3 {
		t.Errorf("%d are stored, 3 were accepted", len(got))
	}
	stop()
}

func TestPlacesAreNeverGivenTwice(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/rouse.db"
	last := messages.Seq(0)
	for range 3 {
		s := openFile(t, path)
		stop := start(t, s)
		app, device := populate(t, s)
		for range 3 {
			r, err := s.Accept(context.Background(), sendTo(app, device))
			if err != nil {
				t.Fatal(err)
			}
			if r.Pending[0].Seq <= last {
				t.Fatalf("place %d after %d", r.Pending[0].Seq, last)
			}
			last = r.Pending[0].Seq
		}
		if err := s.DeleteApp(context.Background(), app); err != nil {
			t.Fatal(err)
		}
		var rows int
		if err := s.reads.get(context.Background(), &rows, "SELECT COUNT(*) FROM deliveries"); err != nil || rows != 0 {
			t.Fatalf("%d rows are left, %v", rows, err)
		}
		stop()
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/rouse.db"
	s := openFile(t, path)
	have, want, err := s.MigrationStatus(context.Background())
	if err != nil || have != want || have == 0 {
		t.Fatalf("schema %d of %d, %v", have, want, err)
	}
	waiting := newOp(func(*tx) error { return nil })
	queued(t, s, waiting)
	s.onWriter(t, fmt.Sprintf("INSERT INTO goose_db_version (version_id, is_applied) VALUES (%d, 1)", want+1))
	for name, refuse := range map[string]func() error{
		"migrate": func() error { return s.Migrate(context.Background()) },
		"run":     func() error { return s.Run(context.Background()) },
	} {
		if err := refuse(); err == nil || !strings.Contains(err.Error(), "newer") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := <-waiting.done; fault.From(err).Code != "shutting_down" {
		t.Errorf("who waited for the writer was told %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAnEmptyDatabaseIsNotReady(t *testing.T) {
	t.Parallel()
	ring := openFile(t, "")
	defer ring.Close()
	path := t.TempDir() + "/deeper/rouse ?#.db"
	s, err := Open(context.Background(), Options{DSN: "sqlite:" + path, Ring: ring.ring})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if have, want, err := s.MigrationStatus(context.Background()); have != 0 || want == 0 || err != nil {
		t.Errorf("schema %d of %d, %v", have, want, err)
	}
	if err := s.Ready(context.Background()); err == nil || !strings.Contains(err.Error(), "rouse migrate") {
		t.Errorf("ready: %v", err)
	}
	if err := s.Run(context.Background()); err == nil {
		t.Error("the writer runs on an empty database")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
}

// What is acked to a sender must outlive a power failure: a commit waits for the disk. And who finds the database locked waits.
func TestACommitIsOnDisk(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	stop := start(t, s)
	var mode string
	var level, patience int
	err := s.write(t.Context(), "look", newOp(func(x *tx) error {
		return errors.Join(x.get(&mode, "PRAGMA journal_mode"), x.get(&level, "PRAGMA synchronous"), x.get(&patience, "PRAGMA busy_timeout"))
	}))
	if err != nil {
		t.Fatal(err)
	}
	const full = 2 // as SQLite numbers it
	if mode != "wal" || level != full {
		t.Errorf("the writer's journal is %q, synchronous %d, want wal and %d", mode, level, full)
	}
	if patience != busyMillis {
		t.Errorf("it waits %d ms for a lock, want %d", patience, busyMillis)
	}
	stop()
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	defer s.Close()
	for _, o := range []Options{
		{DSN: "sqlite:" + t.TempDir() + "/x.db"},
		{DSN: "sqlite::memory:", Ring: s.ring}, {DSN: "sqlite:", Ring: s.ring}, {DSN: "mysql:x", Ring: s.ring}, {Ring: s.ring},
		{DSN: "sqlite:" + t.TempDir(), Ring: s.ring},
	} {
		if opened, err := Open(context.Background(), o); err == nil {
			t.Errorf("opened %q", o.DSN)
			_ = opened.Close()
		}
	}
}
