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

// raw is a server that does with each connection what the test says, where net/http's would be too polite.
type raw struct {
	net.Listener
	roots *x509.CertPool
	conns atomic.Int64
	all   sync.WaitGroup
}

// newRaw has talk serve each connection, counted from 1, and closes it afterwards.
func newRaw(t *testing.T, talk func(n int64, c net.Conn)) *raw {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	config := s.TLS.Clone()
	config.NextProtos = []string{"h2"}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{Listener: l, roots: x509.NewCertPool()}
	r.roots.AddCert(s.Certificate())
	r.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := r.conns.Add(1)
			r.all.Go(func() { defer c.Close(); talk(n, tls.Server(c, config)) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); r.all.Wait() })
	return r
}

// pool connects to r; change adjusts the options. The caller closes it before the test ends.
func (r *raw) pool(change func(*Options)) *Pool {
	o := Options{
		URL: &url.URL{Scheme: "https", Host: r.Addr().String()}, RootCAs: r.roots,
		Slots: 100, PerConn: 100, MaxConns: 1, Dial: patience, Idle: time.Minute,
	}
	change(&o)
	return New(o)
}

// unhurried has a pool take no slowness for a sign: what it makes of the server then does not depend on how busy the machine is.
func unhurried(o *Options) { o.Cold, o.Shut, o.Fair = time.Hour, time.Hour, time.Hour }

// peer is one connection of a raw server that speaks HTTP/2.
type peer struct {
	net.Conn
	*http2.Framer
}

// greet reads the preface and says how much the server takes.
func greet(c net.Conn) (peer, bool) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return peer{}, false
	}
	p := peer{c, http2.NewFramer(c, c)}
	_ = p.WriteSettings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30},
	)
	return p, p.WriteWindowUpdate(0, 1<<30) == nil
}

// serve calls each for every complete request, until the connection ends.
func (p peer) serve(each func(stream uint32)) {
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = p.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = p.WritePing(true, f.Data)
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				each(f.StreamID)
			}
		}
	}
}

// answer says 200 and nothing else.
func (p peer) answer(stream uint32) { p.headers(stream, true) }

func (p peer) headers(stream uint32, end bool) {
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, EndStream: end, BlockFragment: []byte{0x88}})
}

// polite serves a connection as it should be.
func polite(c net.Conn) {
	if p, ok := greet(c); ok {
		p.serve(p.answer)
	}
}

// deaf serves a connection and never answers.
func deaf(c net.Conn) {
	if p, ok := greet(c); ok {
		p.serve(func(uint32) {})
	}
}
