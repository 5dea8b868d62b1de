package park

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"rouse/ident"
)

// Options is what NewBlocking needs.
type Options struct {
	// Draining is closed when the server begins to stop. nil: never.
	Draining <-chan struct{}
	// Recheck is how often a poll looks without having been woken, +-20 % at random: a lost hint
	// delays a message by no more than that.
	Recheck time.Duration
	// Displaced, if set, is called whenever a newer poll takes an older one's place.
	Displaced func()
}

// Blocking parks a poll in the goroutine that serves it. It works with every listener and protocol.
type Blocking struct {
	options Options

	mu      sync.Mutex
	waiters map[ident.Device]*waiter // guarded by mu
}

var _ Parker = (*Blocking)(nil)

type waiter struct {
	poll Poll
	// again holds one token when the poll must look again.
	again chan struct{}
	// displaced is closed, under Blocking.mu, by the poll that takes the place.
	displaced chan struct{}
	// parked is guarded by Blocking.mu: between it and the end of the poll Idle is owed.
	parked bool
}

// NewBlocking returns an empty parker. It starts nothing.
func NewBlocking(o Options) *Blocking {
	if o.Displaced == nil {
		o.Displaced = func() {}
	}
	return &Blocking{options: o, waiters: map[ident.Device]*waiter{}}
}

// Park answers the call before it returns.
func (b *Blocking) Park(w http.ResponseWriter, r *http.Request, p Poll) {
	reply, end := b.serve(r.Context(), p)
	switch end {
	case 0:
		reply.WriteTo(w)
	case Left:
	default:
		p.Empty(end).WriteTo(w)
	}
}

// serve waits for a reply; a zero End means that there is one.
func (b *Blocking) serve(ctx context.Context, p Poll) (Reply, End) {
	until := time.Now().Add(p.Wait)
	// Register, then read, then wait. A message committed after the read finds the waiter and wakes it; one
	// committed before is in what was read. Read first, and a message in between would be seen by neither.
	me := b.enter(p)
	reply, done := p.Look(ctx, false)
	if done {
		b.leave(me, false)
		return reply, 0
	}
	b.park(me, until)
	timer := time.NewTimer(b.nap(until))
	defer timer.Stop()
	for {
		if end := b.wait(ctx, me, timer, until); end != 0 {
			b.leave(me, true)
			return Reply{}, end
		}
		if reply, done = p.Look(ctx, true); done {
			b.leave(me, false)
			return reply, 0
		}
		timer.Reset(b.nap(until))
	}
}

// wait returns 0 when the poll should look again.
func (b *Blocking) wait(ctx context.Context, me *waiter, timer *time.Timer, until time.Time) End {
	select {
	case <-me.again:
		return 0
	case <-timer.C:
		if time.Now().Before(until) {
			return 0
		}
		return TimedOut
	case <-me.displaced:
		return Displaced
	case <-b.options.Draining:
		return Drained
	case <-ctx.Done():
		return Left
	}
}

// nap is how long to sleep: to the next look, or to the end if that is nearer.
func (b *Blocking) nap(until time.Time) time.Duration {
	left := time.Until(until)
	if b.options.Recheck <= 0 {
		return left
	}
	return min(left, time.Duration(float64(b.options.Recheck)*(0.8+0.4*rand.Float64())))
}

// enter registers a waiter in the place of an older one.
func (b *Blocking) enter(p Poll) *waiter {
	me := &waiter{poll: p, again: make(chan struct{}, 1), displaced: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.waiters[p.Device]; old != nil {
		b.end(old, true)
		close(old.displaced)
		b.options.Displaced()
	}
	b.waiters[p.Device] = me
	return me
}

// park tells that the poll begins to wait, unless it was displaced meanwhile.
func (b *Blocking) park(me *waiter, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiters[me.poll.Device] == me {
		me.parked = true
		me.poll.Parked(until)
	}
}

// leave takes the waiter out; idle says that it ends without an answer from Look.
func (b *Blocking) leave(me *waiter, idle bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(me, idle)
	if b.waiters[me.poll.Device] == me {
		delete(b.waiters, me.poll.Device)
	}
}

// end settles what is owed to Idle, once. It is called with mu held, so that Idle of
// one poll never comes after Parked of the device's next one.
func (b *Blocking) end(w *waiter, idle bool) {
	if w.parked && idle {
		w.poll.Idle()
	}
	w.parked = false
}

// Wake makes the polls of the devices look again.
func (b *Blocking) Wake(devices ...ident.Device) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, device := range devices {
		if w := b.waiters[device]; w != nil {
			w.wake()
		}
	}
}

// WakeAll makes every poll look again.
func (b *Blocking) WakeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.waiters {
		w.wake()
	}
}

func (w *waiter) wake() {
	select {
	case w.again <- struct{}{}:
	default: // it will look anyway, after this moment
	}
}

// Present reports whether the device has a poll here right now.
func (b *Blocking) Present(device ident.Device) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiters[device] != nil
}

// Waiting is the number of polls.
func (b *Blocking) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiters)
}
