package worker

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"rouse/fault"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
)

// backgroundGap is the least time between two background pushes to one Apple device: its budget is two or three an hour.
const backgroundGap = 20 * time.Minute

// storeRetry is how soon a device is looked at again when the store did not answer.
const storeRetry = 5 * time.Second

// looked decides, with the store's own word, whether e is pushed now.
func (h *hub) looked(l lookedEvent, now time.Time) {
	h.working--
	e := l.entry
	if l.err != nil {
		h.lookFailed(e, l.err, now)
		return
	}
	forced := e.state.forced(now)
	e.state.look(l.waiting)
	class := h.verdict(e, l, forced, now)
	if class == messages.NoWake || h.stopping {
		e.state.sending = false
		h.release(e)
		h.settle(e, now)
		return
	}
	o := h.outletOf(l.device)
	e.outlet = o
	if e.slot != o && !h.move(e, o, now) {
		return
	}
	h.push(e, class, l)
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

// move trades what e holds for a slot of o. If o has none free, e lines up there and false is returned.
func (h *hub) move(e *entry, o *outlet, now time.Time) bool {
	if o.free(now) && len(o.queue) == 0 {
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
	class := s.wants()
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
	case d.TokenState == tokens.TokenSuspect && !forced:
		s.refuse(now)
		return messages.NoWake
	case class == messages.NormalWake && d.Provider == tokens.APNs && now.Before(backgroundFrom(w, now)):
		s.postponed(backgroundFrom(w, now), now)
		return messages.NoWake
	}
	return class
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
	key, epoch := e.slot.key, e.slot.epoch
	p := pushFor(class, l.waiting, l.device)
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
		h.w.events <- pushedEvent{entry: e, class: class, device: l.device, epoch: epoch, outcome: outcome}
	}()
}

// stoodFor is what a push of the class answers for: an alert for everything, a background push for its own class.
func stoodFor(c messages.Class, head messages.Marks) messages.Marks {
	if c == messages.HighWake {
		return messages.Marks{High: head.Max(), Normal: head.Max()}
	}
	return messages.Marks{Normal: head.Normal}
}

// pushFor builds the push. Nothing of a message goes in but a notification its owner asked to show.
func pushFor(c messages.Class, w messages.Waiting, d tokens.Device) providers.Push {
	head := w.Head.Max()
	p := providers.Push{
		ID:         pushID(w).String(),
		Device:     d.ID,
		Token:      string(d.Token),
		Platform:   string(d.Platform),
		Locale:     d.Locale,
		Kind:       providers.Background,
		Head:       string(messages.NewCursor(d.ID, head)),
		CollapseID: collapseID(w),
		ExpiresAt:  w.ExpiresAt,
	}
	if c == messages.HighWake {
		p.Kind = providers.Alert
		p.Repeat = w.Head.High <= w.Woken.High
		if w.Notification != nil {
			p.Notification = &providers.Text{Title: w.Notification.Title, Body: w.Notification.Body}
		}
	}
	return p
}

// collapseID is the same for every wake that calls for the same oldest message, so that a
// repeated alert takes its predecessor's place on the screen and leaves others alone.
func collapseID(w messages.Waiting) string {
	sum := fingerprint(w, w.Oldest)
	return "rouse-" + base64.RawURLEncoding.EncodeToString(sum[:9])
}

// pushID is the same for every attempt at the same wake.
func pushID(w messages.Waiting) uuid.UUID {
	sum := fingerprint(w, w.Oldest, w.Head.High, w.Head.Normal, messages.Seq(w.Unanswered), messages.Seq(w.WokenAt.UnixMilli()))
	return uuid.NewSHA1(uuid.NameSpaceOID, sum[:])
}

func fingerprint(w messages.Waiting, places ...messages.Seq) [sha256.Size]byte {
	b := []byte(w.Device)
	for _, p := range places {
		b = binary.BigEndian.AppendUint64(b, uint64(p))
	}
	return sha256.Sum256(b)
}

// pushed takes in a provider's answer: for the device, its token and its outlet.
func (h *hub) pushed(p pushedEvent, now time.Time) {
	h.working--
	e, o := p.entry, p.entry.slot
	h.w.metrics.pushed(string(o.key.Provider), p.outcome)
	d := decide(attempt{
		outcome: p.outcome, provider: o.key.Provider, failures: e.state.attempts, pauses: o.pauses,
		registered: p.device.RegisteredAt, suspect: p.device.TokenState == tokens.TokenSuspect,
	}, rand.Float64())
	if p.epoch != o.epoch && d.pause > 0 {
		// It speaks of the credential before this one.
		d.pause, d.failing, d.retry = 0, false, atOnce
	}
	h.circuit(o, d, p.outcome, now)
	switch {
	case d.done:
		e.state.accepted(p.class, now)
	case d.block:
		e.state.block()
	case d.refuse:
		e.state.refuse(now)
	case d.pause > 0:
		e.state.failed(o.until)
	default:
		e.state.failed(now.Add(d.retry))
	}
	if !d.done {
		e.called = time.Time{}
		h.w.o.Log.Info("push not taken", "device", e.id, "provider", o.key.Provider,
			"verdict", p.outcome.Verdict, "reason", p.outcome.Reason, "retry_in", d.retry, "paused", d.pause)
	}
	h.mark(p, d)
	h.release(e)
	h.settle(e, now)
}

// mark writes the fate of a token. It counts only for the generation that was read
// before the push: a token registered since is another one.
func (h *hub) mark(p pushedEvent, d decision) {
	if d.token == "" {
		return
	}
	if d.token == tokens.TokenDead {
		h.w.metrics.tokenDead.WithLabelValues(string(p.device.Provider)).Inc()
	}
	h.write(func(ctx context.Context) error {
		changed, err := h.w.o.Store.MarkToken(ctx, tokens.TokenMark{Device: p.device.ID, Generation: p.device.Generation, State: d.token, Reason: p.outcome.Reason, Strike: d.token == tokens.TokenSuspect, At: time.Now()})
		if err == nil && !changed && d.token == tokens.TokenDead {
			// It was registered again while the push was under way: what waits is looked at anew.
			h.w.events <- []messages.Hint{{Kind: messages.HintToken, App: p.device.App, Device: p.device.ID}}
		}
		return err
	})
}

// circuit opens or closes the outlet and tells the store why.
func (h *hub) circuit(o *outlet, d decision, out providers.Outcome, now time.Time) {
	failing := o.failing
	switch {
	case d.pause > 0 && o.pause(now.Add(d.pause), now):
		if o.pauses == 1 {
			h.w.metrics.paused.WithLabelValues(string(o.key.Provider)).Inc()
		}
		h.timers.set(&o.timer, o.until)
		if d.failing {
			failing = out.Reason
		}
		h.w.o.Log.Warn("outlet paused", "app", o.key.App, "provider", o.key.Provider, "environment", o.key.Environment,
			"reason", out.Reason, "for", d.pause)
	case d.done && !now.Before(o.until): // a push from before the pause does not end it
		failing = ""
		if h.reopen(o) {
			h.w.o.Log.Info("outlet works again", "app", o.key.App, "provider", o.key.Provider, "environment", o.key.Environment)
		}
	}
	if failing == o.failing {
		return
	}
	o.failing = failing
	h.write(func(ctx context.Context) error {
		state := tokens.CircuitOpen
		if failing == "" {
			state = tokens.CircuitClosed
		}
		return h.w.o.Store.NoteCircuit(ctx, tokens.Circuit{Outlet: o.key, State: state, Cause: tokens.CauseCredential, Reason: failing, OpenedAt: now, RetryAt: o.until}, now)
	})
}

// reopen closes an outlet's circuit, in the electrician's sense: pushes flow again. It
// reports whether it was open.
func (h *hub) reopen(o *outlet) bool {
	h.timers.clear(&o.timer)
	if !o.resume() {
		return false
	}
	h.w.metrics.paused.WithLabelValues(string(o.key.Provider)).Dec()
	return true
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
