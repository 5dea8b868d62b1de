package store_test

import (
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
)

var ackTests = map[string]func(*testing.T, *world){
	"an ack up to a place acks once":                    ackOnce,
	"acks by id ignore what is not there":               ackByID,
	"an ack writes the fetch that is still to write":    ackWritesFetch,
	"what expired unseen is not acked by a place":       ackLeavesExpired,
	"what was fetched may be acked after its life":      ackAfterLife,
	"many ids at once":                                  ackManyIDs,
	"an ack in one inbox leaves the others":             ackAlone,
	"pages read before an ack are each counted as read": ackSeveralPages,
}

func ackOnce(t *testing.T, w *world) {
	d := w.device()
	var seqs []messages.Seq
	for range 5 {
		seqs = append(seqs, w.accept(d).Pending[0].Seq)
	}
	for _, step := range []struct {
		to   messages.Seq
		want int
	}{{seqs[2], 3}, {seqs[2], 0}, {seqs[0], 0}, {seqs[4], 2}, {seqs[4], 0}} {
		if n := w.ackUpTo(d, step.to); n != step.want {
			t.Errorf("up to %d acked %d, want %d", step.to, n, step.want)
		}
	}
	if w.pending() != 0 {
		t.Errorf("%d pending", w.pending())
	}
}

func ackByID(t *testing.T, w *world) {
	d, other := w.device(), w.device()
	a, b, foreign := w.accept(d), w.accept(d), w.accept(other)
	ids := []ident.Message{b.ID, ident.NewMessage(), foreign.ID, b.ID}
	if n, err := w.AckIDs(w.ctx(), d, ids, w.now); n != 1 || err != nil {
		t.Errorf("acked %d, %v", n, err)
	}
	if n, err := w.AckIDs(w.ctx(), d, ids, w.now); n != 0 || err != nil {
		t.Errorf("again: acked %d, %v", n, err)
	}
	w.is(a.ID, messages.Queued)
	w.is(b.ID, messages.Acked)
	w.is(foreign.ID, messages.Queued)
}

func ackManyIDs(t *testing.T, w *world) {
	d := w.device()
	var ids []ident.Message
	for range 53 {
		ids = append(ids, w.accept(d).ID)
	}
	if n, err := w.AckIDs(w.ctx(), d, ids, w.now); n != 53 || err != nil {
		t.Errorf("acked %d, %v", n, err)
	}
	if w.pending() != 0 || len(w.inbox(d, 100).Items) != 0 {
		t.Errorf("%d pending", w.pending())
	}
}

// events are the timeline of a message's one delivery.
func (w *world) events(id ident.Message) (names []string, moments []messages.Moment) {
	w.t.Helper()
	list, more, err := w.Deliveries(w.ctx(), w.app, id, "", 10)
	w.must(err)
	if len(list) != 1 || more {
		w.t.Fatalf("%d deliveries, more %t", len(list), more)
	}
	for _, m := range list[0].Timeline {
		names = append(names, m.Event)
	}
	return names, list[0].Timeline
}

func ackWritesFetch(t *testing.T, w *world) {
	d := w.device()
	r := w.accept(d)
	w.now = w.now.Add(time.Second)
	fetched := w.now
	last := w.inbox(d, 10).Last
	w.now = w.now.Add(time.Second)
	w.ackUpTo(d, last)
	names, moments := w.events(r.ID)
	if len(names) != 3 || names[1] != "fetched" || !moments[1].At.Equal(fetched) || names[2] != "acked" || !moments[2].At.Equal(w.now) {
		t.Errorf("timeline %+v", moments)
	}
}

func ackSeveralPages(t *testing.T, w *world) {
	d := w.device()
	a, b, c := w.accept(d), w.accept(d), w.accept(d)
	var at []time.Time
	after := messages.Seq(0)
	for range 2 {
		w.now = w.now.Add(time.Second)
		p, err := w.Inbox(w.ctx(), messages.Query{Device: d, After: &after, Limit: 1, Now: w.now})
		w.must(err)
		at, after = append(at, w.now), p.Last
	}
	w.ackUpTo(d, c.Pending[0].Seq)
	for i, r := range []messages.Receipt{a, b} {
		if names, moments := w.events(r.ID); len(names) != 3 || !moments[1].At.Equal(at[i]) {
			t.Errorf("page %d: %+v, want it fetched at %v", i, moments, at[i])
		}
	}
	if names, _ := w.events(c.ID); len(names) != 2 {
		t.Errorf("one that was never handed out: %v", names)
	}
}

func ackLeavesExpired(t *testing.T, w *world) {
	d := w.device()
	over := w.accept(d, living(time.Second))
	w.now = w.now.Add(2 * time.Second)
	w.accept(d)
	if n := w.ackUpTo(d, w.inbox(d, 10).Last); n != 1 {
		t.Errorf("acked %d", n)
	}
	if n, err := w.Expire(w.ctx(), w.now, 10); n != 1 || err != nil {
		t.Errorf("expired %d, %v", n, err)
	}
	w.is(over.ID, messages.Expired)
}

func ackAfterLife(t *testing.T, w *world) {
	d := w.device()
	r := w.accept(d, living(time.Second))
	last := w.inbox(d, 10).Last
	w.now = w.now.Add(2 * time.Second)
	if n := w.ackUpTo(d, last); n != 1 {
		t.Errorf("acked %d", n)
	}
	w.is(r.ID, messages.Acked)
}

func ackAlone(t *testing.T, w *world) {
	devices := w.userDevices("anna", 2)
	r := w.acceptUser("anna")
	w.ackUpTo(devices[1], w.inbox(devices[1], 1).Last)
	if got := w.counters(r.ID); got[messages.Acked] != 1 || got[messages.Queued] != 1 {
		t.Errorf("counters %v", got)
	}
	if p := w.inbox(devices[0], 1); len(p.Items) != 1 || len(p.Items[0].Data) == 0 {
		t.Errorf("the other reads %+v", p)
	}
}
