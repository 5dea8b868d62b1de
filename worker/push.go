package worker

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
)

// backgroundGap is the least time between two background pushes to one Apple device: its budget is two or three an hour.
const backgroundGap = 20 * time.Minute

// storeRetry is how soon a device is looked at again when the store did not answer.
const storeRetry = 5 * time.Second

const (
	// quarantine is how long a token that was refused tokens.Quarantine times is left alone by the short steps of the ladder
	// too: the step of 12 hours tries it again.
	quarantine = 9 * time.Hour
	// strangerRest is how long an environment is not asked about tokens of the other one after it refused the credential.
	strangerRest = time.Hour
)

// looked decides, with the store's own word, whether e is pushed now.
func (h *hub) looked(l lookedEvent, now time.Time) {
	h.working--
	e := l.entry
	if l.err != nil {
		h.lookFailed(e, l.err, now)
		return
	}
	e.state.look(l.waiting, now)
	e.welcome(l.device, now)
	class := h.verdict(e, l, e.state.forced(now), now)
	if class == messages.NoWake || h.stopping || !h.keeps(e) {
		h.home(e, l.device)
		e.state.sending = false
		h.release(e)
		h.settle(e, now)
		return
	}
	way := l.device
	if e.elsewhere != 0 && e.elsewhere == way.Generation {
		way.Environment = way.Environment.Other()
	} else {
		e.elsewhere = 0
	}
	o := h.outletOf(way)
	if e.elsewhere != 0 && !o.takesStrangers(now) {
		e.elsewhere, way.Environment = 0, l.device.Environment // its own environment settles what becomes of it
		o = h.outletOf(way)
	}
	e.outlet = o
	if !h.move(e, o, now) {
		return
	}
	h.push(e, class, l)
}

// welcome drops the call of a new token that has taken a push already: its hint came from another node, after that of a message.
func (e *entry) welcome(d tokens.Device, now time.Time) {
	if e.state.revived {
		return // a newer one: it is looked at next
	}
	if e.renewed && e.reached == d.Generation {
		e.state.welcomed(now)
	}
	e.renewed = false
}

// home notes which outlet a device belongs to, so that a new credential finds it.
func (h *hub) home(e *entry, d tokens.Device) {
	if e.outlet == nil && d.UnregisteredAt.IsZero() && d.Provider != tokens.NoProvider && !e.state.revived {
		e.outlet = h.outletOf(d)
	}
}

func (h *hub) lookFailed(e *entry, err error, now time.Time) {
	switch fault.KindOf(err) {
	case fault.NotFound, fault.Gone, fault.Unauthenticated:
		e.state.block()
		e.state.head = messages.Marks{}
	default:
		again := storeRetry << min(e.state.attempts, 6)
		h.w.o.Log.Warn("cannot read what a device waits for; trying again", "device", e.id, "in", again, "error", err)
		e.state.failed(now.Add(again))
	}
	h.release(e)
	h.settle(e, now)
}

// move trades what e holds for a slot of o, or keeps it if it is one. If o has none free, or has come to a pause while
// the store was read, e lines up there and false is returned.
func (h *hub) move(e *entry, o *outlet, now time.Time) bool {
	if e.slot == o && o.admits(now, 1) {
		return true
	}
	if e.slot != o && o.free(now) && len(o.queue) == 0 && h.room(o) {
		held := e.slot
		h.hold(e, o)
		h.free(held)
		return true
	}
	e.state.sending = false
	h.release(e)
	h.settle(e, now)
	return false
}

// verdict says what class of push goes out; NoWake for none, with the state moved on accordingly.
func (h *hub) verdict(e *entry, l lookedEvent, forced bool, now time.Time) messages.Class {
	s, w, d := &e.state, l.waiting, l.device
	class := s.callOf(s.captured) // not for what was hinted since the look: no push made of this one would stand for it
	if forced && w.Head.High > 0 {
		class = messages.HighWake
	} else if forced && w.Head.Normal > 0 && class == messages.NoWake {
		class = messages.NormalWake
	}
	switch {
	case !d.UnregisteredAt.IsZero() || d.Provider == tokens.NoProvider || d.Token == "" ||
		(d.TokenState != tokens.TokenActive && d.TokenState != tokens.TokenSuspect):
		s.block()
		return messages.NoWake
	case class == messages.NoWake:
		s.stop(now)
		return messages.NoWake
	case d.TokenState == tokens.TokenSuspect && (!forced || quarantined(d, now)) && e.elsewhere != d.Generation:
		s.refuse(now)
		return messages.NoWake
	case class == messages.NormalWake && d.Provider == tokens.APNs && now.Before(backgroundFrom(w, now)):
		s.postponed(backgroundFrom(w, now), now)
		return messages.NoWake
	}
	return class
}

// quarantined reports whether a token that was refused too often is still to be left alone: its phone has to register
// it anew, or its app its credential. Once in a while it is tried all the same.
func quarantined(d tokens.Device, now time.Time) bool {
	return d.Quarantined() && now.Sub(d.StruckAt).Abs() < quarantine
}

// backgroundFrom is when the next background push may go out. One that lies in the future was sent before
// the clock was set back.
func backgroundFrom(w messages.Waiting, now time.Time) time.Time {
	if w.BackgroundAt.After(now) {
		return now.Add(backgroundGap)
	}
	return w.BackgroundAt.Add(backgroundGap)
}

// push makes one attempt in a goroutine; the answer is a pushedEvent.
func (h *hub) push(e *entry, class messages.Class, l lookedEvent) {
	h.working++
	e.called = time.Now()
	h.tries(e.slot, e.called)
	key, epoch := e.slot.key, e.slot.epoch
	p := pushFor(class, l.waiting, l.device)
	if class == messages.HighWake && h.spares(l, e.called) {
		p.Kind = providers.Background
	}
	elsewhere := e.elsewhere != 0
	go func() {
		ctx, cancel := context.WithTimeout(h.attempts, attemptLimit)
		defer cancel()
		started := time.Now()
		outcome := h.w.o.Pusher.Push(ctx, key, p)
		if outcome.Took == 0 {
			outcome.Took = time.Since(started)
		}
		h.w.o.Store.RecordWake(messages.Wake{
			App: key.App, Device: l.device.ID, At: started, Head: stoodFor(class, l.waiting.Head),
			Accepted: outcome.Verdict == providers.Accepted, Background: p.Kind == providers.Background,
			Provider: string(key.Provider), Verdict: string(outcome.Verdict), Reason: outcome.Reason, Took: outcome.Took,
		})
		h.w.events <- pushedEvent{entry: e, class: class, device: l.device, epoch: epoch, kind: p.Kind, elsewhere: elsewhere, outcome: outcome}
	}()
}

// spares reports whether a wake of high urgency goes out with normal priority: the phone has reported that Google demotes
// those of high priority, because they show nothing, and each further one makes that worse.
func (h *hub) spares(l lookedEvent, now time.Time) bool {
	d := l.device
	return d.Provider == tokens.FCM && l.waiting.Notification == nil && now.Sub(h.highs[d.ID]) < d.HighSpacing(now)
}

// spent notes a push of high priority to a device that has to be sparing with them.
func (h *hub) spent(p pushedEvent, now time.Time) {
	if p.kind != providers.Alert || p.device.Provider != tokens.FCM || p.device.HighSpacing(now) == 0 {
		return
	}
	if len(h.highs) >= h.w.o.Memory {
		clear(h.highs) // costs each of them one push too many
	}
	h.highs[p.device.ID] = now
}

// pushed takes in a provider's answer: for the device, its token and its outlet.
func (h *hub) pushed(p pushedEvent, now time.Time) {
	h.working--
	e, o := p.entry, p.entry.slot
	h.w.metrics.pushed(string(o.key.Provider), p.outcome)
	a := h.attempt(p, o, now)
	s := noSample
	if p.epoch == o.epoch {
		s = sampleOf(a)
		if s == badSample || e.state.unanswered == 0 {
			// The ladder's repeats to phones that do not answer would make any wave look small.
			h.sample(o, s, p.outcome.Reason, now)
		}
		a.tripped = o.family.breaker.tripped
	}
	d := decide(a, rand.Float64())
	if p.epoch != o.epoch && (d.pause > 0 || d.retry == 0 && !d.done) {
		d = decision{retry: atOnce} // it speaks of the credential before this one, and costs no token
	}
	h.judge(o, d, p, s, now)
	h.follow(p, d, now)
	if !d.done {
		e.called = time.Time{}
		h.w.o.Log.Info("push not taken", "device", e.id, "provider", o.key.Provider,
			"verdict", p.outcome.Verdict, "reason", p.outcome.Reason, "retry_in", d.retry, "paused", d.pause)
	}
	h.mark(p, d, now)
	h.release(e)
	h.settle(e, now)
}

// attempt gathers what the policy looks at.
func (h *hub) attempt(p pushedEvent, o *outlet, now time.Time) attempt {
	if p.epoch == o.epoch {
		o.answered(p.outcome)
	}
	a := attempt{
		outcome: p.outcome, provider: o.key.Provider, failures: p.entry.state.attempts, pauses: o.circuit.pauses, lost: o.lost,
		registered: p.device.RegisteredAt, suspect: p.device.TokenState == tokens.TokenSuspect,
		elsewhere: p.elsewhere, otherTried: p.device.OtherTried, tripped: o.family.breaker.tripped, now: now,
	}
	if a.mayBeElsewhere() {
		key := o.key
		key.Environment = key.Environment.Other()
		a.otherShut = !h.outlet(key).takesStrangers(now)
	}
	return a
}

// answered counts the answers that say that there is nothing at the other end.
func (o *outlet) answered(out providers.Outcome) {
	if out.Status == http.StatusNotFound && out.Verdict == providers.Unavailable {
		o.lost++
	} else if out.Status != 0 {
		o.lost = 0
	}
}

// follow moves the device's state on.
func (h *hub) follow(p pushedEvent, d decision, now time.Time) {
	e, o := p.entry, p.entry.slot
	if p.elsewhere && p.epoch == o.epoch && p.outcome.Verdict == providers.CredentialBad {
		o.strangersFrom = now.Add(strangerRest)
	}
	if p.elsewhere && d.retry == 0 && e.elsewhere != 0 { // else a new token came meanwhile
		e.elsewhere = 0
		if !d.move {
			e.outlet = h.outletOf(p.device)
		}
	}
	if e.state.revived {
		e.outlet = nil // what was pushed to may not be its token any more: read again
	}
	switch {
	case d.done:
		h.spent(p, now)
		e.reached = p.device.Generation
		e.state.accepted(p.class, now)
	case d.block:
		e.state.block()
	case d.refuse:
		e.state.refuse(now)
		e.state.tried = now
	case d.elsewhere:
		e.elsewhere = p.device.Generation
		e.state.failed(now)
	case d.pause > 0:
		e.state.failed(o.until())
	default:
		e.state.failed(now.Add(d.retry))
	}
}

// mark writes the fate of a token. It counts only for the generation that was read
// before the push: a token registered since is another one.
func (h *hub) mark(p pushedEvent, d decision, now time.Time) {
	if d.token == "" && !d.move {
		return
	}
	o := p.entry.slot
	if d.token == tokens.TokenDead {
		h.w.metrics.tokenDead.WithLabelValues(string(p.device.Provider)).Inc()
	}
	m := tokens.TokenMark{Device: p.device.ID, Generation: p.device.Generation, State: d.token, Reason: p.outcome.Reason,
		Strike: d.strike, OtherTried: d.otherTried, At: now}
	h.write(func(ctx context.Context) error {
		if d.move {
			_, err := h.w.o.Tokens.MoveToken(ctx, p.device.ID, p.device.Generation, o.key.Environment)
			return err
		}
		changed, err := h.w.o.Tokens.MarkToken(ctx, m)
		switch {
		case err != nil || d.token != tokens.TokenDead:
		case changed:
			h.w.events <- diedEvent{family: o.family, at: now}
		default:
			// It was registered again while the push was under way: what waits is looked at anew.
			h.w.events <- tokenHint(p.device.App, p.device.ID)
		}
		return err
	})
}

// tokenHint asks for a look at a device as after a registration.
func tokenHint(app ident.App, device ident.Device) []messages.Hint {
	return []messages.Hint{{Kind: messages.HintToken, App: app, Device: device}}
}

// doneEvent says that a write is over.
type doneEvent struct{}

// write runs a store write beside the hub; a failure is logged, the next push finds the same truth again.
func (h *hub) write(f func(context.Context) error) {
	h.working++
	go func() {
		ctx, cancel := context.WithTimeout(h.attempts, attemptLimit)
		defer cancel()
		if err := f(ctx); err != nil {
			h.w.o.Log.Error("cannot note a provider's answer", "error", err)
		}
		h.w.events <- doneEvent{}
	}()
}
