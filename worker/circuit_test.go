package worker_test

import (
	"sync/atomic"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
	"rouse/worker"
)

var refusedKey = providers.Outcome{Verdict: providers.CredentialBad, Reason: "InvalidProviderToken", Status: 403}

// Three of ten tokens are called dead, with every proof: that is no life but a mistake somewhere, and nobody dies of it.
func TestAWaveOfDeathsIsNotBelieved(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.APNs)
		phones := h.devices(100, tokens.APNs)
		refused := map[ident.Device]bool{}
		for i, d := range phones {
			refused[d] = i%10 < 3
		}
		var healed atomic.Bool
		h.provider.answer = func(_ int, _ worker.Outlet, p providers.Push) providers.Outcome {
			if refused[p.Device] && !healed.Load() {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "Unregistered", Status: 410, ProviderTime: time.Now().Add(time.Second)}
			}
			return taken
		}
		h.sendAll(phones)
		h.pass(time.Second)
		if n := len(h.provider.sent()); n > 60 {
			t.Errorf("%d pushes went out; it should have paused after some fifty", n)
		}
		for _, d := range phones {
			if s := h.token(d).TokenState; s == tokens.TokenDead {
				t.Fatalf("a token died in the wave")
			}
		}
		c := h.circuits(tokens.CauseMassDeath)[0]
		if c.State != tokens.CircuitOpen || c.Reason != "Unregistered" {
			t.Errorf("circuit %+v", c)
		}
		if n := h.told(); n[messages.CircuitOpened] != 1 || n[messages.CredentialFailing] != 0 {
			t.Errorf("events %v, want one opening", n)
		}
		h.pass(90 * time.Second) // a probe after a minute; one in three is refused, and then it is five minutes
		h.pass(10 * time.Minute)
		for _, d := range phones {
			if !refused[d] && h.fetch(d, true) == 0 {
				t.Error("a message is gone")
			}
		}
		pushed := map[ident.Device]bool{}
		for _, p := range h.provider.sent() {
			pushed[p.Device] = true
		}
		if len(pushed) != len(phones) {
			t.Errorf("%d of %d phones were pushed once it flowed again", len(pushed), len(phones))
		}
		for _, d := range phones {
			if s := h.token(d).TokenState; s == tokens.TokenDead {
				t.Fatalf("a token died while it was watched")
			}
		}
		h.circuits(tokens.CauseMassDeath)
		healed.Store(true) // the app puts the right credential
		before := len(h.provider.sent())
		h.credential(tokens.APNs)
		h.pass(time.Second)
		h.circuits()
		woken := map[ident.Device]bool{}
		for _, p := range h.provider.sent()[before:] {
			woken[p.Device] = true
		}
		for d := range refused {
			if refused[d] && !woken[d] {
				t.Error("a phone that was refused is not woken by the credential")
			}
			if s := h.token(d).TokenState; s != tokens.TokenActive {
				t.Errorf("a token is %s in the end", s)
			}
		}
		if n := h.told(); n[messages.CircuitClosed] != 1 {
			t.Errorf("events %v, want one closing", n)
		}
	})
}

func TestAWaveThatWasTrueEndsByItself(t *testing.T) {
	atHome(t, func(h *home) {
		phones := h.devices(120, tokens.FCM)
		h.provider.answer = func(n int, _ worker.Outlet, p providers.Push) providers.Outcome {
			if n <= 60 && n%2 == 0 {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
			}
			return taken
		}
		h.sendAll(phones[:60])
		h.pass(2 * time.Minute)
		h.sendAll(phones[60:])
		h.pass(time.Second)
		h.circuits()
		if n := h.told(); n[messages.CircuitOpened] != 1 || n[messages.CircuitClosed] != 1 {
			t.Errorf("events %v, want one opening and one closing", n)
		}
	})
}

func TestDeathsFewEnoughAreBelieved(t *testing.T) {
	atHome(t, func(h *home) {
		phones := h.devices(200, tokens.FCM)
		dead := map[ident.Device]bool{}
		for i, d := range phones {
			dead[d] = i%10 == 9
		}
		h.provider.answer = func(_ int, _ worker.Outlet, p providers.Push) providers.Outcome {
			if dead[p.Device] {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
			}
			return taken
		}
		h.sendAll(phones)
		h.pass(time.Second)
		h.circuits()
		for _, d := range phones {
			if s := h.token(d).TokenState; (s == tokens.TokenDead) != dead[d] {
				t.Errorf("a token is %s", s)
			}
		}
	})
}

func TestCircuitsOutliveTheProcess(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.APNs)
		var works atomic.Bool
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if works.Load() {
				return taken
			}
			return refusedKey
		}
		phones := h.devices(20, tokens.APNs)
		h.sendAll(phones)
		h.pass(90 * time.Second)
		h.wants(2, "the first, and a probe after a minute")
		h.stop()
		h.start()
		h.pass(3 * time.Minute)
		h.wants(2, "the process before has learnt that it is refused: the next probe is not due")
		c := h.circuits(tokens.CauseCredential)[0]
		if c.Environment != tokens.Production || c.Reason != "InvalidProviderToken" || c.Pauses != 2 || !c.OpenedAt.Before(h.began.Add(time.Second)) {
			t.Errorf("circuit %+v", c)
		}
		works.Store(true)
		h.pass(3 * time.Minute)
		h.wants(2+20, "the probe is taken, and all follow")
		h.circuits()
		if n := h.told(); n[messages.CircuitOpened] != 1 || n[messages.CredentialFailing] != 1 || n[messages.CircuitClosed] != 1 {
			t.Errorf("events %v, want one of each", n)
		}
	})
}

func TestACircuitIsNotedWhenTheStoreListensAgain(t *testing.T) {
	atHome(t, func(h *home) {
		m := h.moodily(worker.Options{})
		m.deaf.Store(true)
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return refusedKey }
		h.sendAll(h.devices(1, tokens.APNs))
		h.pass(time.Second)
		h.circuits()
		m.deaf.Store(false)
		h.pass(10 * time.Second)
		h.circuits(tokens.CauseCredential)
	})
}

func TestAProjectsQuotaPausesAllItsDevicesAndAThirdPartysKeyOnlyThoseBehindIt(t *testing.T) {
	atHome(t, func(h *home) {
		android, iphone := h.device(tokens.FCM), h.behindGoogle(tokens.IOS)
		var quota atomic.Bool
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			switch {
			case quota.Load():
				return providers.Outcome{Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429}
			case o.Onward == tokens.OnwardApple:
				return providers.Outcome{Verdict: providers.CredentialBad, Reason: "THIRD_PARTY_AUTH_ERROR", Status: 401}
			}
			return taken
		}
		h.send(iphone, messages.High)
		h.send(android.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "Apple behind Google is shut, Android is not concerned")
		if c := h.circuits(tokens.CauseCredential)[0]; c.Onward != tokens.OnwardApple {
			t.Errorf("circuit %+v", c)
		}
		h.fetch(android.ID, true)
		quota.Store(true)
		h.pass(20 * time.Second)
		h.send(android.ID, messages.High)
		h.wants(3, "the quota")
		h.pass(45 * time.Second)
		h.wants(3, "all of the project rest for a minute, the probe of the iPhones too")
		h.circuits(tokens.CauseThrottled, tokens.CauseCredential)
	})
}

func TestAProjectThatIsNotThereIsTheAppsTrouble(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			return providers.Outcome{Verdict: providers.Unavailable, Reason: "NOT_FOUND", Status: 404}
		}
		phones := h.devices(20, tokens.FCM)
		h.sendAll(phones)
		h.pass(time.Second)
		h.wants(5, "a few tries, and then it is no outage")
		h.circuits(tokens.CauseCredential)
		for _, d := range phones {
			if s := h.token(d).TokenState; s != tokens.TokenActive {
				t.Errorf("a token is %s", s)
			}
		}
	})
}

func TestACircuitThatTheStoreTookInWithoutAWordIsClosed(t *testing.T) {
	atHome(t, func(h *home) {
		m := h.moodily(worker.Options{})
		m.mute.Store(true)
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return providers.Outcome{Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: time.Second}
			}
			return taken
		}
		h.send(h.device(tokens.FCM).ID, messages.High)
		h.circuits(tokens.CauseThrottled)
		m.mute.Store(false)
		h.pass(3 * time.Second)
		h.wants(2, "it was taken before the store was told again")
		h.pass(10 * time.Second)
		h.circuits()
	})
}

func TestACircuitWithAnotherCauseTakesTheFormersPlace(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return refusedKey
			}
			return providers.Outcome{Verdict: providers.AppThrottled, Reason: "TooManyProviderTokenUpdates", Status: 429, RetryAfter: 10 * time.Minute}
		}
		h.sendAll(h.devices(2, tokens.APNs))
		h.circuits(tokens.CauseCredential)
		h.pass(61 * time.Second)
		h.circuits(tokens.CauseThrottled)
		if n := h.told(); n[messages.CircuitOpened] != 2 || n[messages.CircuitClosed] != 1 {
			t.Errorf("events %v, want two openings and the first one's closing", n)
		}
	})
}

func TestACircuitThatClosesWhileItsOpeningIsWrittenIsClosed(t *testing.T) {
	atHome(t, func(h *home) {
		m := h.moodily(worker.Options{})
		m.slow.Store(true)
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return providers.Outcome{Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: time.Second}
			}
			return taken
		}
		h.send(h.device(tokens.FCM).ID, messages.High)
		h.pass(3 * time.Second)
		h.wants(2, "the pause is over before the store has written that it began")
		close(m.gate)
		h.pass(time.Second)
		h.circuits()
		if n := h.told(); n[messages.CircuitOpened] != 1 || n[messages.CircuitClosed] != 1 {
			t.Errorf("events %v, want one of each", n)
		}
	})
}
