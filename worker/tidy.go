package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"rouse/messages"
	"rouse/tokens"
)

// tidyGap is how often the hub lets go of ways to phones that nobody uses, and asks the store whether its circuits are
// still open: the hint of a new credential may have been lost, and of an app that is deleted there is none.
const tidyGap = time.Hour

// tidiedEvent brings the circuits that the store knows.
type tidiedEvent struct {
	// asked are those that were open in memory, as the store was last told.
	asked map[*circuit]tokens.Circuit
	known []tokens.Circuit
}

func (h *hub) tidy(now time.Time) {
	h.timers.set(&h.tidying, now.Add(tidyGap))
	if h.stopping {
		return
	}
	h.sweepOutlets(now)
	asked := map[*circuit]tokens.Circuit{}
	for _, c := range h.circuits() {
		if !c.noting && !same(tokens.Circuit{State: tokens.CircuitClosed}, c.noted) {
			asked[c] = c.noted
		}
	}
	if len(asked) == 0 {
		return
	}
	h.write(func(ctx context.Context) error {
		known, err := h.w.o.Circuits.Circuits(ctx, "")
		if err != nil {
			return fmt.Errorf("asking which circuits are open: %w", err)
		}
		h.w.events <- tidiedEvent{asked: asked, known: known}
		return nil
	})
}

// tidied treats a circuit that the store has closed as what it is: the app has put its credential, or is gone.
func (h *hub) tidied(e tidiedEvent, now time.Time) {
	for c, was := range e.asked {
		open := slices.ContainsFunc(e.known, func(n tokens.Circuit) bool { return n.Outlet == was.Outlet && n.Cause == was.Cause })
		if !open && !c.noting && c.noted == was {
			h.recredentialed(messages.Hint{App: c.key.App, Provider: string(c.key.Provider)}, now)
		}
	}
}

// circuits are all there are.
func (h *hub) circuits() []*circuit {
	all := make([]*circuit, 0, len(h.outlets)+2*len(h.families))
	for _, o := range h.outlets {
		all = append(all, &o.circuit)
	}
	for _, f := range h.families {
		all = append(all, &f.throttled, &f.deaths)
	}
	return all
}

// sweepOutlets forgets outlets and families that no device in memory refers to and that have nothing to remember: of
// apps that came and went none stays. What is forgotten is made again on its next use, unproven.
func (h *hub) sweepOutlets(now time.Time) {
	used := map[*outlet]bool{}
	for _, e := range h.devices {
		used[e.outlet], used[e.slot] = true, true
	}
	for key, o := range h.outlets {
		if !used[o] && o.idle(now) {
			h.timers.clear(&o.another)
			delete(h.outlets, key)
			o.family.outlets = slices.DeleteFunc(o.family.outlets, func(other *outlet) bool { return other == o })
		}
	}
	for key, f := range h.families {
		if len(f.outlets) == 0 && f.throttled.idle() && f.deaths.idle() && f.breaker.idle(now) {
			delete(h.families, key)
		}
	}
}

func (o *outlet) idle(now time.Time) bool {
	return o.inFlight == 0 && len(o.queue) == 0 && !o.thirsty && o.circuit.idle() && !now.Before(o.strangersFrom)
}

// idle reports whether pushes flow and the store knows it.
func (c *circuit) idle() bool {
	return c.now().State == tokens.CircuitClosed && same(c.now(), c.noted) && !c.noting && !c.unsure && c.again.index == 0
}

// idle reports whether nothing was seen for a window.
func (b *breaker) idle(now time.Time) bool {
	return !b.tripped && b.sum(slotOf(now)).all == 0
}
