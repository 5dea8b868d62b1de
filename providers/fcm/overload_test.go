package fcm_test

import (
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"rouse/providers"
	"rouse/providers/providertest"
	"rouse/providers/sim"
)

// TestOverload sends five times as many pushes at once as may be in flight: they wait here, and Google sees no more than the two
// connections that they fill, none with more than a hundred.
func TestOverload(t *testing.T) {
	t.Parallel()
	const perConn, conns, pushes = 100, 2, 1000
	s, err := sim.Start(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.AddRule(sim.Rule{Provider: sim.FCM, Action: sim.Action{Delay: 200 * time.Millisecond}})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	p := newProvider(t, s, providertest.Settings{RootCAs: roots, Timeout: time.Minute})
	t.Cleanup(func() { _ = p.Close() })
	token := s.NewFCMToken(project)
	var all sync.WaitGroup
	for range pushes {
		all.Go(func() {
			if out := p.Push(t.Context(), providertest.NewPush(token)); out.Verdict != providers.Accepted {
				t.Errorf("%+v", out)
			}
		})
	}
	all.Wait()
	got := s.Stats().FCM
	// One more connection fetched the access token.
	if got.ConnectionsOpened != conns+1 || got.PeakStreams > perConn || got.Violations != 0 || got.Requests != pushes {
		t.Errorf("%+v, want %d requests on %d connections, at most %d at a time on each", got, pushes, conns, perConn)
	}
	if got.PeakStreams < perConn/2 {
		t.Errorf("never more than %d in flight: no overload", got.PeakStreams)
	}
}
