package worker

import (
	"testing"
	"time"

	"rouse/messages"
)

// script drives one state through seconds; t0 is 0 s.
type script struct {
	t *testing.T
	s state
}

var t0 = time.Unix(1_700_000_000, 0)

func sec(n float64) time.Time { return t0.Add(time.Duration(n * float64(time.Second))) }

func (x *script) wakesAt(want float64) {
	x.t.Helper()
	at, ok := x.s.next()
	if !ok {
		x.t.Fatalf("nothing is due, want a wake at %v s", want)
	}
	if at.IsZero() || at.Before(t0) {
		at = t0
	}
	if at != sec(want) {
		x.t.Fatalf("due at %v s, want %v s", at.Sub(t0).Seconds(), want)
	}
}

// wakesBy wants a wake that is due at the time, whenever it became so.
func (x *script) wakesBy(now float64) {
	x.t.Helper()
	if at, ok := x.s.next(); !ok || at.After(sec(now)) {
		x.t.Fatalf("nothing is due by %v s (%v, %v)", now, at.Sub(t0), ok)
	}
}

func (x *script) sleeps() {
	x.t.Helper()
	if at, ok := x.s.next(); ok {
		x.t.Fatalf("due at %v s, want nothing due", at.Sub(t0).Seconds())
	}
}

func (x *script) push(at float64, c messages.Class) {
	x.s.begin()
	x.s.accepted(c, sec(at))
}

func (x *script) new(at float64, seq messages.Seq) {
	x.s.arrived(messages.HighWake, seq, sec(at), DefaultGrace)
}

func (x *script) served(at float64, seq messages.Seq, parked bool) {
	x.s.served(messages.Hint{Seq: seq, Parked: parked}, sec(at), DefaultGrace)
}

func TestOneOutstandingWakeWhateverArrives(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 1)
	x.wakesAt(0)
	x.push(0, messages.HighWake)
	for n := range messages.Seq(100) {
		x.new(0.1, 2+n)
		x.sleeps()
	}
}

func TestAMessageDuringAPushIsNotTakenForWoken(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 1)
	x.s.begin()
	x.new(0.1, 2)
	x.served(0.2, 1, false)
	x.s.accepted(messages.HighWake, sec(0.3))
	x.wakesBy(0.3)
}

func TestAPollingPhoneIsWokenOnlyAfterTheGrace(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.s.polling(sec(55), sec(0), DefaultGrace)
	x.new(1, 1)
	x.wakesAt(11)
	x.served(1.01, 1, true)
	x.wakesAt(11.01)
	x.s.ack(1, sec(1.1))
	x.sleeps()
}

func TestANewRequestInsteadOfAnAckPostponesTheCall(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.s.polling(sec(55), sec(0), DefaultGrace)
	x.new(1, 1)
	x.served(1, 1, true)
	x.s.polling(sec(58), sec(3), DefaultGrace)
	x.wakesAt(63)
}

func TestAFetchedPageThatIsNotAckedIsCalledForOnce(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 1)
	x.push(0, messages.HighWake)
	x.served(2, 1, false)
	x.wakesAt(62)
	if !x.s.forced(sec(62)) {
		t.Error("the call for an un-acked page must go out although nothing new is there")
	}
	x.push(62, messages.HighWake)
	x.sleeps()
}

func TestHighBreaksThroughAnOutstandingNormalWake(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.s.arrived(messages.NormalWake, 1, sec(0), DefaultGrace)
	x.push(0, messages.NormalWake)
	x.s.arrived(messages.NormalWake, 2, sec(5), DefaultGrace)
	x.sleeps()
	x.new(5, 3)
	x.wakesBy(5)
	x.push(5, messages.HighWake)
	x.s.arrived(messages.NormalWake, 4, sec(6), DefaultGrace)
	x.sleeps()
}

func TestLowUrgencyRidesAlong(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.s.arrived(messages.NoWake, 1, sec(0), DefaultGrace)
	x.sleeps()
}

func TestABurstToAPhoneThatFetchesAtOnceIsSpaced(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	pushes, at := 0, 0.0
	for n := range messages.Seq(100) {
		at = float64(n) * 0.03
		x.new(at, n+1)
		if due, ok := x.s.next(); ok && !due.After(sec(at)) {
			x.push(at, messages.HighWake)
			x.served(at+0.005, n+1, false)
			x.s.ack(n+1, sec(at+0.006))
			pushes++
		}
	}
	if pushes > 3 {
		t.Errorf("%d pushes for 100 messages in 3 s, want at most 3", pushes)
	}
	x.wakesBy(at + 3) // what came after the last push is due, not lost
}

func TestTheLadderForcesAWakeAndSlowsDownWithSilence(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 1)
	x.push(0, messages.HighWake)
	x.s.climb(messages.Due{Class: messages.HighWake, Seq: 1, Age: 50 * time.Second}, sec(60), sec(50))
	x.wakesAt(60)
	x.push(60, messages.HighWake)
	// A second message's first rung: the phone has answered neither push, so its step is the ladder's second.
	x.s.climb(messages.Due{Class: messages.HighWake, Seq: 2, Age: 50 * time.Second}, sec(110), sec(100))
	x.wakesAt(60 + 150)
	// Contact makes the phone worth calling again.
	x.served(120, 2, false)
	x.s.ack(1, sec(121))
	x.s.climb(messages.Due{Class: messages.HighWake, Seq: 2, Age: 50 * time.Second}, sec(125), sec(121))
	x.wakesAt(125)
}

func TestALookForgetsWhatIsNoLongerPending(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 5)
	x.s.begin()
	x.new(0.1, 7) // newer than the read: stays
	x.s.look(messages.Waiting{}, sec(0.1))
	x.s.stop(sec(0.2))
	if x.s.head.High != 7 {
		t.Errorf("head is %d, want 7: a hint that came after the read began is newer than the read", x.s.head.High)
	}
	x.s.begin()
	x.s.look(messages.Waiting{}, sec(0.2))
	x.s.stop(sec(0.3))
	x.sleeps()
	if !x.s.over(sec(30)) {
		t.Error("nothing is pending, and the state is kept")
	}
}

func TestWhatTheStoreKnowsOfEarlierWakesCounts(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 5) // after a restart: memory knows nothing
	x.s.begin()
	x.s.look(messages.Waiting{Head: messages.Marks{High: 5}, Woken: messages.Marks{High: 5}, WokenAt: sec(-20), Unanswered: 1}, sec(0))
	x.s.stop(sec(0))
	x.sleeps()
}

func TestAFailedPushIsTriedAgainAndABlockedOneWaitsForAToken(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 1)
	x.s.begin()
	x.s.failed(sec(5))
	x.wakesAt(5)
	x.s.begin()
	x.s.block()
	x.new(6, 2)
	x.sleeps()
	x.s.revive(sec(7))
	x.wakesBy(7)
	if !x.s.forced(sec(7)) {
		t.Error("a new token wakes for what is un-acked, fetched or not")
	}
}

func TestARefusedPushWaitsForANewerMessage(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 1)
	x.s.begin()
	x.s.look(messages.Waiting{Head: messages.Marks{High: 1}}, sec(0))
	x.s.refuse(sec(0))
	x.sleeps()
	x.new(1, 2)
	x.wakesAt(0)
}

func TestAnAckOfEverythingEndsTheCalls(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 1)
	x.push(0, messages.HighWake)
	x.s.climb(messages.Due{Class: messages.HighWake, Seq: 1, Age: 50 * time.Second}, sec(60), sec(50))
	x.served(51, 1, false)
	x.s.ack(1, sec(52))
	x.sleeps()
}

func TestATokenThatComesDuringALookOrAPushIsLookedAtAnew(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *state){
		"the look found no token":   func(s *state) { s.block() },
		"the old one was refused":   func(s *state) { s.refuse(sec(2)) },
		"the old one was accepted":  func(s *state) { s.accepted(messages.HighWake, sec(2)) },
		"nothing was found pending": func(s *state) { s.stop(sec(2)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := script{t: t}
			x.new(0, 1)
			x.s.begin()
			x.s.revive(sec(1))
			end(&x.s)
			x.wakesBy(2)
			if !x.s.forced(sec(2)) {
				t.Error("what the new token asked for was forgotten")
			}
			x.s.begin()
			x.s.block()
			x.sleeps()
		})
	}
}

func TestAPollThatBeginsGetsWhatIsNewBeforeAnyWake(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 1)
	x.s.polling(sec(55), sec(0), DefaultGrace)
	x.wakesAt(10)
}

func TestAPhoneThatIsPagingIsNotWokenForTheRest(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 9)
	x.s.served(messages.Hint{Seq: 5, More: true}, sec(0), DefaultGrace)
	x.wakesAt(10)
}

func TestAPhoneThatHasReadTheLastPageIsWokenAtOnce(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.s.served(messages.Hint{Seq: 5, More: true}, sec(0), DefaultGrace)
	x.served(1, 8, false)
	x.new(2, 9)
	x.wakesBy(2)
}

func TestAPollThatEndedProtectsNoMore(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.s.polling(sec(55), sec(0), DefaultGrace)
	x.s.idle()
	x.new(20, 1)
	x.wakesBy(20)
}

func TestAFetchThatFoundNothingAnswersTheWake(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	x.new(0, 1)
	x.push(0, messages.HighWake)
	x.s.found(1) // it had expired
	x.new(20, 2)
	x.wakesBy(20)
}

func TestStepsOfALadderAreRememberedInOrderAndBounded(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	for n := 20; n > 0; n-- {
		x.s.callAt(sec(float64(60 * n)))
	}
	x.s.callAt(sec(61)) // beside the first: the same call
	if len(x.s.rungs) != maxRungs {
		t.Fatalf("%d steps, want %d", len(x.s.rungs), maxRungs)
	}
	for n := 1; n <= maxRungs; n++ {
		x.wakesAt(float64(60 * n))
		x.s.begin()
		x.s.stop(sec(float64(60 * n)))
	}
	x.sleeps()
}

func TestATokenThatComesAgainAndAgainIsOneLook(t *testing.T) {
	t.Parallel()
	x := script{t: t}
	for n := range 100 {
		x.s.revive(sec(float64(n)))
	}
	if len(x.s.rungs) != 1 {
		t.Errorf("%d looks are remembered, want one", len(x.s.rungs))
	}
	x.wakesBy(0)
}

func TestAForgottenDeviceLeavesNoTimerBehind(t *testing.T) {
	t.Parallel()
	h := newHub(New(Options{}), t.Context(), func() {})
	e := h.remember("dev_1")
	e.state.lastPush = t0
	h.settle(e, t0) // only the burst is left to remember
	if len(h.timers) != 1 {
		t.Fatalf("%d timers, want the burst's", len(h.timers))
	}
	h.forget(t0)
	if len(h.devices) != 0 || len(h.timers) != 0 {
		t.Errorf("%d devices and %d timers remain: an old timer would forget the device's next state", len(h.devices), len(h.timers))
	}
}
