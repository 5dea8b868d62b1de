package worker

import (
	"slices"
	"time"

	"rouse/messages"
)

// Times the state machine works with.
const (
	// DefaultGrace is how long a device that was polling may take to ack or to come
	// back before it is woken after all.
	DefaultGrace = 10 * time.Second
	// unackedAfter is when a page that was fetched and not acked is called for again.
	unackedAfter = 60 * time.Second
	// burstAfter ends a burst: wakes this far apart do not slow each other down.
	burstAfter = 10 * time.Second
	// secondSpacing and maxSpacing keep the wakes of a burst apart, for a device that fetches at once but does not wait.
	secondSpacing = 2 * time.Second
	maxSpacing    = 3 * time.Second
	// sameCall is how close to a push a step of the ladder may lie and still be served by it.
	sameCall = 30 * time.Second
	// maxRungs bounds the steps of ladders that are remembered for one device.
	maxRungs = 8
	// offlineSpacing bounds how often new messages alone wake a device that answers nothing.
	offlineSpacing = 15 * time.Minute
)

// state is what the home node remembers of one active device: watermarks over the
// store's one order, and times. It is pure: time comes in, decisions go out. The
// store is the truth; everything here can be lost and is found again by a sweep.
//
// A wake is outstanding while woken > seen. woken takes the head that was captured
// before the accepted push started, never the head at its end: a message that
// arrives while the push is in flight stays above woken, whatever the order in
// which the push's answer and the phone's fetch come in.
type state struct {
	head  messages.Marks // newest un-acked place of each class we know of
	woken messages.Marks // newest place an accepted push stood for
	seen  messages.Seq   // newest place handed to the device
	acked messages.Seq   // everything up to here is acked

	sending  bool           // a look or a push is under way
	captured messages.Marks // head when it started

	pollUntil time.Time   // the device waits on a poll until then at most
	hold      time.Time   // no first wake before: the device is there, or should be
	again     time.Time   // a handed-out page is un-acked: call again then
	rungs     []time.Time // the ladder, or a new token: look in the store then; earliest first
	retry     time.Time   // the provider asked for patience: nothing before
	quiet     time.Time   // no background push before
	blocked   bool        // no way to reach it: wait for a token or a credential, or for a sweep's doubt
	unsure    bool        // hints were lost: whether the last wake was answered is the store's to say
	lapsed    bool        // hints were lost while a wake was outstanding: what arrives next makes unsure
	revived   bool        // a token or a credential came since begin: what is under way knows the old one
	anew      bool        // the first of rungs is no step of the ladder but such a token or credential

	lastPush   time.Time
	tried      time.Time // when a push last came back taken or refused
	recorded   time.Time // the newest push the store told of
	streak     int       // accepted pushes in the present burst, less one
	unanswered int       // accepted pushes since the last contact
	attempts   int       // failed attempts in a row
	refused    messages.Seq
}

// arrived notes that seq of class c was committed. A device on its poll gets it
// there; the wake is postponed by the grace, not canceled.
func (s *state) arrived(c messages.Class, seq messages.Seq, now time.Time, grace time.Duration) {
	if c == messages.NoWake {
		return
	}
	s.head = s.head.Raise(c, seq)
	if s.lapsed {
		s.lapsed = false
		s.mistrust()
	}
	if now.Before(s.pollUntil) && !now.Before(s.hold) {
		s.hold = now.Add(grace)
	}
}

// polling notes that the device waits on a poll: a sign of life. What it has not
// been handed yet it gets there, or it is woken after the grace.
func (s *state) polling(until, now time.Time, grace time.Duration) {
	s.pollUntil, s.hold = until, time.Time{}
	if s.head.Max() > s.seen {
		s.hold = now.Add(grace)
	}
	s.contact()
	s.calm(now)
}

// served notes that a page up to seq was handed out.
func (s *state) served(h messages.Hint, now time.Time, grace time.Duration) {
	s.seen = max(s.seen, h.Seq)
	s.contact()
	s.pollUntil = time.Time{}
	s.again = now.Add(unackedAfter)
	if h.Parked {
		// The connection may have died with the phone: an ack or a new request must come soon.
		s.again = now.Add(grace)
	}
	s.hold = time.Time{} // whoever was to come for more has come
	if h.Parked || h.More {
		s.hold = now.Add(grace)
	}
}

// found notes that the device asked, and that up to seq nothing waits for it any more.
func (s *state) found(seq messages.Seq) {
	s.seen = max(s.seen, seq)
	s.contact()
}

// idle notes that the poll ended without a message.
func (s *state) idle() {
	s.pollUntil = time.Time{}
	s.contact()
}

// ack notes that everything up to seq is acked; 0 means some of it.
func (s *state) ack(seq messages.Seq, now time.Time) {
	s.contact()
	s.acked = max(s.acked, seq)
	s.seen = max(s.seen, seq)
	if seq == 0 {
		// The phone is there, so what called it has reached it. What it left is the ladder's; what comes now calls anew.
		s.seen = max(s.seen, s.woken.Max())
	}
	s.calm(now)
	if s.seen <= s.acked {
		s.again = time.Time{}
	}
	if s.head.Max() <= s.acked {
		s.rungs = nil
	}
}

// calm moves the call for an un-acked page out: the device has just spoken.
func (s *state) calm(now time.Time) {
	if !s.again.IsZero() {
		s.again = now.Add(unackedAfter)
	}
}

func (s *state) contact() { s.unanswered = 0 }

// climb notes that the ladder wants a look at seq at the time due. While the
// device answers nothing, the gap since the last push grows with the ladder too,
// so that many messages do not make many ladders.
func (s *state) climb(d messages.Due, due, now time.Time) {
	s.head = s.head.Raise(d.Class, d.Seq)
	if d.Seq <= max(s.woken.Of(d.Class), s.refused) && due.Before(s.tried.Add(sameCall)) {
		return // the last push was this call: the sweep that tells of it did not hear that it was taken in
	}
	if s.unanswered > 0 && !s.lastPush.IsZero() {
		due = later(due, s.lastPush.Add(s.patience(d, now)))
	}
	s.callAt(due)
}

// callAt adds a time to look. Those that lie close together are one; of too many the earliest stay.
func (s *state) callAt(due time.Time) {
	i, _ := slices.BinarySearchFunc(s.rungs, due, time.Time.Compare)
	if i > 0 && due.Sub(s.rungs[i-1]) < sameCall {
		return
	}
	s.rungs = slices.Insert(s.rungs, i, due)
	if i+1 < len(s.rungs) && s.rungs[i+1].Sub(due) < sameCall {
		s.rungs = slices.Delete(s.rungs, i+1, i+2)
	}
	s.rungs = s.rungs[:min(len(s.rungs), maxRungs)]
}

// patience is the least time between the last unanswered push and the next. It
// lies a little under the ladder's step, so that the jitter of a rung cannot push
// it past its own time.
func (s *state) patience(d messages.Due, now time.Time) time.Duration {
	ladder := d.Class.Ladder()
	if len(ladder) == 0 {
		return 0
	}
	step := ladder[min(s.unanswered, len(ladder))-1] / 2
	if now.Add(-d.Age).After(s.lastPush) {
		return min(step, offlineSpacing)
	}
	return step
}

// revive notes a new token or credential: look in the store at once.
func (s *state) revive(now time.Time) {
	s.blocked, s.attempts, s.refused = false, 0, 0
	s.retry = time.Time{}
	if len(s.rungs) == 0 || s.rungs[0].After(now) {
		s.rungs = slices.Insert(s.rungs, 0, now)
	}
	s.revived, s.anew = true, true
}

// wants reports the class of wake that new messages call for now, NoWake for none.
func (s *state) wants() messages.Class { return s.callOf(s.head) }

// callOf reports what new messages up to head call for.
func (s *state) callOf(head messages.Marks) messages.Class {
	switch {
	case head.High > s.seen && s.woken.High <= s.seen && head.High > s.refused:
		return messages.HighWake
	case head.Normal > s.seen && s.woken.Max() <= s.seen && head.Normal > s.refused:
		return messages.NormalWake
	default:
		return messages.NoWake
	}
}

// next returns when something is to be done for the device; false if nothing is.
func (s *state) next() (time.Time, bool) {
	if s.sending || s.blocked {
		return time.Time{}, false
	}
	var at time.Time
	found := false
	consider := func(t time.Time) {
		if t = later(t, s.retry); !found || t.Before(at) {
			at, found = t, true
		}
	}
	if s.unsure {
		consider(s.pollUntil)
	}
	switch s.wants() {
	case messages.HighWake:
		consider(later(s.hold, s.spaced()))
	case messages.NormalWake:
		consider(later(later(s.hold, s.spaced()), s.quiet))
	}
	// A device on its poll is awake: what it has not acked yet can wait for the poll's end.
	if !s.again.IsZero() {
		consider(later(s.again, s.pollUntil))
	}
	if len(s.rungs) > 0 {
		consider(later(s.rungs[0], s.pollUntil))
	}
	return at, found
}

// spaced returns the earliest time for a further push in a burst. The second is free: a
// message may well come while the phone reads the first. From then on the phone is
// plainly awake, and a push for each message would only cost it its budget.
func (s *state) spaced() time.Time {
	switch s.streak {
	case 0:
		return time.Time{}
	case 1:
		return s.lastPush.Add(secondSpacing)
	default:
		return s.lastPush.Add(maxSpacing)
	}
}

// forced reports whether what is due at now goes out even if a wake is outstanding.
func (s *state) forced(now time.Time) bool {
	return due(s.again, now) || len(s.rungs) > 0 && due(s.rungs[0], now)
}

// forgettable reports whether losing the state costs nothing but a read.
func (s *state) forgettable(now time.Time) bool {
	_, timed := s.next()
	return !timed && !s.sending && !now.Before(s.pollUntil)
}

// over reports whether nothing is pending and nobody polls.
func (s *state) over(now time.Time) bool {
	return s.forgettable(now) && s.head.Max() <= s.acked && s.again.IsZero()
}

// calmAt returns when the present burst will be over.
func (s *state) calmAt() time.Time { return s.lastPush.Add(burstAfter) }

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func due(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }
