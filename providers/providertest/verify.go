package providertest

import (
	"context"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"rouse/providers"
	"rouse/providers/sim"
)

// verify asks for the findings, and checks that they came in time and are fit for people.
func (w *world) verify(limit time.Duration) []providers.Finding {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	inTime := w.inTime(ctx, "verifying")
	found := w.provider.Verify(ctx)
	inTime()
	if len(found) == 0 {
		w.t.Fatal("there is no finding")
	}
	for _, f := range found {
		fine := f.Status == providers.FindingOK
		switch {
		case !strings.HasPrefix(f.Check, w.Provider+"_"):
			w.t.Errorf("check %q does not begin with %s_", f.Check, w.Provider)
		case !strings.HasSuffix(f.Cause, "."):
			w.t.Errorf("the cause is no sentence: %+v", f)
		case fine != (f.Cure == "") || fine != (f.Reason == ""):
			w.t.Errorf("what is well has neither reason nor cure, and what is not has both: %+v", f)
		case !fine && !strings.HasSuffix(f.Cure, "."):
			w.t.Errorf("the cure is no sentence: %+v", f)
		}
		for _, secret := range []string{"BEGIN", "ya29", "bearer", "eyJ"} {
			if strings.Contains(f.Cause+f.Cure+f.Reason, secret) {
				w.t.Errorf("the finding repeats a secret: %+v", f)
			}
		}
	}
	return found
}

// last is the finding that decides.
func last(found []providers.Finding) providers.Finding { return found[len(found)-1] }

// testVerify: a good credential is found good, twice, and no phone is woken.
func testVerify(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	for range 2 {
		for _, found := range w.verify(patience) {
			if found.Status != providers.FindingOK {
				t.Errorf("%+v", found)
			}
		}
	}
	if v := w.sim.Stats().Violations; len(v) > 0 {
		t.Errorf("the simulator saw violations: %q", v)
	}
	if n := w.stats().Accepted; n != 0 {
		t.Errorf("%d pushes were accepted", n)
	}
	w.works()
}

// testVerifyRefusals goes one by one: the rules are for everybody.
func testVerifyRefusals(t *testing.T, f Fixture) {
	all := f.start(t, Settings{})
	for _, refusal := range f.Refusals {
		t.Run(refusal.Name, func(t *testing.T) {
			w := all.fork(t)
			remove := w.sim.AddRule(sim.Rule{Provider: refusal.Provider, Action: refusal.Action})
			defer remove()
			got := last(w.verify(patience))
			if got.Check != refusal.Want.Check || got.Status != refusal.Want.Status || got.Reason != refusal.Want.Reason {
				t.Errorf("%+v, want %+v", got, refusal.Want)
			}
			t.Logf("%s %s", got.Cause, got.Cure)
		})
	}
	all.fork(t).works()
}

// testVerifyWithoutAnswer: the trouble on the way is named, within the time.
func testVerifyWithoutAnswer(t *testing.T, f Fixture) {
	closed, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for name, tt := range map[string]struct {
		settings func(*world) Settings
		fault    string
		limit    time.Duration
		reason   string
	}{
		"nobody listens": {func(w *world) Settings {
			return Settings{Endpoint: "https://" + closed.Addr().String() + pathOf(f.Endpoint(w.sim))}
		}, "", patience, "connect_failed"},
		"foreign certificate": {func(*world) Settings { return Settings{RootCAs: x509.NewCertPool()} }, "", patience, "untrusted_certificate"},
		"no answer":           {func(*world) Settings { return Settings{} }, sim.FaultHang, brief, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := f.start(t, Settings{})
			if tt.fault != "" {
				w.sim.AddRule(sim.Rule{Provider: f.Provider, Action: sim.Action{Fault: tt.fault}})
			}
			w.provider = w.connect(tt.settings(w))
			if got := last(w.verify(tt.limit)); got.Status != providers.FindingFail || got.Reason != tt.reason {
				t.Errorf("%+v, want fail for %s", got, tt.reason)
			}
		})
	}
}
