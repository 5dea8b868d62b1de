package cluster_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/bus"
	"rouse/cluster"
	"rouse/internal/testkit"
	"rouse/store"
)

// scenarios run in virtual time on SQLite, whose clock is that of the process, and in real time on PostgreSQL, where each node has a
// store of its own. How long things take is checked in virtual time alone: there nobody is held up.
var scenarios = map[string]func(*rig){
	"the others take what a dead node held":         death,
	"an ordered stop hands over at once":            orderedStop,
	"a stop calls nothing off":                      stopInACall,
	"a lost hint costs a beat":                      lostHint,
	"without a database nobody holds anything":      noDatabase,
	"a holder that hangs loses what it held":        hangingHolder,
	"a lease that is not renewed is lost":           hangingRenewal,
	"a joining node moves nothing until it is home": joining,
}

func TestScenariosInVirtualTime(t *testing.T) {
	t.Parallel()
	for name, scenario := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := testkit.Store(t)
				r := newRig(t, func() *store.Store { return s })
				scenario(r)
			})
		})
	}
}

// Most of it is waiting: they all wait at the same time.
func TestScenariosOnPostgres(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	defer all.Wait()
	for name, scenario := range scenarios {
		all.Go(func() {
			t.Run(name, func(t *testing.T) {
				dsn := testkit.MigratedPostgres(t)
				r := newRig(t, func() *store.Store { return open(t, dsn) })
				r.real = true
				scenario(r)
			})
		})
	}
	all.Go(func() { t.Run("PostgreSQL crashes", postgresCrashes) })
}

// three starts three nodes and waits until they share the devices. The first of them leads.
func (r *rig) three() (a, b, c *node) {
	r.t.Helper()
	a = r.start()
	r.within(time.Second, "a node that is alone", r.shared(a), r.ledBy(a))
	b, c = r.start(), r.start()
	r.within(15*time.Second, "three nodes", r.shared(a, b, c), r.ledBy(a))
	return a, b, c
}

func death(r *rig) {
	a, b, c := r.three()
	changes := b.changes.Load()
	a.breaks(silent) // as far as the others can tell it is dead
	took := r.within(15*time.Second, "a death", r.shared(b, c), r.ledBy(b, c))
	r.t.Logf("taken over within %s", took)
	if !r.real && took < 2*time.Second || b.changes.Load() == changes || a.c.ID() == "" {
		r.t.Errorf("after %s, with %d changes", took, b.changes.Load()-changes)
	}
	former := a.c.ID()
	a.mend()
	r.within(20*time.Second, "its return", r.shared(a, b, c), r.ledBy(b, c))
	if a.c.ID() == former {
		r.t.Error("it came back under the id that the others took for dead")
	}
}

func orderedStop(r *rig) {
	a, b, c := r.three()
	a.stop()
	if slices.Contains(r.leads(), a) || r.homes()[a] > 0 {
		r.t.Error("it holds something after it has left")
	}
	r.t.Logf("handed over within %s", r.within(100*time.Millisecond, "an ordered stop", r.shared(b, c), r.ledBy(b, c)))
	if text := a.log.text(); !r.real && (strings.Contains(text, "WARN") || strings.Contains(text, "ERROR")) {
		r.t.Errorf("an ordered stop is no trouble:\n%s", text)
	}
	// The last one leaves nobody waiting: who comes next is home at once.
	b.stop()
	c.stop()
	d := r.start()
	r.within(2*time.Second, "the next", r.shared(d), r.ledBy(d))
}

// Of an ordered stop that nobody is told of, the row is still gone.
func lostHint(r *rig) {
	a, b, c := r.three()
	r.bus.dumb.Store(true)
	a.stop()
	r.within(5*time.Second, "a stop that is not heard of", r.shared(b, c), r.ledBy(b, c))
}

// stopInACall stops nodes while a call is under way. One that is called off may be done by the database all the same, after everything
// was given back: it ends before that.
func stopInACall(r *rig) {
	for _, inside := range []string{"beat", "take"} {
		n := r.node()
		entered, let := make(chan context.Context, 1), make(chan struct{})
		once := sync.OnceFunc(func() { close(let) })
		r.t.Cleanup(once)
		n.breaks(func(ctx context.Context, call string) error {
			if call == inside {
				select {
				case entered <- ctx:
				default:
				}
				<-let
			}
			return nil
		})
		n.start()
		ctx, stopped := <-entered, make(chan struct{})
		go func() { n.retire(); n.stop(); close(stopped) }() // a duty may end with the stop
		r.pass(100 * time.Millisecond)
		if errors.Is(ctx.Err(), context.Canceled) {
			r.t.Errorf("the stop called a %s off", inside)
		}
		once()
		<-stopped
		next := r.start()
		r.within(100*time.Millisecond, "who comes next", r.shared(next), r.ledBy(next))
		next.stop()
	}
}

func noDatabase(r *rig) {
	a, b, c := r.three()
	for _, n := range r.nodes {
		n.breaks(refused)
	}
	r.pass(3 * time.Second)
	if !r.real && (len(r.leads()) != 1 || len(r.homes()) != 3) {
		r.t.Error("a few seconds without it are no reason to give anything up")
	}
	r.within(4*time.Second, "the loss", func() bool { return len(r.leads()) == 0 && len(r.homes()) == 0 })
	r.pass(3 * time.Second)
	for _, n := range r.nodes {
		n.mend()
	}
	r.within(12*time.Second, "the return", r.ledBy(a, b, c), func() bool { return len(r.homes()) > 0 })
	r.within(20*time.Second, "calm", r.shared(a, b, c), r.ledBy(a, b, c))
}

// A crash of PostgreSQL itself, and a restart.
func postgresCrashes(t *testing.T) {
	server := testkit.NewCluster(t)
	r := newRig(t, func() *store.Store { return open(t, server.DSN()) })
	r.real = true
	a, b, c := r.three()
	server.Stop(t)
	r.within(8*time.Second, "the loss", func() bool { return len(r.leads()) == 0 && len(r.homes()) == 0 })
	r.pass(3 * time.Second)
	server.Start(t)
	r.within(12*time.Second, "the return", r.ledBy(a, b, c), func() bool { return len(r.homes()) > 0 })
	r.within(20*time.Second, "calm", r.shared(a, b, c), r.ledBy(a, b, c))
}

// What hangs does not notice that its time is over; what it held is taken from it all the same.
func hangingHolder(r *rig) {
	a, b, c := r.three()
	thaw := make(chan struct{})
	release := sync.OnceFunc(func() { close(thaw) })
	r.t.Cleanup(release)
	a.breaks(func(_ context.Context, call string) error {
		if call == "beat" {
			<-thaw // and does not look at its context
		}
		return nil
	})
	r.within(15*time.Second, "a node whose Run hangs", r.shared(b, c), r.ledBy(b, c))
	a.mend()
	release()
	r.within(20*time.Second, "its return", r.shared(a, b, c), r.ledBy(b, c))
}

func hangingRenewal(r *rig) {
	a, b, c := r.three()
	thaw := make(chan struct{})
	release := sync.OnceFunc(func() { close(thaw) })
	r.t.Cleanup(release)
	a.breaks(func(_ context.Context, call string) error {
		if call == "take" {
			<-thaw
		}
		return nil
	})
	r.within(15*time.Second, "a duty whose renewal hangs", r.shared(a, b, c), r.ledBy(b, c))
	a.mend()
	release()
	r.pass(3 * time.Second)
	if !r.real && !r.ledBy(b, c)() {
		r.t.Error("it took the duty back")
	}
}

func joining(r *rig) {
	a := r.start()
	r.within(4*time.Second, "alone", r.shared(a))
	end := time.Now().Add(6500 * time.Millisecond) // before it can have joined
	b := r.start()
	r.within(time.Minute, "waiting", func() bool {
		count := r.homes()
		if now := time.Now(); now.Before(end) && (count[b] > 0 || !r.real && count[a] != len(r.devices)) {
			r.t.Fatalf("devices moved %s before the newcomer is home", end.Sub(now))
		}
		return !time.Now().Before(end)
	})
	r.within(2*time.Second, "its turn", r.shared(a, b))
	r.within(time.Second, "one change", func() bool { n := b.changes.Load(); return n == 1 || r.real && n > 1 })
}

func TestADutyThatEndsBeginsAgain(t *testing.T) {
	t.Parallel()
	for name, lead := range map[string]func(context.Context, func(context.Context) error) error{
		"among nodes": nil,
		"alone": func(ctx context.Context, work func(context.Context) error) error {
			return cluster.Alone{}.Lead(ctx, "sweeps", work)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if lead == nil {
					s := testkit.Store(t)
					c := cluster.New(cluster.Options{Store: s, Bus: &bus.Memory{}})
					ctx, cancel := context.WithCancel(t.Context())
					var ended sync.WaitGroup
					ended.Go(func() { _ = c.Run(ctx) })
					defer ended.Wait()
					defer cancel()
					lead = func(ctx context.Context, work func(context.Context) error) error { return c.Lead(ctx, "sweeps", work) }
				}
				var times atomic.Int32
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				last := make(chan struct{})
				err := lead(ctx, func(ctx context.Context) error {
					switch times.Add(1) {
					case 1:
						return nil
					case 2:
						return errors.New("trouble")
					}
					<-ctx.Done()
					time.AfterFunc(time.Second, func() { close(last) })
					<-last
					return ctx.Err()
				})
				select {
				case <-last:
				default:
					t.Error("Lead returned before the work had")
				}
				if n := times.Load(); err != nil || n != 3 {
					t.Errorf("the duty began %d times, want 3; %v", n, err)
				}
			})
		})
	}
}

func TestClocksThatDifferAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := testkit.Store(t)
		r := newRig(t, func() *store.Store { return s })
		a, b := r.start(), r.start()
		r.within(15*time.Second, "two nodes", r.shared(a, b))
		set := func(ahead time.Duration) {
			b.mu.Lock()
			b.ahead = ahead
			b.mu.Unlock()
			r.within(20*time.Second, "another clock", r.shared(a, b))
			r.pass(5 * time.Second)
		}
		set(10 * time.Minute)
		set(-10 * time.Minute)
		set(0)
		text := b.log.text()
		if n := strings.Count(text, "WARN"); !strings.Contains(text, "ahead=-10m0s") || !strings.Contains(text, "agree again") || n > 3 {
			t.Errorf("%d warnings:\n%s", n, text)
		}
	})
}

// TestMetricsSayWhatANodeIs: without its database a node knows of nobody and holds nothing, and its series say so instead of missing.
func TestMetricsSayWhatANodeIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		n := &node{Store: testkit.Store(t)}
		n.breaks(refused)
		c := cluster.New(cluster.Options{Store: n, Bus: &bus.Memory{}, Metrics: reg})
		ctx, cancel := context.WithCancel(t.Context())
		var ended sync.WaitGroup
		ended.Go(func() { _ = c.Run(ctx) })
		ended.Go(func() { _ = c.Lead(ctx, "sweeps", func(ctx context.Context) error { <-ctx.Done(); return nil }) })
		expect := func(when string, want map[string]float64) {
			t.Helper()
			synctest.Wait()
			values := gathered(t, reg)
			for name, w := range want {
				if v, there := values[name]; !there || v != w {
					t.Errorf("%s: %s is %v (there: %v), want %v", when, name, v, there, w)
				}
			}
		}
		nothing := map[string]float64{"rouse_nodes_alive": 0, "rouse_node_home": 0, "rouse_duty_held": 0}
		all := map[string]float64{"rouse_nodes_alive": 1, "rouse_node_home": 1, "rouse_duty_held": 1, "rouse_clock_skew_seconds": 0}
		<-time.After(time.Second)
		expect("never connected", nothing)
		n.mend()
		<-time.After(3 * time.Second)
		expect("well", all)
		n.breaks(refused)
		<-time.After(8 * time.Second)
		expect("cut off", nothing)
		n.mend()
		<-time.After(12 * time.Second)
		expect("well again", all)
		cancel()
		ended.Wait()
		expect("stopped", nothing)
		if failed := gathered(t, reg)["rouse_node_beats_failed_total"]; failed < 10 {
			t.Errorf("%v beats failed", failed)
		}
	})
}

// gathered are the values of reg, by the names of their families.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			values[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

// A beat that is sent in time and answered too late: for that moment the node is home to nothing, and whoever looks after phones
// has to hear of it.
func TestAMomentWithoutHomesIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := testkit.Store(t)
		r := newRig(t, func() *store.Store { return s })
		a := r.start()
		r.within(4*time.Second, "alone", r.shared(a))
		r.pass(20 * time.Second)
		before := a.changes.Load()
		var first atomic.Pointer[time.Time]
		var late atomic.Bool
		a.breaks(func(_ context.Context, call string) error {
			now := time.Now()
			first.CompareAndSwap(nil, &now)
			if call != "beat" || now.Sub(*first.Load()) < 3600*time.Millisecond {
				return errGone
			}
			slow := time.NewTimer(700 * time.Millisecond)
			<-slow.C
			late.Store(true)
			return nil
		})
		r.within(10*time.Second, "a beat is answered late", late.Load)
		a.mend()
		r.within(4*time.Second, "home again", r.shared(a))
		if n := a.changes.Load() - before; n != 1 {
			t.Errorf("told %d times, want once", n)
		}
	})
}
