package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
	"rouse/worker"
)

var taken = providers.Outcome{Verdict: providers.Accepted}

func TestAHighMessageDoesNotWaitForAPostponedBackgroundPush(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.Normal)
		h.fetch(d.ID, true)
		h.pass(time.Minute)
		h.send(d.ID, messages.Normal) // postponed to minute 20
		h.pass(time.Second)
		h.send(d.ID, messages.High)
		h.pass(30 * time.Second)
		h.wants(2, "an alert does not wait for a background push's turn")
	})
}

func TestARestartMakesTheFirstPushToASilentPhone(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		h.stop()
		h.pass(8 * 24 * time.Hour)
		h.send(d.ID, messages.High) // committed; the process dies before the hint
		h.start()
		h.pass(10 * time.Minute)
		if len(h.provider.sent()) == 0 {
			h.t.Error("a new message makes its first push, whoever died")
		}
	})
}

func TestAFetchThatFindsNothingAnswersTheWake(t *testing.T) {
	for name, u := range map[string]messages.Urgency{"high": messages.High, "normal": messages.Normal} {
		t.Run(name, func(t *testing.T) {
			atHome(t, func(h *home) {
				d := h.device(tokens.FCM)
				r := h.send(d.ID, u)
				_, err := h.store.Cancel(h.t.Context(), h.app, r.ID, time.Now()) // or its TTL ends
				must(h.t, err)
				h.fetch(d.ID, true) // the phone comes and finds nothing
				h.pass(20 * time.Second)
				h.send(d.ID, u)
				h.pass(20 * time.Second)
				h.wants(2, "the phone came since the last wake")
			})
		})
	}
}

func TestAPushFromBeforeAPauseDoesNotEndIt(t *testing.T) {
	atHome(t, func(h *home) {
		started, goOn := h.holdFirst(taken, func(n int, _ worker.Outlet) providers.Outcome {
			if n == 2 {
				return providers.Outcome{Verdict: providers.AppThrottled, RetryAfter: 10 * time.Minute, Status: 429}
			}
			return taken
		})
		a, b, c := h.device(tokens.FCM), h.device(tokens.FCM), h.device(tokens.FCM)
		h.prove(tokens.FCM)
		go h.quiet(a.ID)
		<-started
		h.send(b.ID, messages.High) // 429: the outlet pauses
		close(goOn)                 // the push that began before is accepted
		h.pass(time.Second)
		h.send(c.ID, messages.High)
		h.pass(20 * time.Second)
		h.wants(2, "Google asked for ten minutes")
	})
}

func TestAnOldCredentialsAnswerDoesNotPauseTheNewOne(t *testing.T) {
	atHome(t, func(h *home) {
		must(h.t, h.store.PutCredential(h.t.Context(), tokens.Credential{App: h.app, Provider: tokens.APNs, Fingerprint: "f",
			Public: []byte("{}"), Secret: []byte("{}"), UpdatedAt: time.Now()}))
		started, goOn := h.holdFirst(providers.Outcome{Verdict: providers.CredentialBad, Reason: "InvalidProviderToken", Status: 403},
			func(int, worker.Outlet) providers.Outcome { return taken })
		a, b := h.device(tokens.APNs), h.device(tokens.APNs)
		go h.quiet(a.ID)
		<-started
		h.bus.Hint(messages.Hint{Kind: messages.HintCredential, App: h.app, Provider: string(tokens.APNs)})
		synctest.Wait()
		close(goOn)
		h.pass(time.Second)
		h.send(b.ID, messages.High)
		h.pass(10 * time.Second)
		if c, _ := h.store.Credential(h.t.Context(), h.app, tokens.APNs); c.Failing != "" {
			h.t.Errorf("the new credential is shown as failing: %s", c.Failing)
		}
		h.wants(3, "the new credential works")
	})
}

func TestADeviceThatMovedLeavesAPausedOutletsQueue(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			if o.Environment == tokens.Production {
				return providers.Outcome{Verdict: providers.CredentialBad, Reason: "InvalidProviderToken", Status: 403}
			}
			return taken
		}
		first, d := h.device(tokens.APNs), h.device(tokens.APNs)
		h.send(first.ID, messages.High)
		h.send(d.ID, messages.High)
		h.pass(time.Second)
		_, _, err := h.store.Register(h.t.Context(), tokens.Enrol{Registration: tokens.Registration{App: h.app, Installation: d.Installation,
			Platform: tokens.IOS, Provider: tokens.APNs, Environment: tokens.Sandbox, Token: tokens.Token(strings.Repeat("cd", 32))},
			As: tokens.DeviceKey, Device: d.ID, ID: d.ID, Now: time.Now()})
		must(h.t, err)
		h.bus.Hint(messages.Hint{Kind: messages.HintToken, App: h.app, Device: d.ID})
		h.pass(30 * time.Second)
		h.wants(2, "a new token wakes at once; its outlet is free")
	})
}

func TestAMessageFromTheFutureKeepsItsLadder(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		m, err := messages.New(messages.Send{App: h.app, To: messages.Target{Device: d.ID}, Urgency: messages.High,
			Data: []byte("1"), TTL: messages.DefaultTTL, CreatedAt: time.Now().Add(time.Hour)}) // and the clock is set back
		must(h.t, err)
		r, err := h.store.Accept(h.t.Context(), m)
		must(h.t, err)
		h.bus.Hint(messages.Hint{Kind: messages.HintNew, App: h.app, Device: d.ID, Seq: r.Pending[0].Seq, Class: messages.HighWake})
		h.pass(37 * time.Minute)
		h.wants(4, "the push and three steps")
	})
}

// lossy is a bus that loses the first hints after the beginning, and says so.
type lossy struct{ worker.Bus }

func (l lossy) Listen(ctx context.Context, receive func([]messages.Hint, bool)) error {
	calls := 0
	return l.Bus.Listen(ctx, func(hints []messages.Hint, missing bool) {
		if calls++; calls == 2 {
			hints, missing = nil, true
		}
		receive(hints, missing)
	})
}

func TestALostHintIsMadeUpForAtOnce(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		h.startWith(worker.Options{Hints: lossy{h.bus}})
		d := h.device(tokens.FCM)
		h.send(d.ID, messages.High)
		h.pass(time.Second)
		h.wants(1, "hints were lost: everything new is looked at")
	})
}

// deaf is a bus that hands nothing over while it is, and says so with the first hint after that.
type deaf struct {
	worker.Bus
	now, was atomic.Bool
}

func (d *deaf) Listen(ctx context.Context, receive func([]messages.Hint, bool)) error {
	return d.Bus.Listen(ctx, func(hints []messages.Hint, missing bool) {
		if d.now.Load() {
			d.was.Store(true)
			return
		}
		receive(hints, missing || d.was.Swap(false))
	})
}

func TestALostAnswerHoldsNothingUp(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		bus := &deaf{Bus: h.bus}
		h.startWith(worker.Options{Hints: bus})
		answers, sleeps := h.device(tokens.FCM), h.device(tokens.FCM)
		h.send(answers.ID, messages.High)
		h.send(sleeps.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "both are called")
		bus.now.Store(true)
		h.fetch(answers.ID, true)
		h.send(answers.ID, messages.High)
		h.send(sleeps.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "nobody heard of the answer, nor of what came then")
		bus.now.Store(false)
		h.bus.Hint(messages.Hint{Kind: messages.HintIdle, Device: sleeps.ID})
		h.pass(5 * time.Second)
		h.wants(3, "the answer is in the store, and who did not answer is not called twice")
	})
}

// unwell is a store that does not answer for a while.
type unwell struct {
	*store.Store
	failures atomic.Int32
}

func (u *unwell) Waiting(ctx context.Context, d ident.Device, now time.Time) (messages.Waiting, tokens.Device, error) {
	if u.failures.Add(-1) >= 0 {
		return messages.Waiting{}, tokens.Device{}, errors.New("the disk is away")
	}
	return u.Store.Waiting(ctx, d, now)
}

func TestAStoreThatDoesNotAnswerDelaysAWakeAndLosesNone(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		s := &unwell{Store: h.store}
		s.failures.Store(2)
		h.startWith(worker.Options{Store: s})
		d := h.device(tokens.FCM)
		h.send(d.ID, messages.High)
		h.wants(0, "it could not be read")
		h.pass(storePatience)
		h.wants(1, "read again after 5 s, and after 10 s more")
	})
}

// storePatience is two failed reads and the pauses after them, well before the ladder's first step.
const storePatience = 20 * time.Second

func TestANewCredentialWakesPhonesThatAreNotInMemory(t *testing.T) {
	atHome(t, func(h *home) {
		bad := true
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if bad {
				return providers.Outcome{Verdict: providers.CredentialBad, Reason: "InvalidProviderToken", Status: 403}
			}
			return taken
		}
		phones := map[ident.Device]bool{}
		for range 3 {
			d := h.device(tokens.APNs)
			h.send(d.ID, messages.High)
			phones[d.ID] = true
		}
		h.pass(4 * time.Minute) // the first step of the ladder has passed them
		h.stop()
		h.start()
		h.pass(time.Second)
		before := len(h.provider.sent())
		bad = false
		h.bus.Hint(messages.Hint{Kind: messages.HintCredential, App: h.app, Provider: string(tokens.APNs)})
		h.pass(time.Second)
		for _, p := range h.provider.sent()[before:] {
			delete(phones, p.Device)
		}
		if len(phones) > 0 {
			h.t.Errorf("%d phones wait for the ladder although the credential works", len(phones))
		}
	})
}

func TestOnlyTheLadderTriesASuspectToken(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return providers.Outcome{Verdict: providers.TokenSuspect, Reason: "DeviceTokenNotForTopic", Status: 400}
			}
			return taken
		}
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.High)
		h.pass(5 * time.Second)
		h.send(d.ID, messages.High)
		h.pass(30 * time.Second)
		h.wants(1, "a token under suspicion is left alone for now")
		h.pass(40 * time.Second) // the later message's step comes 30 s after the first one's at the earliest
		h.wants(2, "the ladder tries it")
		dev, err := h.store.Device(h.t.Context(), h.app, d.ID)
		must(h.t, err)
		if dev.TokenState != tokens.TokenActive {
			h.t.Errorf("the token is %s after an accepted push", dev.TokenState)
		}
	})
}

// Phones that wait behind a pause have climbed past the first steps of the ladder; the next may be hours away. A process that
// begins with the pause begins with them.
func TestAPauseThatOutlivesTheProcessEndsForAllWhoWaited(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.APNs)
		phones := h.devices(3, tokens.APNs)
		var healed atomic.Bool
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if healed.Load() {
				return taken
			}
			return providers.Outcome{Verdict: providers.CredentialBad, Reason: "InvalidProviderToken", Status: 403}
		}
		h.sendAll(phones)
		h.pass(40 * time.Minute) // tried after 1, 6 and 21 minutes; the next time is after 81
		h.circuits(tokens.CauseCredential)
		h.stop()
		healed.Store(true)
		h.start()
		h.pass(80 * time.Minute) // the step of 3 hours comes after 144 minutes at the earliest
		h.circuits()
		for _, d := range phones {
			if w, _, err := h.store.Waiting(h.t.Context(), d, time.Now()); err != nil || w.Woken == (messages.Marks{}) {
				t.Errorf("%s was not woken when the pause was over (%v)", d, err)
			}
		}
	})
}

func TestAPhoneThatAcksByIDHasAnsweredItsWake(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		r := h.send(d.ID, messages.High)
		h.wants(1, "it sleeps")
		h.pass(20 * time.Second)
		_, err := h.store.AckIDs(h.t.Context(), d.ID, []ident.Message{r.ID}, time.Now()) // as an app that learnt of it elsewhere does
		must(h.t, err)
		h.bus.Hint(messages.Hint{Kind: messages.HintAcked, Device: d.ID})
		h.pass(20 * time.Second)
		h.send(d.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "a new message calls it anew")
	})
}
