package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

var eventTests = map[string]func(*testing.T, *world){
	"events are listed in pages, each app its own": eventsInPages,
	"events show in the order of their commits":    eventsInOrder,
	"old events are purged, cursors stay good":     eventsPurged,
}

// happen makes n events of the app.
func (w *world) happen(n int) {
	w.t.Helper()
	for i := range n {
		w.note(because(tokens.CauseThrottled), func(c *tokens.Circuit) {
			if i%2 == 1 {
				closed(c)
			}
		})
	}
}

// wantsEvents has only these types stored for the app.
func (w *world) wantsEvents(types ...string) {
	w.t.Helper()
	types = append([]string{}, types...)
	_, err := w.PatchApp(w.ctx(), w.app, tokens.AppPatch{EventTypes: &types})
	w.must(err)
}

func (w *world) eventsAfter(after messages.Seq, limit int) ([]messages.Event, bool) {
	w.t.Helper()
	list, more, err := w.Events(w.ctx(), w.app, after, limit)
	w.must(err)
	return list, more
}

func eventsInPages(t *testing.T, w *world) {
	other := newWorld(t, func(testing.TB, ...func(*storeOptions)) *storeT { return w.Store })
	for range 5 {
		w.happen(2)
		other.happen(2)
	}
	all, more := w.eventsAfter(0, 10)
	if len(all) != 10 || more {
		t.Fatalf("%d events, more %t", len(all), more)
	}
	for i, e := range all {
		if e.App != w.app || !e.At.Equal(w.now) || i > 0 && (e.ID <= all[i-1].ID || e.Seq <= all[i-1].Seq) {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	var paged []messages.Event
	more = true
	for after := messages.Seq(0); more; after = paged[len(paged)-1].Seq {
		var page []messages.Event
		page, more = w.eventsAfter(after, 4)
		paged = append(paged, page...)
	}
	if diff := cmp.Diff(all, paged); diff != "" {
		t.Error(diff)
	}
	if rest, more := w.eventsAfter(all[9].Seq, 4); len(rest) != 0 || more {
		t.Errorf("behind the last: %+v, more %t", rest, more)
	}
}

// eventsInOrder: whoever pages while others write misses nothing.
func eventsInOrder(t *testing.T, w *world) {
	const writers, each = 4, 25
	var group sync.WaitGroup
	var failed sync.Map
	for i := range writers {
		group.Go(func() {
			for n := range each {
				c := tokens.Circuit{Outlet: tokens.Outlet{App: w.app, Provider: tokens.FCM, Onward: tokens.Onward(rune('a' + i))}, State: tokens.CircuitOpen,
					Cause: tokens.CauseThrottled, OpenedAt: w.now, RetryAt: w.now}
				if n%2 == 1 {
					c.State = tokens.CircuitClosed
				}
				if err := w.NoteCircuit(w.ctx(), c, w.now); err != nil {
					failed.Store(i, err)
				}
			}
		})
	}
	wrote := make(chan struct{})
	go func() { group.Wait(); close(wrote) }()
	var seen []messages.Seq
	last := messages.Seq(0)
	for over := false; !over; {
		select {
		case <-wrote:
			over = true // what is there now is all
		default:
		}
		for more := true; more; {
			var page []messages.Event
			page, more = w.eventsAfter(last, 3)
			for _, e := range page {
				seen, last = append(seen, e.Seq), e.Seq
			}
		}
	}
	failed.Range(func(_, err any) bool { t.Error(err); return true })
	if len(seen) != writers*each || !slices.IsSorted(seen) {
		t.Errorf("a reader saw %d of %d events", len(seen), writers*each)
	}
}

func eventsPurged(t *testing.T, w *world) {
	w.happen(4)
	old, _ := w.eventsAfter(0, 10)
	w.now = w.now.Add(time.Hour)
	w.happen(2)
	if n, err := w.Purge(w.ctx(), w.now, w.now, 3); n != 3 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	if n, err := w.Purge(w.ctx(), w.now, w.now, 100); n != 1 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	left, _ := w.eventsAfter(0, 10)
	if len(left) != 2 {
		t.Fatalf("left %+v", left)
	}
	if after, _ := w.eventsAfter(old[1].Seq, 10); !cmp.Equal(left, after) {
		t.Errorf("after one that is gone: %+v", after)
	}
	w.now = w.now.Add(time.Hour)
	if n, err := w.Purge(w.ctx(), w.now, w.now, 100); n != 2 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	w.happen(1)
	if fresh, _ := w.eventsAfter(left[1].Seq, 10); len(fresh) != 1 {
		t.Errorf("after the last of a purged table: %+v", fresh)
	}
}

// A place that was purged is not given again after a start either: a cursor would pass over what came there.
func TestPlacesOfEventsOutliveAPurgeAndAStart(t *testing.T) {
	t.Parallel()
	o := store.Options{DSN: "sqlite:" + filepath.Join(t.TempDir(), "rouse.db"), Ring: testkit.Ring(t)}
	app := tokens.App{}
	now := time.Now()
	last := messages.Seq(0)
	for start := range 3 {
		s, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop := testkit.Run(t, s)
		if start == 0 {
			app = testkit.App(t, s)
		}
		c := tokens.Circuit{Outlet: tokens.Outlet{App: app.ID, Provider: tokens.FCM}, State: tokens.CircuitOpen, Cause: tokens.CauseThrottled}
		err = s.NoteCircuit(t.Context(), c, now)
		c.State = tokens.CircuitClosed
		err = errors.Join(err, s.NoteCircuit(t.Context(), c, now))
		if err != nil {
			t.Fatal(err)
		}
		list, _, err := s.Events(context.Background(), app.ID, last, 10)
		if err != nil || len(list) != 2 || list[0].Seq <= last {
			t.Fatalf("start %d, after %d: %+v, %v", start, last, list, err)
		}
		last = list[1].Seq
		if n, err := s.Purge(t.Context(), now.Add(time.Hour), now, 100); n != 2 || err != nil {
			t.Errorf("purged %d, %v", n, err)
		}
		stop()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
