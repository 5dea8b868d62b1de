package testkit

import (
	"context"
	"math/rand/v2"
	"sync"

	"rouse/messages"
)

// Bus is what rooms are given to hint and to listen; see package bus.
type Bus interface {
	Hint(hints ...messages.Hint)
	Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error
}

// Lossy is a bus that drops half of the hints and tells nobody, as a bus may: what holds with it is held by the store
// and the sweeps.
type Lossy struct {
	bus Bus
	mu  sync.Mutex
	die *rand.Rand // guarded by mu
}

// NewLossy makes bus lossy. The same seed and the same order of hints drop the same ones.
func NewLossy(bus Bus, seed uint64) *Lossy {
	return &Lossy{bus: bus, die: rand.New(rand.NewPCG(seed, seed))}
}

// Hint hands on about half of the hints.
func (l *Lossy) Hint(hints ...messages.Hint) {
	l.mu.Lock()
	var kept []messages.Hint
	for _, h := range hints {
		if l.die.IntN(2) == 0 {
			kept = append(kept, h)
		}
	}
	l.mu.Unlock()
	if len(kept) > 0 {
		l.bus.Hint(kept...)
	}
}

// Listen hears what was not dropped.
func (l *Lossy) Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error {
	return l.bus.Listen(ctx, receive)
}
