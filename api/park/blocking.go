package park

import (
	"context"
	"net/http"
	"sync"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// Options is what NewBlocking needs.
type Options struct {
	// Draining is closed when the server begins to stop. nil: never.
	Draining <-chan struct{}
	// Number, if set, gives each poll its number when it comes: the later poll of a device has the greater one. It must be
	// quick. Without it polls are counted.
	Number func() int64
	// Displaced, if set, is called whenever a newer poll, here or elsewhere, takes an older one's place.
	Displaced func()
}

// Blocking parks a poll in the goroutine that serves it. It works with every listener and protocol.
type Blocking struct {
	options Options

	mu      sync.Mutex
	waiters map[ident.Device]*waiter // guarded by mu
	parked  int                      // how many of them have parked; guarded by mu
	count   int64                    // guarded by mu; for want of Options.Number
}

var _ Parker = (*Blocking)(nil)

type waiter struct {
	poll   Poll
	number int64
	until  time.Time
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
	b := &Blocking{options: o, waiters: map[ident.Device]*waiter{}}
	if o.Number == nil {
		b.options.Number = func() int64 { b.count++; return b.count }
	}
	return b
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
	// Register, then read, then wait. A message committed after the read finds the waiter and wakes it; one
	// committed before is in what was read. Read first, and a message in between would be seen by neither.
	me := b.enter(p)
	reply, done := p.Look(ctx, false)
	if done {
		b.leave(me, reply.Idle)
		return reply, 0
	}
	b.park(me)
	timer := time.NewTimer(time.Until(me.until))
	defer timer.Stop()
	for {
		if end := b.wait(ctx, me, timer); end != 0 {
			b.leave(me, true)
			return Reply{}, end
		}
		if reply, done = p.Look(ctx, true); done {
			b.leave(me, reply.Idle)
			return reply, 0
		}
	}
}

// wait returns 0 when the poll should look again.
func (b *Blocking) wait(ctx context.Context, me *waiter, timer *time.Timer) End {
	select {
	case <-me.again:
		return 0
	case <-timer.C:
		return TimedOut
	case <-me.displaced:
		return Displaced
	case <-b.options.Draining:
		return Drained
	case <-ctx.Done():
		return Left
	}
}

// enter registers a waiter in the place of an older one.
func (b *Blocking) enter(p Poll) *waiter {
	me := &waiter{poll: p, until: time.Now().Add(p.Wait), again: make(chan struct{}, 1), displaced: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	me.number = b.options.Number()
	if old := b.waiters[p.Device]; old != nil {
		b.displace(old, true)
	}
	b.waiters[p.Device] = me
	return me
}

// displace ends a waiter; idle as in leave. The caller holds mu and takes it out.
func (b *Blocking) displace(old *waiter, idle bool) {
	b.end(old, idle)
	close(old.displaced)
	b.options.Displaced()
}

// Displace ends the device's poll if a later one was begun elsewhere. Idle is not called: the device is waiting, and
// who hears of the end after the beginning would think it is not.
func (b *Blocking) Displace(device ident.Device, number int64) (own bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.waiters[device]
	if w == nil || w.number >= number {
		return w != nil && w.number == number
	}
	delete(b.waiters, device)
	b.displace(w, false)
	return false
}

// park tells that the poll begins to wait, unless it was displaced meanwhile.
func (b *Blocking) park(me *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiters[me.poll.Device] == me {
		me.parked = true
		b.parked++
		me.poll.Parked(me.number, me.until)
	}
}

// Announce calls Parked anew. It holds the lock meanwhile, so that none is announced after its end.
func (b *Blocking) Announce(devices ...ident.Device) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, device := range devices {
		if w := b.waiters[device]; w != nil && w.parked {
			w.poll.Parked(w.number, w.until)
		}
	}
}

// leave takes the waiter out; idle says that it ends without having been served.
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
		w.poll.Idle(w.number)
	}
	if w.parked {
		b.parked--
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

// Polls lists all polls.
func (b *Blocking) Polls() []messages.Poll {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]messages.Poll, 0, len(b.waiters))
	for device, w := range b.waiters {
		list = append(list, messages.Poll{Device: device, After: w.poll.After, Proof: w.poll.Proof})
	}
	return list
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

// Waiting is the number of polls that have parked.
func (b *Blocking) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.parked
}
