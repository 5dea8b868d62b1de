package store_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
)

func fanCounters(t *testing.T, w *world) {
	var dsn string
	w = w.with(func(o *storeOptions) {
		dsn, o.InboxMessages = o.DSN, 1
		t.Cleanup(func() { mustNotHold(t, dsn, "words-of-all") })
	})
	dropOldest(w)
	d := w.devices(8)
	key := func(m *messages.Send) {
		m.CollapseKey = "k"
		m.TTL = time.Hour
	}
	r := testkit.Accept(t, w.Store, w.send("", everybody, key, saying("words-of-all")))
	w.fan(r.ID, 3)
	w.ackUpTo(d[0], w.inbox(d[0], 1).Last)
	_, err := w.AckIDs(w.ctx(), d[1], []ident.Message{r.ID}, w.now)
	w.must(err)
	w.accept(d[2], collapsing("k")) // replaces it
	w.accept(d[3])                  // drops it
	w.must(w.Unregister(w.ctx(), w.app, d[4], w.now))
	w.must(w.BindUser(w.ctx(), w.app, "anna", d[5], w.now))
	w.inbox(d[5], 1)
	want := messages.Counters{messages.Queued: 2, messages.Fetched: 1, messages.Acked: 2, messages.Replaced: 1, messages.Dropped: 2}
	if diff := cmp.Diff(want, w.counters(r.ID)); diff != "" {
		t.Error(diff)
	}
	w.now = w.now.Add(time.Hour)
	_, err = w.Expire(w.ctx(), w.now, 100)
	w.must(err)
	delete(want, messages.Queued)
	delete(want, messages.Fetched)
	want[messages.Expired] = 3
	if diff := cmp.Diff(want, w.counters(r.ID)); diff != "" {
		t.Error(diff)
	}
	w.status(r.ID, messages.Accepted, 8)
}

func fanRace(t *testing.T, w *world) {
	devices := w.devices(40)
	r := testkit.Accept(t, w.Store, w.send("", everybody))
	var all sync.WaitGroup
	var mu sync.Mutex
	var pages []messages.FanPage
	for range 4 {
		all.Go(func() {
			for range 1000 {
				p, err := w.FanOut(w.ctx(), r.ID, 3, w.now)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				pages = append(pages, p)
				mu.Unlock()
				if p.Done {
					return
				}
			}
		})
	}
	all.Wait()
	if n, pending := reached(pages); n != 40 || len(pending) != 40 {
		t.Errorf("reached %d", n)
	}
	for _, d := range devices {
		if n := len(w.inbox(d, 10).Items); n != 1 {
			t.Errorf("one reads %d", n)
		}
	}
	w.status(r.ID, messages.Accepted, 40)
}

func fanDeleted(t *testing.T, w *world) {
	w.devices(4)
	r := testkit.Accept(t, w.Store, w.send("", everybody))
	_, err := w.FanOut(w.ctx(), r.ID, 2, w.now)
	w.must(err)
	w.must(w.DeleteApp(w.ctx(), w.app))
	if pages := w.fan(r.ID, 2); len(pages) != 1 || len(w.jobs(10)) != 0 {
		t.Errorf("it went on for %d pages", len(pages))
	}
	// One that was accepted just when the app went.
	late := testkit.Accept(t, w.Store, w.send("", everybody))
	if ids := w.jobs(10); len(ids) != 1 {
		t.Errorf("due are %v", ids)
	}
	if pages := w.fan(late.ID, 2); len(pages) != 1 || len(w.jobs(10)) != 0 {
		t.Errorf("it went on for %d pages", len(pages))
	}
}

func fanPurge(t *testing.T, w *world) {
	later := testkit.Accept(t, w.Store, w.send("", toUser("nobody"), at(w.now.Add(20*24*time.Hour))))
	canceled := testkit.Accept(t, w.Store, w.send("", toUser("nobody"), at(w.now.Add(20*24*time.Hour))))
	slow := testkit.Accept(t, w.Store, w.send("", toTopic("slow")))
	retention := 7 * 24 * time.Hour
	purge := func() {
		t.Helper()
		_, err := w.Purge(w.ctx(), w.now.Add(-retention), w.now, 1000)
		w.must(err)
	}
	w.now = w.now.Add(19 * 24 * time.Hour)
	_, err := w.Cancel(w.ctx(), w.app, canceled.ID, w.now)
	w.must(err)
	purge()
	w.status(slow.ID, messages.FanningOut, 0)
	w.status(later.ID, messages.Scheduled, 0)
	w.status(canceled.ID, messages.CanceledStatus, 0)
	w.now = w.now.Add(24 * time.Hour)
	w.fan(later.ID, 10)
	w.now = w.now.Add(retention - time.Hour)
	purge()
	w.status(later.ID, messages.NoRecipients, 0)
	_, err = w.Message(w.ctx(), w.app, canceled.ID)
	w.refused(err, fault.NotFound, "message_not_found")
	w.now = w.now.Add(2 * time.Hour)
	purge()
	_, err = w.Message(w.ctx(), w.app, later.ID)
	w.refused(err, fault.NotFound, "message_not_found")
}

// The node that fans out goes by another clock than those that accepted: what is for now goes now, what is for later by the database's
// clock, which a node knows from its beats.
func fanSkewed(t *testing.T, w *world) {
	d := w.device()
	w.Skew(10 * time.Minute)
	now, hour := w.now.Add(10*time.Minute), w.now.Add(time.Hour)
	later := w.accept(d, at(hour))
	if jobs, err := w.FanJobs(w.ctx(), hour.Add(5*time.Minute), 10); err != nil || len(jobs) != 0 {
		t.Errorf("by a clock that is ahead %v are due too early, %v", jobs, err)
	}
	if p, err := w.FanOut(w.ctx(), later.ID, 10, hour.Add(5*time.Minute)); err != nil || p.Done || p.Reached > 0 {
		t.Errorf("stored too early: %+v, %v", p, err)
	}
	if jobs, err := w.FanJobs(w.ctx(), hour.Add(10*time.Minute), 10); err != nil || len(jobs) != 1 || !jobs[0].Due.Equal(hour) {
		t.Errorf("at its time the jobs are %v, %v", jobs, err)
	}
	if p, err := w.FanOut(w.ctx(), later.ID, 10, hour.Add(10*time.Minute)); err != nil || p.Reached != 1 {
		t.Errorf("at its time it came to %+v, %v", p, err)
	}
	w.Skew(0)
	w.now = now // who accepts is ahead, and does not know it
	all := w.accept(d, everybody)
	w.now = now.Add(-10 * time.Minute)
	jobs, err := w.FanJobs(w.ctx(), w.now, 10)
	if err != nil || len(jobs) != 1 || !jobs[0].Due.Equal(now) {
		t.Fatalf("what was sent by a clock ahead is listed as %v, %v", jobs, err)
	}
	if pages := w.fan(all.ID, 10); pages[0].Reached != 1 {
		t.Errorf("it reached %v", pages)
	}
}
