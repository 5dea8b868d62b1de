package api_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wires is a listener without a network, for tests in which time is not real.
type wires struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *wires) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *wires) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *wires) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (l *wires) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// virtual starts a world whose time is that of the bubble it is called in. Its server has the deadlines of the real one.
func virtual(t testing.TB) *world {
	l := &wires{conns: make(chan net.Conn), closed: make(chan struct{})}
	w := setup{server: func(s *httptest.Server) {
		_ = s.Listener.Close()
		s.Listener = l
		s.Config.ReadTimeout, s.Config.WriteTimeout = 70*time.Second, 90*time.Second
	}}.start(t)
	transport := &http.Transport{DialContext: l.dial}
	t.Cleanup(transport.CloseIdleConnections)
	w.http = &http.Client{Transport: transport}
	return w
}

// TestLongStream: one that goes on for long is not cut while its lines come.
func TestLongStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := virtual(t)
		app := w.newApp()
		p := w.newPhone(app)
		f := w.flow(app, "")
		for i := range 10 {
			f.write(p.message(i) + "\n")
			if r, ok := f.next(); !ok || r.Index != i || r.Status != 202 {
				t.Fatalf("after %d minutes: %+v", i, r)
			}
			<-time.After(55 * time.Second)
		}
		_ = f.in.Close()
		if list := f.rest(); len(list) != 0 {
			t.Errorf("got %+v", list)
		}
	})
}

// TestSlowStreams: a line that does not come to its end, and a client that does not read, are not waited for.
func TestSlowStreams(t *testing.T) {
	t.Parallel()
	t.Run("a line", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := virtual(t)
			app := w.newApp()
			p := w.newPhone(app)
			f := w.flow(app, "")
			f.write(p.message(0) + "\n")
			f.next()
			begun := time.Now()
			for f.write(" ") { // a byte at a time, so that something comes
				<-time.After(5 * time.Second)
				if time.Since(begun) > time.Hour {
					t.Fatal("it goes on for an hour")
				}
			}
			if took := time.Since(begun); took > 70*time.Second || took < 55*time.Second {
				t.Errorf("cut after %v", took)
			}
		})
	})
	t.Run("a reader", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := virtual(t)
			app := w.newApp()
			p := w.newPhone(app)
			begun := time.Now()
			text := fmt.Sprintf("POST /v1/messages/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n", app.sk)
			conn, err := w.http.Transport.(*http.Transport).DialContext(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			line := p.message(0) + "\n"
			for write := text; err == nil; write = fmt.Sprintf("%x\r\n%s\r\n", len(line), line) {
				_, err = io.WriteString(conn, write) // the pipe holds nothing: the first result waits for a reader
			}
			if took := time.Since(begun); took > time.Minute || took < 25*time.Second {
				t.Errorf("cut after %v", took)
			}
		})
	})
}
