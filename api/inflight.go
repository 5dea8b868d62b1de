package api

import (
	"context"
	"sync"
	"time"

	"rouse/fault"
)

// patience is how long a repeated send waits for the first.
const patience = 5 * time.Second

// inflight makes a repeated send wait for the first one with its key, so that it finds the first's
// answer in the store. The zero value is ready.
type inflight struct {
	mu   sync.Mutex
	keys map[string]chan struct{} // guarded by mu; closed when the holder is done
}

// enter waits until nobody else holds the key, and holds it until release. It fails with
// fault.Conflict after patience.
func (f *inflight) enter(ctx context.Context, key string) (release func(), err error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		first := f.try(key)
		if first == nil {
			return func() { f.release(key) }, nil
		}
		select {
		case <-first:
		case <-timer.C:
			return nil, fault.New(fault.Conflict, "idempotency_in_progress", "the first request with this Idempotency-Key is still running; repeat it later")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// try takes the key, or returns what to wait for.
func (f *inflight) try(key string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first, taken := f.keys[key]; taken {
		return first
	}
	if f.keys == nil {
		f.keys = map[string]chan struct{}{}
	}
	f.keys[key] = make(chan struct{})
	return nil
}

func (f *inflight) release(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.keys[key])
	delete(f.keys, key)
}
