package worker

import (
	"context"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
)

// hub owns every device's state, every queue and every timer. One goroutine runs
// it and nothing else touches its fields, so that no lock and no order of locks
// exists. It does no I/O: reads and pushes run in goroutines of their own, as many
// as there are slots, and come back as events.
type hub struct {
	w        *Worker
	attempts context.Context // what reads and pushes run under; ended by cut
	cut      context.CancelFunc
	stopping bool

	devices  map[ident.Device]*entry
	outlets  map[Outlet]*outlet
	families map[Outlet]*family // by app and provider
	// following are the apps whose circuits are being read, and whether once more after that; "" is all of them.
	following map[ident.App]bool
	timers    timers
	inFlight  int       // pushes of all outlets under way, their looks included
	thirsty   []*outlet // outlets that wait for room among all
	// highs is when a device that reported demoted pushes last got one of high priority.
	highs map[ident.Device]time.Time

	cold    []place // devices whose outlet is not known yet, in order of coming
	reading int     // reads for cold devices under way
	// sweeps wait to hear that their page was taken in, while too many devices are cold; answers tell other nodes the same.
	sweeps  []chan<- struct{}
	answers []messages.Hint
	calm    time.Time // until then devices that come into memory wait: homes have just changed
	working int       // goroutines under way, reads and pushes
	tidying timer
}

// entry is one device in memory.
type entry struct {
	state  state
	id     ident.Device
	outlet *outlet // nil until the store was read
	queued bool    // in cold or in an outlet's queue
	ticket uint32  // which place in a queue is its own
	slot   *outlet // whose slot its present work holds; nil for a cold read
	timer  timer
	// elsewhere is the generation of the token to be tried in the other environment of APNs next, 0 for none.
	elsewhere int64
	// reached is the generation of the token that took the last push, 0 for none; renewed says that the hint of a new one has
	// come which no look has followed yet.
	reached int64
	renewed bool
	// poll is the number of the newest poll heard of, 0 if none.
	poll messages.Seq
	// called is when the push began that no page has answered yet; zero for none.
	called time.Time
	// fostered: its home is another node, which did not answer; forgotten when there is nothing to do for it.
	fostered bool
}

// The events besides []messages.Hint.
type (
	// lostEvent says that hints are missing before what follows.
	lostEvent struct{}
	// sweptEvent brings what a sweep found; done is closed once it is taken in.
	sweptEvent struct {
		found []found
		done  chan<- struct{}
	}
	// found is a device and when to look at it; zero means now, if it wants a first wake. foster takes it in although
	// its home is another node.
	found struct {
		due    messages.Due
		at     time.Time
		foster bool
	}
	// lookedEvent is what the store said of a device.
	lookedEvent struct {
		entry   *entry
		waiting messages.Waiting
		device  tokens.Device
		err     error
	}
	// pushedEvent is what a provider said.
	pushedEvent struct {
		entry  *entry
		class  messages.Class
		device tokens.Device
		epoch  uint32 // of the outlet, when the push began
		kind   providers.Kind
		// elsewhere: through the other environment than the device's own.
		elsewhere bool
		outcome   providers.Outcome
	}
)

// coldPerReader is how many devices may wait for a reader before sweeps are made to wait.
const coldPerReader = 64

func newHub(w *Worker, attempts context.Context, cut context.CancelFunc) *hub {
	return &hub{
		w: w, attempts: attempts, cut: cut,
		devices: map[ident.Device]*entry{}, outlets: map[Outlet]*outlet{}, families: map[Outlet]*family{}, highs: map[ident.Device]time.Time{},
	}
}

// run reacts until ctx is done and the last piece of work has come back.
func (h *hub) run(ctx context.Context) {
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	h.tidying.fire = func() { h.tidy(time.Now()) }
	h.timers.set(&h.tidying, time.Now().Add(tidyGap))
	stop := ctx.Done()
	var deadline <-chan time.Time
	for !h.stopping || h.working > 0 {
		h.arm(alarm)
		select {
		case event := <-h.w.events:
			h.handle(event, time.Now())
		case <-alarm.C:
		case <-stop:
			h.stopping, stop = true, nil
			limit := time.NewTimer(drainLimit)
			defer limit.Stop()
			deadline = limit.C
		case <-deadline:
			h.cut()
		}
		h.fire(time.Now())
		h.w.metrics.devices.Set(float64(len(h.devices)))
	}
}

// arm sets the one alarm to the first timer.
func (h *hub) arm(alarm *time.Timer) {
	wait := time.Hour
	if len(h.timers) > 0 {
		wait = max(0, time.Until(h.timers[0].at))
	}
	alarm.Reset(wait)
}

func (h *hub) fire(now time.Time) {
	for t := h.timers.pop(now); t != nil; t = h.timers.pop(now) {
		t.fire()
	}
}

func (h *hub) handle(event any, now time.Time) {
	switch e := event.(type) {
	case []messages.Hint:
		for i := range e {
			h.hint(e[i], now)
		}
		h.admit()
	case rehomedEvent:
		h.rehome(now)
	case lostEvent:
		for _, e := range h.devices {
			e.state.lapse()
		}
	case sweptEvent:
		for _, f := range e.found {
			h.swept(f, now)
		}
		h.sweeps = append(h.sweeps, e.done)
		h.admit()
	case lookedEvent:
		h.looked(e, now)
	case pushedEvent:
		h.pushed(e, now)
	case doneEvent:
		h.working--
	case sparedEvent:
		h.spared(e, now)
	case buriedEvent:
		h.buried(e, now)
	case diedEvent:
		h.died(e)
	case notedEvent:
		h.notedNow(e)
	case followedEvent:
		h.followed(e, now)
	}
}

// hint takes in one hint. Only hints that can lead to a wake make a state.
func (h *hub) hint(t messages.Hint, now time.Time) {
	switch t.Kind {
	case messages.HintCredential:
		h.recredentialed(t, now)
		return
	case messages.HintCircuit:
		h.keepUpWith(t.App)
		return
	}
	e := h.devices[t.Device]
	if !h.concerns(t, e) {
		return
	}
	if t.Kind == messages.HintDue {
		h.due(t, now)
		return
	}
	if e == nil {
		if t.Kind != messages.HintNew && t.Kind != messages.HintPolling && t.Kind != messages.HintServed && t.Kind != messages.HintToken {
			return
		}
		e = h.remember(t.Device)
	}
	switch t.Kind {
	case messages.HintNew:
		e.state.arrived(t.Class, t.Seq, now, h.w.o.Grace)
	case messages.HintPolling:
		if e.follows(t) {
			e.state.polling(earlier(t.Until, now.Add(longestPoll)), now, h.w.o.Grace)
		}
	case messages.HintServed:
		h.answered(e, now)
		e.state.served(t, now, h.w.o.Grace)
	case messages.HintSeen:
		e.state.found(t.Seq)
	case messages.HintIdle:
		if e.follows(t) {
			e.state.idle()
		}
	case messages.HintAcked:
		e.state.ack(t.Seq, now)
	case messages.HintToken:
		// The outlet may be another now: read again, and leave the queue of the old one.
		e.outlet, e.queued, e.elsewhere, e.renewed = nil, false, 0, true
		e.state.revive(now)
	case messages.HintGone:
		e.state.block()
		e.state.head, e.state.pollUntil = messages.Marks{}, time.Time{}
	}
	h.settle(e, now)
}

// follows notes which poll a hint speaks of, and reports whether it is no older one than the last: two nodes' hints come in any order.
func (e *entry) follows(t messages.Hint) bool {
	if t.Seq != 0 && t.Seq < e.poll {
		return false
	}
	e.poll = max(e.poll, t.Seq)
	return true
}

// answered notes that a page answers the push that called for it, if one did.
func (h *hub) answered(e *entry, now time.Time) {
	if !e.called.IsZero() {
		h.w.metrics.fetched(now.Sub(e.called))
		e.called = time.Time{}
	}
}

func (h *hub) swept(f found, now time.Time) {
	e := h.devices[f.due.Device]
	if e == nil {
		e = h.remember(f.due.Device)
	}
	e.fostered = e.fostered || f.foster
	e.state.doubt()
	if f.at.IsZero() {
		e.state.arrived(f.due.Class, f.due.Seq, now, h.w.o.Grace)
		e.state.mistrust()
	} else {
		e.state.climb(f.due, f.at, now)
	}
	h.w.metrics.swept.Inc()
	h.settle(e, now)
}

// recredentialed closes the circuits of the app's provider and looks again at all that waited for them.
// Devices that are not in memory are found by a sweep.
func (h *hub) recredentialed(t messages.Hint, now time.Time) {
	f := h.familyOf(Outlet{App: t.App, Provider: tokens.Provider(t.Provider)})
	f.breaker = breaker{}
	// Before anything may start: the first push is to find out whether the new one works.
	for _, o := range f.outlets {
		o.epoch++
		o.proven, o.lost, o.strangersFrom = false, 0, time.Time{}
	}
	var waiting []*entry
	for _, e := range h.devices {
		if e.outlet != nil && e.outlet.family == f {
			if e.elsewhere != 0 {
				// Its own environment refused it under another credential: that is asked first again.
				e.elsewhere, e.outlet, e.queued = 0, nil, false
			}
			e.state.revive(now)
			waiting = append(waiting, e)
		}
	}
	h.shut(&f.throttled)
	h.shut(&f.deaths)
	for _, o := range f.outlets {
		h.shut(&o.circuit)
	}
	for _, e := range waiting {
		h.settle(e, now)
	}
	h.pumpAll(f)
	h.w.lookAt(t.App)
}

func (h *hub) remember(id ident.Device) *entry {
	if len(h.devices) >= h.w.o.Memory {
		h.forget(time.Now())
	}
	e := &entry{id: id, state: state{hold: h.calm}}
	e.timer.fire = func() { h.settle(e, time.Now()) }
	h.devices[id] = e
	return e
}

// forget drops some states that wait for nothing: a later hint finds the truth in
// the store. Those that wait are kept, whatever the bound: they are work not yet done.
func (h *hub) forget(now time.Time) {
	const enough, tries = 64, 1024
	dropped, seen := 0, 0
	for id, e := range h.devices {
		if !e.queued && e.state.forgettable(now) {
			h.timers.clear(&e.timer) // it would forget the device's next state
			delete(h.devices, id)
			dropped++
		}
		if seen++; dropped >= enough || seen >= tries {
			return
		}
	}
}

// settle puts a device where its state says: in a queue, on a timer, or out of memory.
func (h *hub) settle(e *entry, now time.Time) {
	if e.queued || e.state.sending {
		return
	}
	if e.fostered && h.mine(e.id) {
		e.fostered = false
	}
	at, ok := e.state.next()
	switch {
	case !h.keeps(e), e.fostered && !ok:
		h.drop(e)
	case ok && !at.After(now):
		h.timers.clear(&e.timer)
		h.enqueue(e)
	case ok:
		h.timers.set(&e.timer, at)
	case !e.state.over(now):
		h.timers.clear(&e.timer)
	case now.Before(e.state.calmAt()):
		// Only the burst is left to remember.
		h.timers.set(&e.timer, e.state.calmAt())
	default:
		h.timers.clear(&e.timer)
		delete(h.devices, e.id)
	}
}
