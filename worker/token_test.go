package worker_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
	"rouse/worker"
)

func TestACredentialThatIsNotForTheOtherEnvironmentIsShownThereOnce(t *testing.T) {
	atHome(t, func(h *home) {
		goOn, sandbox := make(chan struct{}), make(chan struct{})
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			if o.Environment == tokens.Sandbox {
				<-sandbox
				return providers.Outcome{Verdict: providers.CredentialBad, Reason: "BadEnvironmentKeyIdInToken", Status: 403}
			}
			<-goOn
			return badToken("BadDeviceToken")
		}
		h.prove(tokens.APNs)
		phones := h.devices(20, tokens.APNs)
		h.sendSoon(phones...)
		h.wants(20, "all at once")
		close(goOn)
		synctest.Wait()
		close(sandbox) // by now all of them wait for it
		h.pass(time.Second)
		if n := h.through(0, func(p pushed) bool { return p.outlet.Environment == tokens.Sandbox }); n != 1 {
			t.Errorf("the sandbox was shown the credential %d times, want once", n)
		}
		for _, d := range phones {
			if dev := h.token(d); dev.TokenState != tokens.TokenSuspect || dev.Strikes != 1 {
				t.Errorf("a token is %s with %d strikes, want one", dev.TokenState, dev.Strikes)
			}
		}
		h.circuits()
	})
}

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

func TestACredentialWakesTokensThatNoEnvironmentKnew(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.APNs)
		var right atomic.Bool
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if right.Load() {
				return taken
			}
			return badToken("BadDeviceToken")
		}
		phones := h.devices(3, tokens.APNs)
		h.sendAll(phones)
		h.pass(time.Second)
		h.wants(6, "each in both environments")
		right.Store(true)
		h.credential(tokens.APNs)
		h.pass(time.Second)
		h.wants(9, "the right credential wakes them at once")
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

// A hint may be lost. The store knows that the app has put its credential, and is asked once an hour.
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
		h.pass(31 * time.Minute)
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

// A phone that its own environment refused waits for its turn in the other one, and then the right credential comes.
func TestACredentialEndsTheSearchElsewhere(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.APNs)
		release := make(chan struct{})
		var right atomic.Bool
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			switch {
			case o.Environment == tokens.Sandbox && !right.Load():
				<-release // one stranger at a time, and this one takes long
				return badToken("BadDeviceToken")
			case o.Environment == tokens.Production && right.Load():
				return taken
			}
			return badToken("BadDeviceToken")
		}
		phones := h.devices(3, tokens.APNs)
		h.sendAll(phones)
		h.pass(time.Second)
		right.Store(true)
		h.credential(tokens.APNs)
		close(release)
		h.pass(10 * time.Second)
		for _, d := range phones {
			if dev := h.token(d); dev.TokenState != tokens.TokenActive || dev.Strikes != 0 {
				t.Errorf("a token is %s with %d strikes", dev.TokenState, dev.Strikes)
			}
		}
		woken := map[ident.Device]bool{}
		for _, p := range h.provider.sent() {
			if p.outlet.Environment == tokens.Production && p.at.After(h.began.Add(time.Second)) {
				woken[p.Device] = true
			}
		}
		if len(woken) != len(phones) {
			t.Errorf("%d of %d phones were tried with the right credential", len(woken), len(phones))
		}
	})
}
