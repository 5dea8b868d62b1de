// Package bus carries "look again" hints between the goroutines of one process
// and, in time, between nodes. It carries no content, and any hint may be lost.
package bus

import (
	"context"
	"sync"

	"rouse/messages"
)

// queueLimit bounds what a slow listener can make us remember: about 6 MB.
const queueLimit = 65536

// Memory is the bus of a single process. The zero value is ready.
type Memory struct {
	mu        sync.Mutex
	listeners map[*listener]struct{} // guarded by mu
}

type listener struct {
	mu     sync.Mutex
	queue  []messages.Hint // guarded by mu
	lost   bool            // guarded by mu
	signal chan struct{}   // holds one token when queue or lost changed
}

// Hint hands the hints to every listener and returns at once. A listener that
// is too far behind loses them and is told so.
func (b *Memory) Hint(hints ...messages.Hint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.listeners {
		l.add(hints)
	}
}

func (l *listener) add(hints []messages.Hint) {
	l.mu.Lock()
	if len(l.queue)+len(hints) > queueLimit {
		l.lost = true
	} else {
		l.queue = append(l.queue, hints...)
	}
	l.mu.Unlock()
	select {
	case l.signal <- struct{}{}:
	default:
	}
}

// Listen calls receive, one call at a time and in order, with what was hinted since it
// was called, until ctx is done; it returns once the last call has. lost says that hints are
// missing before these: look at everything. The slice is the receiver's to keep.
func (b *Memory) Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error {
	l := &listener{signal: make(chan struct{}, 1)}
	b.mu.Lock()
	if b.listeners == nil {
		b.listeners = map[*listener]struct{}{}
	}
	b.listeners[l] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.listeners, l)
		b.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.signal:
			l.mu.Lock()
			hints, lost := l.queue, l.lost
			l.queue, l.lost = nil, false
			l.mu.Unlock()
			receive(hints, lost)
		}
	}
}
