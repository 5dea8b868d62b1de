package worker

import (
	"slices"
	"time"

	"rouse/tokens"
)

// tidyGap is how often the hub lets go of ways to phones that nobody uses.
const tidyGap = time.Hour

func (h *hub) tidy(now time.Time) {
	h.timers.set(&h.tidying, now.Add(tidyGap))
	h.sweepOutlets(now)
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
