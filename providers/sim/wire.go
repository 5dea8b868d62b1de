package sim

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// listener numbers the connections it accepts and registers them with the Sim,
// so that faults and Close can get at the TCP connection under any server.
type listener struct {
	net.Listener
	sim *Sim
	// provider is whom the connections are counted for; empty for the control API.
	provider, environment string
	open                  atomic.Int64
}

// Accept waits for the next connection that no rule refuses.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		w, err := l.register(c)
		if err != nil {
			return nil, err
		}
		if l.provider != "" {
			w.greeting = l.sim.rules.meet(query{provider: l.provider, environment: l.environment, wire: w})
			l.sim.greeted(w)
		}
		if w.greeting.Fault != FaultRefuse {
			return w, nil
		}
		w.reset()
	}
}

func (l *listener) register(c net.Conn) (*wire, error) {
	w := &wire{Conn: c, sim: l.sim, listener: l, gone: make(chan struct{}), place: int(l.open.Add(1))}
	l.sim.mu.Lock()
	defer l.sim.mu.Unlock()
	if l.sim.stopped {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	l.sim.wires[w] = struct{}{}
	w.number = l.sim.journal.opened(l.provider)
	return w, nil
}

// greeted notes a fault that meets a connection.
func (s *Sim) greeted(w *wire) {
	if w.greeting.Fault == "" {
		return
	}
	e := Entry{
		Provider: w.listener.provider, Environment: w.listener.environment, Headers: map[string]string{},
		Connection: w.number, Fault: w.greeting.Fault, At: time.Now(),
	}
	s.journal.note(e)
	s.told(e, "")
}

// greet is the TLS configuration for a client whose connection a rule has spoilt, nil for any other.
func (s *Sim) greet(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	w, ok := hello.Conn.(*wire)
	if !ok {
		return nil, nil
	}
	protocols := []string{"h2"}
	if w.listener.provider == FCM {
		protocols = append(protocols, "http/1.1")
	}
	switch w.greeting.Fault {
	case FaultWrongCertificate:
		config := s.authority.config(protocols...)
		leaf, err := s.authority.wrong(w.greeting.Reason, s.names)
		config.Certificates = []tls.Certificate{leaf}
		return config, err
	case FaultHTTP1Only:
		return s.authority.config("http/1.1"), nil
	}
	return nil, nil
}

// wire is one TCP connection as the fakes see it.
type wire struct {
	net.Conn
	sim      *Sim
	listener *listener
	number   int
	place    int          // how many its listener had open, this one included, when it came
	greeting Action       // what a rule does to the connection; set before anybody else sees it
	streams  atomic.Int64 // requests in hand, for the peak
	begun    atomic.Bool  // the stall of its greeting is over

	dark atomic.Bool
	once sync.Once
	gone chan struct{} // closed with the connection
}

// Read reads, unless the connection has become a black hole: then nothing
// arrives any more until it is closed.
func (w *wire) Read(p []byte) (int, error) {
	if err := w.stall(p); err != nil {
		return 0, err
	}
	n, err := w.Conn.Read(p)
	if w.dark.Load() {
		<-w.gone
		return 0, net.ErrClosed
	}
	return n, err
}

// stall holds back the first Read for the Delay of FaultTLSStall. Without a Delay
// what the client sends is thrown away until it hangs up.
func (w *wire) stall(p []byte) error {
	if w.greeting.Fault != FaultTLSStall || w.begun.Load() {
		return nil
	}
	for w.greeting.Delay == 0 {
		if _, err := w.Conn.Read(p); err != nil {
			return err
		}
	}
	timer := time.NewTimer(w.greeting.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.gone:
		return net.ErrClosed
	}
	w.begun.Store(true)
	return nil
}

// stalled reports whether the greeting of the connection still holds it up.
func (w *wire) stalled() bool { return w.greeting.Fault == FaultTLSStall && !w.begun.Load() }

// SetReadDeadline sets a limit, except to a connection that is to stall.
func (w *wire) SetReadDeadline(t time.Time) error {
	if w.stalled() {
		return nil
	}
	return w.Conn.SetReadDeadline(t)
}

// SetDeadline sets a limit, except to a connection that is to stall.
func (w *wire) SetDeadline(t time.Time) error {
	if w.stalled() {
		return nil
	}
	return w.Conn.SetDeadline(t)
}

// Write writes, or swallows what a black hole would.
func (w *wire) Write(p []byte) (int, error) {
	if w.dark.Load() {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// Close closes the connection; a black hole stays open until the Sim stops, as
// nothing would tell a real client either.
func (w *wire) Close() error {
	if w.dark.Load() && !w.sim.stopping() {
		return nil
	}
	err := net.ErrClosed
	w.once.Do(func() {
		err = w.Conn.Close()
		close(w.gone)
		w.sim.mu.Lock()
		delete(w.sim.wires, w)
		w.sim.mu.Unlock()
		w.listener.open.Add(-1)
		w.sim.journal.closed(w.listener.provider)
	})
	return err
}

// reset closes with a TCP RST instead of an orderly end.
func (w *wire) reset() {
	if tcp, ok := w.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = w.Close()
}

// closeWrite sends a FIN and leaves the other direction open.
func (w *wire) closeWrite() {
	if tcp, ok := w.Conn.(*net.TCPConn); ok && !w.dark.Load() {
		_ = tcp.CloseWrite()
	}
}

func (s *Sim) stopping() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

type wireKey struct{}

// httpServer makes a net/http server whose connections Close waits for and whose
// handlers find their wire with wireOf.
func (s *Sim) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ErrorLog:          nil,
		ReadHeaderTimeout: handshakeLimit,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if secure, ok := c.(*tls.Conn); ok {
				c = secure.NetConn()
			}
			return context.WithValue(ctx, wireKey{}, c)
		},
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.wg.Add(1)
			case http.StateClosed, http.StateHijacked:
				s.wg.Done()
			case http.StateActive, http.StateIdle:
			}
		},
	}
}

// wireOf returns the connection a net/http request came in on.
func wireOf(r *http.Request) *wire { return r.Context().Value(wireKey{}).(*wire) }
