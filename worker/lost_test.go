package worker_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"rouse/bus"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
	"rouse/worker"
)

// gappy is a bus that goes away for a while: what is said meanwhile nobody hears, and that is told once it is back.
type gappy struct {
	bus.Memory
	mu   sync.Mutex
	away bool // guarded by mu
	lost bool // guarded by mu: something was
}

// goes says whether the bus is away.
func (g *gappy) goes(away bool) {
	g.mu.Lock()
	g.away = away
	g.mu.Unlock()
	if !away {
		g.Hint()
	}
}

func (g *gappy) Listen(ctx context.Context, receive func([]messages.Hint, bool)) error {
	return g.Memory.Listen(ctx, func(hints []messages.Hint, lost bool) {
		g.mu.Lock()
		away, gap := g.away, g.lost
		g.lost = away
		g.mu.Unlock()
		if !away {
			receive(hints, lost || gap)
		}
	})
}

// The phone fetches and acks while the bus is away: its home believes that the wake is still outstanding, and the look that follows does not
// meet the phone, for which nothing waits.
func TestAnAnswerThatNobodyHeardHoldsBackNoLaterWake(t *testing.T) {
	g := &gappy{}
	atHome(t, func(h *home) {
		h.stop()
		h.bus = g
		h.startWith(worker.Options{})
		d := h.device(tokens.FCM)
		h.send(d.ID, messages.High)
		h.wants(1, "the first")
		g.goes(true)
		h.fetch(d.ID, true)
		g.goes(false)
		h.pass(3 * time.Second)
		h.send(d.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "the phone has answered, as the store knows")
		g.goes(true)
		h.bus.Hint(messages.Hint{Kind: messages.HintSeen, Device: d.ID})
		g.goes(false)
		h.pass(time.Second)
		h.send(d.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "this one it has not: the store is asked, and nobody pushed")
	})
}

// late is a bus that nobody can listen at before it opens.
type late struct {
	worker.Bus
	opens chan struct{}
}

func (l late) Listen(ctx context.Context, receive func([]messages.Hint, bool)) error {
	select {
	case <-l.opens:
		return l.Bus.Listen(ctx, receive)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A node accepts, and stores what was scheduled, as soon as it starts; it may come to listen only after that.
func TestWhatIsSaidBeforeAWorkerListensIsMadeUpForAtOnce(t *testing.T) {
	atHome(t, func(h *home) {
		scheduled, sent := h.device(tokens.FCM), h.device(tokens.FCM)
		h.fan(messages.Send{To: messages.Target{Device: scheduled.ID}, SendAt: time.Now().Add(time.Minute)})
		h.stop()
		h.pass(time.Minute)
		bus := late{h.bus, make(chan struct{})}
		h.startWith(worker.Options{Hints: bus})
		h.send(sent.ID, messages.High)
		h.pass(time.Second)
		close(bus.opens)
		h.pass(time.Second)
		h.oncePushed([]ident.Device{scheduled.ID, sent.ID})
	})
}
