package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// What one node learns of an app's way to phones holds for all: they open and close their circuits as the store's are. Who notes
// one says so on the bus; who hears that reads. Following writes nothing, so no word of it goes round.

const (
	// keepUpGap is how often all circuits are read: any hint may be lost.
	keepUpGap = time.Minute
	// followLag is how much longer than the node that began a pause the others wait, each up to twice as long: one of them tries
	// first, and the others hear what came of it.
	followLag = 2 * time.Second
)

// followedEvent brings the circuits of one app, or of all, as the store knows them.
type followedEvent struct {
	app   ident.App
	known []tokens.Circuit
	// asked are those in memory when the store was asked, as it was last told or heard of.
	asked map[*circuit]tokens.Circuit
	err   error
}

// keepUp follows all circuits now and then.
func (h *hub) keepUp() {
	t := &timer{}
	t.fire = func() {
		if h.stopping {
			return
		}
		h.keepUpWith("")
		h.timers.set(t, time.Now().Add(keepUpGap))
	}
	h.timers.set(t, time.Now().Add(keepUpGap))
}

// keepUpWith reads the circuits of an app, or of all for "". However often it is asked for, one read of them is under way at a time,
// and a last one after that.
func (h *hub) keepUpWith(app ident.App) {
	if h.stopping {
		return
	}
	if _, reading := h.following[app]; reading {
		h.following[app] = true
		return
	}
	if h.following == nil {
		h.following = map[ident.App]bool{}
	}
	h.following[app] = false
	asked := map[*circuit]tokens.Circuit{}
	for _, c := range h.circuits() {
		if app == "" || c.key.App == app {
			asked[c] = c.noted
		}
	}
	h.write(func(ctx context.Context) error {
		known, err := h.w.o.Circuits.Circuits(ctx, app)
		h.w.events <- followedEvent{app: app, known: known, asked: asked, err: err}
		if err != nil {
			return fmt.Errorf("reading the circuits: %w", err) // keepUp asks again
		}
		return nil
	})
}

// followed does as the store says. A circuit that this node has written of since it asked stays as it is: what it wrote is what
// the others follow, and the word of that brings it here again.
func (h *hub) followed(e followedEvent, now time.Time) {
	again := h.following[e.app]
	delete(h.following, e.app)
	if again {
		h.keepUpWith(e.app)
	}
	if e.err != nil {
		return
	}
	open := map[*circuit]tokens.Circuit{}
	for _, n := range e.known {
		c := h.circuitOf(n)
		// Of two causes in one place this node's own counts, else the one that lasts longer.
		if was, two := open[c]; !two || n.Cause == c.cause && c.now().State != tokens.CircuitClosed || was.Cause != c.cause && n.RetryAt.After(was.RetryAt) {
			open[c] = n
		}
	}
	for c, n := range open {
		if was, known := e.asked[c]; c.steady() && (!known || was == c.noted) {
			h.adopt(c, n, now)
		}
	}
	for c, was := range e.asked {
		if _, is := open[c]; !is && c.seen && c.steady() && was == c.noted {
			h.closedElsewhere(c, e.app == "", now)
		}
	}
}

// steady reports whether the store is not being told something else.
func (c *circuit) steady() bool { return !c.noting && !c.unsure }

// knows reports whether n is what the circuit is already. The store keeps milliseconds.
func (c *circuit) knows(n tokens.Circuit) bool {
	return n.State == c.noted.State && n.Cause == c.noted.Cause && n.Reason == c.noted.Reason && n.Pauses == c.noted.Pauses &&
		n.RetryAt.Sub(c.noted.RetryAt).Abs() < time.Second
}

// adopt makes a circuit what another node noted.
func (h *hub) adopt(c *circuit, n tokens.Circuit, now time.Time) {
	if c.knows(n) {
		c.seen = true
		return
	}
	if n.Cause == tokens.CauseMassDeath {
		h.disbelieve(h.familyOf(n.Outlet), n)
	}
	paused := c.probing()
	if n.State == tokens.CircuitWatching {
		h.endPause(c)
	}
	c.watching = false
	c.restored(n, now)
	h.show(c, c.now())
	if !c.probing() {
		c.timer.fire()
		return
	}
	if !paused {
		h.w.metrics.paused.WithLabelValues(string(n.Provider)).Inc()
		h.w.o.Log.Info("pushes pause as on another node", "app", n.App, "provider", n.Provider, "environment", n.Environment, "onward", n.Onward,
			"cause", n.Cause, "reason", n.Reason, "until", n.RetryAt)
	}
	c.lag = followLag + rand.N(followLag)
	h.timers.set(&c.timer, c.ends())
}

// closedElsewhere closes a circuit that another node has closed. One of a credential that closed without a word was closed by
// the app, which put its credential, or took it away.
func (h *hub) closedElsewhere(c *circuit, silently bool, now time.Time) {
	if silently && c.cause == tokens.CauseCredential {
		h.recredentialed(messages.Hint{App: c.key.App, Provider: string(c.key.Provider)}, now)
		return
	}
	if c.cause == tokens.CauseMassDeath {
		h.familyOf(c.key).breaker = breaker{}
	}
	c.noted.State, c.seen = tokens.CircuitClosed, false
	h.shut(c)
}
