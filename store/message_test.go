package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/messages"
)

func cancelEverywhere(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { t.Cleanup(func() { mustNotHold(t, o.DSN, "regretted-words") }) })
	devices := w.userDevices("anna", 2)
	note := func(m *messages.Send) { m.Notification = &messages.Notification{Title: "regretted-words"} }
	several, one := w.acceptUser("anna", saying("regretted-words"), note), w.accept(devices[0], saying("regretted-words"), note)
	w.ackUpTo(devices[1], w.inbox(devices[1], 10).Last)
	sum, err := w.Cancel(w.ctx(), w.app, several.ID, w.now)
	w.must(err)
	if sum.Status != messages.CanceledStatus || sum.Counters[messages.Canceled] != 1 || sum.Counters[messages.Acked] != 1 {
		t.Errorf("canceled: %+v", sum)
	}
	if sum, err = w.Cancel(w.ctx(), w.app, one.ID, w.now); err != nil || sum.Status != messages.CanceledStatus || sum.Counters[messages.Canceled] != 1 {
		t.Errorf("canceled: %+v, %v", sum, err)
	}
	if p := w.inbox(devices[0], 10); len(p.Items) != 0 || p.Gap != nil || w.pending() != 0 {
		t.Errorf("left: %+v, %d counted", p, w.pending())
	}
}

func cancelOver(t *testing.T, w *world) {
	d := w.device()
	r := w.accept(d)
	w.ackUpTo(d, r.Pending[0].Seq)
	sum, err := w.Cancel(w.ctx(), w.app, r.ID, w.now)
	w.must(err)
	if sum.Status != messages.Accepted || sum.Counters[messages.Acked] != 1 {
		t.Errorf("canceled: %+v", sum)
	}
}

func messageSummary(t *testing.T, w *world) {
	d := w.device()
	r := w.accept(d, normal, collapsing("k"), func(m *messages.Send) { m.CorrelationID = "c-1" })
	sum, err := w.Message(w.ctx(), w.app, r.ID)
	w.must(err)
	sum.Counters, sum.Reports = nil, nil
	want := messages.Summary{ID: r.ID, Status: messages.Accepted, To: messages.Target{Device: d}, Urgency: messages.Normal,
		CollapseKey: "k", CorrelationID: "c-1", Recipients: 1, CreatedAt: w.now, ExpiresAt: r.ExpiresAt}
	if diff := cmp.Diff(want, sum); diff != "" {
		t.Error(diff)
	}
	w.userDevices("bert", 2)
	r = w.acceptUser("bert", low, collapsing("k"), func(m *messages.Send) { m.CorrelationID = "c-2" })
	if sum, err = w.Message(w.ctx(), w.app, r.ID); err != nil {
		t.Fatal(err)
	}
	sum.Counters, sum.Reports = nil, nil
	want = messages.Summary{ID: r.ID, Status: messages.Accepted, To: messages.Target{User: "bert"}, Urgency: messages.Low,
		CollapseKey: "k", CorrelationID: "c-2", Recipients: 2, CreatedAt: w.now, ExpiresAt: r.ExpiresAt}
	if diff := cmp.Diff(want, sum); diff != "" {
		t.Error(diff)
	}
}

func seqsGrow(t *testing.T, w *world) {
	d := w.device()
	last := messages.Seq(0)
	for range 20 {
		r := w.accept(d)
		if r.Pending[0].Seq <= last {
			t.Fatalf("place %d after %d", r.Pending[0].Seq, last)
		}
		last = r.Pending[0].Seq
		w.ackUpTo(d, last)
		_, err := w.Purge(w.ctx(), w.now.Add(time.Hour), w.now, 100)
		w.must(err)
	}
}
