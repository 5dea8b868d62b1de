package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// server answers with h and counts connections and requests in hand.
type server struct {
	*httptest.Server
	opened, inHand, peak atomic.Int64
}

func serve(t *testing.T, streams int, h http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := s.inHand.Add(1)
		defer s.inHand.Add(-1)
		for peak := s.peak.Load(); now > peak && !s.peak.CompareAndSwap(peak, now); peak = s.peak.Load() {
		}
		h(w, r)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.opened.Add(1)
		}
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if streams > 0 {
		s.EnableHTTP2 = true
		s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// pool connects to s; change adjusts the options.
func (s *server) pool(t *testing.T, change func(*Options)) *Pool {
	t.Helper()
	u, err := ParseEndpoint(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	o := Options{URL: u, RootCAs: roots, Slots: 100, PerConn: 100, MaxConns: 1, Dial: patience, Idle: time.Minute}
	change(&o)
	p := New(o)
	t.Cleanup(p.Close)
	return p
}

func send(ctx context.Context, p *Pool) (Reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.o.URL.String(), strings.NewReader("{}"))
	if err != nil {
		return Reply{}, err
	}
	return p.Send(req, 512)
}

func reasonOf(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return "no *Error"
	}
	return e.Reason
}

// lost reports whether another connection may fare better at once.
func lost(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Lost
}

// TestColdConnectionCarriesOne holds the first request and looks who else came.
func TestColdConnectionCarriesOne(t *testing.T) {
	t.Parallel()
	first, let := make(chan struct{}), newLatch()
	var n atomic.Int64
	s := serve(t, 100, func(http.ResponseWriter, *http.Request) {
		if n.Add(1) == 1 {
			close(first)
			<-let.c
		}
	})
	t.Cleanup(let.open)
	p := s.pool(t, unhurried)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, err := send(t.Context(), p); err != nil {
				t.Error(err)
			}
		})
	}
	<-first
	waitFor(t, "49 wait", p.holds(func() bool { return p.waiters.Len() == 49 }))
	if got := n.Load(); got != 1 {
		t.Errorf("%d requests on a cold connection", got)
	}
	let.open()
	all.Wait()
	if s.opened.Load() != 1 || n.Load() != 50 {
		t.Errorf("%d connections and %d requests, want 1 and 50", s.opened.Load(), n.Load())
	}
}

// latch holds a handler until it is opened, at the latest when the test ends.
type latch struct {
	c    chan struct{}
	open func()
}

func newLatch() latch {
	c := make(chan struct{})
	return latch{c, sync.OnceFunc(func() { close(c) })}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	waitUntil(ctx, t, what, done)
}

// holds has the condition looked at under the mutex, and lets go of it as the pool does: a kick that finds it taken is not lost.
func (p *Pool) holds(see func() bool) func() bool {
	return func() bool {
		p.mu.Lock()
		seen := see()
		p.mu.Unlock()
		if p.stale.Load() && p.mu.TryLock() {
			p.admitAndUnlock()
		}
		return seen
	}
}

// waitUntil is waitFor with another end.
func waitUntil(ctx context.Context, t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		streams     int
		change      func(*Options)
		peak, conns int64
	}{
		"the server's streams": {10, func(*Options) {}, 10, 1},
		"our slots":            {100, func(o *Options) { o.Slots = 7 }, 7, 1},
		"three connections":    {10, func(o *Options) { o.PerConn, o.MaxConns = 10, 3 }, 30, 3},
		"one stream":           {1, func(*Options) {}, 1, 1},
		"HTTP/1.1":             {0, func(o *Options) { o.HTTP1, o.MaxConns = true, 4 }, 4, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, tt.streams, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
			var p *Pool
			var most int64 // guarded by the pool's mutex
			p = s.pool(t, func(o *Options) {
				unhurried(o)
				o.Observe = func(e Event) {
					if e.Kind == ConnOpened {
						p.holds(func() bool { most = max(most, p.taking()+1); return true })()
					}
				}
				tt.change(o)
			})
			var all sync.WaitGroup
			for range 400 {
				all.Go(func() {
					if reply, err := send(t.Context(), p); err != nil || reply.Status != 200 {
						t.Errorf("%d %v", reply.Status, err)
					}
				})
			}
			all.Wait()
			if s.peak.Load() > tt.peak || most > tt.conns {
				t.Errorf("peak %d on %d connections, want at most %d on %d", s.peak.Load(), most, tt.peak, tt.conns)
			}
		})
	}
}

// taking counts the connections that take new requests. Over HTTP/1.1 the HTTP client closes one now and then, and another takes its
// place. The caller holds mu.
func (p *Pool) taking() (n int64) {
	for _, c := range p.conns {
		if c.usable() && c.cc.Err() == nil {
			n++
		}
	}
	return n
}

func TestRenewFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	arrived, let := make(chan struct{}), newLatch()
	var slow atomic.Bool
	s := serve(t, 100, func(http.ResponseWriter, *http.Request) {
		if slow.CompareAndSwap(true, false) {
			close(arrived)
			<-let.c
		}
	})
	t.Cleanup(let.open)
	p := s.pool(t, unhurried)
	reply, err := send(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	slow.Store(true)
	done := make(chan error, 1)
	go func() { _, err := send(t.Context(), p); done <- err }()
	<-arrived
	p.Renew(reply.Epoch)
	p.Renew(reply.Epoch) // a second failure of the same connection
	next, err := send(t.Context(), p)
	if err != nil || next.Epoch != reply.Epoch+1 {
		t.Errorf("after the renewal: epoch %d, %v", next.Epoch, err)
	}
	let.open()
	if err := <-done; err != nil {
		t.Errorf("what was under way: %v", err)
	}
	if s.opened.Load() != 2 {
		t.Errorf("%d connections, want 2", s.opened.Load())
	}
	waitFor(t, "the old connection is closed", p.holds(func() bool { return len(p.conns) == 1 }))
}

func TestCloseTurnsWaitersAway(t *testing.T) {
	t.Parallel()
	arrived, let := make(chan struct{}), newLatch()
	s := serve(t, 100, func(http.ResponseWriter, *http.Request) { close(arrived); <-let.c })
	t.Cleanup(let.open)
	p := s.pool(t, unhurried)
	under, waiting := make(chan error, 1), make(chan error, 1)
	go func() { _, err := send(t.Context(), p); under <- err }()
	<-arrived
	go func() { _, err := send(t.Context(), p); waiting <- err }()
	waitFor(t, "one waits", p.holds(func() bool { return p.waiters.Len() == 1 }))
	p.Close()
	if got := reasonOf(<-waiting); got != Closed {
		t.Errorf("the waiting one: %q", got)
	}
	let.open()
	if err := <-under; err != nil {
		t.Errorf("the one under way: %v", err)
	}
	_, err := send(t.Context(), p)
	if got := reasonOf(err); got != Closed {
		t.Errorf("a late one: %q", got)
	}
}

func TestCloseEndsADial(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := New(Options{URL: &url.URL{Scheme: "https", Host: l.Addr().String()}, Slots: 1, PerConn: 1, MaxConns: 1, Dial: time.Hour})
	done := make(chan error, 1)
	go func() { _, err := send(t.Context(), p); done <- err }()
	if _, err := l.Accept(); err != nil { // and say nothing
		t.Fatal(err)
	}
	p.Close()
	if got := reasonOf(<-done); got != Closed {
		t.Errorf("%q", got)
	}
}

func TestWithoutHTTP2(t *testing.T) {
	t.Parallel()
	s := serve(t, 0, func(http.ResponseWriter, *http.Request) {})
	p := s.pool(t, func(*Options) {})
	_, err := send(t.Context(), p)
	if got := reasonOf(err); got != ConnectFailed {
		t.Errorf("%q", got)
	}
}

func TestUntrusted(t *testing.T) {
	t.Parallel()
	s := serve(t, 100, func(http.ResponseWriter, *http.Request) {})
	p := s.pool(t, func(o *Options) { o.RootCAs = x509.NewCertPool() })
	_, err := send(t.Context(), p)
	var verification *tls.CertificateVerificationError
	if got := reasonOf(err); got != UntrustedCertificate || !errors.As(err, &verification) {
		t.Errorf("%q: %v", got, err)
	}
}

func TestBodyIsCut(t *testing.T) {
	t.Parallel()
	s := serve(t, 100, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 5000)) })
	p := s.pool(t, func(*Options) {})
	for range 2 {
		reply, err := send(t.Context(), p)
		if err != nil || len(reply.Body) != 512 {
			t.Errorf("%d bytes, %v", len(reply.Body), err)
		}
	}
}

func TestIdleConnectionCloses(t *testing.T) {
	t.Parallel()
	s := serve(t, 100, func(http.ResponseWriter, *http.Request) {})
	p := s.pool(t, func(o *Options) { o.Idle = 10 * time.Millisecond })
	for range 2 {
		_, err := send(t.Context(), p)
		for lost(err) { // idle for too long before the request was on its way
			_, err = send(t.Context(), p)
		}
		if err != nil {
			t.Error(err)
		}
		waitFor(t, "the connection is gone", p.holds(func() bool { return len(p.conns) == 0 }))
	}
}

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	for s, good := range map[string]bool{
		"https://fcm.googleapis.com/v1": true, "http://127.0.0.1:80": true,
		"": false, "host": false, "ftp://host": false, "https://": false, "https://u:p@host": false, "https://host?a=b": false, "https://host#f": false, "https://ho st": false,
	} {
		if _, err := ParseEndpoint(s); (err == nil) != good {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"17":                            17 * time.Second,
		" 17 ":                          17 * time.Second,
		"-5":                            0,
		"99999999999":                   24 * time.Hour,
		"99999999999999999999":          0,
		"1.5":                           0,
		"soon":                          0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:00:00 GMT": 0,
		"Fri, 02 Jan 2099 03:00:00 GMT": 24 * time.Hour,
	} {
		if got := RetryAfter(header, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}
