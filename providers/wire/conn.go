package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// pingAfter and pingWait bound how long a dead connection goes unnoticed.
	pingAfter = 15 * time.Second
	pingWait  = 5 * time.Second
	keepAlive = 15 * time.Second
	// closeWait is how long a dead peer may hold up a TLS goodbye.
	closeWait = 250 * time.Millisecond
)

// conn is one connection. The counters belong to the pool and are guarded by
// its mutex; goAway is written by the connection's reader.
type conn struct {
	cc *http.ClientConn
	// epoch is the pool's at the time of the dial.
	epoch uint64
	// capacity is how many requests at once this connection may carry.
	capacity int

	inFlight int
	warm     bool // an answer has come in
	draining bool // no new requests
	// coldSince is when the first request was let onto the connection, zero before; reminder goes off when its answer is overdue.
	coldSince time.Time
	reminder  *time.Timer
	// shutSince is when the connection was first seen idle and yet full, zero while it is not.
	shutSince time.Time

	watch *watchedConn
}

func (c *conn) goneAway() (said string, gone bool) {
	if p := c.watch.goAway.Load(); p != nil {
		return *p, true
	}
	return "", false
}

// usable reports whether new requests may go out here.
func (c *conn) usable() bool {
	_, gone := c.goneAway()
	return !gone && !c.draining
}

// room reports whether one more request may go out now: the connection is
// good, we have not filled it as far as we fill any, and the server's own limit leaves a place.
//
// It asks for a place and does not reserve one. A reservation counts against
// the limit until its request begins, and when the server lowers the limit in between,
// those that hold one wait for each other to the end of their deadlines. Without, whoever comes too early
// waits inside RoundTrip for the next place.
func (c *conn) room() bool {
	limit := 1
	if c.warm {
		limit = c.capacity
	}
	if !c.usable() || c.inFlight >= limit {
		return false
	}
	free := c.cc.Available()
	if !c.warm && c.cc.InFlight() > 0 {
		free = 0 // one that was given up is not cleared away yet, and the server may allow no second
	}
	if free > 0 {
		c.shutSince = time.Time{}
	} else if c.inFlight == 0 && c.shutSince.IsZero() {
		c.shutSince = time.Now()
	}
	return free > 0 && c.inFlight < free+c.cc.InFlight()
}

// shut reports whether the connection takes nothing although nothing of ours is
// under way on it. For a moment that is normal, until the last stream is cleared away.
func (c *conn) shut() bool { return c.inFlight == 0 && !c.shutSince.IsZero() && c.usable() }

// dial opens a connection within the context. The TLS handshake is ours, so
// that the reader can watch what the server says when it goes away.
func (p *Pool) dial(ctx context.Context) (*conn, error) {
	o := p.o
	raw, err := (&net.Dialer{KeepAlive: keepAlive}).DialContext(ctx, "tcp", o.address())
	if err != nil {
		return nil, err
	}
	watch := &watchedConn{Conn: raw, raw: raw, tell: o.tell, kick: p.kick}
	watch.heard.Store(time.Now().UnixNano())
	proto := "http/1.1"
	if o.URL.Scheme == "https" {
		secured := tls.Client(raw, o.tlsConfig())
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, err
		}
		watch.Conn = secured
		proto = secured.ConnectionState().NegotiatedProtocol
	}
	c := &conn{watch: watch, capacity: 1}
	protocols := new(http.Protocols)
	switch {
	case proto == "h2":
		protocols.SetUnencryptedHTTP2(true) // in clear from here on: the encryption lies beneath
		c.capacity = o.PerConn
		watch.h2 = true
	case o.HTTP1:
		protocols.SetHTTP1(true)
	default:
		_ = watch.Close()
		return nil, errors.New("the server does not speak HTTP/2")
	}
	c.cc, err = clientConn(ctx, watch, protocols, o)
	if err != nil {
		_ = watch.Close()
		return nil, fmt.Errorf("start the HTTP connection: %w", err)
	}
	return c, nil
}

// clientConn speaks HTTP on a connection that is already there.
func clientConn(ctx context.Context, nc net.Conn, protocols *http.Protocols, o Options) (*http.ClientConn, error) {
	transport := &http.Transport{
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return nc, nil },
		Protocols:          protocols,
		HTTP2:              &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait},
		IdleConnTimeout:    o.Idle,
		DisableCompression: true,
	}
	return transport.NewClientConn(ctx, "http", o.address())
}

// watchedConn reads along to catch the debug data of a GOAWAY frame, which the
// HTTP/2 client drops in the very case that matters: a server that turns every
// new connection away because of the credential.
type watchedConn struct {
	net.Conn
	raw net.Conn
	h2  bool
	// tell and kick are the pool's; they are called without any lock.
	tell func(EventKind, string)
	kick func()

	goAway  atomic.Pointer[string]
	ended   atomic.Pointer[error] // why reading ended, nil while it goes on
	heard   atomic.Int64          // when something last came in, Unix nanoseconds
	closing atomic.Bool           // we end it
	lost    atomic.Bool           // that it broke has been told

	// Touched by Read alone, which has one caller.
	header  [frameHeader]byte
	have    int
	skip    uint32
	payload []byte // of the GOAWAY being read
}

const (
	frameHeader = 9
	goAwayFrame = 0x7
	goAwayFixed = 8
	// maxGoAway is how much of the frame is kept.
	maxGoAway = goAwayFixed + 512
)

// Read reads and watches.
func (w *watchedConn) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.heard.Store(time.Now().UnixNano())
	}
	if w.h2 {
		w.scan(b[:n])
	}
	if err != nil {
		w.ended.CompareAndSwap(nil, &err)
	}
	if err != nil && w.h2 && !w.closing.Load() {
		w.lose(ConnectionReset)
	}
	return n, err
}

// lose tells that the connection broke, unless that was told before or the server said goodbye.
func (w *watchedConn) lose(reason string) {
	if w.goAway.Load() == nil && w.lost.CompareAndSwap(false, true) {
		w.tell(ConnLost, reason)
	}
}

// silentSince reports whether nothing has come in since t.
func (w *watchedConn) silentSince(t time.Time) bool { return w.heard.Load() < t.UnixNano() }

func (w *watchedConn) scan(b []byte) {
	for len(b) > 0 {
		if w.skip > 0 {
			n := min(uint32(len(b)), w.skip)
			if w.payload != nil {
				w.payload = append(w.payload, b[:min(int(n), maxGoAway-len(w.payload))]...)
			}
			b, w.skip = b[n:], w.skip-n
			if w.skip == 0 {
				w.frameDone()
			}
			continue
		}
		n := copy(w.header[w.have:], b)
		b, w.have = b[n:], w.have+n
		if w.have < frameHeader {
			return
		}
		w.have = 0
		w.skip = binary.BigEndian.Uint32(w.header[:4]) >> 8
		if w.header[3] == goAwayFrame {
			w.payload = make([]byte, 0, min(w.skip, maxGoAway))
		}
		if w.skip == 0 {
			w.frameDone()
		}
	}
}

func (w *watchedConn) frameDone() {
	if w.payload == nil {
		return
	}
	var said struct {
		Reason string `json:"reason"`
	}
	if len(w.payload) > goAwayFixed {
		_ = json.Unmarshal(w.payload[goAwayFixed:], &said) // debug data that is no JSON says nothing
	}
	w.payload = nil
	old := w.goAway.Load()
	if old == nil || *old == "" {
		w.goAway.Store(&said.Reason)
	}
	if old == nil {
		w.tell(ConnGoAway, said.Reason)
		w.kick() // who waits for a place here waits in vain
	}
}

// Close says goodbye, but not for longer than closeWait. The HTTP client calls it too, when the
// connection was idle for too long or a ping was not answered.
func (w *watchedConn) Close() error {
	first := !w.closing.Swap(true)
	if first && w.h2 && w.silentSince(time.Now().Add(-pingAfter-pingWait)) {
		w.lose(Timeout)
	}
	force := time.AfterFunc(closeWait, func() { _ = w.raw.Close() })
	defer force.Stop()
	return w.Conn.Close()
}
