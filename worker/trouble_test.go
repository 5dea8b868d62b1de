package worker_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
	"rouse/worker"
)

// moody is a store with troubles.
type moody struct {
	*store.Store
	deaf    atomic.Bool   // takes no circuits in
	mute    atomic.Bool   // takes them in, and says that it did not
	unmoved atomic.Int32  // takes back no death for so many times
	gate    chan struct{} // reads wait for it if gated, deaths if late, circuits if slow
	gated   atomic.Bool
	late    atomic.Bool
	slow    atomic.Bool
}

func (m *moody) NoteCircuit(ctx context.Context, c tokens.Circuit, now time.Time) error {
	if m.slow.Load() {
		<-m.gate
	}
	if m.deaf.Load() {
		return errors.New("deaf")
	}
	if err := m.Store.NoteCircuit(ctx, c, now); err != nil || !m.mute.Load() {
		return err
	}
	return errors.New("mute")
}

func (m *moody) MarkToken(ctx context.Context, t tokens.TokenMark) (bool, error) {
	if t.State == tokens.TokenDead && m.late.Load() {
		<-m.gate
	}
	return m.Store.MarkToken(ctx, t)
}

func (m *moody) TakeBackDeaths(ctx context.Context, app ident.App, p tokens.Provider, since time.Time) ([]ident.Device, error) {
	if m.unmoved.Add(-1) >= 0 {
		return nil, errors.New("unmoved")
	}
	return m.Store.TakeBackDeaths(ctx, app, p, since)
}

func (m *moody) Waiting(ctx context.Context, d ident.Device, now time.Time) (messages.Waiting, tokens.Device, error) {
	w, dev, err := m.Store.Waiting(ctx, d, now)
	if m.gated.Load() {
		<-m.gate
	}
	return w, dev, err
}

// moodily starts the worker anew on a store with troubles.
func (h *home) moodily(o worker.Options) *moody {
	h.stop()
	m := &moody{Store: h.store, gate: make(chan struct{})}
	o.Store, o.Tokens, o.Circuits = m, m, m
	h.startWith(o)
	return m
}

// One push of the project's shows that its quota is there again: that frees the iPhones behind it too.
func TestAQuotaThatIsBackFreesEveryWayToPhones(t *testing.T) {
	atHome(t, func(h *home) {
		var quota atomic.Bool
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if quota.Load() {
				return providers.Outcome{Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429}
			}
			return taken
		}
		phones := []ident.Device{h.device(tokens.FCM).ID, h.behindGoogle(tokens.IOS), h.behindGoogle(tokens.Web)}
		h.sendAll(phones)
		for _, d := range phones {
			h.fetch(d, true)
		}
		h.pass(20 * time.Second)
		quota.Store(true)
		h.sendAll(phones)
		h.wants(3+1, "one meets the quota")
		quota.Store(false)
		h.pass(40 * time.Second) // before the ladder's first step
		h.wants(3+1, "a minute's rest")
		h.pass(33 * time.Second)
		got := map[ident.Device]bool{}
		for _, p := range h.provider.sent()[4:] {
			got[p.Device] = true
		}
		if len(got) != 3 {
			t.Errorf("%d of 3 phones were woken when the quota was there again", len(got))
		}
		h.circuits()
	})
}

// The provider's own clock is the later one: of a burst of answers the longest wish counts.
func TestTheLongestWishOfABurstCounts(t *testing.T) {
	atHome(t, func(h *home) {
		gates := map[int]chan struct{}{1: make(chan struct{}), 2: make(chan struct{})}
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			out := providers.Outcome{Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: 10 * time.Second}
			if n == 2 {
				out.RetryAfter = 10 * time.Minute
			}
			if g := gates[n]; g != nil {
				<-g
				return out
			}
			return taken
		}
		h.prove(tokens.FCM)
		h.sendSoon(h.devices(2, tokens.FCM)...)
		close(gates[1])
		synctest.Wait()
		close(gates[2])
		h.pass(9 * time.Minute)
		h.wants(2, "Google asked for ten minutes in the end")
		h.pass(4 * time.Minute)
		h.wants(4, "and they are over")
		if n := h.told(); n[messages.CircuitOpened] != 1 || n[messages.CircuitClosed] != 1 {
			t.Errorf("events %v, want one of each", n)
		}
	})
}

func TestANewCredentialIsShownToTheProviderOnce(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.APNs)
		phones := h.devices(30, tokens.APNs)
		h.sendAll(phones) // woken, not acked
		h.wants(30, "the old one works")
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return refusedKey }
		h.pass(time.Second)
		h.credential(tokens.APNs)
		h.pass(10 * time.Second)
		h.wants(31, "the new one is refused: one push finds out")
		h.circuits(tokens.CauseCredential)
	})
}

func TestALookThatWasUnderWayWhenAPauseBeganWaits(t *testing.T) {
	atHome(t, func(h *home) {
		m := h.moodily(worker.Options{})
		phones := h.devices(10, tokens.FCM)
		h.sendAll(phones)
		for _, d := range phones {
			h.fetch(d, true)
		}
		goOn := make(chan struct{})
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 11 {
				<-goOn
				return providers.Outcome{Verdict: providers.AppThrottled, Status: 429, RetryAfter: 5 * time.Minute}
			}
			return taken
		}
		h.sendSoon(phones[0])
		m.gated.Store(true)
		h.sendSoon(phones[1:]...) // they have their slots, and read the store
		close(goOn)
		synctest.Wait()
		m.gated.Store(false)
		close(m.gate)
		h.pass(4 * time.Minute)
		h.wants(11, "Google asked for five minutes")
		h.pass(2*time.Minute + time.Second)
		got := map[ident.Device]bool{}
		for _, p := range h.provider.sent()[11:] {
			got[p.Device] = true
		}
		if len(got) != 10 {
			t.Errorf("%d of 10 phones were woken then", len(got))
		}
	})
}

func TestARestartDoesNotWaitForAClockThatWasSetBack(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		must(h.t, h.store.NoteCircuit(h.t.Context(), tokens.Circuit{Outlet: tokens.Outlet{App: h.app, Provider: tokens.FCM},
			State: tokens.CircuitOpen, Cause: tokens.CauseCredential, Reason: "r", OpenedAt: time.Now().Add(48 * time.Hour),
			RetryAt: time.Now().Add(49 * time.Hour), Pauses: 3}, time.Now()))
		h.start()
		h.send(h.device(tokens.FCM).ID, messages.High)
		h.pass(50 * time.Minute)
		h.wants(0, "it is paused")
		h.pass(23 * time.Minute)
		h.wants(1, "no pause is longer than an hour and its jitter")
	})
}

func TestAPausedCircuitIsCountedOnceWhateverItsCause(t *testing.T) {
	atHome(t, func(h *home) {
		registry := prometheus.NewRegistry()
		m := h.moodily(worker.Options{Metrics: registry})
		m.deaf.Store(true)
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			switch n {
			case 1:
				return refusedKey
			case 2:
				return providers.Outcome{Verdict: providers.AppThrottled, Reason: "TooManyProviderTokenUpdates", Status: 429, RetryAfter: 10 * time.Minute}
			}
			return taken
		}
		shown := func(want ...string) {
			t.Helper()
			if got := circuitsShown(t, registry); !slices.Equal(got, want) {
				t.Errorf("circuits shown: %v, want %v", got, want)
			}
		}
		h.send(h.device(tokens.APNs).ID, messages.High)
		h.pass(time.Second)
		shown("credential")
		h.pass(75 * time.Second)
		shown("throttled")
		m.deaf.Store(false)
		h.pass(10 * time.Second)
		h.circuits(tokens.CauseThrottled)
		h.pass(15 * time.Minute)
		shown()
		h.circuits()
	})
}

func TestProbesOfACredentialKeepTheirSchedule(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return refusedKey }
		h.sendAll(h.devices(10, tokens.APNs))
		sum := time.Duration(0)
		for n, wait := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, time.Hour} {
			sum += wait
			h.pass(sum - time.Second - time.Since(h.began))
			h.wants(n+1, "not before its time")
			h.pass(2 * time.Second)
			h.wants(n+2, "one probe")
		}
		if n := h.told(); n[messages.CircuitOpened] != 1 || n[messages.CircuitClosed] != 0 {
			t.Errorf("events %v, want one opening", n)
		}
	})
}

// Apple counts new JWTs for each connection: the other environment has its own, Google is not concerned.
func TestTooManyJWTsPauseOneEnvironmentForTenMinutes(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return providers.Outcome{Verdict: providers.AppThrottled, Reason: "TooManyProviderTokenUpdates", Status: 429, RetryAfter: 10 * time.Minute}
			}
			return taken
		}
		phones := h.devices(5, tokens.APNs)
		h.sendAll(phones)
		sandbox := h.device(tokens.APNs)
		h.register(sandbox, tokens.Sandbox)
		h.sendAll([]ident.Device{sandbox.ID, h.device(tokens.FCM).ID})
		h.pass(9 * time.Minute)
		if n := h.through(0, func(p pushed) bool { return p.outlet.Environment == tokens.Production }); n != 1 {
			t.Errorf("%d pushes to production, want none after the first", n)
		}
		if n := h.through(1, func(p pushed) bool { return p.outlet.Environment != tokens.Production }); n < 2 {
			t.Errorf("%d pushes to sandbox and Google, want both", n)
		}
		if n := h.told(); n[messages.CredentialFailing] != 0 {
			t.Errorf("events %v: the credential is as good as before", n)
		}
		h.pass(4 * time.Minute)
		got := map[ident.Device]bool{}
		for _, p := range h.provider.sent()[1:] {
			got[p.Device] = true
		}
		if len(got) != 5+2 {
			t.Errorf("%d of 7 phones were woken in the end", len(got))
		}
		h.circuits()
	})
}

// circuitsShown are the causes of the circuits that the metrics show.
func circuitsShown(t *testing.T, registry *prometheus.Registry) (causes []string) {
	t.Helper()
	families, err := registry.Gather()
	must(t, err)
	for _, f := range families {
		for _, s := range f.GetMetric() {
			for _, l := range s.GetLabel() {
				if f.GetName() == "rouse_circuit_open" && l.GetName() == "cause" {
					causes = append(causes, l.GetValue())
				}
			}
		}
	}
	return causes
}

// Whatever becomes of a probe, those who wait behind it have their turn.
func TestAProbeThatComesToNothingIsNotTheLast(t *testing.T) {
	pauses := map[string]providers.Outcome{
		"a credential": refusedKey,
		"a quota":      {Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: time.Minute},
	}
	probes := map[string]providers.Outcome{
		"hangs":           {Verdict: "hang"},
		"is lost":         {Verdict: providers.ConnectionLost, Reason: "goaway"},
		"is unavailable":  {Verdict: providers.Unavailable, Status: 503, RetryAfter: 10 * time.Minute},
		"is rejected":     {Verdict: providers.Rejected, Status: 400},
		"is for the dead": {Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404},
		"is too much":     {Verdict: providers.DeviceThrottled, Status: 429, RetryAfter: 10 * time.Minute},
	}
	for pause, first := range pauses {
		for probe, second := range probes {
			t.Run(pause+", "+probe, func(t *testing.T) {
				atHome(t, func(h *home) {
					h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
						switch n {
						case 1:
							return first
						case 2:
							return second
						}
						return taken
					}
					phones := h.devices(8, tokens.FCM)
					if first.Verdict == providers.AppThrottled { // it is wide
						phones = append(phones, h.behindGoogle(tokens.IOS), h.behindGoogle(tokens.Web))
					}
					h.sendAll(phones)
					h.wants(1, "one finds out")
					h.pass(90 * time.Second)
					got := map[ident.Device]bool{}
					for _, p := range h.provider.sent()[2:] {
						got[p.Device] = true
					}
					if len(got) < len(phones)-1 {
						t.Errorf("%d of %d phones were woken after the probe", len(got), len(phones))
					}
					h.circuits()
				})
			})
		}
	}
}

// The phone that met the refusal comes by itself: the others are not left waiting for its next push.
func TestAPauseEndsWithoutThePhoneThatBeganIt(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return refusedKey
			}
			return taken
		}
		phones := h.devices(3, tokens.APNs)
		h.sendAll(phones)
		h.fetch(phones[0], true)
		h.pass(61 * time.Second)
		h.wants(1+2, "the others are woken when the pause is over")
	})
}
