package wire

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"rouse/providers/providertest"
)

// TestGoAwayFreesThoseWhoWait: the server says goodbye and keeps a request to itself; who waits behind it gets another connection.
func TestGoAwayFreesThoseWhoWait(t *testing.T) {
	t.Parallel()
	arrived, leave := make(chan struct{}), make(chan struct{})
	r := newRaw(t, func(n int64, c net.Conn) {
		if n > 1 {
			polite(c)
			return
		}
		p, _ := greet(c)
		p.serve(func(stream uint32) {
			if stream == 1 {
				p.answer(stream)
				return
			}
			close(arrived)
			<-leave
			_ = p.WriteGoAway(stream, http2.ErrCodeNo, []byte(`{"reason":"Shutdown"}`))
		})
	})
	p := r.pool(func(o *Options) { o.PerConn = 1 })
	defer p.Close()
	if _, err := send(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	kept, waiting := make(chan error, 1), make(chan error, 1)
	go func() { _, err := send(ctx, p); kept <- err }()
	<-arrived
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := send(ctx, p)
		waiting <- err
	}()
	waitFor(t, "one waits", p.holds(func() bool { return p.waiters.Len() == 1 }))
	close(leave)
	if err := <-waiting; err != nil {
		t.Errorf("the one who waited: %v", err)
	}
	cancel()
	if got := reasonOf(<-kept); got != Canceled {
		t.Errorf("the one that was kept ended with %q before it was given up", got)
	}
}

// TestProtocolErrorFreesThoseWhoCome: after it the HTTP client sends nothing new on the connection, and does not say so.
func TestProtocolErrorFreesThoseWhoCome(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	r := newRaw(t, func(n int64, c net.Conn) {
		if n > 1 {
			polite(c)
			return
		}
		p, _ := greet(c)
		p.serve(func(stream uint32) {
			switch stream {
			case 1:
				p.answer(stream)
			case 3:
				close(arrived) // and no more of it
			default:
				_ = p.WriteRSTStream(stream, http2.ErrCodeProtocol)
			}
		})
	})
	p := r.pool(func(*Options) {})
	defer p.Close()
	if _, err := send(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	kept := make(chan error, 1)
	go func() { _, err := send(ctx, p); kept <- err }()
	<-arrived
	if _, err := send(ctx, p); reasonOf(err) != StreamReset {
		t.Errorf("the one that was reset: %v", err)
	}
	if _, err := send(ctx, p); err != nil {
		t.Errorf("the one that came after: %v", err)
	}
	cancel()
	if got := reasonOf(<-kept); got != Canceled {
		t.Errorf("the one that was kept ended with %q before it was given up", got)
	}
}

// TestSlotGrantedTooLate: a caller who gives up in the instant of the grant leaves no slot behind.
func TestSlotGrantedTooLate(t *testing.T) {
	t.Parallel()
	s := serve(t, 100, func(http.ResponseWriter, *http.Request) {})
	p := s.pool(t, func(o *Options) { o.Slots = 1 })
	if _, err := send(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	late := 0
	for range 100 {
		p.mu.Lock()
		c := p.pick()
		p.admitAndUnlock()
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan *conn, 1)
		go func() { c, _ := p.acquire(ctx); got <- c }()
		waitFor(t, "one waits", p.holds(func() bool { return p.waiters.Len() == 1 }))
		p.mu.Lock()
		cancel()                // it wakes, and waits for mu
		p.grant(grant{conn: c}) // hands the place on
		p.admitAndUnlock()
		if c := <-got; c != nil {
			p.release(c, unused)
		} else {
			late++
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inFlight != 0 || late == 0 {
		t.Errorf("%d slots are taken after %d late grants", p.inFlight, late)
	}
}

// TestOverdueAnswerHoldsNobodyUp: a first request that hangs costs the others that limit and not their deadline.
func TestOverdueAnswerHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	r := newRaw(t, func(n int64, c net.Conn) {
		if n > 1 {
			polite(c)
			return
		}
		deaf(c)
	})
	p := r.pool(func(o *Options) { unhurried(o); o.Cold = 50 * time.Millisecond })
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 20)
	for range cap(done) {
		go func() { _, err := send(ctx, p); done <- err }()
	}
	for range cap(done) - 1 {
		if err := <-done; err != nil {
			t.Fatalf("one of those who waited: %v", err)
		}
	}
	cancel()
	if got := reasonOf(<-done); got != Canceled {
		t.Errorf("the first: %q", got)
	}
	if n := r.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// TestNobodyAnswers: where nothing ever comes back, there are two connections and not more and more of them.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	r := newRaw(t, func(_ int64, c net.Conn) { deaf(c) })
	p := r.pool(func(o *Options) { unhurried(o); o.Cold = 50 * time.Millisecond })
	defer p.Close()
	ctx := providertest.NewExpiring(t)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			_, err := send(ctx, p)
			if got := reasonOf(err); got != Timeout && got != QueueTimeout && got != ConnectTimeout {
				t.Errorf("%q: %v", got, err)
			}
		})
	}
	waitFor(t, "all are there, and both answers are overdue", p.holds(func() bool {
		overdue := 0
		for _, c := range p.conns {
			if p.overdue(c) {
				overdue++
			}
		}
		return overdue == 2 && p.waiters.Len() == 18
	}))
	p.mu.Lock()
	more := p.needsConn() || p.dialing != nil || p.pausing
	p.admitAndUnlock()
	if more {
		t.Error("a third is on its way")
	}
	ctx.Expire()
	all.Wait()
	if n := r.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// TestPauseBetweenBarrenConnections: a server that turns everybody away is not stormed, and found again when it is back.
func TestPauseBetweenBarrenConnections(t *testing.T) {
	t.Parallel()
	var back atomic.Bool
	r := newRaw(t, func(_ int64, c net.Conn) {
		if back.Load() {
			polite(c)
		}
	})
	// The server is outside of the bubble: there, time goes on only while no connection is under way.
	synctest.Test(t, func(t *testing.T) {
		p := r.pool(func(*Options) {})
		defer p.Close()
		end := time.Now().Add(2 * time.Second)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				for time.Now().Before(end) {
					if _, err := send(t.Context(), p); err == nil {
						t.Error("an answer from a server that is not there")
					}
				}
			})
		}
		all.Wait()
		// Two at once, then pauses of at least 25, 50, 100, 200, 400, 500 and 500 ms, and of twice that at most; one that was waited
		// for came after the end.
		if n := r.conns.Load(); n < 8 || n > 10 {
			t.Errorf("%d connections in 2 s", n)
		}
		back.Store(true)
		if _, err := send(t.Context(), p); err != nil {
			t.Errorf("the server is back: %v", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.barren != 0 || !p.notBefore.IsZero() {
			t.Errorf("after an answer there is still a pause for %d barren connections", p.barren)
		}
	})
}

// TestTurnedAwayBeforeTheFirstRequest: the server's word is heard even if it comes before anything was asked.
func TestTurnedAwayBeforeTheFirstRequest(t *testing.T) {
	t.Parallel()
	r := newRaw(t, func(_ int64, c net.Conn) {
		p, _ := greet(c)
		_ = p.WriteGoAway(0, http2.ErrCodeNo, []byte(`{"reason":"BadCertificate"}`))
		p.serve(func(uint32) {})
	})
	p := r.pool(func(*Options) {})
	defer p.Close()
	const sends = 5
	for range sends {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := send(ctx, p)
		cancel()
		var e *Error
		if !errors.As(err, &e) || e.Reason != GoAway || e.Said != "BadCertificate" || !e.Lost {
			t.Errorf("%v, want to be told of the certificate", err)
		}
	}
	if n := r.conns.Load(); n != sends {
		t.Errorf("%d connections for %d requests", n, sends)
	}

	// The same word, heard before anybody was let onto the connection.
	p.mu.Lock()
	waiting := &waiter{ctx: t.Context(), ready: make(chan grant, 1)}
	p.waiters.PushBack(waiting)
	p.pausing = true // no dial
	p.notBefore = time.Now().Add(time.Hour)
	p.mu.Unlock()
	c, err := p.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the word is heard", func() bool { _, gone := c.goneAway(); return gone })
	p.dialed(c, p.epoch, nil)
	select {
	case g := <-waiting.ready:
		if g.err == nil || g.err.Said != "BadCertificate" {
			t.Errorf("%+v, want to be told of the certificate", g)
		}
	default:
		t.Error("nobody tells the one who waits")
	}
}

// TestHastyCallerCondemnsNothing: who comes with no time left learns nothing about the connection.
func TestHastyCallerCondemnsNothing(t *testing.T) {
	t.Parallel()
	let := newLatch()
	arrived := make(chan struct{}, 1)
	s := serve(t, 100, func(http.ResponseWriter, *http.Request) {
		select {
		case arrived <- struct{}{}:
		default:
		}
		<-let.c
	})
	t.Cleanup(let.open)
	p := s.pool(t, unhurried)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := send(ctx, p); done <- err }()
	<-arrived
	cancel()
	if got := reasonOf(<-done); got != Canceled {
		t.Errorf("the first: %q", got)
	}
	let.open()
	if _, err := send(t.Context(), p); err != nil {
		t.Error(err)
	}
	if n := s.opened.Load(); n != 1 {
		t.Errorf("%d connections, want the one", n)
	}
}

// TestFullSocketKeepsNobody: the answer began, the rest of the request is stuck in a socket that nobody reads, and the caller's deadline still holds.
func TestFullSocketKeepsNobody(t *testing.T) {
	t.Parallel()
	let := newLatch()
	r := newRaw(t, func(_ int64, c net.Conn) {
		p, _ := greet(c)
		for {
			f, err := p.ReadFrame()
			if err != nil {
				return
			}
			if f, ok := f.(*http2.HeadersFrame); ok {
				p.headers(f.StreamID, false)
				<-let.c // reads no more
				return
			}
		}
	})
	defer let.open()
	p := r.pool(func(*Options) {})
	defer p.Close()
	ctx := reading{providertest.NewExpiring(t), newLatch()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.o.URL.String(), bytes.NewReader(make([]byte, 64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		reply, err := p.Send(req, 512)
		if got := reasonOf(err); got != Timeout || reply.Status != 200 {
			t.Errorf("%d %q: %v", reply.Status, got, err)
		}
	}()
	<-ctx.begun.c
	ctx.Expire()
	select {
	case <-sent:
	case <-time.After(patience):
		t.Error("its deadline has passed, and it waits")
		let.open()
		<-sent
	}
}

// reading is the context of a request, and tells when the answer begins to be read: nothing else asks to be called at its end.
type reading struct {
	providertest.Expiring
	begun latch
}

// AfterFunc is what context.AfterFunc looks for.
func (r reading) AfterFunc(f func()) (stop func() bool) {
	r.begun.open()
	return context.AfterFunc(r.Expiring, f)
}
