package wire

import (
	"context"
	"net/http"
)

// startDial opens one connection in a goroutine that ends within Options.Dial,
// or when the pool closes. The caller holds mu.
func (p *Pool) startDial() {
	ctx, cancel := context.WithTimeout(context.Background(), p.o.Dial)
	p.dialing = cancel
	epoch := p.epoch
	go func() {
		defer cancel()
		c, err := dial(ctx, p.o)
		p.dialed(c, epoch, err)
	}()
}

func (p *Pool) dialed(c *conn, epoch uint64, err error) {
	if err == nil {
		c.epoch = epoch
		c.cc.SetStateHook(func(*http.ClientConn) { p.kick() })
	}
	p.mu.Lock()
	p.dialing = nil
	switch {
	case err != nil:
		p.failDial(err)
	default:
		c.draining = p.closed || epoch != p.epoch
		p.conns = append(p.conns, c)
	}
	p.admitAndUnlock()
}

// failDial tells everybody who waits, unless another connection still serves them. The caller holds mu.
func (p *Pool) failDial(err error) {
	for _, c := range p.conns {
		if c.usable() && c.cc.Err() == nil {
			return
		}
	}
	failure := ofDial(err)
	if p.closed {
		failure = &Error{Reason: Closed}
	}
	p.o.Log.Warn("push provider: connect failed", "host", p.o.URL.Host, "reason", failure.Reason, "cause", err)
	for p.waiters.Len() > 0 {
		p.grant(grant{err: failure})
	}
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
