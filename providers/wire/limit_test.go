package wire

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// moody is an HTTP/2 server that changes its mind about how many streams it
// takes, as Apple does after refusals: net/http's cannot.
type moody struct {
	net.Listener
	roots   *x509.CertPool
	refused atomic.Int64
	conns   atomic.Int64
	done    sync.WaitGroup
}

func newMoody(t *testing.T) *moody {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	config := s.TLS.Clone()
	config.NextProtos = []string{"h2"}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	m := &moody{Listener: l, roots: x509.NewCertPool()}
	m.roots.AddCert(s.Certificate())
	m.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.conns.Add(1)
			m.done.Go(func() { defer c.Close(); m.talk(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); m.done.Wait() })
	return m
}

// talk answers each request a moment after it came, and swings between 1 and 100 streams.
func (m *moody) talk(c net.Conn) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(c, c)
	var mu sync.Mutex // guards writing and the two below
	open, limit := 0, uint32(100)
	settings := func(n uint32) {
		limit = n
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n})
	}
	mu.Lock()
	settings(limit)
	mu.Unlock()
	var answers sync.WaitGroup
	defer answers.Wait()
	for n := 0; ; {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		mu.Lock()
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = fr.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = fr.WritePing(true, f.Data)
			}
		case *http2.HeadersFrame:
			open++
		case *http2.DataFrame:
			if !f.StreamEnded() {
				break
			}
			n++
			switch n % 50 {
			case 10:
				settings(1)
			case 25:
				settings(100)
			}
			id := f.StreamID
			answers.Go(func() {
				<-time.After(time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				open--
				_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: []byte{0x88}}) // :status 200
			})
		}
		if open > 100 {
			m.refused.Add(1)
		}
		mu.Unlock()
	}
}

// TestLimitSwings would stall to the end of its patience if requests held
// reservations while the server lowers its limit, and would be refused streams without
// any regard for it.
func TestLimitSwings(t *testing.T) {
	t.Parallel()
	m := newMoody(t)
	p := New(Options{
		URL: &url.URL{Scheme: "https", Host: m.Addr().String()}, RootCAs: m.roots,
		Slots: 500, PerConn: 500, MaxConns: 1, Dial: patience, Idle: time.Minute,
	})
	defer p.Close()
	begun := time.Now()
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			if reply, err := send(t.Context(), p); err != nil || reply.Status != 200 {
				t.Errorf("%d %v", reply.Status, err)
			}
		})
	}
	all.Wait()
	if took := time.Since(begun); took > patience {
		t.Errorf("took %v", took)
	}
	if m.refused.Load() > 0 || m.conns.Load() != 1 {
		t.Errorf("over the limit %d times on %d connections, want never and one", m.refused.Load(), m.conns.Load())
	}
}
