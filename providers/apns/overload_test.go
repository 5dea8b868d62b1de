package apns_test

import (
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"rouse/providers"
	"rouse/providers/providertest"
	"rouse/providers/sim"
)

// TestOverload sends four times as many pushes at once as may be in flight: they wait here, and Apple sees one connection that is
// never fuller than allowed, and was warm before it was filled.
func TestOverload(t *testing.T) {
	t.Parallel()
	const inFlight, pushes = 500, 2000
	s, err := sim.Start(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Delay: 200 * time.Millisecond}})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	p := newProvider(t, s, providertest.Settings{RootCAs: roots, Timeout: time.Minute})
	t.Cleanup(func() { _ = p.Close() })
	token := s.NewAPNsToken(topic, false)
	var all sync.WaitGroup
	for range pushes {
		all.Go(func() {
			if out := p.Push(t.Context(), providertest.NewPush(token)); out.Verdict != providers.Accepted {
				t.Errorf("%+v", out)
			}
		})
	}
	all.Wait()
	got := s.Stats().APNs
	if got.ConnectionsOpened != 1 || got.PeakStreams > inFlight || got.RefusedStreams != 0 || got.Violations != 0 || got.Requests != pushes {
		t.Errorf("%+v, want %d requests on one connection, at most %d at a time, none refused", got, pushes, inFlight)
	}
	if got.PeakStreams < inFlight/2 {
		t.Errorf("never more than %d in flight: no overload", got.PeakStreams)
	}
}
