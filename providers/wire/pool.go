package wire

import (
	"cmp"
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
	// Prepare may change a request once it has its connection, of whose epoch it is told; nil for none. It must not block.
	Prepare func(req *http.Request, epoch uint64)
	// Observe is told what happens to the connections; nil for nobody. It may be called from several goroutines at once and must not block.
	Observe func(Event)
	// Cold, Shut and Fair take the place of coldLimit, shutLimit and fairChance in tests, where a busy machine is no news of the server; 0 for those.
	Cold, Shut, Fair time.Duration
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
	barren   int                // connections in a row that brought no answer
	// notBefore is when the next connection may be opened, pausing whether a timer waits for it.
	notBefore time.Time
	pausing   bool
	closed    bool
}

// waiter is one request without a connection yet. ready is buffered, so that
// granting never blocks.
type waiter struct {
	ctx   context.Context // the caller's
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
	o.Cold, o.Shut, o.Fair = cmp.Or(o.Cold, coldLimit), cmp.Or(o.Shut, shutLimit), cmp.Or(o.Fair, fairChance)
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
	if p.o.Prepare != nil {
		p.o.Prepare(req, c.epoch)
	}
	begun := time.Now()
	reply, failure := exchange(c, req, limit)
	p.report(c, failure)
	p.release(c, p.fateOf(c, begun, reply, failure))
	if failure != nil {
		return reply, failure
	}
	return reply, nil
}

// report tells what a failure means for the connection.
func (p *Pool) report(c *conn, failure *Error) {
	if failure == nil {
		return
	}
	switch failure.Reason {
	case StreamRefused, EnhanceYourCalm:
		p.o.tell(ConnRefused, failure.Reason)
	case ConnectionReset:
		c.watch.lose(ConnectionReset)
	}
}

func exchange(c *conn, req *http.Request, limit int64) (Reply, *Error) {
	res, err := c.cc.RoundTrip(req)
	if err != nil {
		return Reply{Epoch: c.epoch}, ofExchange(req.Context(), c, err)
	}
	defer func() { _ = res.Body.Close() }()
	reply := Reply{Status: res.StatusCode, Header: res.Header, Epoch: c.epoch}
	if res.Body == http.NoBody {
		return reply, nil
	}
	// Reading obeys the context only while nothing of the request is stuck in a full socket.
	stop := context.AfterFunc(req.Context(), func() { _ = res.Body.Close() })
	defer stop()
	reply.Body, err = readBody(res, limit)
	if err != nil {
		return reply, ofExchange(req.Context(), c, err)
	}
	return reply, nil
}

// readBody reads up to limit bytes, into a buffer of the right size if the server named it.
func readBody(res *http.Response, limit int64) ([]byte, error) {
	if res.ContentLength < 0 || res.ContentLength > limit {
		return io.ReadAll(io.LimitReader(res.Body, limit))
	}
	body := make([]byte, res.ContentLength+1) // one more, to meet the end
	n, err := io.ReadFull(res.Body, body)
	if int64(n) == res.ContentLength && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		err = nil
	}
	return body[:n], err
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
	w := &waiter{ctx: ctx, ready: make(chan grant, 1)}
	place := p.waiters.PushBack(w)
	p.admitAndUnlock()
	select {
	case g := <-w.ready:
		return g.result()
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.waiters.Remove(place)
	connecting := p.inFlight < p.o.Slots && !p.served()
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
	hasty       // given up before an answer could be expected
	unanswered
	spoilt // the connection takes nothing new, whatever else it says
	silent // unanswered in time, and nothing at all came on the connection for half of it
	answered
)

// fairChance is what a request must have had before its connection is blamed that no answer came: who waited long for
// a slot may have no time left to wait for an answer.
const fairChance = 500 * time.Millisecond

func (p *Pool) fateOf(c *conn, begun time.Time, reply Reply, failure *Error) fate {
	took := time.Since(begun)
	switch {
	case reply.Status != 0:
		return answered
	case failure.spoils():
		return spoilt
	case failure.Reason != Timeout && failure.Reason != Canceled:
		return unanswered
	case took < p.o.Fair:
		return hasty
	case failure.Reason == Timeout && c.watch.silentSince(begun.Add(took/2)):
		return silent
	default:
		return unanswered
	}
}

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
		c.reminder.Stop()
		p.barren, p.notBefore = 0, time.Time{}
	case unanswered, silent, hasty, spoilt:
		condemned := !c.warm && (f != hasty || p.overdue(c))
		if condemned {
			p.wasBarren()
		}
		c.draining = c.draining || condemned || f == silent || f == spoilt
	case unused:
		if c.inFlight == 0 {
			c.coldSince = time.Time{}
			c.reminder.Stop()
		}
	}
	p.admitAndUnlock()
	if f == silent {
		c.watch.lose(Timeout)
	}
}
