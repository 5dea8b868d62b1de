package worker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
	"rouse/worker"
)

func TestDeathsAreTakenBackEvenIfTheStoreIsSlowToListen(t *testing.T) {
	atHome(t, func(h *home) {
		m := h.moodily(worker.Options{})
		m.unmoved.Store(3)
		phones := h.devices(60, tokens.FCM)
		bad := map[ident.Device]bool{}
		for i, d := range phones {
			bad[d] = i%4 == 0
		}
		h.provider.answer = func(_ int, _ worker.Outlet, p providers.Push) providers.Outcome {
			if bad[p.Device] {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
			}
			return taken
		}
		h.sendAll(phones)
		dead := func() (n int) {
			for _, d := range phones {
				if h.token(d).TokenState == tokens.TokenDead {
					n++
				}
			}
			return n
		}
		h.pass(time.Second)
		h.circuits(tokens.CauseMassDeath)
		if dead() == 0 {
			t.Error("the store took the deaths back at once: nothing is tested")
		}
		h.pass(30 * time.Second)
		if n := dead(); n != 0 {
			t.Errorf("%d tokens of a wave stay dead because the store was away for a moment", n)
		}
	})
}

func TestAWaveOfTokensOfNoEnvironmentIsProbedBySchedule(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return badToken("BadDeviceToken") }
		phones := h.devices(150, tokens.APNs)
		h.sendAll(phones)
		h.pass(50 * time.Second)
		h.circuits(tokens.CauseMassDeath)
		before := len(h.provider.sent())
		h.pass(3 * time.Minute)
		if n := len(h.provider.sent()) - before; n != 5 {
			t.Errorf("%d probes after the first minute, want five", n)
		}
		if c := h.circuits(tokens.CauseMassDeath)[0]; c.Pauses != 2 || c.State != tokens.CircuitOpen {
			t.Errorf("circuit %+v, want its second pause", c)
		}
		h.pass(3 * time.Minute)
		if n := len(h.provider.sent()) - before; n != 10 {
			t.Errorf("%d probes after the second pause, want five more", n)
		}
	})
}

func TestAWaveIsNotEndedByWhatBeganBeforeIt(t *testing.T) {
	atHome(t, func(h *home) {
		first, rest := make(chan struct{}), make(chan struct{})
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			switch {
			case n <= 50:
				<-first
				if n%2 == 0 {
					return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
				}
			case n <= 120:
				<-rest
			}
			return taken
		}
		h.prove(tokens.FCM)
		h.pass(11 * time.Minute) // and the proof is no sample of the wave
		h.sendSoon(h.devices(120, tokens.FCM)...)
		h.wants(120, "all at once")
		close(first)
		synctest.Wait()
		close(rest)
		h.pass(time.Second)
		if c := h.circuits(tokens.CauseMassDeath)[0]; c.State != tokens.CircuitOpen {
			t.Errorf("circuit %+v: what was under way ended the pause", c)
		}
	})
}

func TestAWaveConcernsNoOtherAppAndNoOtherProvider(t *testing.T) {
	atHome(t, func(h *home) {
		other := h.anotherApp()
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			if o.App == h.app && o.Provider == tokens.FCM {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
			}
			return taken
		}
		h.sendAll(h.devices(60, tokens.FCM))
		h.pass(time.Second)
		h.circuits(tokens.CauseMassDeath)
		before := len(h.provider.sent())
		theirs, apple, late := h.deviceOf(other, tokens.FCM), h.device(tokens.APNs), h.device(tokens.FCM)
		h.sendAs(other, messages.Send{To: messages.Target{Device: theirs.ID}, Urgency: messages.High})
		h.sendAll([]ident.Device{apple.ID, late.ID})
		h.pass(10 * time.Second)
		if n := h.through(before, func(p pushed) bool { return p.Device == theirs.ID || p.Device == apple.ID }); n != 2 {
			t.Errorf("%d of 2 pushes of another app and another provider went out", n)
		}
		h.wants(before+2, "the app's own of that provider wait")
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404, ProviderTime: time.Now().Add(time.Second)}
		}
		doomed := h.device(tokens.APNs)
		h.send(doomed.ID, messages.High)
		h.pass(time.Second)
		if s := h.token(doomed.ID).TokenState; s != tokens.TokenDead {
			t.Errorf("a token of the other provider is %s: its deaths are believed as ever", s)
		}
	})
}

func TestAWaveOutlivesTheProcess(t *testing.T) {
	for name, then := range map[string]time.Duration{"while it pauses": time.Second, "while it is watched": 65 * time.Second} {
		t.Run(name, func(t *testing.T) {
			atHome(t, func(h *home) {
				phones, more := h.devices(50, tokens.FCM), h.devices(2, tokens.FCM)
				doomed := h.device(tokens.FCM).ID
				h.provider.answer = func(n int, _ worker.Outlet, p providers.Push) providers.Outcome {
					if n%2 == 0 && n <= 50 || p.Device == doomed {
						return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
					}
					return taken
				}
				h.sendAll(phones)
				h.sendAll(more)
				h.pass(then)
				h.stop()
				h.start()
				h.pass(70 * time.Second)
				h.send(doomed, messages.High)
				h.pass(time.Second)
				if s := h.token(doomed).TokenState; s != tokens.TokenSuspect {
					t.Errorf("a token is %s: the wave is still watched", s)
				}
				if c := h.circuits(tokens.CauseMassDeath)[0]; c.State != tokens.CircuitWatching {
					t.Errorf("circuit %+v", c)
				}
			})
		})
	}
}

func TestAPauseAfterAWaveEndsForEveryWayToPhones(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n%2 == 0 && n <= 50 {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
			}
			return taken
		}
		h.sendAll(h.devices(55, tokens.FCM))
		h.circuits(tokens.CauseMassDeath)
		behind := []ident.Device{h.behindGoogle(tokens.IOS), h.behindGoogle(tokens.Web)}
		h.sendAll(behind)
		h.wants(50, "it pauses")
		h.pass(61 * time.Second)
		if n := h.through(50, func(p pushed) bool { return p.outlet.Onward != "" }); n != 2 {
			t.Errorf("%d of 2 phones behind Google were woken after the pause", n)
		}
	})
}

func TestADeathThatIsWrittenLateIsTakenBackToo(t *testing.T) {
	atHome(t, func(h *home) {
		m := h.moodily(worker.Options{})
		m.late.Store(true)
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n%4 == 0 {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
			}
			return taken
		}
		phones := h.devices(60, tokens.FCM)
		h.sendAll(phones)
		h.circuits(tokens.CauseMassDeath)
		m.late.Store(false)
		close(m.gate)
		h.pass(time.Second)
		for _, d := range phones {
			if s := h.token(d).TokenState; s == tokens.TokenDead {
				t.Fatal("a token of a wave stays dead")
			}
		}
	})
}

func TestAfterANewCredentialDeathsAreBelievedAgain(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.FCM)
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
		}
		phones := h.devices(50, tokens.FCM)
		h.sendAll(phones)
		h.circuits(tokens.CauseMassDeath)
		h.provider.answer = nil
		h.pass(time.Second)
		for _, d := range phones {
			if h.token(d).TokenState == tokens.TokenDead {
				t.Fatal("a token died with the answer that made it a wave")
			}
		}
		h.credential(tokens.FCM)
		h.circuits()
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
		}
		doomed := h.device(tokens.FCM).ID
		h.send(doomed, messages.High)
		h.pass(time.Second)
		if s := h.token(doomed).TokenState; s != tokens.TokenDead {
			t.Errorf("a token is %s: the wave was another credential's", s)
		}
	})
}

// What a wave has cost is found in the store: neither the process that saw the first deaths nor the one that began to take
// them back need live on.
func TestAWavesDeathsAreTakenBackWhateverProcessSawThem(t *testing.T) {
	refusals := func(h *home) {
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
		}
	}
	dead := func(h *home, phones []ident.Device) (n int) {
		for _, d := range phones {
			if h.token(d).TokenState == tokens.TokenDead {
				n++
			}
		}
		return n
	}
	t.Run("a kill before it is one", func(t *testing.T) {
		atHome(t, func(h *home) {
			refusals(h)
			old := h.devices(20, tokens.FCM)
			h.sendAll(old)
			h.pass(11 * time.Minute)
			first := h.devices(40, tokens.FCM)
			h.sendAll(first)
			h.pass(time.Second)
			h.stop()
			h.start()
			h.sendAll(h.devices(60, tokens.FCM))
			h.pass(time.Second)
			h.circuits(tokens.CauseMassDeath)
			if n := dead(h, first); n != 0 {
				t.Errorf("%d tokens that died minutes before stay dead", n)
			}
			if n := dead(h, old); n != len(old) {
				t.Errorf("%d tokens that died long before it are dead, want all %d", n, len(old))
			}
		})
	})
	t.Run("a kill while they are taken back", func(t *testing.T) {
		atHome(t, func(h *home) {
			m := h.moodily(worker.Options{})
			m.unmoved.Store(1000)
			refusals(h)
			phones := h.devices(60, tokens.FCM)
			h.sendAll(phones)
			h.pass(time.Second)
			if dead(h, phones) == 0 {
				t.Fatal("no token died: nothing is tested")
			}
			h.stop()
			h.start()
			h.pass(time.Second)
			if n := dead(h, phones); n != 0 {
				t.Errorf("%d tokens stay dead", n)
			}
		})
	})
}
