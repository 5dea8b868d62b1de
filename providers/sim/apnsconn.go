package sim

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What the fake Apple announces, and how patient it is.
const (
	streamsUntilAuth = 1
	streamsAfterAuth = 1000
	headerTable      = 4096
	frameLimit       = 16384
	headerListLimit  = 8000
	windowSize       = 65535
	bodyKept         = 64 << 10 // more of a body is read and not kept
	handshakeLimit   = 10 * time.Second
	writeLimit       = 10 * time.Second
	lingerLimit      = time.Second // for the client to read what was written before a hang-up
)

// apnsServer is one environment of the fake Apple. It frames HTTP/2 itself: a
// ready-made server can neither change SETTINGS nor choose a GOAWAY's last stream.
type apnsServer struct {
	sim     *Sim
	sandbox bool
}

func (s *apnsServer) environment() string {
	if s.sandbox {
		return Sandbox
	}
	return Production
}

// serve accepts until the listener closes.
func (s *apnsServer) serve(l net.Listener) {
	config := s.sim.authority.config("h2")
	config.ClientAuth = tls.RequestClientCert
	config.GetConfigForClient = s.sim.greet
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.sim.log.Warn("simulator: accept failed", "error", err)
			continue
		}
		s.sim.wg.Go(func() { s.serveConn(c.(*wire), config) })
	}
}

// serveConn shakes hands and runs the connection to its end.
func (s *apnsServer) serveConn(w *wire, config *tls.Config) {
	defer func() { _ = w.Close() }()
	secure := tls.Server(w, config)
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if !w.stalled() { // one that stalls ends with the client, or with the Sim
		ctx, cancel = context.WithTimeout(ctx, handshakeLimit)
	}
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		s.sim.log.Debug("simulator: apns handshake failed", "connection", w.number, "error", err)
		return
	}
	if secure.ConnectionState().NegotiatedProtocol != "h2" {
		if w.greeting.Fault != FaultHTTP1Only {
			s.sim.journal.violation(APNs, "the client did not offer h2 in ALPN")
		}
		return
	}
	newAPNsConn(s, w, secure).run()
}

// apnsConn is one HTTP/2 connection. The goroutine in run reads, and alone uses
// in, the reading half of framer, and who; everything below mu may be touched by
// late answers too.
type apnsConn struct {
	srv    *apnsServer
	wire   *wire
	secure *tls.Conn
	in     *bufio.Reader
	framer *http2.Framer
	who    session
	over   chan struct{} // closed when run returns

	mu       sync.Mutex
	out      *bufio.Writer
	encoder  *hpack.Encoder
	encoded  bytes.Buffer
	streams  map[uint32]*apnsStream
	newest   uint32 // the highest stream id seen
	limit    int    // MAX_CONCURRENT_STREAMS as last sent
	raised   bool   // the limit no longer waits for a valid JWT
	unacked  int    // SETTINGS frames the client has not acknowledged
	window   int64  // what the client lets us send on the connection
	initial  int64  // the client's initial window of a stream
	draining bool   // GOAWAY was sent: no new streams, hang up after the last
	staying  bool   // the hanging up after GOAWAY is left to the client
	errors   int    // refusals, as Settings.Throttle4xx counts them
	slowed   bool   // one stream only, for a refusal
	hungUp   bool   // nothing is written any more
}

// apnsStream is one open stream: first a request coming in, then an answer going out.
type apnsStream struct {
	id     uint32
	fields []hpack.HeaderField
	body   []byte
	asked  bool          // the request is complete
	window int64         // what the client lets us send
	unsent []byte        // answer body that waits for window
	ended  bool          // unsent is all there will be
	gone   chan struct{} // closed when the stream is over
}

func newAPNsConn(s *apnsServer, w *wire, secure *tls.Conn) *apnsConn {
	c := &apnsConn{
		srv: s, wire: w, secure: secure, over: make(chan struct{}),
		in: bufio.NewReaderSize(secure, 32<<10), out: bufio.NewWriterSize(secure, 32<<10),
		streams: map[uint32]*apnsStream{}, limit: streamsUntilAuth, window: windowSize, initial: windowSize,
	}
	if c.who.certificate = s.sim.authority.identify(secure.ConnectionState()); c.who.certificate.check(s.environment()) == "" && c.who.certificate != nil {
		c.limit, c.raised = streamsAfterAuth, true
	}
	c.encoder = hpack.NewEncoder(&c.encoded)
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(headerTable, nil)
	c.framer.MaxHeaderListSize = headerListLimit
	c.framer.SetMaxReadFrameSize(frameLimit)
	return c
}

// run serves the connection until either side ends it.
func (c *apnsConn) run() {
	defer close(c.over)
	defer c.dropStreams()
	if !c.open() {
		return
	}
	for {
		if c.in.Buffered() == 0 {
			c.flush()
		}
		frame, err := c.framer.ReadFrame()
		if err == nil {
			err = c.handle(frame)
		}
		var stream http2.StreamError
		if errors.As(err, &stream) {
			c.violation("a bad frame: " + stream.Error())
			c.resetStream(stream.StreamID, stream.Code)
			continue
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// open reads the preface and sends the SETTINGS.
func (c *apnsConn) open() bool {
	greeting := c.wire.greeting
	if greeting.Fault == FaultLateSettings && !c.pause(cmp.Or(greeting.Delay, settingsLate)) {
		return false
	}
	window := uint32(windowSize)
	if greeting.Fault == FaultTinyWindow {
		window = tinyWindow
	}
	_ = c.wire.SetReadDeadline(time.Now().Add(handshakeLimit))
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.in, preface); err != nil || string(preface) != http2.ClientPreface {
		c.violation("the connection does not begin with the HTTP/2 preface")
		return false
	}
	_ = c.wire.SetReadDeadline(time.Time{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unacked++
	_ = c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingHeaderTableSize, Val: headerTable},
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(c.limit)},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window},
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: frameLimit},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: headerListLimit},
	)
	return true
}

// pause passes time before the connection's first word; false means that it is over.
func (c *apnsConn) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.wire.gone:
		return false
	}
}

// fail ends the connection for an error of reading; one that is the client's
// fault is counted, and told by GOAWAY.
func (c *apnsConn) fail(err error) {
	var connection http2.ConnectionError
	var code http2.ErrCode
	switch {
	case errors.As(err, &connection):
		code = http2.ErrCode(connection)
	case errors.Is(err, http2.ErrFrameTooLarge):
		code = http2.ErrCodeFrameSize
	default:
		return // the client left, or the Sim is closing
	}
	c.mu.Lock()
	if !c.hungUp {
		c.violation("a connection error: " + code.String())
		_ = c.framer.WriteGoAway(c.newest, code, nil)
	}
	c.hangUp()
	c.mu.Unlock()
	_, _ = io.Copy(io.Discard, c.in)
}

func (c *apnsConn) violation(sentence string) { c.srv.sim.journal.violation(APNs, sentence) }

// handle acts on one frame. An error ends the stream or the connection.
func (c *apnsConn) handle(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		return c.onHeaders(f)
	case *http2.DataFrame:
		return c.onData(f)
	case *http2.SettingsFrame:
		return c.onSettings(f)
	case *http2.WindowUpdateFrame:
		return c.onWindow(f)
	case *http2.RSTStreamFrame:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.endStream(f.StreamID)
	case *http2.PingFrame:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !f.IsAck() && !c.hungUp {
			_ = c.framer.WritePing(true, f.Data)
		}
	case *http2.PushPromiseFrame, *http2.ContinuationFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil // PRIORITY, GOAWAY of the client and unknown frames mean nothing here
}

// onHeaders opens a stream, refuses it, or takes trailers as the end of one.
func (c *apnsConn) onHeaders(f *http2.MetaHeadersFrame) error {
	st, err := c.openStream(f)
	if err != nil || st == nil {
		return err
	}
	if f.StreamEnded() {
		c.complete(st)
	}
	return nil
}

func (c *apnsConn) openStream(f *http2.MetaHeadersFrame) (*apnsStream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.streams[f.StreamID]; st != nil {
		if st.asked || !f.StreamEnded() {
			return nil, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
		return st, nil
	}
	if f.StreamID%2 == 0 || f.StreamID <= c.newest {
		return nil, http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if c.draining {
		return nil, nil // it came after the GOAWAY: the client knows that nobody looks at it
	}
	c.newest = f.StreamID
	if len(c.streams) >= c.limit {
		c.overLimit(f.StreamID)
		return nil, nil
	}
	if f.Truncated {
		return nil, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeEnhanceYourCalm}
	}
	st := &apnsStream{id: f.StreamID, fields: f.Fields, window: c.initial, gone: make(chan struct{})}
	c.streams[f.StreamID] = st
	c.srv.sim.journal.streams(APNs, len(c.streams))
	return st, nil
}

// overLimit refuses a stream. Before the client has acknowledged the limit it
// could not know better; afterwards it is a violation.
func (c *apnsConn) overLimit(id uint32) {
	c.srv.sim.journal.refused(APNs)
	if c.unacked == 0 {
		c.violation("more streams than MAX_CONCURRENT_STREAMS")
		if c.srv.sim.settings.Load().Strict {
			c.goaway(c.newest, Action{Debug: "Maximum active streams violated for this endpoint", Then: ThenClose})
			return
		}
	}
	_ = c.framer.WriteRSTStream(id, http2.ErrCodeRefusedStream)
}

// onData keeps the body and gives the window back at once.
func (c *apnsConn) onData(f *http2.DataFrame) error {
	c.mu.Lock()
	st := c.streams[f.StreamID]
	idle := f.StreamID > c.newest && !c.draining
	if size := f.Header().Length; size > 0 && !c.hungUp {
		_ = c.framer.WriteWindowUpdate(0, size)
		if st != nil && !f.StreamEnded() {
			_ = c.framer.WriteWindowUpdate(f.StreamID, size)
		}
	}
	c.mu.Unlock()
	switch {
	case idle:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case st == nil:
		return nil // refused, reset or answered before
	case st.asked:
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	}
	if room := bodyKept - len(st.body); room > 0 {
		st.body = append(st.body, f.Data()[:min(room, len(f.Data()))]...)
	}
	if f.StreamEnded() {
		c.complete(st)
	}
	return nil
}

// complete turns a stream whose request is all there into a request.
func (c *apnsConn) complete(st *apnsStream) {
	st.asked = true
	r := &apnsRequest{stream: st.id, header: make(map[string]string, len(st.fields)), body: st.body, at: time.Now()}
	for _, field := range st.fields {
		switch field.Name {
		case ":method":
			r.method = field.Value
		case ":path":
			r.path = field.Value
		case ":scheme", ":authority":
		default:
			r.add(field)
		}
	}
	r.token, _ = strings.CutPrefix(r.path, devicePath)
	c.serve(st, r)
}

// add takes one header; of a repeated one the first counts.
func (r *apnsRequest) add(field hpack.HeaderField) {
	secret := field.Name == "authorization"
	if _, twice := r.header[field.Name]; twice {
		if secret || strings.HasPrefix(field.Name, "apns-") {
			r.repeated = field.Name
		}
		return
	}
	r.header[field.Name] = field.Value
	if secret {
		r.bearer = field.Value
	}
}
