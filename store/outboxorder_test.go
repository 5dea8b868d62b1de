package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// toldCrowd has eight writers on two nodes ack messages of one app while a reader follows its events, and returns how many the reader
// missed, of how many.
func toldCrowd(t testing.TB, each int) (missed, of int) {
	t.Helper()
	const callers = 8
	all := nodes(t, 2, roomy, func(o *Options) { o.Writers = 4 })
	startAll(t, all)
	app, _ := populate(t, all[0])
	devices := make([]ident.Device, callers*len(all))
	for i := range devices {
		devices[i] = another(t, all[0], app)
	}
	var acks sync.WaitGroup
	for i, d := range devices {
		s := all[i%len(all)]
		acks.Go(func() {
			for range each {
				m := sendTo(app, d)
				if _, err := s.Accept(context.Background(), m); err != nil {
					t.Error(err)
					return
				}
				if n, err := s.AckIDs(context.Background(), d, []ident.Message{m.ID}, time.Now()); n != 1 || err != nil {
					t.Errorf("acked %d, %v", n, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { acks.Wait(); close(done) }()
	seen := followEvents(t, all[0], app, done)
	whole := allEvents(t, all[1], messages.EventQuery{App: app, Types: messages.EventFilter{"message.acked"}})
	if len(whole) != len(devices)*each {
		t.Errorf("%d acks were told, of %d", len(whole), len(devices)*each)
	}
	return len(whole) - seen, len(whole)
}

// followEvents reads on behind its cursor until done, and returns how many acks it heard of.
func followEvents(t testing.TB, s *Store, app ident.App, done <-chan struct{}) (acks int) {
	t.Helper()
	q := messages.EventQuery{App: app, Limit: 100}
	heard := map[ident.Event]bool{}
	for last := false; ; {
		p, err := s.EventPage(context.Background(), q)
		if err != nil {
			t.Error(err)
			return acks
		}
		for _, e := range p.Events {
			if heard[e.ID] || e.Seq <= q.After {
				t.Errorf("%s again, or out of order", e.ID)
			}
			heard[e.ID] = true
			if q.After = e.Seq; e.Type == messages.MessageAcked {
				acks++
			}
		}
		q.After = p.Next
		if last && !p.More {
			return acks
		}
		select {
		case <-done:
			last = true // what was committed until now is read once more
		default:
		}
	}
}

func TestAFollowerOfEventsMissesNothingWhileEightWrite(t *testing.T) {
	t.Parallel()
	if missed, of := toldCrowd(t, 60); missed != 0 {
		t.Errorf("%d of %d were missed", missed, of)
	}
}

// heardBehind has one node number an event and commit it late, while another tells of something, and returns how many of both a
// follower hears of that looks between.
func heardBehind(t *testing.T, unlocked bool) int {
	all := nodes(t, 2, single)
	startAll(t, all)
	app, device := populate(t, all[0])
	tell := func(x *tx) error {
		x.tellEnd(ending{App: app, Device: device, Message: ident.NewMessage()}, messages.Acked, "", millis(time.Now()))
		return x.flushEvents()
	}
	for _, s := range all {
		s.unlocked = unlocked
	}
	numbered, release := make(chan struct{}), make(chan struct{})
	late, early := newOp(func(x *tx) error {
		if err := errors.Join(tell(x), x.w.travel()); err != nil {
			return err
		}
		clear(x.outbox)
		close(numbered)
		return x.holdOpen(release)
	}), newOp(func(x *tx) error {
		defer clear(x.outbox)
		return tell(x)
	})
	queued(t, all[0], late)
	<-numbered
	queued(t, all[1], early)
	if !unlocked {
		const waiting = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
		waitFor(t, func() bool {
			var n int
			return all[0].reads.get(t.Context(), &n, waiting) == nil && n == 1
		})
	} else if err := <-early.done; err != nil {
		t.Fatal(err)
	}
	q := messages.EventQuery{App: app, Limit: 10}
	first, err := all[0].EventPage(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-late.done; err != nil {
		t.Fatal(err)
	}
	if !unlocked {
		if err := <-early.done; err != nil {
			t.Fatal(err)
		}
	}
	q.After = first.Next
	rest := allEvents(t, all[0], q)
	return len(first.Events) + len(rest) - 1 // the device's registration
}

// Without the lock a follower misses what was numbered first and committed last: the tests of the order can fail.
func TestWithoutTheLockAFollowerMissesAnEvent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		unlocked bool
		want     int
	}{"locked": {false, 2}, "unlocked": {true, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := heardBehind(t, c.unlocked); got != c.want {
				t.Errorf("heard of %d events, want %d", got, c.want)
			}
		})
	}
}

// What is told in one batch lies in few rows, in the order in which it was told, and a place is good in the middle of them.
func TestEventsOfABatchArePacked(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*Store{"sqlite": openFile(t, ""), "postgres": nodes(t, 1, single)[0]} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start(t, s)
			app, device := populate(t, s)
			const each = maxPacked + 10
			if err := s.write(t.Context(), "tell", newOp(func(x *tx) error {
				for range each {
					x.tellEnd(ending{App: app, Device: device, Message: ident.NewMessage()}, messages.Acked, "", millis(time.Now()))
				}
				return nil
			})); err != nil {
				t.Fatal(err)
			}
			var rows int
			if err := s.reads.get(t.Context(), &rows, "SELECT COUNT(*) FROM events WHERE app = ?", string(app)); err != nil || rows != 3 {
				t.Errorf("%d rows, of which one is the device's; %v", rows, err)
			}
			list := allEvents(t, s, messages.EventQuery{App: app})
			if len(list) != each+1 {
				t.Fatalf("%d events", len(list))
			}
			for i, e := range list[1:] {
				if e.Seq <= list[i].Seq || e.ID <= list[i].ID {
					t.Errorf("event %d: %+v after %+v", i, e, list[i])
				}
			}
			if p, err := s.EventPage(t.Context(), messages.EventQuery{App: app, After: list[100].Seq, Limit: 1}); err != nil || len(p.Events) != 1 || p.Events[0].ID != list[101].ID || !p.More {
				t.Errorf("behind the hundredth: %+v, %v", p, err)
			}
			if p, err := s.EventPage(t.Context(), messages.EventQuery{App: app, After: list[each].Seq, Limit: 1}); err != nil || len(p.Events) != 0 || p.More || p.Next != list[each].Seq {
				t.Errorf("behind the last: %+v, %v", p, err)
			}
		})
	}
}

// A filter passes over what it does not choose, a bounded part at a time, and its place goes on.
func TestAFilterOfEventsGoesOn(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	start(t, s)
	app, device := populate(t, s)
	const many = eventEffort + 100
	if err := s.write(t.Context(), "tell", newOp(func(x *tx) error {
		for range many {
			x.tellEnd(ending{App: app, Device: device, Message: ident.NewMessage()}, messages.Acked, "", millis(time.Now()))
		}
		x.tellEnd(ending{App: app, Device: device, Message: ident.NewMessage()}, messages.Expired, "", millis(time.Now()))
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	q := messages.EventQuery{App: app, Limit: 1, Types: messages.EventFilter{"message.expired"}}
	first, err := s.EventPage(t.Context(), q)
	if err != nil || len(first.Events) != 0 || !first.More || first.Next == 0 {
		t.Fatalf("%d events, more %t behind %d, %v", len(first.Events), first.More, first.Next, err)
	}
	q.After = first.Next
	if p, err := s.EventPage(t.Context(), q); err != nil || len(p.Events) != 1 || p.More || p.Next != p.Events[0].Seq {
		t.Errorf("%+v, %v", p, err)
	}
	q.Types = messages.EventFilter{}
	if p, err := s.EventPage(t.Context(), q); err != nil || len(p.Events) != 0 || p.Next <= q.After {
		t.Errorf("an empty filter chose %+v, %v", p, err)
	}
}

// Events that were stored one by one are read as they were, and a cursor from then means an earlier place: nothing is missed.
func TestEventsFromBeforeTheyWerePacked(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	start(t, s)
	app, device := populate(t, s)
	var old []int64
	for range 3 {
		if err := s.write(t.Context(), "tell", newOp(func(x *tx) error {
			var seq int64
			err := x.get(&seq, `INSERT INTO events (id, app, type, created_at, data) VALUES (?, ?, 'circuit.closed', 1, '{"provider":"fcm"}') RETURNING seq`,
				string(ident.NewEvent()), string(app))
			old = append(old, seq)
			x.writes++
			return err
		})); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Unregister(t.Context(), app, device, time.Now()); err != nil {
		t.Fatal(err)
	}
	list := allEvents(t, s, messages.EventQuery{App: app})
	if len(list) != 5 || list[1].Type != messages.CircuitClosed || string(list[1].Data) != `{"provider":"fcm"}` || list[1].Device != "" || list[4].Device != device {
		t.Fatalf("%+v", list)
	}
	for i, seq := range old {
		p, err := s.EventPage(t.Context(), messages.EventQuery{App: app, After: messages.Seq(seq), Limit: 10})
		if err != nil || len(p.Events) < 4-i {
			t.Errorf("behind the old place %d: %+v, %v", seq, p, err)
		}
	}
}
