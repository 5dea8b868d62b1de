package store_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
)

// onPostgres opens a store on a fresh database of PostgreSQL.
func onPostgres(t testing.TB, change ...func(*store.Options)) *store.Store {
	t.Helper()
	dsn := testkit.MigratedPostgres(t)
	return testkit.Store(t, append([]func(*store.Options){func(o *store.Options) { o.DSN = dsn }}, change...)...)
}

// TestPostgres runs the suite every engine has to pass.
func TestPostgres(t *testing.T) {
	t.Parallel()
	conformance(t, onPostgres)
}

// A server that crashes under load loses nothing that was accepted; callers that were told to come again, and do with the
// same Idempotency-Key, have sent once.
func TestACrashOfPostgresLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	server := testkit.NewCluster(t)
	w := newWorld(t, testkit.Store, func(o *store.Options) {
		o.DSN, o.InboxMessages = server.DSN(), 1<<20
	})
	d := w.device()
	var mu sync.Mutex
	accepted, sent, troubled := map[ident.Message]bool{}, 0, 0
	crash := make(chan struct{})
	var noticed atomic.Bool // until then they go on
	var callers sync.WaitGroup
	for caller := range 16 {
		callers.Go(func() {
			for n := 0; n < 20 || !noticed.Load(); n++ {
				m := w.send(d)
				m.Idempotency.Key = fmt.Sprint(caller, " ", n)
				r, err := w.Accept(context.Background(), m)
				for ; fault.KindOf(err) == fault.Unavailable; r, err = w.Accept(context.Background(), m) {
					mu.Lock()
					troubled++
					mu.Unlock()
				}
				mu.Lock()
				accepted[r.ID] = true
				if sent++; sent == 50 {
					close(crash)
				}
				mu.Unlock()
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	<-crash
	server.Stop(t)
	eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return troubled > 0 && w.Ready(w.ctx()) != nil
	})
	noticed.Store(true)
	server.Start(t)
	callers.Wait()
	stored := map[ident.Message]int{}
	var after messages.Seq
	for more := true; more; {
		p, err := w.Inbox(w.ctx(), messages.Query{Device: d, After: &after, Limit: 100, Now: w.now})
		w.must(err)
		for _, item := range p.Items {
			stored[item.ID]++
		}
		after, more = p.Last, p.More
	}
	if len(stored) != sent || len(accepted) != sent {
		t.Errorf("%d accepted, %d stored, of %d", len(accepted), len(stored), sent)
	}
	for id, n := range stored {
		if n != 1 || !accepted[id] {
			t.Errorf("%s is stored %d times, accepted %t", id, n, accepted[id])
		}
	}
	eventually(t, func() bool { return w.Ready(w.ctx()) == nil })
}
