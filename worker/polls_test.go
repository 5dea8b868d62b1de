package worker_test

import (
	"testing"
	"time"

	"rouse/messages"
	"rouse/tokens"
	"rouse/worker"
)

func TestAClockThatIsAheadDoesNotMakeAPollEndless(t *testing.T) {
	inVillage(t, 1, func(v *village) {
		phone := v.device(tokens.FCM).ID
		v.bus.Hint(messages.Hint{Kind: messages.HintPolling, Device: phone, Until: time.Now().Add(10 * time.Minute)})
		v.pass(61 * time.Second)
		v.send(phone, messages.High)
		v.wants(1, "no poll lasts longer than a minute")
	})
}

// What one node is told of a phone's presence holds at its next home, once it is told anew.
func TestPresenceThatIsToldAnewHoldsAPushBackAtTheHeir(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		phone := v.at(1, 1)[0]
		polling := messages.Hint{Kind: messages.HintPolling, Device: phone, Until: time.Now().Add(50 * time.Second)}
		v.bus.Hint(polling)
		v.pass(time.Second)
		v.lines[0].lets(nothing)
		v.send(phone, messages.High) // its home hears nothing
		v.live(0, 0)
		v.bus.Hint(polling)
		v.pass(5 * time.Second)
		v.wants(0, "the phone gets it on its poll")
		v.pass(10 * time.Second)
		v.wants(1, "it did not: presence postpones a wake and does not cancel it")
	})
}

// An idle hint of an older poll comes from another node, and may come late.
func TestTheEndOfAnOlderPollIsNotThatOfTheLast(t *testing.T) {
	inVillage(t, 1, func(v *village) {
		phone := v.device(tokens.FCM).ID
		v.bus.Hint(messages.Hint{Kind: messages.HintPolling, Device: phone, Seq: 1, Until: time.Now().Add(50 * time.Second)},
			messages.Hint{Kind: messages.HintPolling, Device: phone, Seq: 2, Until: time.Now().Add(50 * time.Second)},
			messages.Hint{Kind: messages.HintIdle, Device: phone, Seq: 1})
		v.pass(time.Second)
		v.send(phone, messages.High)
		v.pass(time.Second)
		v.wants(0, "it polls")
		v.bus.Hint(messages.Hint{Kind: messages.HintIdle, Device: phone, Seq: 2})
		v.pass(worker.DefaultGrace)
		v.wants(1, "it does no more")
	})
}
