package store

import (
	"context"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// spent is what the writer's connection has written so far.
type spent struct {
	rows   int // changed, as SQLite counts
	frames int // pages, as they lie in the log
}

func spentBy(t testing.TB, s *Store) (x spent) {
	t.Helper()
	err := s.write(context.Background(), "count", newOp(func(tx *tx) error {
		if err := tx.get(&x.rows, "SELECT total_changes()"); err != nil {
			return err
		}
		if _, err := tx.w.exec("COMMIT"); err != nil {
			return err
		}
		var log struct{ Busy, Log, Checkpointed int }
		if err := tx.w.conn.GetContext(context.Background(), &log, "PRAGMA wal_checkpoint(NOOP)"); err != nil {
			return err
		}
		x.frames = log.Log
		return tx.w.begin()
	}))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// step runs do and returns what it wrote.
func step(t testing.TB, s *Store, do func()) spent {
	t.Helper()
	before := spentBy(t, s)
	do()
	after := spentBy(t, s)
	return spent{after.rows - before.rows, after.frames - before.frames}
}

// The figures are those of docs/storage.md.
func TestWhatAMessageCosts(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	s.writers[0].lane.hold = time.Minute // on a slow machine its time must not be up before the acks come
	stop := start(t, s)
	app, device := populate(t, s)
	devices := []ident.Device{device}
	for range 63 {
		devices = append(devices, another(t, s, app))
	}
	for _, c := range []struct {
		devices        []ident.Device
		accept, settle int // rows
	}{
		// The delivery, its inbox, the counter; then the wake, the delivery, its inbox, and what is told of it.
		{devices[:1], 3, 4},
		// The same for each of 64, but the counter, and what is told, once.
		{devices, 2*64 + 1, 3*64 + 1},
	} {
		n := len(c.devices)
		accept := step(t, s, func() { inOneBatch(t, s, acceptEach(app, c.devices)) })
		settle := step(t, s, func() { inOneBatch(t, s, settleEach(t, s, c.devices)) })
		t.Logf("%d at once: accepted with %d rows and %d pages, woken, fetched and acked with %d rows and %d pages",
			n, accept.rows, accept.frames, settle.rows, settle.frames)
		if accept.rows != c.accept || settle.rows != c.settle {
			t.Errorf("%d at once: %d rows changed to accept, %d to settle", n, accept.rows, settle.rows)
		}
	}
	keyed := step(t, s, func() {
		m := sendTo(app, device)
		m.Idempotency.Key = "k"
		if _, err := s.Accept(context.Background(), m); err != nil {
			t.Fatal(err)
		}
	})
	if keyed.rows != 4 {
		t.Errorf("with an idempotency key %d rows are changed to accept", keyed.rows)
	}
	stop()
}

// another registers one more device of the app.
func another(t testing.TB, s *Store, app ident.App) ident.Device {
	t.Helper()
	id := ident.NewDevice()
	_, _, err := s.Register(context.Background(), tokens.Enrol{Registration: tokens.Registration{App: app, Installation: string(id),
		Provider: tokens.NoProvider}, As: tokens.PublishableKey, ID: id, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func acceptEach(app ident.App, devices []ident.Device) (ops []*op) {
	for _, d := range devices {
		ops = append(ops, &op{send: &acceptance{send: sendTo(app, d)}, done: make(chan error, 1)})
	}
	return ops
}

// settleEach notes a wake and a fetch of each device, and returns their acks.
func settleEach(t testing.TB, s *Store, devices []ident.Device) (ops []*op) {
	t.Helper()
	for _, d := range devices {
		page, err := s.Inbox(context.Background(), messages.Query{Device: d, Limit: 1, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		s.RecordWake(wakeOf(d, page.Last))
		o := newOp(func(x *tx) error {
			_, err := x.ackUpTo(d, page.Last, time.Now())
			return err
		})
		o.lands = d
		ops = append(ops, o)
	}
	return ops
}

// inOneBatch has the writer do ops together.
func inOneBatch(t testing.TB, s *Store, ops []*op) {
	t.Helper()
	entered, release := make(chan struct{}), make(chan struct{})
	queued(t, s, newOp(func(*tx) error { close(entered); <-release; return nil }))
	<-entered
	queued(t, s, ops...)
	close(release)
	for _, o := range ops {
		if err := <-o.done; err != nil {
			t.Error(err)
		}
	}
}
