package sim

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// listener numbers the connections it accepts and registers them with the Sim,
// so that faults and Close can get at the TCP connection under any server.
type listener struct {
	net.Listener
	sim *Sim
	// provider is whom the connections are counted for; empty for the control API.
	provider string
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: c, sim: l.sim, provider: l.provider, gone: make(chan struct{})}
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

// wire is one TCP connection as the fakes see it.
type wire struct {
	net.Conn
	sim      *Sim
	provider string
	number   int
	streams  atomic.Int64 // requests in hand, for the peak

	dark atomic.Bool
	once sync.Once
	gone chan struct{} // closed with the connection
}

// Read reads, unless the connection has become a black hole: then nothing
// arrives any more until it is closed.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if w.dark.Load() {
		<-w.gone
		return 0, net.ErrClosed
	}
	return n, err
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
		w.sim.journal.closed(w.provider)
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
