package worker

import (
	"context"
	"time"

	"rouse/ident"
	"rouse/tokens"
)

// sample counts an answer about a token before anything follows from it, so that the one that makes it a wave
// is not believed either.
func (h *hub) sample(o *outlet, s sample, reason string, now time.Time) {
	f := o.family
	if s == noSample || f.deaths.holds(now) {
		return // what began before a pause does not end it
	}
	if s == badSample {
		f.refused = reason
	}
	trips, ends := f.breaker.note(s == badSample, now)
	switch {
	case trips:
		h.w.o.Log.Error("too many tokens are refused at once: none is given up, and the app's pushes pause", "app", o.key.App,
			"provider", o.key.Provider, "reason", f.refused)
		f.probed = 0
		h.open(&f.deaths, tokens.CauseMassDeath, f.refused, probes[0], now)
		h.exhume(f, now.Add(-waveWindow))
	case ends:
		h.shut(&f.deaths)
	}
}

// disbelieve gives no token up from now on: another node, or the process before this one, has seen a wave.
func (h *hub) disbelieve(f *family, wave tokens.Circuit) {
	if f.breaker.tripped {
		return
	}
	f.breaker = breaker{tripped: true}
	h.exhume(f, wave.OpenedAt.Add(-waveWindow))
}

// exhume takes back the deaths of a family since a time, however long the store takes for it. They are found in the store: the
// process that wrote them need not be this one.
func (h *hub) exhume(f *family, since time.Time) {
	key := f.deaths.key
	h.write(func(ctx context.Context) error {
		back, err := h.w.o.Tokens.TakeBackDeaths(ctx, key.App, key.Provider, since)
		for _, d := range back {
			h.w.events <- sparedEvent{device: d}
		}
		if err != nil {
			h.w.events <- buriedEvent{family: f, since: since}
		}
		return err
	})
}

type (
	// sparedEvent says that a token is not given up after all.
	sparedEvent struct{ device ident.Device }
	// buriedEvent says that deaths could not be taken back yet.
	buriedEvent struct {
		family *family
		since  time.Time
	}
	// diedEvent says that a death was written.
	diedEvent struct {
		family *family
		at     time.Time
	}
)

// buried tries again to take deaths back.
func (h *hub) buried(e buriedEvent, now time.Time) {
	h.timers.set(&timer{fire: func() {
		if !h.stopping {
			h.exhume(e.family, e.since)
		}
	}}, now.Add(storeRetry))
}

// died takes back at once what was decided before a wave and written after it.
func (h *hub) died(e diedEvent) {
	if e.family.breaker.tripped {
		h.exhume(e.family, e.at)
	}
}

// spared lets the ladder call for a device again.
func (h *hub) spared(e sparedEvent, now time.Time) {
	if d := h.devices[e.device]; d != nil {
		d.state.spare()
		h.settle(d, now)
	}
}

// flow ends the pause after a wave of refusals with the first push that is taken; what is refused from now on is watched.
func (h *hub) flow(f *family, now time.Time) {
	if !f.deaths.probing() || f.deaths.holds(now) {
		return
	}
	h.endPause(&f.deaths)
	f.deaths.watching = f.breaker.tripped
	h.note(&f.deaths)
	h.pumpAll(f)
}
