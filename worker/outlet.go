package worker

import (
	"time"

	"rouse/tokens"
)

// outlet is the queue, the slots and the circuit of one way to phones. Each app has its own, so
// that a slow or broken provider of one app takes nothing from another. Owned by the hub.
type outlet struct {
	key      Outlet
	family   *family
	limit    int
	inFlight int
	queue    []place
	circuit  circuit
	// proven is whether the provider has taken this credential since it came, or since the process began. Until then
	// one push at a time tries: a wrong one must not be shown to Apple five hundred times.
	proven bool
	// tried is when the last push began while it was not proven, another is what lets a further one try if that one hangs.
	tried   time.Time
	another timer
	// lost counts the answers in a row that say that there is nothing at the other end.
	lost int
	// strangersFrom is when tokens of the other environment may be tried here again: the credential is not good for this one.
	strangersFrom time.Time
	// epoch counts the credentials: what an older one's push comes back with says nothing of this one.
	epoch uint32
	// thirsty is whether it waits in the hub's line for room among all.
	thirsty bool
}

const (
	// tryAnother is how long the push that is to prove a credential may hang until a further one tries, and maxTries how many
	// may: one connection that went dark must not hold up all of an app for a whole deadline.
	tryAnother = 2 * time.Second
	maxTries   = 4
)

// tries notes a push that may prove the credential.
func (h *hub) tries(o *outlet, now time.Time) {
	if o.proven {
		return
	}
	o.tried = now
	h.timers.set(&o.another, now.Add(tryAnother))
}

// free reports whether one more push may start, as far as this outlet and its app are concerned.
func (o *outlet) free(now time.Time) bool { return o.admits(now, 0) }

// admits is free for who holds own of the slots already: what allowed them may be over.
func (o *outlet) admits(now time.Time, own int) bool {
	f := o.family
	if o.circuit.holds(now) || f.throttled.holds(now) || f.deaths.holds(now) {
		return false
	}
	if f.throttled.probing() || f.deaths.probing() {
		return f.inFlight == own
	}
	others := o.inFlight - own
	switch {
	case o.circuit.probing():
		return others == 0
	case !o.proven:
		return others == 0 || others < maxTries && now.Sub(o.tried) >= tryAnother
	}
	return others < o.limit
}

// takesStrangers reports whether tokens of the other environment may be tried here: they are no reason to show a
// credential that is refused.
func (o *outlet) takesStrangers(now time.Time) bool {
	refused := o.circuit.probing() && o.circuit.cause == tokens.CauseCredential
	return !refused && !now.Before(o.strangersFrom)
}

// until returns when the last of the pauses ends that hold o back.
func (o *outlet) until() time.Time {
	return later(o.circuit.ends(), later(o.family.throttled.ends(), o.family.deaths.ends()))
}

// outletOf returns the outlet for a device, made on first use.
func (h *hub) outletOf(d tokens.Device) *outlet { return h.outlet(tokens.OutletOf(d)) }

func (h *hub) outlet(key tokens.Outlet) *outlet {
	if o, ok := h.outlets[key]; ok {
		return o
	}
	limit := h.w.o.InFlight
	if limit <= 0 {
		limit = apnsInFlight
		if key.Provider == tokens.FCM {
			limit = fcmInFlight
		}
	}
	f := h.familyOf(key)
	o := &outlet{key: key, family: f, limit: limit}
	h.circuit(&o.circuit, key, "", func() { h.pump(o) })
	o.another.fire = func() { h.pump(o) }
	h.outlets[key] = o
	f.outlets = append(f.outlets, o)
	return o
}

// room reports whether o may take one more of the places that all share. Where none is left, each outlet still has a few of its
// own: apps whose provider hangs cannot take them from the others.
func (h *hub) room(o *outlet) bool {
	return h.inFlight < h.w.o.Total || o.inFlight < outletFloor
}

// pump starts work for an outlet as far as its slots, its circuits and the room among all allow.
func (h *hub) pump(o *outlet) {
	now := time.Now()
	for !h.stopping && len(o.queue) > 0 && o.free(now) {
		if !h.room(o) {
			h.lineUp(o)
			return
		}
		p := o.queue[0]
		o.queue = o.queue[1:]
		if h.leave(p) {
			h.hold(p.entry, o)
			h.look(p.entry)
		}
	}
}

// lineUp puts an outlet behind the others that wait for room among all.
func (h *hub) lineUp(o *outlet) {
	if !o.thirsty {
		o.thirsty = true
		h.thirsty = append(h.thirsty, o)
	}
}

// next lets outlets that wait for room have it, one place each in turn.
func (h *hub) next() {
	for n := len(h.thirsty); n > 0 && h.inFlight < h.w.o.Total; n-- {
		o := h.thirsty[0]
		h.thirsty = h.thirsty[1:]
		o.thirsty = false
		h.one(o)
	}
}

// one starts at most one push of an outlet; if it could take more, it lines up again.
func (h *hub) one(o *outlet) {
	now := time.Now()
	for !h.stopping && len(o.queue) > 0 && o.free(now) {
		p := o.queue[0]
		o.queue = o.queue[1:]
		if h.leave(p) {
			h.hold(p.entry, o)
			h.look(p.entry)
			if len(o.queue) > 0 {
				h.lineUp(o)
			}
			return
		}
	}
}

// hold gives e one of the outlet's slots.
func (h *hub) hold(e *entry, o *outlet) {
	e.slot = o
	o.inFlight++
	o.family.inFlight++
	h.inFlight++
	h.w.metrics.inFlight.WithLabelValues(string(o.key.Provider)).Inc()
}

// release gives back what e's work held, and lets the next one start.
func (h *hub) release(e *entry) {
	held := e.slot
	e.slot = nil
	h.free(held)
}

// free takes back a slot, or, for nil, the place of a cold read.
func (h *hub) free(held *outlet) {
	if held == nil {
		h.reading--
		h.pumpCold()
		return
	}
	held.inFlight--
	held.family.inFlight--
	h.inFlight--
	h.w.metrics.inFlight.WithLabelValues(string(held.key.Provider)).Dec()
	h.next() // those who wait for room first: whoever frees a place does not take it again before them
	if f := held.family; f.throttled.probing() || f.deaths.probing() {
		h.pumpAll(f)
		return
	}
	h.pump(held)
}
