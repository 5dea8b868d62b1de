package worker_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
	"rouse/worker"
)

func TestATokenOfTheOtherEnvironmentMovesThere(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			if o.Environment == tokens.Production {
				return badToken("BadDeviceToken")
			}
			return taken
		}
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "refused in one environment, taken in the other, at once")
		if dev := h.token(d.ID); dev.Environment != tokens.Sandbox || dev.TokenState != tokens.TokenActive || dev.Strikes != 0 {
			t.Errorf("device %+v", dev)
		}
		h.fetch(d.ID, true)
		h.pass(20 * time.Second)
		h.send(d.ID, messages.High)
		h.wants(3, "from now on straight there")
		if o := h.provider.sent()[2].outlet; o.Environment != tokens.Sandbox {
			t.Errorf("pushed through %+v", o)
		}
	})
}

// A production key asked about sandbox tokens says no for all of them: that is asked once, and no alarm.
func TestAKeyForOneEnvironmentIsNotAskedAboutTheOtherAgainAndAgain(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			if o.Environment == tokens.Sandbox {
				return providers.Outcome{Verdict: providers.CredentialBad, Reason: "BadEnvironmentKeyIdInToken", Status: 403}
			}
			return badToken("BadDeviceToken")
		}
		h.sendAll(h.devices(10, tokens.APNs))
		h.pass(time.Second)
		strangers := 0
		for _, p := range h.provider.sent() {
			if p.outlet.Environment == tokens.Sandbox {
				strangers++
			}
		}
		if strangers != 1 {
			t.Errorf("the sandbox was asked %d times, want once", strangers)
		}
		h.circuits()
		if n := h.told(); len(n) != 0 {
			t.Errorf("events %v, want none", n)
		}
	})
}

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
