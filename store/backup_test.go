package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
)

// load sends to all devices, which ack now and then, until stop.
type load struct {
	mu       sync.Mutex
	answered map[ident.Message]ident.Device
	total    int
	enough   chan struct{}
}

func startLoad(t *testing.T, s *store.Store, p *past, enough int) (l *load, stop func()) {
	l = &load{answered: map[ident.Message]ident.Device{}, enough: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var callers sync.WaitGroup
	for caller := range 4 {
		callers.Go(func() {
			for n := caller; ctx.Err() == nil; n++ {
				d := p.devices[4+n%(len(p.devices)-4)]
				r, err := s.Accept(context.Background(), testkit.Send(p.app, d))
				if err != nil {
					t.Error(err)
					return
				}
				l.mu.Lock()
				l.answered[r.ID] = d
				if l.total++; l.total == enough {
					close(l.enough)
				}
				l.mu.Unlock()
				if n%8 == 0 {
					if _, err := s.AckIDs(context.Background(), d, []ident.Message{r.ID}, p.now); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	return l, func() { cancel(); callers.Wait() }
}

// answers is what has its answer now.
func (l *load) answers() map[ident.Message]ident.Device {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := map[ident.Message]ident.Device{}
	for m, d := range l.answered {
		known[m] = d
	}
	return known
}

func TestABackupUnderLoadHoldsWhatWasAnswered(t *testing.T) {
	t.Parallel()
	for engine, place := range engines {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			p := live(t, place(t), 16)
			s, stop := openAt(t, p.dsn, p.ring, func(o *store.Options) { o.InboxMessages, o.InboxBytes = 1<<20, 1<<40 })
			defer stop()
			l, quiet := startLoad(t, s, p, 300)
			<-l.enough
			file := filepath.Join(t.TempDir(), "it's a backup.db")
			known := l.answers()
			grown := func() { eventually(t, func() bool { return len(l.answers()) > len(known) }) }
			var amid sync.Once
			report, err := store.Backup(t.Context(), store.BackupOptions{DSN: p.dsn, To: file, Progress: func(store.CopyProgress) { amid.Do(grown) }})
			grown() // nothing of SQLite's can be stopped in the middle
			quiet()
			last := testkit.Accept(t, s, testkit.Send(p.app, p.devices[5])) // acked by a phone whose server is then restored
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Tables) == 0 || report.Bytes == 0 || report.Schema == 0 {
				t.Errorf("report %+v", report)
			}
			backedUp(t, file)
			target := testkit.QuickPostgres(t)
			if _, err := store.Copy(t.Context(), store.CopyOptions{From: "sqlite:" + file, To: target, Ring: p.ring}); err != nil {
				t.Fatal(err)
			}
			for _, dsn := range []string{"sqlite:" + file, target} {
				restored(t, p, dsn, known, last.Pending[0].Seq)
			}
		})
	}
}

// backedUp checks the file: its owner's alone, one file, and each inbox counts what lies in it.
func backedUp(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if names := filesIn(t, filepath.Dir(file)); len(names) != 1 {
		t.Errorf("left beside it: %v", names)
	}
	db, err := sqlx.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var wrong []string
	err = db.Select(&wrong, `SELECT i.device FROM inboxes i WHERE pending <> (SELECT COUNT(*) FROM deliveries d WHERE d.device = i.device AND ended_at IS NULL)
		OR head < (SELECT COALESCE(MAX(seq), 0) FROM deliveries d WHERE d.device = i.device) OR head > (SELECT value FROM counters)`)
	if err != nil || len(wrong) > 0 {
		t.Errorf("inboxes that are not of one moment: %v, %v", wrong, err)
	}
}

// restored runs a node on what came of a backup: all that was answered is there, and it goes on.
func restored(t *testing.T, p *past, dsn string, known map[ident.Message]ident.Device, acked messages.Seq) {
	t.Helper()
	s, stop := openAt(t, dsn, p.ring)
	defer stop()
	missing := 0
	for m := range known {
		if _, err := s.Message(t.Context(), p.app, m); err != nil {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d messages that were answered before the backup are not in it", missing, len(known))
	}
	r := testkit.Accept(t, s, testkit.Send(p.app, p.devices[5]))
	if _, err := s.AckUpTo(t.Context(), p.devices[5], acked, time.Now()); err != nil {
		t.Error(err)
	}
	page, err := s.Inbox(t.Context(), messages.Query{Device: p.devices[5], After: &acked, Limit: 100, Now: time.Now()})
	if err != nil || len(page.Items) != 1 || page.Items[0].ID != r.ID {
		t.Errorf("a phone that had come further before the restore gets %d messages, %v; one is new", len(page.Items), err)
	}
}

func TestABackupReplacesNothingAndLeavesNothing(t *testing.T) {
	t.Parallel()
	p := live(t, engines["sqlite"](t), 4)
	folder := t.TempDir()
	file := filepath.Join(folder, "backup.db")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Backup(t.Context(), store.BackupOptions{DSN: p.dsn, To: file}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	if content, err := os.ReadFile(file); err != nil || string(content) != "mine" {
		t.Errorf("the file is %q, %v", content, err)
	}
	for _, dsn := range []string{p.dsn + "x", "sqlite:" + file, "postgres://127.0.0.1:1/x"} {
		if _, err := store.Backup(t.Context(), store.BackupOptions{DSN: dsn, To: file + "2"}); err == nil {
			t.Errorf("a backup of %s", dsn)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Backup(ctx, store.BackupOptions{DSN: p.dsn, To: file + "2"}); err == nil {
		t.Error("with a context that has ended")
	}
	if names := filesIn(t, folder); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	if _, err := store.Backup(t.Context(), store.BackupOptions{DSN: p.dsn, To: filepath.Join(folder, "none", "x")}); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("into no folder: %v", err)
	}
}

// A backup is taken before a migration, with the program that is to migrate.
func TestABackupOfAnOlderSchema(t *testing.T) {
	t.Parallel()
	for schema := int64(1); schema <= 8; schema++ {
		folder := t.TempDir()
		dsn, file := "sqlite:"+filepath.Join(folder, "rouse.db"), filepath.Join(folder, "backup.db")
		store.SchemaForTest(t, dsn, schema)
		alterAt(t, dsn, "INSERT INTO apps (id, name, inbox_overflow, created_at) VALUES ('app_1', 'shop', 'reject', 1)")
		report, err := store.Backup(t.Context(), store.BackupOptions{DSN: dsn, To: file})
		if err != nil || report.Schema != schema || len(report.Tables) == 0 {
			t.Fatalf("schema %d: %+v, %v", schema, report, err)
		}
		s, stop := openAt(t, "sqlite:"+file, testkit.Ring(t)) // which migrates it
		if app, err := s.App(t.Context(), "app_1"); err != nil || app.Name != "shop" {
			t.Errorf("schema %d: %+v, %v", schema, app, err)
		}
		stop()
	}
	for words, dsn := range map[string]string{"nothing to back up": engines["sqlite"](t), "pg_dump": testkit.QuickPostgres(t)} {
		schema := int64(7)
		if strings.HasPrefix(dsn, "sqlite:") {
			schema = 0
		}
		store.SchemaForTest(t, dsn, schema)
		_, err := store.Backup(t.Context(), store.BackupOptions{DSN: dsn, To: filepath.Join(t.TempDir(), "backup.db")})
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", words, err)
		}
	}
}
