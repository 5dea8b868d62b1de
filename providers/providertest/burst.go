package providertest

import (
	"sync"
	"testing"

	"rouse/providers"
	"rouse/providers/sim"
)

const burst = 300

// testColdBurst is the storm after a restart: everybody at once on no connection.
func testColdBurst(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	tokens := make([]string, burst)
	for i := range tokens {
		tokens[i] = f.Token(w.sim)
	}
	for i, out := range w.pushAll(tokens) {
		if out.Verdict != providers.Accepted {
			t.Fatalf("push %d: %+v", i, out)
		}
	}
	for _, token := range tokens {
		if n := len(w.sim.Pushes(token)); n != 1 {
			t.Errorf("a phone got %d pushes, want 1", n)
		}
	}
	stats := w.stats()
	if stats.ConnectionsOpened > f.BurstConnections {
		t.Errorf("%d connections, want at most %d", stats.ConnectionsOpened, f.BurstConnections)
	}
	if stats.RefusedStreams != 0 || stats.Requests != burst {
		t.Errorf("%d refused streams and %d requests, want 0 and %d", stats.RefusedStreams, stats.Requests, burst)
	}
	if v := w.sim.Stats().Violations; len(v) > 0 {
		t.Errorf("the simulator saw violations: %q", v)
	}
}

// testGoAwayInBurst sends connections away in the middle: what was lost says so, and trying it once more is enough.
func testGoAwayInBurst(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	fault := sim.FaultGoaway
	if f.Provider == sim.APNs {
		fault = sim.FaultGoawayLower
	}
	w.sim.AddRule(sim.Rule{Provider: f.Provider, Nth: 50, Action: sim.Action{Fault: fault}})
	tokens := make([]string, burst)
	for i := range tokens {
		tokens[i] = f.Token(w.sim)
	}
	var lost []string
	for i, out := range w.pushAll(tokens) {
		switch out.Verdict {
		case providers.Accepted:
		case providers.ConnectionLost:
			lost = append(lost, tokens[i])
		default:
			t.Fatalf("push %d: %+v", i, out)
		}
	}
	for _, out := range w.pushAll(lost) {
		if out.Verdict != providers.Accepted {
			t.Errorf("once more: %+v", out)
		}
	}
	for _, token := range tokens {
		if n := len(w.sim.Pushes(token)); n < 1 {
			t.Error("a phone was not woken")
		}
	}
}

// pushAll pushes to all tokens at once.
func (w *world) pushAll(tokens []string) []providers.Outcome {
	outcomes := make([]providers.Outcome, len(tokens))
	var all sync.WaitGroup
	for i, token := range tokens {
		all.Go(func() { outcomes[i] = w.push(NewPush(token), patience) })
	}
	all.Wait()
	return outcomes
}
