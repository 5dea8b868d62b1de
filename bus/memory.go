// Package bus carries "look again" hints between the goroutines of one process
// and between nodes. It carries no content, and any hint may be lost.
package bus

import (
	"context"
	"sync"

	"rouse/messages"
)

// queueLimit bounds what a slow listener can make us remember: about 7 MB.
const queueLimit = 65536

// Memory is the bus of a node that is alone. The zero value is ready.
type Memory struct {
	mu        sync.Mutex
	listeners map[*queue]struct{} // guarded by mu
}

// queue is what one listener has still to hear.
type queue struct {
	mu     sync.Mutex
	hints  []messages.Hint // guarded by mu
	lost   bool            // guarded by mu
	signal chan struct{}   // holds one token when hints or lost changed
}

func newQueue() *queue { return &queue{signal: make(chan struct{}, 1)} }

// Run waits until ctx is done and returns nil: there is nobody to carry hints to.
func (b *Memory) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Connected returns true: nobody is missed.
func (b *Memory) Connected() bool { return true }

// Others returns 0: whoever is in another process is not heard.
func (b *Memory) Others() int { return 0 }

// Hint hands the hints to every listener and returns at once. A listener that
// is too far behind loses them and is told so.
func (b *Memory) Hint(hints ...messages.Hint) { b.each(hints, false) }

// lose tells every listener that hints are missing.
func (b *Memory) lose() { b.each(nil, true) }

func (b *Memory) each(hints []messages.Hint, lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for q := range b.listeners {
		q.add(hints, lost)
	}
}

func (q *queue) add(hints []messages.Hint, lost bool) {
	q.mu.Lock()
	if len(q.hints)+len(hints) > queueLimit {
		lost = true
	} else {
		q.hints = append(q.hints, hints...)
	}
	q.lost = q.lost || lost
	q.mu.Unlock()
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

// take empties the queue.
func (q *queue) take() (hints []messages.Hint, lost bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	hints, lost = q.hints, q.lost
	q.hints, q.lost = nil, false
	return hints, lost
}

// Listen calls receive, one call at a time and in order, with what was hinted since it
// was called, until ctx is done; it returns once the last call has. lost says that hints are
// missing before these: look at everything. The first call comes at once and says so, with or
// without hints: nobody was told of what was hinted before. The slice is the receiver's to keep.
func (b *Memory) Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error {
	q := newQueue()
	q.add(nil, true)
	b.mu.Lock()
	if b.listeners == nil {
		b.listeners = map[*queue]struct{}{}
	}
	b.listeners[q] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.listeners, q)
		b.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.signal:
			receive(q.take())
		}
	}
}
