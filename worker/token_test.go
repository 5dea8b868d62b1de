package worker_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
	"rouse/worker"
)

func TestATokenThatComesDuringAPushIsNotHeldByItsAnswer(t *testing.T) {
	for name, answer := range map[string]providers.Outcome{
		"a pause": refusedKey, "an outage": {Verdict: providers.Unavailable, Status: 503, RetryAfter: time.Hour}, "a refusal": badToken("DeviceTokenNotForTopic"),
	} {
		t.Run(name, func(t *testing.T) {
			atHome(t, func(h *home) {
				started, goOn := h.holdFirst(answer, func(_ int, o worker.Outlet) providers.Outcome {
					if o.Environment == tokens.Production {
						return refusedKey
					}
					return taken
				})
				d := h.device(tokens.APNs)
				go h.quiet(d.ID)
				<-started
				h.register(d, tokens.Sandbox)
				h.hintToken(d.ID)
				close(goOn)
				h.pass(5 * time.Second)
				h.wants(2, "the new token is woken at once")
				if o := h.provider.sent()[1].outlet; o.Environment != tokens.Sandbox {
					t.Errorf("pushed through %+v", o)
				}
			})
		})
	}
}

func TestATokenWhoseHintWasLostIsFoundByTheLadder(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "Unregistered", Status: 410, ProviderTime: time.Now().Add(time.Second)}
			}
			return taken
		}
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.High)
		h.pass(10 * time.Second)
		h.register(d, "") // its hint reaches nobody
		h.pass(80 * time.Second)
		h.wants(2, "the ladder asks the store")
	})
}

func TestACredentialWakesSuspectsThatWereOnlyRead(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.APNs)
		var right atomic.Bool
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if right.Load() {
				return taken
			}
			return badToken("DeviceTokenNotForTopic")
		}
		phones := h.devices(3, tokens.APNs)
		h.sendAll(phones)
		h.pass(time.Second)
		h.stop()
		h.start()
		h.sendAll(phones) // suspect: the ladder's
		h.pass(time.Second)
		h.wants(3, "suspects are left alone")
		right.Store(true)
		h.credential(tokens.APNs)
		h.pass(time.Second)
		h.wants(6, "the right credential wakes them at once")
	})
}

func TestWhatAnOldCredentialIsToldCostsNoToken(t *testing.T) {
	for name, answer := range map[string]providers.Outcome{
		"a strike": {Verdict: providers.TokenSuspect, Reason: "SENDER_ID_MISMATCH", Status: 403},
		"a death":  {Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404},
	} {
		t.Run(name, func(t *testing.T) {
			atHome(t, func(h *home) {
				h.credential(tokens.FCM)
				started, goOn := h.holdFirst(answer, func(int, worker.Outlet) providers.Outcome { return taken })
				d := h.device(tokens.FCM)
				go h.quiet(d.ID)
				<-started
				h.pass(time.Second)
				h.credential(tokens.FCM)
				close(goOn)
				h.pass(time.Second)
				if dev := h.token(d.ID); dev.TokenState != tokens.TokenActive || dev.Strikes != 0 {
					t.Errorf("the token is %s with %d strikes: that was another credential", dev.TokenState, dev.Strikes)
				}
				h.wants(2, "the new one wakes the phone at once")
			})
		})
	}
}

func TestADeviceThatIsThrottledPausesNobodyElse(t *testing.T) {
	atHome(t, func(h *home) {
		throttled, other := h.device(tokens.FCM), h.device(tokens.FCM)
		h.provider.answer = func(n int, _ worker.Outlet, p providers.Push) providers.Outcome {
			if n == 1 {
				return providers.Outcome{Verdict: providers.DeviceThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: 10 * time.Minute}
			}
			return taken
		}
		h.sendAll([]ident.Device{throttled.ID, other.ID})
		h.wants(2, "the other is not concerned")
		h.fetch(other.ID, true)
		h.pass(9 * time.Minute)
		h.wants(2, "not before ten minutes, whatever the ladder says")
		h.pass(4 * time.Minute)
		h.wants(3, "and then")
		h.circuits()
	})
}

func TestARefreshWakesAQuarantinedPhoneAtOnce(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n <= 2 {
				return providers.Outcome{Verdict: providers.TokenSuspect, Reason: "SENDER_ID_MISMATCH", Status: 403}
			}
			return taken
		}
		d := h.device(tokens.FCM)
		h.send(d.ID, messages.High)
		h.pass(time.Hour)
		h.wants(2, "two strikes")
		_, err := h.store.PatchDevice(h.t.Context(), d.ID, tokens.Patch{Token: &d.Token}, time.Now())
		must(t, err)
		h.hintToken(d.ID)
		h.wants(3, "at once")
		if dev := h.token(d.ID); dev.TokenState != tokens.TokenActive || dev.Strikes != 0 {
			t.Errorf("device %+v", dev)
		}
	})
}

// A hint may be lost. The store knows that the app has put its credential, and is asked once a minute.
func TestACredentialWhoseHintWasLostIsFound(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.APNs)
		var right atomic.Bool
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if right.Load() {
				return taken
			}
			return refusedKey
		}
		phones := h.devices(3, tokens.APNs)
		h.sendAll(phones)
		h.pass(30 * time.Minute)
		h.wants(4, "the next probe comes at 81 minutes")
		h.circuits(tokens.CauseCredential)
		right.Store(true)
		must(t, h.store.PutCredential(h.t.Context(), tokens.Credential{App: h.app, Provider: tokens.APNs, Fingerprint: "f",
			Public: []byte("{}"), Secret: []byte("{}"), UpdatedAt: time.Now()}))
		h.circuits()
		h.pass(61 * time.Second)
		h.wants(4+3, "the worker has found out")
	})
}

func TestAnAppThatIsDeletedLeavesNoCircuitBehind(t *testing.T) {
	atHome(t, func(h *home) {
		registry := prometheus.NewRegistry()
		h.moodily(worker.Options{Metrics: registry})
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return refusedKey }
		h.sendAll(h.devices(3, tokens.APNs))
		h.pass(time.Second)
		if got := circuitsShown(t, registry); len(got) != 1 {
			t.Errorf("circuits shown: %v, want one", got)
		}
		must(t, h.store.DeleteApp(h.t.Context(), h.app))
		h.pass(time.Hour)
		if got := circuitsShown(t, registry); len(got) != 0 {
			t.Errorf("circuits shown: %v of an app that is gone", got)
		}
	})
}

func TestWhatAnOldCredentialWasGoodForDoesNotProveTheNewOne(t *testing.T) {
	atHome(t, func(h *home) {
		goOn := make(chan struct{})
		release := sync.OnceFunc(func() { close(goOn) })
		defer release()
		started, first := h.holdFirst(taken, func(int, worker.Outlet) providers.Outcome {
			<-goOn
			return refusedKey
		})
		h.prove(tokens.APNs)
		phones := h.devices(10, tokens.APNs)
		go h.quiet(phones[0])
		<-started
		h.credential(tokens.APNs)
		h.sendSoon(phones[1:]...)
		h.wants(1, "one finds out, once the old one's push is back")
		close(first)
		synctest.Wait()
		h.wants(2, "the old one was taken: that says nothing of the new one")
		release()
		h.pass(time.Second)
		h.wants(2, "which is refused")
		h.circuits(tokens.CauseCredential)
	})
}

func badToken(reason string) providers.Outcome {
	return providers.Outcome{Verdict: providers.TokenSuspect, Reason: reason, Status: 400}
}

func TestATokenRefusedEverywhereRestsAfterTwoStrikes(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return badToken("BadDeviceToken") }
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "here, and once in the other environment")
		if dev := h.token(d.ID); dev.TokenState != tokens.TokenSuspect || dev.Strikes != 1 || !dev.OtherTried {
			t.Errorf("device %+v", dev)
		}
		h.pass(2 * time.Minute)
		h.wants(3, "the ladder tries here once more, and not elsewhere")
		h.pass(9 * time.Hour)
		h.wants(3, "two strikes: it rests")
		h.pass(6 * time.Hour)
		h.wants(4, "the long steps of the ladder try")
		before := len(h.provider.sent())
		_, err := h.store.PatchDevice(h.t.Context(), d.ID, tokens.Patch{Token: &d.Token}, time.Now())
		must(h.t, err)
		h.bus.Hint(messages.Hint{Kind: messages.HintToken, App: h.app, Device: d.ID})
		h.pass(time.Second)
		if n := len(h.provider.sent()) - before; n != 2 {
			t.Errorf("%d pushes after the token was registered again, want it tried in both environments anew", n)
		}
	})
}

func TestStrikesOfAnotherCredentialDoNotCount(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.FCM)
		var right atomic.Bool
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if right.Load() {
				return taken
			}
			return providers.Outcome{Verdict: providers.TokenSuspect, Reason: "SENDER_ID_MISMATCH", Status: 403}
		}
		phones := h.devices(5, tokens.FCM)
		h.sendAll(phones)
		h.pass(3 * time.Minute)
		h.wants(10, "each twice")
		h.stop() // and nothing is remembered
		h.start()
		h.pass(time.Minute)
		right.Store(true)
		h.credential(tokens.FCM)
		h.pass(time.Second)
		h.wants(15, "the right project's credential wakes all at once")
		for _, d := range phones {
			if dev := h.token(d); dev.TokenState != tokens.TokenActive || dev.Strikes != 0 {
				t.Errorf("device %+v", dev)
			}
		}
	})
}

// On another node the phone was registered, and the hint of that comes late.
func TestATokenThatWasReachedIsNotCalledForItsHint(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		h.send(d.ID, messages.High)
		h.pass(time.Second)
		h.wants(1, "the message wakes")
		h.hintToken(d.ID)
		h.pass(time.Second)
		h.wants(1, "the token has just been pushed to")
		h.register(d, "")
		h.hintToken(d.ID)
		h.pass(time.Second)
		h.wants(2, "a newer one has not")
	})
}

// overtaken is a store in which something happens after a read, before its reader has it.
type overtaken struct {
	*store.Store
	then func()
}

func (o *overtaken) Waiting(ctx context.Context, d ident.Device, now time.Time) (messages.Waiting, tokens.Device, error) {
	w, dev, err := o.Store.Waiting(ctx, d, now)
	if o.then != nil {
		o.then()
		o.then = nil
	}
	return w, dev, err
}

// A push stands for what was read before it, so one that was made for a message hinted since would be made twice.
func TestAMessageThatComesWhileATokenIsLookedAtIsPushedOnce(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		s := &overtaken{Store: h.store}
		h.startWith(worker.Options{Store: s})
		d := h.device(tokens.FCM)
		var head messages.Seq
		s.then = func() {
			receipt, err := h.store.Accept(context.Background(), testkit.Send(h.app, d.ID))
			if err != nil {
				t.Error(err)
			}
			head = receipt.Pending[0].Seq
			h.bus.Hint(messages.Hint{Kind: messages.HintNew, App: h.app, Device: d.ID, Seq: head, Class: messages.HighWake})
			<-time.After(time.Millisecond) // virtual: the worker has heard it before it has what was read
		}
		h.hintToken(d.ID)
		h.pass(time.Second)
		h.wants(1, "registered and sent to at once")
		if p := h.provider.sent()[0]; p.Head != string(messages.NewCursor(d.ID, head)) {
			t.Errorf("the push tells of %s, the message is %d", p.Head, head)
		}
	})
}
