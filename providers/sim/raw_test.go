package sim_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"rouse/providers/sim"
)

// raw is an HTTP/2 client that sends just the frames it is told to.
type raw struct {
	t       *testing.T
	conn    *tls.Conn
	framer  *http2.Framer
	encoder *hpack.Encoder
	buffer  bytes.Buffer
}

// dialRaw connects, sends the preface and these settings, and acknowledges the server's.
func dialRaw(t *testing.T, s *sim.Sim, settings ...http2.Setting) *raw {
	t.Helper()
	c := dialSilent(t, s, s.APNsURL())
	if _, err := io.WriteString(c.conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c.must(c.framer.WriteSettings(settings...))
	return c
}

// dialSilent connects and says nothing beyond TLS.
func dialSilent(t *testing.T, s *sim.Sim, to string) *raw {
	t.Helper()
	config := trust(t, s)
	config.NextProtos = []string{"h2"}
	return dialTLS(t, to, config)
}

// dialWith connects with this TLS configuration, and sends the preface.
func dialWith(t *testing.T, to string, config *tls.Config) *raw {
	t.Helper()
	c := dialTLS(t, to, config)
	_, err := io.WriteString(c.conn, http2.ClientPreface)
	c.must(err)
	c.must(c.framer.WriteSettings())
	return c
}

func dialTLS(t *testing.T, to string, config *tls.Config) *raw {
	t.Helper()
	where, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", where.Host, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := &raw{t: t, conn: conn, framer: http2.NewFramer(conn, conn)}
	c.encoder = hpack.NewEncoder(&c.buffer)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return c
}

func (c *raw) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// headers opens a stream for a push.
func (c *raw) headers(id uint32, a *apple, end bool, extra ...hpack.HeaderField) {
	c.t.Helper()
	c.buffer.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "sim"},
		{Name: ":path", Value: "/3/device/" + a.token}, {Name: "authorization", Value: a.bearer},
		{Name: "apns-topic", Value: topic}, {Name: "apns-push-type", Value: "alert"},
	}, extra...) {
		c.must(c.encoder.WriteField(f))
	}
	c.must(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.buffer.Bytes(), EndHeaders: true, EndStream: end}))
}

func (c *raw) push(id uint32, a *apple) {
	c.t.Helper()
	c.headers(id, a, false)
	c.must(c.framer.WriteData(id, true, []byte(body)))
}

// next reads frames until one of the wanted type comes.
func next[F http2.Frame](c *raw) F {
	c.t.Helper()
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			var zero F
			c.t.Fatalf("waiting for a %T: %v", zero, err)
		}
		if wanted, ok := f.(F); ok {
			return wanted
		}
	}
}

// limit reads SETTINGS until one announces MAX_CONCURRENT_STREAMS.
func (c *raw) limit() uint32 {
	c.t.Helper()
	for {
		if v, ok := next[*http2.SettingsFrame](c).Value(http2.SettingMaxConcurrentStreams); ok {
			return v
		}
	}
}

func (c *raw) status(id uint32) string {
	c.t.Helper()
	f := next[*http2.MetaHeadersFrame](c)
	if f.StreamID != id {
		c.t.Fatalf("an answer on stream %d, want %d", f.StreamID, id)
	}
	return f.PseudoValue("status")
}

// ended reads until the connection does, and returns the GOAWAY that came before, nil if none did.
func (c *raw) ended() *http2.GoAwayFrame {
	c.t.Helper()
	var goaway *http2.GoAwayFrame
	for {
		f, err := c.framer.ReadFrame()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			c.t.Fatal("the connection stayed open")
		}
		if err != nil {
			return goaway
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			copied := *g
			goaway = &copied
		}
	}
}

func TestAPNsAnnouncesItsSettings(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	c := dialRaw(t, s)
	settings := next[*http2.SettingsFrame](c)
	for id, want := range map[http2.SettingID]uint32{
		http2.SettingHeaderTableSize: 4096, http2.SettingMaxConcurrentStreams: 1, http2.SettingInitialWindowSize: 65535,
		http2.SettingMaxFrameSize: 16384, http2.SettingMaxHeaderListSize: 8000,
	} {
		if got, ok := settings.Value(id); !ok || got != want {
			t.Errorf("%v is %d, want %d", id, got, want)
		}
	}
	if !next[*http2.SettingsFrame](c).IsAck() {
		t.Error("our SETTINGS were not acknowledged")
	}
	c.must(c.framer.WritePing(false, [8]byte{1, 2, 3}))
	if ping := next[*http2.PingFrame](c); !ping.IsAck() || ping.Data != [8]byte{1, 2, 3} {
		t.Errorf("ping answered with %v", ping)
	}
}

func TestAPNsRefusesASecondStreamUntilAuthenticated(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	c := dialRaw(t, s)
	if n := c.limit(); n != 1 {
		t.Fatalf("limit %d", n)
	}
	c.headers(1, a, false)
	c.headers(3, a, false) // the first is still open
	if r := next[*http2.RSTStreamFrame](c); r.StreamID != 3 || r.ErrCode != http2.ErrCodeRefusedStream {
		t.Fatalf("%v", r)
	}
	if stats := s.Stats().APNs; stats.RefusedStreams != 1 || stats.Violations != 0 {
		t.Errorf("before the acknowledgement it is no violation: %+v", stats)
	}
	c.must(c.framer.WriteData(1, true, []byte(body)))
	if n := c.limit(); n != 1000 {
		t.Fatalf("limit after authentication %d", n)
	}
	if got := c.status(1); got != "200" {
		t.Fatalf("status %s", got)
	}
	c.headers(5, a, false)
	c.headers(7, a, false)
	c.must(c.framer.WriteData(7, true, []byte(body)))
	if got := c.status(7); got != "200" {
		t.Fatalf("status %s", got)
	}
}

func TestAPNsRefusalDoesNotRaiseTheLimit(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	a.bearer = "bearer nonsense"
	c := dialRaw(t, s)
	c.push(1, a)
	if got := c.status(1); got != "403" {
		t.Fatalf("status %s", got)
	}
	c.headers(3, a, false)
	c.headers(5, a, false)
	if r := next[*http2.RSTStreamFrame](c); r.StreamID != 5 || r.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("%v", r)
	}
}

func TestAPNsStrictEndsConnectionsOverTheLimit(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{Strict: true})
	a := newApple(t, s)
	c := dialRaw(t, s)
	c.limit()
	c.must(c.framer.WriteSettingsAck())
	c.headers(1, a, false)
	c.headers(3, a, false)
	goaway := c.ended()
	if goaway == nil || !strings.Contains(string(goaway.DebugData()), "Maximum active streams") {
		t.Errorf("%v", goaway)
	}
	if v := s.Stats(); v.APNs.Violations != 1 || !strings.Contains(v.Violations[0], "MAX_CONCURRENT_STREAMS") {
		t.Errorf("%+v", v)
	}
}

func TestAPNsObeysTheClientsWindow(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	a.bearer = "bearer nonsense"
	c := dialRaw(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5})
	c.push(1, a)
	if got := c.status(1); got != "403" {
		t.Fatalf("status %s", got)
	}
	var got []byte
	for {
		data := next[*http2.DataFrame](c)
		if len(data.Data()) > 5 {
			t.Fatalf("%d bytes into a window of 5", len(data.Data()))
		}
		got = append(got, data.Data()...)
		if data.StreamEnded() {
			break
		}
		c.must(c.framer.WriteWindowUpdate(1, 5))
	}
	equalJSON(t, got, []byte(`{"reason":"InvalidProviderToken"}`))
}

// TestAPNsGivesTheWindowBack sends more than the connection's window in all.
func TestAPNsGivesTheWindowBack(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	for range 40 {
		if got := a.push(ask{body: padded(4000)}); got.status != 200 {
			t.Fatalf("%+v", got)
		}
	}
	if n := s.Stats().APNs.ConnectionsOpened; n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestAPNsEndsConnectionsThatBreakHTTP2(t *testing.T) {
	t.Parallel()
	breaks := map[string]func(c *raw, a *apple){
		"even stream":      func(c *raw, a *apple) { c.push(2, a) },
		"stream goes back": func(c *raw, a *apple) { c.push(5, a); c.push(3, a) },
		"data out of thin air": func(c *raw, a *apple) {
			c.must(c.framer.WriteData(9, true, []byte(body)))
		},
		"frame too large": func(c *raw, a *apple) {
			c.headers(1, a, false)
			c.must(c.framer.WriteData(1, true, make([]byte, 20000)))
		},
		"push promise": func(c *raw, a *apple) {
			c.must(c.framer.WriteRawFrame(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, []byte{0, 0, 0, 2}))
		},
	}
	for name, breakIt := range breaks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, sim.Options{})
			c := dialRaw(t, s)
			breakIt(c, newApple(t, s))
			if goaway := c.ended(); goaway == nil || goaway.ErrCode == http2.ErrCodeNo {
				t.Errorf("GOAWAY %v", goaway)
			}
			if n := s.Stats().APNs.Violations; n == 0 {
				t.Error("nobody counted it")
			}
		})
	}
}

func TestAPNsResetsBadStreamsAndGoesOn(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	c := dialRaw(t, s)
	c.headers(1, a, true, hpack.HeaderField{Name: "Upper", Value: "case"})
	if r := next[*http2.RSTStreamFrame](c); r.StreamID != 1 || r.ErrCode != http2.ErrCodeProtocol {
		t.Fatalf("%v", r)
	}
	long := strings.Repeat("x", 5000)
	c.headers(3, a, true, hpack.HeaderField{Name: "one", Value: long}, hpack.HeaderField{Name: "two", Value: long})
	if r := next[*http2.RSTStreamFrame](c); r.StreamID != 3 || r.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Fatalf("%v", r)
	}
	c.push(5, a)
	if got := c.status(5); got != "200" {
		t.Errorf("status %s", got)
	}
	if n := s.Stats().APNs.Violations; n != 2 {
		t.Errorf("%d violations", n)
	}
}

func TestAPNsClosesWhatIsNotHTTP2(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	c := dialSilent(t, s, s.APNsURL())
	if _, err := io.WriteString(c.conn, "POST /3/device/x HTTP/1.1\r\nHost: sim\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	c.ended()
	for _, protocols := range [][]string{nil, {"http/1.1"}} {
		config := trust(t, s)
		config.NextProtos = protocols
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.APNsURL(), "https://"), config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("ALPN %v: %v, want the end of the connection", protocols, err)
		}
	}
	waitFor(t, "three violations", func() bool { return s.Stats().APNs.Violations == 3 })
}

func TestAPNsForgetsStreamsTheClientGivesUp(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	c := dialRaw(t, s)
	for id := uint32(1); id < 20; id += 2 { // the limit is 1: each must be gone before the next
		c.headers(id, a, false)
		c.must(c.framer.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	c.push(21, a)
	if got := c.status(21); got != "200" {
		t.Errorf("status %s", got)
	}
	if n := s.Stats().APNs.RefusedStreams; n != 0 {
		t.Errorf("%d refused", n)
	}
}
