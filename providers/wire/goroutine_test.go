package wire

import (
	"bytes"
	"context"
	"net/http"
	"regexp"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestWaitingCostsNoGoroutine queues ten thousand requests for 500 slots and counts what runs on their behalf: each caller's own
// goroutine, one of the HTTP client for each request in flight, and a handful for the connection.
func TestWaitingCostsNoGoroutine(t *testing.T) {
	t.Parallel()
	const callers, slots, handful = 10_000, 500, 10
	var warm atomic.Bool
	let := newLatch()
	s := serve(t, slots, func(http.ResponseWriter, *http.Request) {
		if warm.Swap(true) {
			<-let.c
		}
	})
	t.Cleanup(let.open)
	p := s.pool(t, func(o *Options) { o.Slots, o.PerConn = slots, slots })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	// What is started on behalf of these inherits the label; the server and other tests do not have it.
	pprof.Do(ctx, pprof.Labels("test", t.Name()), func(ctx context.Context) {
		if _, err := send(ctx, p); err != nil {
			t.Fatal(err)
		}
		for range callers {
			all.Go(func() { _, _ = send(ctx, p) })
		}
	})
	waitUntil(ctx, t, "all slots are taken", p.holds(func() bool {
		return p.inFlight == slots && p.waiters.Len() == callers-slots && s.inHand.Load() == slots
	}))
	got := labelled(t, t.Name())
	if got < callers || got > callers+slots+handful {
		t.Errorf("%d goroutines for %d callers and %d slots, want at most %d", got, callers, slots, callers+slots+handful)
	}
}

var goroutines = regexp.MustCompile(`(?m)^(\d+) @ .*\n# labels: \{"test":"([^"]*)"\}`)

// labelled counts the goroutines with a label.
func labelled(t *testing.T, label string) (n int) {
	t.Helper()
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		t.Fatal(err)
	}
	for _, found := range goroutines.FindAllStringSubmatch(profile.String(), -1) {
		if found[2] == label {
			count, err := strconv.Atoi(found[1])
			if err != nil {
				t.Fatal(err)
			}
			n += count
		}
	}
	return n
}
