package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
)

// A database that does not answer ends no caller's patience but its own: what a poll asks ends with the poll's deadline.
func TestAPollDoesNotWaitForPostgresBeyondItsDeadline(t *testing.T) {
	t.Parallel()
	dsn := testkit.MigratedPostgres(t)
	s := testkit.Store(t, func(o *store.Options) { o.DSN = dsn })
	app := testkit.App(t, s)
	d := testkit.Device(t, s, app.ID)
	receipt, err := s.Accept(t.Context(), testkit.Send(app.ID, d.ID))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func(context.Context) error{
		"reading": func(ctx context.Context) error {
			_, err := s.Inbox(ctx, messages.Query{Device: d.ID, Limit: 10, Now: time.Now()})
			return err
		},
		"acking": func(ctx context.Context) error {
			_, err := s.AckUpTo(ctx, d.ID, receipt.Pending[0].Seq, time.Now())
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		begun := time.Now()
		if err := ask(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 5*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(begun))
		}
		cancel()
	}
	if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if n, err := s.AckUpTo(t.Context(), d.ID, receipt.Pending[0].Seq, time.Now()); err != nil || n > 1 {
		t.Errorf("once it answers again: %d acked, %v", n, err)
	}
}
