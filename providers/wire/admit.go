package wire

import (
	"sync"
	"time"
)

// kick admits whoever now has room. The HTTP client calls it whenever a
// connection's state changes, sometimes from inside a call made under mu; it
// then leaves the work to the holder of mu instead of waiting for it.
func (p *Pool) kick() {
	p.stale.Store(true)
	if p.mu.TryLock() {
		p.admitAndUnlock()
	}
}

// admitAndUnlock settles the pool's state until nothing is stale, and closes outside the mutex what is done with.
func (p *Pool) admitAndUnlock() {
	var done []*conn
	for {
		p.stale.Store(false)
		done = append(done, p.admit()...)
		p.mu.Unlock()
		// A kick that found mu taken has set stale before we let go.
		if !p.stale.Load() || !p.mu.TryLock() {
			break
		}
	}
	closeAll(done)
}

// closeAll takes closeWait at most, however many there are.
func closeAll(done []*conn) {
	var all sync.WaitGroup
	for i, c := range done {
		if i == len(done)-1 {
			_ = c.cc.Close()
			break
		}
		all.Go(func() { _ = c.cc.Close() })
	}
	all.Wait()
}

// admit hands connections to waiters in order, and dials if they need one. It
// returns the connections to close. The caller holds mu.
func (p *Pool) admit() (done []*conn) {
	done = p.prune()
	for p.waits() {
		c := p.pick()
		if c == nil {
			break
		}
		p.grant(grant{conn: c})
	}
	if p.waits() && p.inFlight < p.o.Slots {
		p.lookAgain()
		if p.dialing == nil && p.needsConn() {
			p.dialSoon()
		}
	}
	return done
}

// waits reports whether anybody waits. Those at the front who have given up are let go: nothing is opened, or handed out, for them.
// The caller holds mu.
func (p *Pool) waits() bool {
	for front := p.waiters.Front(); front != nil; front = p.waiters.Front() {
		if front.Value.(*waiter).ctx.Err() == nil {
			return true
		}
		p.waiters.Remove(front)
	}
	return false
}

const (
	// lookAgainAfter is when a connection is asked again that is idle and yet full.
	lookAgainAfter = 2 * time.Millisecond
	// shutLimit is how long it may be so before it is given up.
	shutLimit = time.Second
)

// lookAgain makes sure that somebody comes back for those who wait for an idle connection
// that takes nothing: the HTTP client tells of a change only if it differs from what it told before,
// and with nothing under way no release of ours will follow. The caller holds mu.
func (p *Pool) lookAgain() {
	for _, c := range p.conns {
		if !c.shut() {
			continue
		}
		c.draining = time.Since(c.shutSince) > p.o.Shut
		if !p.looking {
			p.looking = true
			p.later(lookAgainAfter, func() { p.looking = false })
		}
	}
}

func (p *Pool) grant(g grant) {
	front := p.waiters.Front()
	front.Value.(*waiter).ready <- g
	p.waiters.Remove(front)
}

// prune forgets connections that are dead or drained.
func (p *Pool) prune() (done []*conn) {
	var stillborn []*conn
	kept := p.conns[:0]
	for _, c := range p.conns {
		if c.inFlight > 0 || c.usable() && c.cc.Err() == nil {
			kept = append(kept, c)
			continue
		}
		if !c.usable() {
			done = append(done, c)
		}
		if !c.draining && !c.warm && c.coldSince.IsZero() {
			stillborn = append(stillborn, c)
		}
	}
	clear(p.conns[len(kept):])
	p.conns = kept
	for _, c := range stillborn {
		p.buried(c)
	}
	return done
}

// buried deals with a connection that ended before anything was sent on it: who waits first is told, as if
// they had been a moment earlier, for the server may have said why. The caller holds mu.
func (p *Pool) buried(c *conn) {
	p.wasBarren()
	if p.waiters.Len() == 0 || p.served() {
		return
	}
	failure := &Error{Reason: ConnectionReset, Lost: true, Epoch: c.epoch}
	if said, gone := c.goneAway(); gone {
		failure.Reason, failure.Said = GoAway, said
	}
	p.grant(grant{err: failure})
}

// pick takes a place on a connection; nil if there is none. The caller holds mu.
func (p *Pool) pick() *conn {
	if p.inFlight >= p.o.Slots {
		return nil
	}
	for _, c := range p.conns {
		if c.room() {
			c.inFlight++
			p.inFlight++
			p.firstOf(c)
			return c
		}
	}
	return nil
}

// coldLimit is how long others wait for the first answer on a connection before another is opened for them.
const coldLimit = 2 * time.Second

// firstOf marks when the first request goes onto a connection, and comes back when its answer is overdue. The caller holds mu.
func (p *Pool) firstOf(c *conn) {
	if c.warm || !c.coldSince.IsZero() {
		return
	}
	c.coldSince = time.Now()
	c.reminder = p.later(p.o.Cold, func() {})
}

// overdue reports whether the first answer is late enough that others need not wait for it.
func (p *Pool) overdue(c *conn) bool {
	return !c.warm && !c.coldSince.IsZero() && time.Since(c.coldSince) >= p.o.Cold
}

// needsConn reports whether one more connection is called for: there is none, or all are as full as we fill them.
// A connection that the server itself narrowed is no reason: more of them would only annoy it. One whose first answer is overdue
// is no reason to wait; a second such one is a reason not to open a third.
func (p *Pool) needsConn() bool {
	serving, overdue := 0, 0
	for _, c := range p.conns {
		switch {
		case !c.usable() || c.cc.Err() != nil:
		case p.overdue(c):
			overdue++
		case !c.warm || c.inFlight < c.capacity:
			return false
		default:
			serving++
		}
	}
	if serving == 0 {
		return overdue < 2
	}
	return serving+overdue < p.o.MaxConns
}
