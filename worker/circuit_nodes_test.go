package worker_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
	"rouse/worker"
)

var overQuota = providers.Outcome{Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: time.Minute}

// counted counts what is asked of circuits, and what is written.
type counted struct {
	store        worker.Circuits
	reads, notes *atomic.Int32
}

func (c counted) Circuits(ctx context.Context, app ident.App) ([]tokens.Circuit, error) {
	c.reads.Add(1)
	return c.store.Circuits(ctx, app)
}

func (c counted) NoteCircuit(ctx context.Context, n tokens.Circuit, at time.Time) error {
	c.notes.Add(1)
	return c.store.NoteCircuit(ctx, n, at)
}

// happened checks how often circuits opened and closed, as the app was told.
func (v *village) happened(opened, closed int) {
	v.t.Helper()
	if n := v.told(); n[messages.CircuitOpened] != opened || n[messages.CircuitClosed] != closed {
		v.t.Errorf("events %v, want %d openings and %d closings", n, opened, closed)
	}
}

// What one node learnt no other one finds out again.
func TestAPauseHoldsOnAllNodes(t *testing.T) {
	var reads, notes atomic.Int32
	inVillage(t, 3, func(v *village) {
		var right atomic.Bool
		v.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if right.Load() {
				return taken
			}
			return refusedKey
		}
		first, others := v.at(0, 5), append(v.at(1, 5), v.at(2, 5)...)
		reads.Store(0)
		v.sendAll(first)
		v.sendAll(others)
		v.wants(1, "one push has shown it")
		v.circuits(tokens.CauseCredential)
		if r, n := reads.Load(), notes.Load(); r > 6 || n != 1 {
			t.Errorf("%d reads and %d notes of one pause on three nodes", r, n)
		}
		reads.Store(0)
		v.bus.Hint(slices.Repeat([]messages.Hint{{Kind: messages.HintCircuit, App: v.app}}, 100)...)
		synctest.Wait()
		if n := reads.Load(); n == 0 || n > 6 {
			t.Errorf("%d reads for a hundred words on three nodes", n)
		}
		v.pass(70 * time.Second)
		v.wants(2, "one node tries again, and the others hear what came of it")
		v.pass(4 * time.Minute)
		v.wants(2, "five minutes, for all")
		v.happened(1, 0)
		right.Store(true)
		v.pass(2 * time.Minute)
		v.wants(2+15, "the probe is taken, and all nodes' phones follow")
		v.circuits()
		v.happened(1, 1)
	}, func(_ int, o *worker.Options) {
		o.Circuits = counted{o.Circuits, &reads, &notes}
	})
}

func TestNodesThatNoticeAtOnceTellOnce(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		all := make(chan struct{})
		var under atomic.Int32
		v.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n > 3 {
				return taken
			}
			if under.Add(1) == 3 {
				close(all)
			}
			<-all
			return overQuota
		}
		phones := append(append(v.at(0, 2), v.at(1, 2)...), v.at(2, 2)...)
		v.sendSoon(phones...)
		v.pass(time.Second)
		v.wants(3, "one push a node: none was proven")
		v.circuits(tokens.CauseThrottled)
		v.happened(1, 0)
		v.pass(80 * time.Second)
		v.circuits()
		v.happened(1, 1)
		if n := v.pushes(3); len(n) != len(phones) {
			t.Errorf("%d of %d phones were pushed after the pause", len(n), len(phones))
		}
	})
}

// The node that began a pause is the first to try again. If it is gone another one does.
func TestAPauseIsInherited(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		v.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return overQuota
			}
			return taken
		}
		phones := append(v.at(0, 1), v.at(1, 3)...)
		v.sendAll(phones)
		v.wants(1, "throttled")
		v.kill[0]()
		v.live(1, 1)
		v.pass(50 * time.Second)
		v.wants(1, "the provider asked for a minute")
		v.pass(25 * time.Second)
		v.circuits()
		v.happened(1, 1)
		if n := v.pushes(1); len(n) != len(phones) {
			t.Errorf("%d of %d phones were pushed after the pause", len(n), len(phones))
		}
	})
}

func TestAPauseThatNobodyHeardOfIsFound(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		var right atomic.Bool
		v.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if right.Load() {
				return taken
			}
			return providers.Outcome{Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: 10 * time.Minute}
		}
		for _, l := range v.lines {
			l.passes = func(h messages.Hint) bool { return h.Kind != messages.HintCircuit }
		}
		here := v.at(0, 1)
		v.sendAll(here)
		v.pass(61 * time.Second)
		there := v.at(1, 3)
		v.sendAll(there)
		v.wants(1, "the other node has read of it meanwhile")
		right.Store(true)
		v.credential(tokens.FCM) // the hint goes through: it closes there what was only read of
		v.pass(time.Second)
		v.circuits()
		v.woken(append(here, there...), 1, 1, "the credential ends it")
	})
}

// The store closes a circuit with the credential. A node that missed that hears of it from one that did not.
func TestAClosingThatOneNodeMissedReachesIt(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		var right atomic.Bool
		v.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if right.Load() {
				return taken
			}
			return refusedKey
		}
		here, there := v.at(0, 2), v.at(1, 2)
		v.sendAll(here)
		v.sendAll(there)
		v.wants(1, "refused")
		v.lines[0].passes = func(h messages.Hint) bool { return h.Kind != messages.HintCredential }
		right.Store(true)
		v.credential(tokens.FCM)
		v.pass(time.Second)
		v.wants(1+4, "both nodes push")
		v.circuits()
		v.happened(1, 1)
	})
}

// A wave is counted on one node, and no node believes in it.
func TestAWaveOnOneNodeIsBelievedOnNone(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		dead := providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
		var probe, healed atomic.Bool
		v.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if healed.Load() || probe.CompareAndSwap(true, false) {
				return taken
			}
			return dead
		}
		there := v.at(1, 8)
		v.sendAll(there[:2])
		v.wants(2, "two deaths on the other node, before anybody sees more in them")
		here := v.at(0, 60)
		v.sendAll(here)
		v.pass(time.Second)
		v.circuits(tokens.CauseMassDeath)
		n := len(v.provider.sent())
		v.sendAll(there[2:])
		v.pass(time.Second)
		v.wants(n, "pushes pause there too")
		probe.Store(true)
		v.pass(70 * time.Second)
		if c := v.circuits(tokens.CauseMassDeath)[0]; c.State != tokens.CircuitWatching {
			t.Errorf("after a probe that was taken it is %s", c.State)
		}
		pushed := v.pushes(n)
		for _, d := range there[2:] {
			if pushed[d] == 0 {
				t.Error("pushes do not flow on the other node")
			}
		}
		for _, d := range append(here, there...) {
			if s := v.token(d).TokenState; s == tokens.TokenDead {
				t.Fatal("a token died of the wave")
			}
		}
		v.happened(1, 0)
		healed.Store(true)
		v.credential(tokens.FCM)
		v.pass(time.Second)
		v.circuits()
		v.happened(1, 1)
	})
}

// The same over PostgreSQL, its bus, and half of the hints.
func TestNodesOnPostgreSQLShareAPause(t *testing.T) {
	t.Parallel()
	var right atomic.Bool
	p := &provider{answer: func(int, worker.Outlet, providers.Push) providers.Outcome {
		if right.Load() {
			return taken
		}
		return overQuota
	}}
	nodes, town, _ := onPostgres(t, 2, p)
	app := testkit.App(t, nodes[0].store).ID
	at := func(node int) ident.Device {
		for {
			if d := testkit.Device(t, nodes[0].store, app).ID; town.homeOf(d) == node {
				return d
			}
		}
	}
	nodes[0].accepts(t, app, at(0))
	eventually(t, patience, func() (bool, string) { return len(p.sent()) == 1, "nothing was pushed" })
	open := func(n int) func() (bool, string) {
		return func() (bool, string) {
			all, err := nodes[1].store.Circuits(t.Context(), app)
			must(t, err)
			return len(all) == n, "the circuits are others"
		}
	}
	eventually(t, patience, open(1))
	right.Store(true)
	eventually(t, 2*patience, open(0)) // the pause is a minute and its jitter
}
