package wire

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// startDial opens one connection in a goroutine that ends within Options.Dial,
// or when the pool closes. The caller holds mu.
func (p *Pool) startDial() {
	ctx, cancel := context.WithTimeout(context.Background(), p.o.Dial)
	p.dialing = cancel
	epoch := p.epoch
	go func() {
		defer cancel()
		c, err := p.dial(ctx)
		p.dialed(c, epoch, err)
	}()
}

func (p *Pool) dialed(c *conn, epoch uint64, err error) {
	if err != nil {
		p.dialFailed(err)
		return
	}
	p.o.tell(ConnOpened, "")
	c.epoch = epoch
	c.cc.SetStateHook(func(*http.ClientConn) { p.kick() })
	p.mu.Lock()
	p.dialing = nil
	c.draining = p.closed || epoch != p.epoch
	p.conns = append(p.conns, c)
	p.admitAndUnlock()
}

// dialFailed tells everybody who waits, unless another connection still serves them.
func (p *Pool) dialFailed(err error) {
	failure := ofDial(err)
	p.mu.Lock()
	closed := p.closed
	p.dialing = nil
	if closed {
		failure = &Error{Reason: Closed}
	}
	p.wasBarren()
	if !p.served() {
		for p.waiters.Len() > 0 {
			p.grant(grant{err: failure})
		}
	}
	p.admitAndUnlock()
	if !closed {
		p.o.Log.Warn("push provider: connect failed", "host", p.o.URL.Host, "reason", failure.Reason, "cause", err)
		p.o.tell(ConnFailed, failure.Reason)
	}
}

// served reports whether there is a connection that takes requests, now or when others are answered. The caller holds mu.
func (p *Pool) served() bool {
	return slices.ContainsFunc(p.conns, func(c *conn) bool { return c.usable() && c.cc.Err() == nil })
}

const (
	// firstPause is between the second and the third connection that brought nothing; it doubles up to longestPause.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

// wasBarren notes a connection that ended before its first answer, or did not come about. One may be chance and is
// replaced at once. If it goes on, the next one waits: a server that turns everybody away takes a storm of connections for an
// attack, and so do those next to it. The caller holds mu.
func (p *Pool) wasBarren() {
	p.barren++
	if p.barren < 2 {
		return
	}
	pause := min(firstPause<<min(p.barren-2, 10), longestPause)
	p.notBefore = time.Now().Add(pause/2 + rand.N(pause/2))
}

// dialSoon opens a connection, after the pause if there is one. The caller holds mu.
func (p *Pool) dialSoon() {
	pause := time.Until(p.notBefore)
	if pause <= 0 {
		p.startDial()
		return
	}
	if !p.pausing {
		p.pausing = true
		p.later(pause, func() { p.pausing = false })
	}
}

// later has the pool look again after d; first runs before, under mu.
func (p *Pool) later(d time.Duration, first func()) *time.Timer {
	return time.AfterFunc(d, func() {
		p.mu.Lock()
		first()
		p.admitAndUnlock()
	})
}

// Renew lets go of the connections of the epoch and begins another: what is in
// flight is finished, what comes next gets a new connection. It does nothing if
// the epoch is over already, so that many failures of one connection renew once.
func (p *Pool) Renew(epoch uint64) {
	p.mu.Lock()
	if epoch == p.epoch {
		p.epoch++
		p.drain()
	}
	p.admitAndUnlock()
}

// Dismiss gives up every request that waits for a connection, with the reason Dismissed: what one was just told, all would be.
func (p *Pool) Dismiss() {
	p.mu.Lock()
	for p.waiters.Len() > 0 {
		p.grant(grant{err: &Error{Reason: Dismissed}})
	}
	p.admitAndUnlock()
}

func (p *Pool) drain() {
	for _, c := range p.conns {
		c.draining = true
	}
}

// Close refuses new requests and those that still wait for a connection, and
// closes each connection once what is in flight on it is done. It does not wait for that.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	for p.waiters.Len() > 0 {
		p.grant(grant{err: &Error{Reason: Closed}})
	}
	if p.dialing != nil {
		p.dialing()
	}
	p.drain()
	p.admitAndUnlock()
}
