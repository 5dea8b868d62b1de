package worker

import (
	"context"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// duty is what one node does for all: climbing the ladder, ending lives, purging, warning.
const duty = "sweeps"

const (
	// rehomeCalm is how long after a change of homes devices that are not in memory yet wait: what their homes before were
	// pushing is in the store by then, and who polls has been told anew.
	rehomeCalm = time.Second
	// longestPoll bounds how long another node's word that a device polls may hold.
	longestPoll = 60 * time.Second
)

// alone is the only node.
type alone struct{}

func (alone) Mine(ident.Device) bool { return true }

func (alone) Lead(ctx context.Context, _ string, work func(context.Context) error) error {
	return work(ctx)
}

// Rehome tells the worker that the set of devices it is home to has changed, or may have: it forgets those that it is home to
// no longer, and looks in the store for what the homes before it knew of the others. It does not block.
func (w *Worker) Rehome() {
	select {
	case w.rehomed <- struct{}{}:
	default:
	}
}

// rehomedEvent says that homes have changed.
type rehomedEvent struct{}

// rehome forgets whose home is elsewhere now.
func (h *hub) rehome(now time.Time) {
	h.calm = now.Add(rehomeCalm)
	for _, e := range h.devices {
		if !h.keeps(e) {
			h.drop(e)
		}
	}
}

// mine reports whether this node is home to the device.
func (h *hub) mine(d ident.Device) bool { return h.w.o.Nodes.Mine(d) }

// keeps reports whether the device is this node's work.
func (h *hub) keeps(e *entry) bool { return e.fostered || h.mine(e.id) }

// drop forgets a device, now or when what is under way for it has come back.
func (h *hub) drop(e *entry) {
	h.timers.clear(&e.timer)
	e.queued = false
	if !e.state.sending && h.devices[e.id] == e {
		delete(h.devices, e.id)
	}
}

// concerns reports whether a hint about a device is for this node. For one that it took in although its home is
// elsewhere, signs of life are; what calls it anew is not.
func (h *hub) concerns(t messages.Hint, e *entry) bool {
	if e != nil && e.fostered && t.Kind != messages.HintNew && t.Kind != messages.HintToken && t.Kind != messages.HintDue {
		return true
	}
	return h.mine(t.Device)
}

// due takes in what another node's sweep found. It may be told many times: state.climb knows a call by its time.
func (h *hub) due(t messages.Hint, now time.Time) {
	h.swept(found{due: messages.Due{Device: t.Device, Class: t.Class, Seq: t.Seq, Age: t.Age}, at: t.Until}, now)
	h.answers = append(h.answers, messages.Hint{Kind: messages.HintTaken, Device: t.Device, Class: t.Class, Seq: t.Seq, Until: t.Until})
}
