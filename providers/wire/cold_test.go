package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
)

// Whoever gives up on a connection that has not said yet how much it takes leaves it to the next only when the server was told: it may
// take no second.
func TestNobodyComesBeforeTheGoodbyeOfTheFirst(t *testing.T) {
	t.Parallel()
	for range 50 { // it depends on who is faster
		begun, early := make(chan struct{}), make(chan bool, 1)
		s := newRaw(t, func(n int64, c net.Conn) {
			if n == 1 {
				early <- comesEarly(c, begun)
			} else {
				polite(c) // the machine is so busy that the first was given up
			}
		})
		p := s.pool(func(*Options) {})
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { _, err := send(ctx, p); first <- err }()
		<-begun
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up was told %v", err)
		}
		if _, err := send(t.Context(), p); err != nil {
			t.Errorf("the next was told %v", err)
		}
		p.Close()
		if <-early {
			t.Fatal("a second request came before the end of the first")
		}
	}
}

// comesEarly tells of the first request when it has begun, answers the second, says how much it takes only after the first has ended, and
// returns whether the second came before that.
func comesEarly(c net.Conn, begun chan<- struct{}) (early bool) {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return false
	}
	p := peer{c, http2.NewFramer(c, c)}
	var ended bool
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return early
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			early = early || f.StreamID > 1 && !ended
		case *http2.RSTStreamFrame:
			ended = true
			_ = p.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
			_ = p.WriteSettingsAck()
		case *http2.PingFrame:
			_ = p.WritePing(true, f.Data)
		case *http2.DataFrame:
			switch {
			case !f.StreamEnded():
			case f.StreamID == 1:
				close(begun)
			default:
				p.answer(f.StreamID)
			}
		}
	}
}
