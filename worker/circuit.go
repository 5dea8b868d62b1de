package worker

import (
	"context"
	"time"

	"rouse/messages"
	"rouse/tokens"
)

// circuit holds pushes back after an answer that concerns more than one device. Owned by the hub.
type circuit struct {
	key   tokens.Outlet
	cause tokens.CircuitCause
	// reason is the provider's word, openedAt when the first of the pauses in a row began.
	reason   string
	openedAt time.Time
	// until is when the pause ends; pauses counts them in a row, and above 0 one push at a time probes.
	until  time.Time
	pauses int
	// lag is how much later than the node that began the pause this one tries again.
	lag time.Duration
	// watching is whether pushes flow and no token is given up.
	watching bool

	timer timer
	// again is when the store is told once more after it did not listen.
	again timer
	// noted is what the store was last told; noting is whether it is being told, unsure whether it failed to answer: it may
	// have listened all the same.
	noted          tokens.Circuit
	noting, unsure bool
	// seen is whether the store has shown that it is open there: only then it means something if the store shows none.
	seen bool
	// shown is what the metrics show.
	shown tokens.Circuit
}

// circuit sets up a circuit; end is what happens when a pause of it is over.
func (h *hub) circuit(c *circuit, key tokens.Outlet, cause tokens.CircuitCause, end func()) {
	c.key, c.cause = key, cause
	c.timer.fire = end
	c.again.fire = func() {
		if !h.stopping {
			h.note(c)
		}
	}
}

// holds reports whether nothing may be sent now.
func (c *circuit) holds(now time.Time) bool { return now.Before(c.ends()) }

// ends is when this node tries again.
func (c *circuit) ends() time.Time { return c.until.Add(c.lag) }

// probing reports whether one push at a time tries.
func (c *circuit) probing() bool { return c.pauses > 0 }

// pause stops until then; false if it is stopped already. Of many pushes that fail together
// only the first lengthens the schedule. But if the provider asks for more patience than that, it gets it.
func (c *circuit) pause(cause tokens.CircuitCause, reason string, until, now time.Time) bool {
	if c.holds(now) {
		if cause != tokens.CauseThrottled || until.Sub(c.until) <= c.until.Sub(now)/jitterShare {
			return false
		}
		c.until = until
		return true
	}
	if c.pauses == 0 {
		c.openedAt = now
	}
	c.cause, c.reason, c.until, c.lag, c.watching = cause, reason, until, 0, false
	c.pauses++
	return true
}

// resume ends the pauses. It reports whether there were any.
func (c *circuit) resume() bool {
	was := c.pauses > 0
	c.until, c.lag, c.pauses = time.Time{}, 0, 0
	return was
}

// now is the circuit as the store knows it.
func (c *circuit) now() tokens.Circuit {
	n := tokens.Circuit{Outlet: c.key, State: tokens.CircuitClosed, Cause: c.cause, Reason: c.reason, OpenedAt: c.openedAt, RetryAt: c.until, Pauses: c.pauses}
	switch {
	case c.pauses > 0:
		n.State = tokens.CircuitOpen
	case c.watching:
		n.State = tokens.CircuitWatching
	}
	return n
}

// restored takes over what the store knows.
func (c *circuit) restored(n tokens.Circuit, now time.Time) {
	c.cause, c.reason, c.openedAt, c.noted, c.seen = n.Cause, n.Reason, n.OpenedAt, n, true
	if n.State == tokens.CircuitWatching {
		c.watching = true
		return
	}
	c.until, c.pauses = n.RetryAt, max(1, n.Pauses)
	if longest := now.Add(spread(maxRetryAfter, 1)); c.until.After(longest) {
		c.until = longest // the clock was set back
	}
}

// notedEvent says that the store was told of a circuit.
type notedEvent struct {
	circuit *circuit
	told    tokens.Circuit
	failed  bool
}

// note tells the store what a circuit has become. One write of a circuit is under way at a time, and what changed
// meanwhile is written after it: the store always ends with the truth.
func (h *hub) note(c *circuit) {
	now := c.now()
	h.show(c, now)
	if c.noting || same(now, c.noted) && !c.unsure {
		return
	}
	told := []tokens.Circuit{now}
	if c.noted.Cause != "" && c.noted.Cause != now.Cause && c.noted.State != tokens.CircuitClosed {
		// Another trouble now: the former is over.
		was := c.noted
		was.State = tokens.CircuitClosed
		told = []tokens.Circuit{was, now}
	}
	c.noting = true
	h.working++
	at := time.Now() // a credential put from here on is not concerned, however late the write comes
	go func() {
		ctx, cancel := context.WithTimeout(h.attempts, attemptLimit)
		defer cancel()
		var err error
		for _, t := range told {
			if err = h.w.o.Circuits.NoteCircuit(ctx, t, at); err != nil {
				h.w.o.Log.Error("cannot note a circuit", "app", t.App, "provider", t.Provider, "error", err)
				break
			}
		}
		h.w.events <- notedEvent{circuit: c, told: now, failed: err != nil}
	}()
}

// show has the metrics show what a circuit is now.
func (h *hub) show(c *circuit, now tokens.Circuit) {
	if c.shown.Cause != "" && c.shown.Cause != now.Cause {
		c.shown.State = tokens.CircuitClosed
		h.w.metrics.circuit(c.shown)
	}
	h.w.metrics.circuit(now)
	c.shown = now
}

// same reports whether the store need not be told.
func same(a, b tokens.Circuit) bool {
	if a.State == tokens.CircuitClosed {
		return b.State == tokens.CircuitClosed || b.State == ""
	}
	return a.State == b.State && a.Cause == b.Cause && a.Reason == b.Reason && a.RetryAt.Equal(b.RetryAt)
}

func (h *hub) notedNow(e notedEvent) {
	h.working--
	e.circuit.noting, e.circuit.unsure = false, e.failed
	if e.failed {
		h.timers.set(&e.circuit.again, time.Now().Add(storeRetry))
		return
	}
	e.circuit.noted = e.told
	e.circuit.seen = e.circuit.seen && e.told.State != tokens.CircuitClosed
	h.w.o.Hints.Hint(messages.Hint{Kind: messages.HintCircuit, App: e.told.App, Provider: string(e.told.Provider)})
	h.note(e.circuit)
}

// family is all outlets of one app's provider. What an answer says of the app's account, or of its tokens as
// a whole, concerns them all.
type family struct {
	outlets  []*outlet
	inFlight int
	// throttled is the provider's wish for the whole account, deaths the pause after a wave of refused tokens.
	throttled circuit
	deaths    circuit
	breaker   breaker
	// refused is the reason of the last refusal that counted, probed how many probes of this turn were refused.
	refused string
	probed  int
}

// familyOf returns the family of an outlet, made on first use.
func (h *hub) familyOf(key tokens.Outlet) *family {
	key.Environment, key.Onward = "", ""
	if f, ok := h.families[key]; ok {
		return f
	}
	f := &family{}
	h.circuit(&f.throttled, key, tokens.CauseThrottled, func() { h.pumpAll(f) })
	h.circuit(&f.deaths, key, tokens.CauseMassDeath, func() { h.pumpAll(f) })
	h.families[key] = f
	return f
}

// pumpAll starts work for all outlets of a family.
func (h *hub) pumpAll(f *family) {
	for _, o := range f.outlets {
		h.pump(o)
	}
}

// restore begins with the circuits that were not closed when the process before this one ended.
func (h *hub) restore(all []tokens.Circuit) {
	for _, n := range all {
		c := h.circuitOf(n)
		if n.Cause == tokens.CauseMassDeath {
			h.disbelieve(h.familyOf(n.Outlet), n) // the process may have died over it
		}
		c.restored(n, time.Now())
		h.note(c)
		if c.probing() {
			h.w.metrics.paused.WithLabelValues(string(n.Provider)).Inc()
			h.timers.set(&c.timer, c.until)
		}
	}
	h.keepUp()
}

// circuitOf returns the circuit that the store knows as n, made on first use.
func (h *hub) circuitOf(n tokens.Circuit) *circuit {
	switch {
	case n.Cause == tokens.CauseMassDeath:
		return &h.familyOf(n.Outlet).deaths
	case n.Environment != "" || n.Onward != "" || n.Cause == tokens.CauseCredential:
		return &h.outlet(n.Outlet).circuit
	}
	return &h.familyOf(n.Outlet).throttled
}

// judge takes in what an answer says of more than its device: circuits open and close.
func (h *hub) judge(o *outlet, d decision, p pushedEvent, s sample, now time.Time) {
	if p.epoch != o.epoch {
		return // it speaks of the credential before this one
	}
	f := o.family
	switch {
	case d.pause > 0 && d.wide:
		h.open(&f.throttled, d.cause, p.outcome.Reason, d.pause, now)
	case d.pause > 0:
		h.open(&o.circuit, d.cause, p.outcome.Reason, d.pause, now)
	case d.works:
		h.works(o, now)
	}
	switch {
	case s == goodSample:
		h.flow(f, now)
	case s == badSample && f.deaths.probing() && !f.deaths.holds(now):
		// A few probes, one after the other: where some tokens are well the first may hit one that is not.
		if f.probed++; f.probed < waveProbes {
			return
		}
		f.probed = 0
		h.open(&f.deaths, tokens.CauseMassDeath, p.outcome.Reason, probes[min(f.deaths.pauses, len(probes)-1)], now)
	}
}

// open stops what a circuit stands for.
func (h *hub) open(c *circuit, cause tokens.CircuitCause, reason string, wait time.Duration, now time.Time) {
	was := c.probing()
	if !c.pause(cause, reason, now.Add(wait), now) {
		return
	}
	if !was {
		h.w.metrics.paused.WithLabelValues(string(c.key.Provider)).Inc()
	}
	h.timers.set(&c.timer, c.until)
	h.note(c)
	h.w.o.Log.Warn("pushes pause", "app", c.key.App, "provider", c.key.Provider, "environment", c.key.Environment, "onward", c.key.Onward,
		"cause", cause, "reason", reason, "for", wait)
}

// works notes that the provider takes pushes through o. An answer to a push from before a pause does not end it.
func (h *hub) works(o *outlet, now time.Time) {
	o.proven = true
	for _, c := range []*circuit{&o.circuit, &o.family.throttled} {
		if !c.holds(now) {
			h.shut(c)
		}
	}
}

// shut closes a circuit, in the electrician's sense: pushes flow again.
func (h *hub) shut(c *circuit) {
	was := c.now().State != tokens.CircuitClosed
	h.endPause(c)
	c.watching = false
	h.note(c)
	if was {
		c.timer.fire() // the others it held back, not only the outlet that was answered
		h.w.o.Log.Info("pushes flow again", "app", c.key.App, "provider", c.key.Provider, "environment", c.key.Environment,
			"onward", c.key.Onward, "cause", c.cause)
	}
}

// endPause ends a circuit's pauses.
func (h *hub) endPause(c *circuit) {
	h.timers.clear(&c.timer)
	if c.resume() {
		h.w.metrics.paused.WithLabelValues(string(c.key.Provider)).Dec()
	}
}
