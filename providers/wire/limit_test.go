package wire

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// moody is an HTTP/2 server that changes its mind about how many streams it
// takes, as Apple does after refusals.
type moody struct {
	*raw
	refused atomic.Int64
}

func newMoody(t *testing.T) *moody {
	t.Helper()
	m := &moody{}
	m.raw = newRaw(t, func(_ int64, c net.Conn) { m.talk(c) })
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
	p := m.pool(func(o *Options) { unhurried(o); o.Slots, o.PerConn = 500, 500 })
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for range 1000 {
		all.Go(func() {
			if reply, err := send(ctx, p); err != nil || reply.Status != 200 {
				t.Errorf("%d %v", reply.Status, err)
			}
		})
	}
	all.Wait()
	if m.refused.Load() > 0 || m.conns.Load() != 1 {
		t.Errorf("over the limit %d times on %d connections, want never and one", m.refused.Load(), m.conns.Load())
	}
}
