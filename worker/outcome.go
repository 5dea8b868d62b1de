package worker

import (
	"time"

	"rouse/messages"
)

// begin marks the device as being worked on.
func (s *state) begin() { s.sending, s.captured, s.revived, s.unsure = true, s.head, false, false }

// look takes in what the store holds, read after begin. Every place up to the head at
// begin was committed before the read, so there the store is right; a head that
// was hinted since is newer than the read and stays. A push that another node or an earlier process sent serves the
// ladder as one of our own does.
func (s *state) look(w messages.Waiting, now time.Time) {
	s.seen = max(s.seen, w.Seen)
	s.woken.High = max(s.woken.High, w.Woken.High)
	s.woken.Normal = max(s.woken.Normal, w.Woken.Normal)
	s.head.High = settled(s.head.High, s.captured.High, w.Head.High)
	s.head.Normal = settled(s.head.Normal, s.captured.Normal, w.Head.Normal)
	s.captured = w.Head
	if w.WokenAt.After(s.lastPush) && !w.WokenAt.Equal(s.recorded) {
		s.lastPush, s.unanswered = w.WokenAt, w.Unanswered
		if !s.anew {
			s.climbed(earlier(w.WokenAt, now).Add(sameCall))
		}
	}
	s.recorded = w.WokenAt
}

func settled(now, begun, read messages.Seq) messages.Seq {
	if now > begun {
		return max(now, read)
	}
	return read
}

// stop ends the work without a push: nothing is pending, or nothing is wanted any more.
func (s *state) stop(now time.Time) {
	s.sending = false
	s.spend(now)
}

// spend uses up the due times that have come, but not the look that a newer token asked for.
func (s *state) spend(now time.Time) {
	if due(s.again, now) {
		s.again = time.Time{}
	}
	if !s.revived {
		s.climbed(now)
		s.anew = false
	}
}

// welcomed uses up the call of a new token, which has been made.
func (s *state) welcomed(now time.Time) {
	if s.anew {
		s.climbed(now)
		s.anew = false
	}
}

// climbed uses up the steps of the ladder up to a time.
func (s *state) climbed(to time.Time) {
	for len(s.rungs) > 0 && due(s.rungs[0], to) {
		s.rungs = s.rungs[1:]
	}
}

// accepted notes that the provider took a push of the class for what was captured.
func (s *state) accepted(c messages.Class, now time.Time) {
	s.sending = false
	// This push called for everything, an un-acked page and a step of the ladder that is all but due included.
	s.again = time.Time{}
	s.spend(now.Add(sameCall))
	s.woken = s.woken.Raise(messages.NormalWake, s.captured.Normal)
	if c == messages.HighWake {
		// An alert brings the phone to fetch everything, so it stands for both classes.
		s.woken = s.woken.Raise(messages.HighWake, s.captured.Max()).Raise(messages.NormalWake, s.captured.Max())
	}
	s.streak++
	if now.Sub(s.lastPush) > burstAfter {
		s.streak = 0
	}
	s.lastPush, s.tried = now, now
	s.unanswered++
	s.attempts, s.retry, s.refused = 0, time.Time{}, 0
}

// failed notes that nothing was sent and when to try again. What called for the wake still does. It says nothing
// of a token or a credential that has come since begin: that is tried at once.
func (s *state) failed(until time.Time) {
	s.sending = false
	if s.revived {
		return
	}
	s.attempts++
	s.retry = until
}

// postponed notes that a background push may not go out before until; nothing was tried. An alert may.
func (s *state) postponed(until, now time.Time) {
	s.sending = false
	s.quiet = until
	if s.forced(now) {
		s.spend(now)
		s.callAt(until)
	}
}

// refuse gives this wake up: only a newer message, the ladder or a new token tries again.
func (s *state) refuse(now time.Time) {
	s.sending = false
	s.spend(now)
	s.attempts = 0
	if !s.revived {
		s.refused = max(s.refused, s.captured.Max())
	}
}

// drop gives this wake up for want of room: only the ladder tries again.
func (s *state) drop() {
	s.again, s.rungs, s.anew = time.Time{}, nil, false
	s.refused = max(s.refused, s.head.Max())
}

// block gives the device up until a token or a credential comes; if one has come since begin, it is looked
// at once more instead.
func (s *state) block() {
	s.sending = false
	if s.revived {
		return
	}
	s.blocked = true
	s.again, s.rungs, s.anew = time.Time{}, nil, false
}

// doubt lets the store be asked whether the device is still blocked: the hint of a new token may have been lost.
func (s *state) doubt() { s.blocked = false }

// mistrust lets the store be asked whether the wake that is outstanding was answered: the hint of that may have been lost, and what
// has come since would wait for the ladder.
func (s *state) mistrust() { s.unsure = s.woken.Max() > s.seen }

// lapse notes that hints were lost. The look that follows does not meet a device that has fetched and acked all: its answer is missed until
// something arrives for it.
func (s *state) lapse() { s.lapsed = s.lapsed || s.sending || s.woken.Max() > s.seen }

// spare takes block back: the token is to be tried again, but by the ladder alone.
func (s *state) spare() {
	s.blocked = false
	s.refused = max(s.refused, s.head.Max())
}
