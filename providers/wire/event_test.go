package wire

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"rouse/providers/providertest"
)

// diary keeps events in order.
type diary struct {
	mu  sync.Mutex
	all []string
}

func (d *diary) note(e Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, strings.TrimSpace(fmt.Sprintf("%s %s", e.Kind, e.Reason)))
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all)
}

func TestEvents(t *testing.T) {
	t.Parallel()
	on := func(do func(p peer, stream uint32)) func(net.Conn) {
		return func(c net.Conn) {
			if p, ok := greet(c); ok {
				p.serve(func(stream uint32) { do(p, stream) })
			}
		}
	}
	for name, tt := range map[string]struct {
		talk func(net.Conn)
		want []string
	}{
		"answered": {polite, []string{"opened"}},
		"failed":   {func(c net.Conn) { _ = c.(interface{ NetConn() net.Conn }).NetConn().Close() }, []string{"failed connect_failed"}},
		"goaway": {on(func(p peer, _ uint32) {
			_ = p.WriteGoAway(0, http2.ErrCodeNo, []byte(`{"reason":"BadCertificate"}`))
			_ = p.WriteGoAway(0, http2.ErrCodeNo, []byte(`{"reason":"BadCertificate"}`))
			_ = p.Close()
		}), []string{"opened", "goaway BadCertificate"}},
		"goaway without a word": {on(func(p peer, stream uint32) {
			_ = p.WriteGoAway(stream, http2.ErrCodeNo, []byte("not a word <b>"))
			p.answer(stream)
			_ = p.Close()
		}), []string{"opened", "goaway"}},
		"refused":          {on(func(p peer, stream uint32) { _ = p.WriteRSTStream(stream, http2.ErrCodeRefusedStream) }), []string{"opened", "refused stream_refused"}},
		"calm":             {on(func(p peer, stream uint32) { _ = p.WriteRSTStream(stream, http2.ErrCodeEnhanceYourCalm) }), []string{"opened", "refused enhance_your_calm"}},
		"lost":             {on(func(p peer, _ uint32) { _ = p.Close() }), []string{"opened", "lost connection_reset"}},
		"lost in idleness": {on(func(p peer, stream uint32) { p.answer(stream); _ = p.Close() }), []string{"opened", "lost connection_reset"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d diary
			r := newRaw(t, func(_ int64, c net.Conn) { tt.talk(c) })
			p := r.pool(func(o *Options) { o.Observe = d.note })
			_, _ = send(t.Context(), p)
			waitFor(t, strings.Join(tt.want, ", "), func() bool { return len(d.read()) >= len(tt.want) })
			p.Close()
			r.Close()
			r.all.Wait()
			if got := d.read(); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestSilenceIsTold: a connection that falls silent is lost, whoever notices first.
func TestSilenceIsTold(t *testing.T) {
	t.Parallel()
	var d diary
	arrived := make(chan struct{})
	r := newRaw(t, func(_ int64, c net.Conn) {
		p, _ := greet(c)
		p.serve(func(stream uint32) {
			if stream == 1 {
				p.answer(stream)
			} else {
				close(arrived) // and not a word more
			}
		})
	})
	p := r.pool(func(o *Options) { unhurried(o); o.Observe, o.Fair = d.note, 1 })
	defer p.Close()
	if _, err := send(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	ctx, done := providertest.NewExpiring(t), make(chan error, 1)
	go func() { _, err := send(ctx, p); done <- err }()
	<-arrived
	ctx.Expire()
	if err := <-done; reasonOf(err) != Timeout {
		t.Error(err)
	}
	if got, want := d.read(), []string{"opened", "lost timeout"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}

	// An idle one whose ping was not answered is closed by the HTTP client.
	near, far := net.Pipe()
	defer far.Close()
	var idle diary
	w := &watchedConn{Conn: near, raw: near, h2: true, tell: func(k EventKind, reason string) { idle.note(Event{k, reason}) }, kick: func() {}}
	w.heard.Store(time.Now().Add(-pingAfter - pingWait - time.Second).UnixNano())
	_, _ = w.Close(), w.Close()
	if got, want := idle.read(), []string{"lost timeout"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
