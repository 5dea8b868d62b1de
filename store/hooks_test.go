package store

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"rouse/ident"
	"rouse/tokens"
)

// openFile opens a migrated store on path; nobody runs its writer yet.
func openFile(t testing.TB, path string, change ...func(*Options)) *Store {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "rouse.db")
	}
	ring, err := tokens.ParseRing("test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{DSN: "sqlite:" + path, Ring: ring}
	for _, f := range change {
		f(&o)
	}
	if o.DSN == "sqlite:"+path {
		PutSQLiteForTest(t, path)
	}
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(errors.Join(err, s.Close()))
	}
	return s
}

// start runs the writer and returns what stops it, lets the files go and checks that both went well.
func start(t testing.TB, s *Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// onWriter runs a statement outside transactions on the writing connection, before the writer has it.
func (s *Store) onWriter(t testing.TB, query string) {
	t.Helper()
	if _, err := s.writes.Exec(query); err != nil {
		t.Fatal(err)
	}
}

// connection returns the writer's connection, which is safe to use beside it: to set a pragma while it runs.
func (s *Store) connection(t testing.TB) (pragma func(query string)) {
	t.Helper()
	var conn *sqlx.Conn
	if err := s.write(context.Background(), "look", newOp(func(x *tx) error { conn = x.w.conn; return nil })); err != nil {
		t.Fatal(err)
	}
	return func(query string) {
		t.Helper()
		if _, err := conn.ExecContext(context.Background(), "PRAGMA "+query); err != nil {
			t.Fatal(err)
		}
	}
}

// Skew has the store believe that this node's clock is ahead of the database's.
func (s *Store) Skew(ahead time.Duration) { s.skew.Store(int64(ahead)) }

// Leap has places go on far above, as a restored backup does.
func (s *Store) Leap(ctx context.Context, by int64) error {
	query := "UPDATE counters SET value = value + ? WHERE name = 'seq'"
	if s.dialect.shared {
		query = "SELECT setval('places', (SELECT last_value FROM places) + CAST(? AS BIGINT))"
	}
	return s.write(ctx, "leap", newOp(func(t *tx) error {
		_, err := t.exec(query, by)
		return err
	}))
}

// Alter changes rows by hand, as what is no part of this version does.
func (s *Store) Alter(ctx context.Context, query string, args ...any) error {
	return s.write(ctx, "alter", newOp(func(t *tx) error {
		_, err := t.exec(query, args...)
		return err
	}))
}

// CancelOnly is the beginning of Cancel: nothing is taken back yet.
func (s *Store) CancelOnly(ctx context.Context, app ident.App, id ident.Message, now time.Time) error {
	return s.write(ctx, "cancel a message", newOp(func(t *tx) error {
		_, err := t.cancel(app, id, now)
		return err
	}))
}
