package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// Round trips are what a batch costs where the database is a network away.
func TestTripsOfABatch(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1, roomy, single)[0]
	start(t, s)
	app, device := populate(t, s)
	devices := []ident.Device{device, another(t, s, app), another(t, s, app)}
	trips := func(ops []*op) (n int) {
		t.Helper()
		commit := make(chan int, 1)
		inner := s.dialect.commit
		for _, o := range ops {
			o.done = make(chan error, 1)
		}
		look := newOp(func(x *tx) error {
			s.dialect.commit = func(w *writer) error { // of the next batch; the writer's goroutine alone calls it
				s.dialect.commit = func(w *writer) error {
					w.spoke = time.Now().Add(time.Hour) // after a silence a commit would go alone
					err := inner(w)
					commit <- w.trips
					s.dialect.commit = inner
					return err
				}
				return inner(w)
			}
			for _, o := range ops { // they come after this batch, all in one
				if err := s.enqueue(o); err != nil {
					return err
				}
			}
			return nil
		})
		queued(t, s, look)
		for _, o := range append(ops, look) {
			if err := <-o.done; err != nil {
				t.Fatal(err)
			}
		}
		return <-commit
	}
	sends := func(keyed bool) (ops []*op) {
		for i, o := range acceptEach(app, devices) {
			if keyed {
				o.send.send.Idempotency.Key = fmt.Sprint(i, o.send.send.ID)
			}
			ops = append(ops, o)
		}
		return ops
	}
	acks := func() (ops []*op) {
		for _, o := range settleEach(t, s, devices) {
			a := &acking{device: o.lands, byIDs: true, now: time.Now()}
			o.ack = a
			ops = append(ops, o)
		}
		return ops
	}
	page := func() *op {
		hall := newHall(t, s, tokens.OverflowReject, time.Now())
		m := sendTo(hall.app, "")
		m.To = messages.Target{Broadcast: true}
		if _, err := s.Accept(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		f := hall.look(m.ID, time.Now())
		return newOp(f.store).locking(f.devices...)
	}
	for name, c := range map[string]struct {
		ops  []*op
		most int
	}{
		"a page of a broadcast": {[]*op{page()}, 2}, "a page and sends": {append(sends(false), page()), 3},
		"plain sends": {sends(false), 2}, "sends with keys": {sends(true), 3}, "acks": {acks(), 2},
		"both": {append(sends(false), acks()...), 2},
	} {
		if got := trips(c.ops); got != c.most {
			t.Errorf("%s: %d trips, want %d", name, got, c.most)
		}
	}
}

// Two acks of one device in a batch count each message once, and one that names too much acks nothing and hurts nobody.
func TestAcksOfOneDeviceInOneBatch(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1, roomy, single)[0]
	start(t, s)
	app, device := populate(t, s)
	other := another(t, s, app)
	var places []int64
	for _, d := range []ident.Device{device, device, device, other} {
		r, err := s.Accept(t.Context(), sendTo(app, d))
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, int64(r.Pending[0].Seq))
	}
	ack := func(d ident.Device, upTo int64) *op {
		a := &acking{device: d, upTo: messages.Seq(upTo), now: time.Now()}
		o := newOp(func(x *tx) (err error) {
			a.n, err = x.ackUpTo(d, a.upTo, a.now)
			return err
		})
		o.lands, o.ack = d, a
		return o
	}
	first, second, tooMuch := ack(device, places[0]), ack(device, places[2]), ack(other, places[3]+1000)
	stranger := ack(ident.NewDevice(), 1)
	inOneBatchAll(t, s, first, second, tooMuch, stranger)
	if err := errors.Join(<-first.done, <-second.done); err != nil || first.ack.n != 1 || second.ack.n != 2 {
		t.Errorf("acked %d and %d, %v", first.ack.n, second.ack.n, err)
	}
	if err := <-tooMuch.done; !isFault(err, "bad_cursor") {
		t.Errorf("beyond its inbox: %v", err)
	}
	if err := <-stranger.done; !isFault(err, "device_not_found") {
		t.Errorf("of nobody: %v", err)
	}
	if got := len(inInbox(t, s, device)) + 10*len(inInbox(t, s, other)); got != 10 {
		t.Errorf("%d are left", got)
	}
	if n, err := s.Pending(t.Context()); n != 1 || err != nil {
		t.Errorf("%d are counted, %v", n, err)
	}
}

// inOneBatchAll has the writer take ops together; their answers are the caller's to read.
func inOneBatchAll(t *testing.T, s *Store, ops ...*op) {
	t.Helper()
	entered, release := make(chan struct{}), make(chan struct{})
	queued(t, s, newOp(func(*tx) error { close(entered); <-release; return nil }))
	<-entered
	queued(t, s, ops...)
	close(release)
}
