package wire

import (
	"container/list"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Options says where a Pool connects and how far it goes.
type Options struct {
	// URL is the endpoint; only scheme (https, or http for tests), host and port matter here.
	URL *url.URL
	// RootCAs checks the server; nil means the system's.
	RootCAs *x509.CertPool
	// Certificates may be shown to the server.
	Certificates []tls.Certificate
	// HTTP1 allows a server that does not speak HTTP/2: one request at a time on each connection.
	HTTP1 bool
	// Slots is how many requests may be in flight in all, PerConn on one connection.
	Slots, PerConn int
	// MaxConns is how many connections may take new requests at once.
	MaxConns int
	// Dial bounds connecting, TLS included.
	Dial time.Duration
	// Idle is how long an unused connection stays open.
	Idle time.Duration
	Log  *slog.Logger
}

func (o Options) address() string {
	if o.URL.Port() != "" {
		return o.URL.Host
	}
	return net.JoinHostPort(o.URL.Hostname(), o.URL.Scheme)
}

func (o Options) tlsConfig() *tls.Config {
	protos := []string{"h2"}
	if o.HTTP1 {
		protos = append(protos, "http/1.1")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		RootCAs:      o.RootCAs,
		Certificates: o.Certificates,
		ServerName:   o.URL.Hostname(),
		NextProtos:   protos,
	}
}

// ParseEndpoint checks an operator's endpoint: an absolute http or https URL
// without user, query or fragment.
func ParseEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("endpoint is not a URL: %w", err)
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("endpoint is not of the form https://host[:port][/path]")
	}
	return u, nil
}

// Pool is the connections of one credential to one endpoint. It is safe for
// concurrent use. It opens nothing before the first request.
type Pool struct {
	o Options

	// stale asks whoever holds mu to admit again; see kick.
	stale atomic.Bool

	// mu is let go of only through admitAndUnlock.
	mu       sync.Mutex
	conns    []*conn
	waiters  list.List // of *waiter, the oldest first
	inFlight int
	epoch    uint64
	dialing  context.CancelFunc // nil while nobody dials
	looking  bool               // a timer of lookAgain is running
	closed   bool
}

// waiter is one request without a connection yet. ready is buffered, so that
// granting never blocks.
type waiter struct {
	ready chan grant
}

type grant struct {
	conn *conn
	err  *Error
}

// New makes a pool and starts nothing.
func New(o Options) *Pool {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Pool{o: o, epoch: 1}
}

// Reply is an answer, read to its end or to the limit.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
	// Epoch is that of the connection the answer came on; see Renew.
	Epoch uint64
}

// Send sends req once and reads the answer up to limit bytes. It returns when
// the answer is there, or when req's context ends. Every error is an *Error; a
// Status in the Reply beside an error is an answer whose body did not come in full.
func (p *Pool) Send(req *http.Request, limit int64) (Reply, error) {
	c, err := p.acquire(req.Context())
	if err != nil {
		return Reply{}, err
	}
	begun := time.Now()
	reply, failure := exchange(c, req, limit)
	switch {
	case reply.Status != 0:
		p.release(c, answered)
	case failure.Reason == Timeout && c.watch.silentSince(begun.Add(time.Since(begun)/2)):
		p.release(c, silent)
	default:
		p.release(c, unanswered)
	}
	if failure != nil {
		return reply, failure
	}
	return reply, nil
}

func exchange(c *conn, req *http.Request, limit int64) (Reply, *Error) {
	res, err := c.cc.RoundTrip(req)
	if err != nil {
		return Reply{Epoch: c.epoch}, ofExchange(req.Context(), c, err)
	}
	defer func() { _ = res.Body.Close() }()
	reply := Reply{Status: res.StatusCode, Header: res.Header, Epoch: c.epoch}
	reply.Body, err = io.ReadAll(io.LimitReader(res.Body, limit))
	if err != nil {
		return reply, ofExchange(req.Context(), c, err)
	}
	return reply, nil
}

// acquire waits for a slot on a connection. Its order is: queue up behind those who
// wait, then see whether there is room, so that nobody overtakes and nobody is forgotten.
func (p *Pool) acquire(ctx context.Context) (*conn, error) {
	if ctx.Err() != nil {
		return nil, givenUp(ctx, QueueTimeout)
	}
	p.mu.Lock()
	if p.closed {
		p.admitAndUnlock()
		return nil, &Error{Reason: Closed}
	}
	if p.waiters.Len() == 0 {
		if c := p.pick(); c != nil {
			p.admitAndUnlock()
			return c, nil
		}
	}
	w := &waiter{ready: make(chan grant, 1)}
	place := p.waiters.PushBack(w)
	p.admitAndUnlock()
	select {
	case g := <-w.ready:
		return g.result()
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.waiters.Remove(place)
	connecting := p.dialing != nil
	p.admitAndUnlock()
	select {
	case g := <-w.ready: // granted in the same instant: the slot goes back unused
		if g.conn != nil {
			p.release(g.conn, unused)
		}
	default:
	}
	if connecting {
		return nil, givenUp(ctx, ConnectTimeout)
	}
	return nil, givenUp(ctx, QueueTimeout)
}

func (g grant) result() (*conn, error) {
	if g.err != nil {
		return nil, g.err
	}
	return g.conn, nil
}

// fate is what came of a slot.
type fate uint8

const (
	unused fate = iota
	unanswered
	silent // unanswered in time, and nothing at all came on the connection for half of it
	answered
)

// release gives a slot back. A connection whose very first request got no
// answer is not trusted with a second: it may lead nowhere, and the server has not said how much it takes.
func (p *Pool) release(c *conn, f fate) {
	p.mu.Lock()
	c.inFlight--
	c.shutSince = time.Time{}
	p.inFlight--
	switch f {
	case answered:
		c.warm = true
	case unanswered:
		c.draining = c.draining || !c.warm
	case silent:
		c.draining = true
	case unused:
	}
	p.admitAndUnlock()
}

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
	for {
		p.stale.Store(false)
		done := p.admit()
		p.mu.Unlock()
		for _, c := range done {
			_ = c.cc.Close()
		}
		// A kick that found mu taken has set stale before we let go.
		if !p.stale.Load() || !p.mu.TryLock() {
			return
		}
	}
}

// admit hands connections to waiters in order, and dials if they need one. It
// returns the connections to close. The caller holds mu.
func (p *Pool) admit() (done []*conn) {
	done = p.prune()
	for p.waiters.Len() > 0 {
		c := p.pick()
		if c == nil {
			break
		}
		p.grant(grant{conn: c})
	}
	if p.waiters.Len() > 0 && p.inFlight < p.o.Slots {
		p.lookAgain()
		if p.dialing == nil && p.needsConn() {
			p.startDial()
		}
	}
	return done
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
		c.draining = time.Since(c.shutSince) > shutLimit
		if !p.looking {
			p.looking = true
			time.AfterFunc(lookAgainAfter, func() {
				p.mu.Lock()
				p.looking = false
				p.admitAndUnlock()
			})
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
	kept := p.conns[:0]
	for _, c := range p.conns {
		switch {
		case c.inFlight > 0:
			kept = append(kept, c)
		case !c.usable():
			done = append(done, c)
		case c.cc.Err() != nil:
		default:
			kept = append(kept, c)
		}
	}
	clear(p.conns[len(kept):])
	p.conns = kept
	return done
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
			return c
		}
	}
	return nil
}

// needsConn reports whether one more connection is called for: there is none, or all are as full as we fill them.
// A connection that the server itself narrowed is no reason: more of them would only annoy it.
func (p *Pool) needsConn() bool {
	usable := 0
	for _, c := range p.conns {
		if !c.usable() || c.cc.Err() != nil {
			continue
		}
		if !c.warm || c.inFlight < c.capacity {
			return false
		}
		usable++
	}
	return usable == 0 || usable < p.o.MaxConns
}
