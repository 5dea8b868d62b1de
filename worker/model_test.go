package worker

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"rouse/messages"
)

// The model: one phone, one inbox, one provider, one worker that may crash, and
// hints that may overtake each other. Every interleaving of insert, hint, look,
// push, answer, fetch, ack and crash is walked. From every state reached, steps of
// our own side, the provider and the phone must be able to bring everything to its
// ack: else a message lies there and no wake will ever come for it (the ladder, which
// would, is left out).

// machine is the part under test: the watermarks of wake.go, or a flag in their place.
type machine interface {
	arrived(seq messages.Seq, now time.Time)
	served(seq messages.Seq, now time.Time)
	acked(seq messages.Seq, now time.Time)
	next() (time.Time, bool)
	begin()
	look(w messages.Waiting, now time.Time) (send bool)
	accepted(now time.Time)
	failed(now time.Time)
	clone() machine
	key(now time.Time) string
}

// marks runs the real state machine.
type marks struct{ s state }

func (m *marks) arrived(seq messages.Seq, now time.Time) {
	m.s.arrived(messages.HighWake, seq, now, DefaultGrace)
}
func (m *marks) served(seq messages.Seq, now time.Time) {
	m.s.served(messages.Hint{Seq: seq}, now, DefaultGrace)
}
func (m *marks) acked(seq messages.Seq, now time.Time) { m.s.ack(seq, now) }
func (m *marks) next() (time.Time, bool)               { return m.s.next() }
func (m *marks) begin()                                { m.s.begin() }
func (m *marks) look(w messages.Waiting, now time.Time) bool {
	m.s.look(w, now)
	if w.Head.Max() > 0 && (m.s.forced(now) || m.s.callOf(m.s.captured) != messages.NoWake) {
		return true
	}
	m.s.stop(now)
	return false
}
func (m *marks) accepted(now time.Time) { m.s.accepted(messages.HighWake, now) }
func (m *marks) failed(now time.Time)   { m.s.failed(now.Add(apnsFirstRetry)) }
func (m *marks) clone() machine         { c := *m; c.s.rungs = slices.Clone(m.s.rungs); return &c }
func (m *marks) key(now time.Time) string {
	s := m.s
	return packed(int64(s.head.High), int64(s.woken.High), int64(s.woken.Normal), int64(s.seen), int64(s.acked), truth(s.sending),
		int64(s.captured.High), int64(min(s.streak, 2)), int64(min(s.unanswered, 2)),
		age(s.hold, now), age(s.again, now), age(s.retry, now), age(s.lastPush, now))
}

// packed is a key that is quick to make: the walk makes millions.
func packed(parts ...int64) string {
	b := make([]byte, 0, 4*len(parts))
	for _, p := range parts {
		b = binary.AppendVarint(b, p)
	}
	return string(b)
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// age is t against now; long ago is all the same.
func age(t, now time.Time) int64 { return int64(max(t.Sub(now), -burstAfter)) }

// flag is the tempting machine: "a wake is pending" as a boolean, set when a push
// was accepted, cleared when the phone fetches.
type flag struct {
	todo, waking, sending bool
}

func (f *flag) arrived(messages.Seq, time.Time) { f.todo = true }
func (f *flag) served(messages.Seq, time.Time)  { f.waking = false }
func (f *flag) acked(messages.Seq, time.Time)   {}
func (f *flag) next() (time.Time, bool)         { return time.Time{}, f.todo && !f.waking && !f.sending }
func (f *flag) begin()                          { f.sending = true }
func (f *flag) look(w messages.Waiting, _ time.Time) bool {
	if w.Head.Max() == 0 {
		f.sending, f.todo = false, false
		return false
	}
	return true
}
func (f *flag) accepted(time.Time)   { f.sending, f.todo, f.waking = false, false, true }
func (f *flag) failed(time.Time)     { f.sending = false }
func (f *flag) clone() machine       { c := *f; return &c }
func (f *flag) key(time.Time) string { return packed(truth(f.todo), truth(f.waking), truth(f.sending)) }

// world is one state of the model. Sequence numbers are 1, 2, ...
type world struct {
	now      time.Time
	m        machine
	left     bounds // what may still happen from outside
	inserted messages.Seq

	// The store: acked is durable, seen and woken are written lazily, so a crash
	// may lose the latest of them.
	acked, seen, seenDurable   messages.Seq
	woken, wokenDurable        messages.Seq
	wokenAt, wokenAtDurable    time.Time
	unanswered                 int
	hints                      []messages.Hint // in flight to the worker, in any order
	looking, pushing, answered bool            // the worker's work: begun, sent, answered by the provider
	captured                   messages.Seq
	rung                       bool         // the phone has a push it did not act on yet
	page                       messages.Seq // a page the phone holds and did not ack yet
}

func (w *world) clone() *world {
	c := *w
	c.m = w.m.clone()
	c.hints = append([]messages.Hint(nil), w.hints...)
	return &c
}

func (w *world) key() string {
	parts := []int64{
		int64(w.left.inserts), int64(w.left.crashes), int64(w.left.failures), int64(w.inserted), int64(w.acked),
		int64(w.seen), int64(w.seenDurable), int64(w.woken), int64(w.wokenDurable), age(w.wokenAt, w.now), age(w.wokenAtDurable, w.now),
		int64(min(w.unanswered, 2)), truth(w.looking), truth(w.pushing), truth(w.answered), int64(w.captured), truth(w.rung), int64(w.page),
	}
	for _, h := range w.hints {
		parts = append(parts, int64(h.Kind), int64(h.Seq))
	}
	return packed(parts...) + w.m.key(w.now)
}

// bounds is how many times the outside may act.
type bounds struct{ inserts, crashes, failures int }

// outside lists what the world may do to us; a walk may end without any of it.
func (w *world) outside() []*world {
	var all []*world
	add := func(change func(*world)) { c := w.clone(); change(c); all = append(all, c) }
	if w.left.inserts > 0 {
		add(func(c *world) {
			c.left.inserts--
			c.inserted++
			c.hints = append(c.hints, messages.Hint{Kind: messages.HintNew, Seq: c.inserted})
		})
	}
	if w.left.crashes > 0 {
		for _, flushed := range []bool{true, false} {
			add(func(c *world) { c.crash(flushed) })
		}
	}
	return all
}

// crash loses memory, hints and answers, and, unless flushed, what was to be written
// lazily; a push under way may have reached the phone already, as rung says. Then the
// start-up sweep looks at everything un-acked.
func (w *world) crash(flushed bool) {
	w.left.crashes--
	if flushed {
		w.flush()
	}
	w.seen, w.woken, w.wokenAt = w.seenDurable, w.wokenDurable, w.wokenAtDurable
	w.hints, w.looking, w.pushing, w.answered = nil, false, false, false
	if _, real := w.m.(*marks); real {
		w.m = &marks{}
	} else {
		w.m = &flag{}
	}
	if w.inserted > w.acked {
		w.m.arrived(w.inserted, w.now)
	}
}

func (w *world) flush() {
	w.seenDurable, w.wokenDurable, w.wokenAtDurable = w.seen, w.woken, w.wokenAt
}

// inside lists what our side, the provider and the phone may do next.
func (w *world) inside() []*world {
	var all []*world
	add := func(change func(*world)) { c := w.clone(); change(c); all = append(all, c) }
	for i := range w.hints {
		add(func(c *world) { c.deliver(i) })
	}
	at, due := w.m.next()
	switch {
	case w.looking:
		add(func(c *world) { c.look() })
	case w.pushing:
		if !w.answered {
			// The push reaches the phone, before its answer reaches us.
			add(func(c *world) { c.rung, c.answered = true, true })
			if w.left.failures > 0 {
				add(func(c *world) { c.left.failures--; c.pushing = false; c.m.failed(c.now) })
			}
		} else {
			add(func(c *world) { c.answer() })
			if w.left.failures > 0 {
				// The answer is lost although the phone was reached.
				add(func(c *world) { c.left.failures--; c.pushing, c.answered = false, false; c.m.failed(c.now) })
			}
		}
	case due && !at.After(w.now):
		add(func(c *world) { c.looking = true; c.m.begin() })
	case due:
		add(func(c *world) { c.now = at })
	}
	if w.rung {
		add(func(c *world) { c.fetch() })
	}
	if w.page > 0 {
		add(func(c *world) { c.ack() })
	}
	return all
}

func (w *world) deliver(i int) {
	h := w.hints[i]
	w.hints = append(w.hints[:i:i], w.hints[i+1:]...)
	switch h.Kind {
	case messages.HintNew:
		w.m.arrived(h.Seq, w.now)
	case messages.HintServed:
		w.m.served(h.Seq, w.now)
	case messages.HintAcked:
		w.m.acked(h.Seq, w.now)
	}
}

func (w *world) look() {
	w.looking = false
	waiting := messages.Waiting{
		Seen: w.seen, Woken: messages.Marks{High: w.woken, Normal: w.woken}, WokenAt: w.wokenAt, Unanswered: w.unanswered,
	}
	if w.inserted > w.acked {
		waiting.Head.High = w.inserted
	}
	w.captured = w.inserted
	w.pushing = w.m.look(waiting, w.now)
}

func (w *world) answer() {
	w.pushing, w.answered = false, false
	w.woken, w.wokenAt = w.captured, w.now
	w.unanswered++
	w.m.accepted(w.now)
}

// fetch hands the phone everything un-acked.
func (w *world) fetch() {
	w.rung = false
	if w.inserted == w.acked {
		return
	}
	w.page, w.seen, w.unanswered = w.inserted, w.inserted, 0
	w.hints = append(w.hints, messages.Hint{Kind: messages.HintServed, Seq: w.inserted})
}

// ack is durable, and with it that the page was seen: a wake recorded lazily must not
// look outstanding for what was acked.
func (w *world) ack() {
	w.acked = max(w.acked, w.page)
	w.seen, w.seenDurable = max(w.seen, w.page), max(w.seenDurable, w.page)
	w.hints = append(w.hints, messages.Hint{Kind: messages.HintAcked, Seq: w.page})
	w.page = 0
}

// steps is a state of a model: what our own side, the provider and the phone may do next, and what may be done to us.
type steps[W any] interface {
	key() string
	inside() []W
	outside() []W
	done() bool
}

// done reports whether everything is acked.
func (w *world) done() bool { return w.inserted == w.acked }

func walk(first machine, b bounds) (states int, stuck []*world) {
	return walkFrom(&world{now: time.Unix(1_000_000, 0), m: first, left: b})
}

// walkFrom visits every reachable state. It returns how many there are and those from which the inside alone cannot
// bring everything to its ack.
func walkFrom[W steps[W]](start W) (states int, stuck []W) {
	worlds, number := []W{start}, map[string]int{start.key(): 0}
	visit := func(w W) int {
		k := w.key()
		n, known := number[k]
		if !known {
			n = len(worlds)
			number[k], worlds = n, append(worlds, w)
		}
		return n
	}
	before := map[int][]int{} // inside steps, backwards
	for i := 0; i < len(worlds); i++ {
		for _, w := range worlds[i].inside() {
			n := visit(w)
			before[n] = append(before[n], i)
		}
		for _, w := range worlds[i].outside() {
			visit(w)
		}
	}
	safe := make([]bool, len(worlds))
	var todo []int
	for i, w := range worlds {
		if w.done() {
			safe[i], todo = true, append(todo, i)
		}
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, p := range before[i] {
			if !safe[p] {
				safe[p], todo = true, append(todo, p)
			}
		}
	}
	for i, w := range worlds {
		if !safe[i] {
			stuck = append(stuck, w)
		}
	}
	return len(worlds), stuck
}

// walks are the bounds that are walked: together every pair of misfortunes.
func walks() map[string]bounds {
	return map[string]bounds{
		"a crash and a failure": {inserts: 2, crashes: 1, failures: 1},
		"two crashes":           {inserts: 2, crashes: 2},
		"three messages":        {inserts: 3},
	}
}

func TestEveryPendingMessageHasAWakeToCome(t *testing.T) {
	t.Parallel()
	for name, b := range walks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			states, stuck := walk(&marks{}, b)
			if states < 1000 {
				t.Errorf("the walk saw only %d states: it does not enumerate the interleavings", states)
			}
			for _, w := range stuck[:min(len(stuck), 5)] {
				t.Errorf("no wake will come: %+v with %+v", *w, w.m)
			}
			t.Logf("%d states, %d of them stuck", states, len(stuck))
		})
	}
}

// A boolean in place of the watermarks loses messages: the walk can fail.
func TestAFlagInPlaceOfWatermarksLosesWakes(t *testing.T) {
	t.Parallel()
	states, stuck := walk(&flag{}, bounds{inserts: 2})
	if len(stuck) == 0 {
		t.Errorf("the walk over %d states found nothing wrong with a flag; it proves nothing", states)
	}
	t.Logf("%d states, %d of them stuck", states, len(stuck))
}
