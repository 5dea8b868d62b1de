package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/internal/testkit"
	"rouse/messages"
)

func cancelScheduled(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { t.Cleanup(func() { mustNotHold(t, o.DSN, "scheduled-secret") }) })
	d := w.device()
	r := testkit.Accept(t, w.Store, w.send(d, at(w.now.Add(time.Hour)), saying("scheduled-secret"), keyed("k", "a")))
	sum, err := w.Cancel(w.ctx(), w.app, r.ID, w.now)
	if err != nil || sum.Status != messages.CanceledStatus || sum.Recipients != 0 {
		t.Errorf("%+v, %v", sum, err)
	}
	w.now = w.now.Add(time.Hour)
	if p := w.fan(r.ID, 10); p[0].Reached != 0 || len(w.jobs(10)) != 0 || len(w.inbox(d, 10).Items) != 0 {
		t.Error("it was sent all the same")
	}
	other := testkit.App(t, w.Store).ID
	_, err = w.Cancel(w.ctx(), other, r.ID, w.now)
	w.refused(err, fault.NotFound, "message_not_found")
}

func cancelFanning(t *testing.T, w *world) {
	devices := w.devices(6)
	r := testkit.Accept(t, w.Store, w.send("", everybody))
	first, err := w.FanOut(w.ctx(), r.ID, 3, w.now)
	w.must(err)
	acked := first.Pending[0]
	w.ackUpTo(acked.Device, acked.Seq)
	sum, err := w.Cancel(w.ctx(), w.app, r.ID, w.now)
	w.must(err)
	if sum.Status != messages.CanceledStatus || sum.Recipients != 3 || sum.Counters[messages.Canceled] != 2 || sum.Counters[messages.Acked] != 1 {
		t.Errorf("%+v", sum)
	}
	w.fan(r.ID, 3)
	for _, d := range devices {
		if p := w.inbox(d, 10); len(p.Items) != 0 || p.Gap != nil {
			t.Errorf("one reads %+v", p)
		}
	}
	if again, err := w.Cancel(w.ctx(), w.app, r.ID, w.now); err != nil || !cmp.Equal(sum, again) || w.pending() != 0 {
		t.Errorf("canceled again: %s, %v", cmp.Diff(sum, again), err)
	}
}

func cancelPages(t *testing.T, w *world) {
	w.devices(7)
	r := testkit.Accept(t, w.Store, w.send("", everybody))
	w.fan(r.ID, 500)
	w.must(w.CancelOnly(w.ctx(), w.app, r.ID, w.now))
	w.status(r.ID, messages.CanceledStatus, 7)
	jobs, err := w.FanJobs(w.ctx(), w.now, 10)
	if err != nil || len(jobs) != 1 || jobs[0].Wakes {
		t.Errorf("to be taken back: %+v, %v", jobs, err)
	}
	if pages := w.fan(r.ID, 3); len(pages) != 3 {
		t.Errorf("taken back in %d pages", len(pages))
	}
	w.is(r.ID, messages.Canceled)
	if len(w.jobs(10)) != 0 || w.pending() != 0 {
		t.Error("something is left")
	}
}
