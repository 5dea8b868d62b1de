package worker

import (
	"time"

	"rouse/tokens"
)

// outlet is the queue, the slots and the circuit of one way to phones. Each app has its own, so
// that a slow or broken provider of one app takes nothing from another. Owned by the hub.
type outlet struct {
	key      Outlet
	limit    int
	inFlight int
	queue    []place
	// until is when a paused outlet is tried again.
	until time.Time
	// pauses counts pauses in a row; above 0 one push at a time probes it.
	pauses int
	// failing is the reason noted in the store; empty while the credential works.
	failing string
	// epoch counts the credentials: what an older one's push comes back with says nothing of this one.
	epoch uint32
	timer timer
}

// free reports whether one more push may start.
func (o *outlet) free(now time.Time) bool {
	if now.Before(o.until) {
		return false
	}
	if o.pauses > 0 {
		return o.inFlight == 0
	}
	return o.inFlight < o.limit
}

// pause stops the outlet until then; true if it was not paused already. Of many
// pushes that fail together only the first lengthens the schedule.
func (o *outlet) pause(until, now time.Time) bool {
	if now.Before(o.until) {
		return false
	}
	o.until = until
	o.pauses++
	return true
}

// resume ends the pauses. It reports whether there were any.
func (o *outlet) resume() bool {
	was := o.pauses > 0
	o.until, o.pauses = time.Time{}, 0
	return was
}

// outletOf returns the outlet for a device, made on first use.
func (h *hub) outletOf(d tokens.Device) *outlet {
	key := tokens.OutletOf(d)
	if o, ok := h.outlets[key]; ok {
		return o
	}
	limit := h.w.o.InFlight
	if limit <= 0 {
		limit = apnsInFlight
		if d.Provider == tokens.FCM {
			limit = fcmInFlight
		}
	}
	o := &outlet{key: key, limit: limit}
	o.timer.fire = func() { h.pump(o) }
	h.outlets[key] = o
	return o
}
