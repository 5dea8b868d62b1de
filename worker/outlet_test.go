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

// With a wrong key five hundred pushes at once would get the whole address blocked: one finds out.
func TestOnePushFindsOutWhetherACredentialWorks(t *testing.T) {
	atHome(t, func(h *home) {
		release := make(chan struct{})
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				<-release
			}
			return taken
		}
		phones := h.devices(50, tokens.APNs)
		h.sendAll(phones)
		h.wants(1, "nothing is known of this credential")
		close(release)
		h.pass(time.Millisecond)
		h.wants(50, "it works")
		h.sendAll(h.devices(1, tokens.APNs))
		h.wants(51, "and is known to")
	})
}

func TestAHungFirstPushDoesNotHoldUpTheApp(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return providers.Outcome{Verdict: "hang"}
			}
			return taken
		}
		h.sendAll(h.devices(30, tokens.APNs))
		h.pass(1900 * time.Millisecond)
		h.wants(1, "the first may still be answered")
		h.pass(200 * time.Millisecond)
		h.wants(30, "another one tried, and proved it for all")
	})
}

func TestOfACredentialThatHangsAFewAreTried(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return providers.Outcome{Verdict: "hang"} }
		h.sendAll(h.devices(30, tokens.APNs))
		h.pass(14 * time.Second)
		h.wants(4, "two seconds apart, and four at most")
	})
}

func TestAppsThatHangLeaveRoomForTheOthers(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		h.startWith(worker.Options{Total: 40})
		var busy, peak atomic.Int64
		healthy := h.app
		h.provider.answer = func(n int, o worker.Outlet, _ providers.Push) providers.Outcome {
			peak.Store(max(peak.Load(), busy.Add(1)))
			defer busy.Add(-1)
			if o.App == healthy || n <= 8 {
				return taken
			}
			return providers.Outcome{Verdict: "hang"}
		}
		for range 4 {
			app := ident.NewApp()
			must(h.t, h.store.CreateApp(h.t.Context(), tokens.App{ID: app, Name: "slow", InboxOverflow: tokens.OverflowReject, CreatedAt: time.Now()}, nil))
			for range 100 {
				h.sendAs(app, messages.Send{To: messages.Target{Device: h.deviceOf(app, tokens.FCM).ID}, Urgency: messages.High})
			}
		}
		phones := h.devices(30, tokens.FCM)
		before := time.Now()
		h.sendAll(phones)
		h.pass(time.Millisecond)
		got := map[ident.Device]bool{}
		for _, p := range h.provider.sent() {
			if p.outlet.App == healthy && p.at.Sub(before) < time.Second {
				got[p.Device] = true
			}
		}
		if len(got) != len(phones) {
			t.Errorf("%d of %d phones of the healthy app were pushed at once", len(got), len(phones))
		}
		if n := peak.Load(); n > 40+5*16 {
			t.Errorf("%d pushes under way at once, with room for 40 and 16 for each", n)
		}
	})
}

func TestAnOutletKeepsItsLimit(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		h.startWith(worker.Options{InFlight: 3})
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return providers.Outcome{Verdict: "hang"} }
		h.prove(tokens.FCM)
		h.sendAll(h.devices(10, tokens.FCM))
		h.wants(3, "no more at a time")
	})
}

func TestRoomThatBecomesFreeGoesToWhoWaitsForIt(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		h.startWith(worker.Options{Total: 40})
		slow, other := make(chan struct{}), h.anotherApp()
		h.provider.answer = func(n int, o worker.Outlet, _ providers.Push) providers.Outcome {
			switch {
			case n == 1:
				return taken // it proves the other app's credential
			case o.App == h.app:
				<-slow
				return taken
			}
			return providers.Outcome{Verdict: "hang"}
		}
		h.prove(tokens.FCM)
		theirs := func() {
			h.sendAs(other, messages.Send{To: messages.Target{Device: h.deviceOf(other, tokens.FCM).ID}, Urgency: messages.High})
		}
		theirs()
		h.sendSoon(h.devices(40, tokens.FCM)...)
		for range 30 {
			theirs()
		}
		h.wants(1+40+16, "all places are taken, but for the few that each has")
		close(slow)
		synctest.Wait()
		h.wants(1+40+30, "what is freed is theirs")
	})
}

func TestAProbeThatComesToNothingMakesWayForOtherOutlets(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			switch n {
			case 1:
				return providers.Outcome{Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: 10 * time.Second}
			case 2, 3:
				return providers.Outcome{Verdict: providers.Rejected, Status: 400}
			}
			return taken
		}
		h.sendAll([]ident.Device{h.device(tokens.FCM).ID, h.behindGoogle(tokens.IOS), h.behindGoogle(tokens.Web)})
		h.pass(13 * time.Second)
		h.wants(4, "each in turn")
		h.circuits()
	})
}

func TestAHangingProviderOfOneAppDelaysNoOther(t *testing.T) {
	atHome(t, func(h *home) {
		slow := ident.NewApp()
		must(t, h.store.CreateApp(h.t.Context(), tokens.App{ID: slow, Name: "slow", InboxOverflow: tokens.OverflowReject, CreatedAt: time.Now()}, nil))
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			if o.App == slow {
				return providers.Outcome{Verdict: "hang"}
			}
			return providers.Outcome{Verdict: providers.Accepted}
		}
		for range 400 {
			d := h.deviceOf(slow, tokens.FCM)
			h.sendAs(slow, messages.Send{To: messages.Target{Device: d.ID}, Urgency: messages.High})
		}
		d := h.device(tokens.FCM)
		before := time.Now()
		h.send(d.ID, messages.High)
		sent := h.provider.sent()
		if last := sent[len(sent)-1]; last.Device != d.ID || last.at.Sub(before) > time.Millisecond {
			t.Errorf("the other app's push did not go out at once")
		}
	})
}
