package sim

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// flush sends what the frames written so far left in the buffer.
func (c *apnsConn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushLocked()
}

func (c *apnsConn) flushLocked() {
	if c.hungUp || c.out.Buffered() == 0 {
		return
	}
	_ = c.wire.SetWriteDeadline(time.Now().Add(writeLimit))
	if c.out.Flush() != nil {
		_ = c.wire.Close() // the reading side notices
	}
}

// onSettings takes over what concerns our answers, and acknowledges.
func (c *apnsConn) onSettings(f *http2.SettingsFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.IsAck() {
		c.unacked--
		return nil
	}
	if v, ok := f.Value(http2.SettingHeaderTableSize); ok {
		c.encoder.SetMaxDynamicTableSize(min(v, headerTable))
	}
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
		for _, st := range c.streams {
			st.window += int64(v) - c.initial
		}
		c.initial = int64(v)
		c.resume()
	}
	if !c.hungUp {
		_ = c.framer.WriteSettingsAck()
	}
	return nil
}

// onWindow lets answers go on that waited for the client to make room.
func (c *apnsConn) onWindow(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		c.window += int64(f.Increment)
	} else if st := c.streams[f.StreamID]; st != nil {
		st.window += int64(f.Increment)
	}
	c.resume()
	return nil
}

// resume sends what waits for window, oldest stream first.
func (c *apnsConn) resume() {
	var waiting []uint32
	for id, st := range c.streams {
		if len(st.unsent) > 0 {
			waiting = append(waiting, id)
		}
	}
	slices.Sort(waiting)
	for _, id := range waiting {
		c.pump(c.streams[id])
	}
}

// raise lets the client open more streams, with the first answer to a request
// whose JWT was valid. It goes out before that answer, so that a client that
// waited for it knows the limit, and one that did not runs into refused streams
// for as long as the answer takes.
func (c *apnsConn) raise() {
	if c.raised || c.hungUp {
		return
	}
	c.announce(streamsAfterAuth)
}

// announce changes MAX_CONCURRENT_STREAMS. Streams that are open stay so.
func (c *apnsConn) announce(limit int) {
	c.limit, c.raised = limit, true
	if c.hungUp {
		return
	}
	c.unacked++
	_ = c.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(limit)})
}

// pace slows the connection down for a refusal, and lets it go on after an
// acceptance. True means that this was one refusal too many.
func (c *apnsConn) pace(ans answer) bool {
	settings := c.srv.sim.settings.Load()
	if !settings.Throttle4xx || !c.raised {
		return false
	}
	switch {
	case ans.status == http.StatusOK && c.slowed:
		c.slowed = false
		c.announce(streamsAfterAuth)
	case ans.status >= 400 && ans.status < 500 && ans.status != http.StatusGone:
		if !c.slowed {
			c.slowed = true
			c.announce(1)
		}
		c.errors++
		if ans.reason == "BadDeviceToken" {
			c.errors++
		}
	}
	return c.errors >= settings.ThrottleErrors
}

// sendHeaders begins an answer.
func (c *apnsConn) sendHeaders(st *apnsStream, status int, fields []hpack.HeaderField, end bool) {
	if c.hungUp || c.streams[st.id] != st {
		return
	}
	c.encoded.Reset()
	_ = c.encoder.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})
	for _, field := range fields {
		_ = c.encoder.WriteField(field)
	}
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: st.id, BlockFragment: c.encoded.Bytes(), EndHeaders: true, EndStream: end,
	})
	if end {
		c.endStream(st.id)
	}
}

// sendBody adds to the body of an answer; last marks its end.
func (c *apnsConn) sendBody(st *apnsStream, body []byte, last bool) {
	st.unsent = append(st.unsent, body...)
	st.ended = st.ended || last
	c.pump(st)
}

// pump sends as much of a body as the client has room for.
func (c *apnsConn) pump(st *apnsStream) {
	for c.streams[st.id] == st && !c.hungUp {
		n := max(0, min(int64(len(st.unsent)), c.window, st.window, frameLimit))
		end := st.ended && int(n) == len(st.unsent)
		if n == 0 && !end {
			return
		}
		_ = c.framer.WriteData(st.id, end, st.unsent[:n])
		st.unsent, c.window, st.window = st.unsent[n:], c.window-n, st.window-n
		if end {
			c.endStream(st.id)
		}
	}
}

// resetStream ends the stream of a bad frame.
func (c *apnsConn) resetStream(id uint32, code http2.ErrCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newest = max(c.newest, id)
	c.reset(id, code)
}

// reset ends one stream with RST_STREAM. The caller holds mu.
func (c *apnsConn) reset(id uint32, code http2.ErrCode) {
	if !c.hungUp {
		_ = c.framer.WriteRSTStream(id, code)
	}
	c.endStream(id)
}

// endStream forgets a stream. The last one of a draining connection takes the
// connection with it.
func (c *apnsConn) endStream(id uint32) {
	if st := c.streams[id]; st != nil {
		delete(c.streams, id)
		close(st.gone)
	}
	c.leave()
}

// leave hangs up if GOAWAY was said and nothing is under way any more.
func (c *apnsConn) leave() {
	if c.draining && !c.staying && len(c.streams) == 0 {
		c.hangUp()
	}
}

func (c *apnsConn) dropStreams() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hungUp = true
	for id, st := range c.streams {
		delete(c.streams, id)
		close(st.gone)
	}
}

// goaway says that streams above last will not be looked at, drops them, and lets
// the others finish, or does with the connection what the action wants.
func (c *apnsConn) goaway(last uint32, act Action) {
	if c.hungUp {
		return
	}
	_ = c.framer.WriteGoAway(last, act.errorCode(), []byte(act.Debug))
	c.draining, c.staying = true, act.Then == ThenStay
	if act.Then == ThenClose {
		c.hangUp()
		return
	}
	for id, st := range c.streams {
		if id > last {
			delete(c.streams, id)
			close(st.gone)
		}
	}
	c.leave()
}

// hangUp ends the writing side in order: what was written must reach the client,
// and closing at once with input unread would make the kernel send a reset
// instead. Reading goes on until the client hangs up too, or for lingerLimit.
func (c *apnsConn) hangUp() {
	if c.hungUp {
		return
	}
	c.flushLocked()
	c.hungUp, c.draining = true, true
	_ = c.secure.CloseWrite()
	c.wire.closeWrite()
	_ = c.wire.SetReadDeadline(time.Now().Add(lingerLimit))
}

// reasonJSON is the body of a refusal.
func reasonJSON(reason string, at time.Time, asText bool) []byte {
	body := struct {
		Reason    string `json:"reason"`
		Timestamp any    `json:"timestamp,omitempty"`
	}{Reason: reason}
	if ms := at.UnixMilli(); !at.IsZero() && asText {
		body.Timestamp = strconv.FormatInt(ms, 10)
	} else if !at.IsZero() {
		body.Timestamp = ms
	}
	data, _ := json.Marshal(body)
	return data
}
