package worker

import (
	"context"
	"time"
)

// enqueue lines a due device up for its outlet, or for the read that finds its outlet. A queue that is as long as
// memory may be takes no more: its provider has been away for long, and the ladder comes round again.
func (h *hub) enqueue(e *entry) {
	if e.outlet != nil && len(e.outlet.queue) >= h.w.o.Memory {
		e.state.drop()
		h.settle(e, time.Now())
		return
	}
	e.queued = true
	e.ticket++
	p := place{entry: e, ticket: e.ticket}
	if e.outlet == nil {
		h.cold = append(h.cold, p)
		h.pumpCold()
		return
	}
	e.outlet.queue = append(e.outlet.queue, p)
	h.pump(e.outlet)
}

// place is a device's place in a queue, void once the device has left it.
type place struct {
	entry  *entry
	ticket uint32
}

// leave takes p's device out of its queue; false if it has left already, or what it waited for is over: the
// phone came by itself in the meantime.
func (h *hub) leave(p place) bool {
	e := p.entry
	if !e.queued || e.ticket != p.ticket {
		return false
	}
	e.queued = false
	now := time.Now()
	if at, ok := e.state.next(); ok && !at.After(now) {
		return true
	}
	h.settle(e, now)
	return false
}

// pumpCold starts reads for devices whose outlet is not known.
func (h *hub) pumpCold() {
	for !h.stopping && h.reading < h.w.o.Readers && len(h.cold) > 0 {
		p := h.cold[0]
		h.cold = h.cold[1:]
		if h.leave(p) {
			h.reading++
			h.look(p.entry)
		}
	}
	h.admit()
}

// admit tells the sweeps, other nodes' too, that their pages were taken in, once there is room for more: a start with a
// million devices waiting must not hold them all in memory.
func (h *hub) admit() {
	if len(h.cold) > coldPerReader*h.w.o.Readers {
		return
	}
	for _, taken := range h.sweeps {
		close(taken)
	}
	h.sweeps = nil
	if len(h.answers) > 0 {
		h.w.o.Hints.Hint(h.answers...)
		h.answers = nil
	}
}

// look reads the store for e in a goroutine; the answer is a lookedEvent.
func (h *hub) look(e *entry) {
	e.state.begin()
	h.working++
	go func() {
		ctx, cancel := context.WithTimeout(h.attempts, attemptLimit)
		defer cancel()
		waiting, device, err := h.w.o.Store.Waiting(ctx, e.id, time.Now())
		h.w.events <- lookedEvent{entry: e, waiting: waiting, device: device, err: err}
	}()
}
