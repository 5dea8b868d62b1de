package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rouse/bus"
	"rouse/cluster"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
)

func TestMain(m *testing.M) {
	// Two goroutines of a bubble that meet a timer which has ended at once may crash the race detector (golang/go#78156): none run at once.
	runtime.GOMAXPROCS(1)
	goleak.VerifyTestMain(m)
}

// open opens a store whose writer nobody needs.
func open(t *testing.T, dsn string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), store.Options{DSN: dsn, Ring: testkit.Ring(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

// way is a bus that may carry nothing.
type way struct {
	bus.Memory
	dumb atomic.Bool
}

func (w *way) Hint(hints ...messages.Hint) {
	if !w.dumb.Load() {
		w.Memory.Hint(hints...)
	}
}

// rig is some nodes on one database and one bus.
type rig struct {
	t       *testing.T
	open    func() *store.Store
	bus     *way
	nodes   []*node
	devices []ident.Device
	// real says that time is: on a busy machine anything may take longer.
	real bool

	mu      sync.Mutex
	leaders []*node // guarded by mu: who does the duty now
}

// patience is how long anything may take on a machine that does other things too.
const patience = time.Minute

func newRig(t *testing.T, open func() *store.Store) *rig {
	r := &rig{t: t, open: open, bus: &way{}}
	for range 100 {
		r.devices = append(r.devices, ident.NewDevice())
	}
	t.Cleanup(func() {
		for _, n := range r.nodes {
			n.mend()
			n.stop()
		}
	})
	return r
}

// node is one of them, with the way to its database, which a test may break.
type node struct {
	*store.Store
	r       *rig
	c       *cluster.Cluster
	changes atomic.Int32
	log     journal
	start   func()
	retire  func() // from its duty
	stop    func()

	mu    sync.Mutex
	fault func(ctx context.Context, call string) error // guarded by mu; nil lets calls through
	ahead time.Duration                                // guarded by mu: the database's clock is ahead by
}

// start starts a node with one duty.
func (r *rig) start() *node {
	n := r.node()
	n.start()
	return n
}

// node is a node with one duty, to be started.
func (r *rig) node() *node {
	n := &node{Store: r.open(), r: r}
	n.c = cluster.New(cluster.Options{Store: n, Bus: r.bus, Changed: func() { n.changes.Add(1) }, Log: slog.New(slog.NewTextHandler(&n.log, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	var ends sync.WaitGroup
	duties, retire := context.WithCancel(context.Background())
	n.retire = retire
	n.start = func() {
		ends.Go(func() {
			if err := n.c.Run(ctx); err != nil {
				r.t.Error(err)
			}
			retire() // as the worker, which ends after its cluster has left
		})
		ends.Go(func() {
			if err := n.c.Lead(duties, "sweeps", n.work); err != nil {
				r.t.Error(err)
			}
		})
	}
	n.stop = sync.OnceFunc(func() {
		cancel()
		ends.Wait()
	})
	r.nodes = append(r.nodes, n)
	return n
}

func (n *node) work(ctx context.Context) error {
	if all := n.r.lead(n); all != 1 {
		n.r.t.Errorf("%d nodes lead at once", all)
	}
	defer n.r.rest(n)
	<-ctx.Done()
	return ctx.Err()
}

// lead notes that the node does the duty, and returns how many do; rest that it does no more.
func (r *rig) lead(n *node) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaders = append(r.leaders, n)
	return len(r.leaders)
}

func (r *rig) rest(n *node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaders = slices.DeleteFunc(r.leaders, func(l *node) bool { return l == n })
}

// leads are the nodes that do the duty.
func (r *rig) leads() []*node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.leaders)
}

// breaks has the node's calls meet fault, mend ends that.
func (n *node) breaks(fault func(ctx context.Context, call string) error) {
	n.mu.Lock()
	n.fault = fault
	n.mu.Unlock()
}

func (n *node) mend() { n.breaks(nil) }

var errGone = errors.New("the database is gone")

// refused is a database that is not there, silent one behind a cut cable.
func refused(context.Context, string) error { return errGone }

func silent(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func (n *node) meets(ctx context.Context, call string) error {
	n.mu.Lock()
	fault := n.fault
	n.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(ctx, call)
}

func (n *node) Beat(ctx context.Context, id ident.Node) (time.Time, []messages.Node, error) {
	if err := n.meets(ctx, "beat"); err != nil {
		return time.Time{}, nil, err
	}
	now, all, err := n.Store.Beat(ctx, id)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ahead != 0 {
		now = now.Add(n.ahead)
		for i := range all {
			all[i].BeatAt, all[i].JoinedAt = all[i].BeatAt.Add(n.ahead), all[i].JoinedAt.Add(n.ahead)
		}
	}
	return now, all, err
}

func (n *node) Leave(ctx context.Context, id ident.Node) error {
	if err := n.meets(ctx, "leave"); err != nil {
		return err
	}
	return n.Store.Leave(ctx, id)
}

func (n *node) TakeLease(ctx context.Context, name string, id ident.Node, life time.Duration) (int64, bool, error) {
	if err := n.meets(ctx, "take"); err != nil {
		return 0, false, err
	}
	return n.Store.TakeLease(ctx, name, id, life)
}

func (n *node) ReleaseLease(ctx context.Context, name string, id ident.Node) error {
	if err := n.meets(ctx, "release"); err != nil {
		return err
	}
	return n.Store.ReleaseLease(ctx, name, id)
}

// homes counts the devices that each node is home to, and checks that no device has two homes.
func (r *rig) homes() map[*node]int {
	r.t.Helper()
	count := map[*node]int{}
	for _, d := range r.devices {
		var home *node
		for _, n := range r.nodes {
			if !n.c.Mine(d) {
				continue
			}
			// Asked again: it may have ceased to be while the others were asked.
			if home != nil && home.c.Mine(d) {
				r.t.Fatalf("a device has two homes")
			}
			home = n
		}
		if home != nil {
			count[home]++
		}
	}
	return count
}

// shared reports whether every device has a home and these nodes, and no others, are homes.
func (r *rig) shared(nodes ...*node) func() bool {
	return func() bool {
		r.t.Helper()
		count, all := r.homes(), 0
		for _, n := range nodes {
			if count[n] == 0 {
				return false
			}
			all += count[n]
		}
		return all == len(r.devices)
	}
}

// ledBy reports whether one of these nodes does the duty.
func (r *rig) ledBy(nodes ...*node) func() bool {
	return func() bool {
		leads := r.leads()
		return len(leads) == 1 && slices.Contains(nodes, leads[0])
	}
}

// within waits until all of it holds, and returns how long that took. In real time the limit is none: that it comes to that is checked.
func (r *rig) within(limit time.Duration, what string, all ...func() bool) time.Duration {
	r.t.Helper()
	if r.real {
		limit = max(limit, patience)
	}
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		held := true
		for _, holds := range all {
			held = holds() && held
		}
		took := time.Since(began)
		if held {
			return took
		}
		if took > limit {
			r.t.Fatalf("%s: not within %s; homes %v, leading %d\n%s", what, limit, r.homes(), len(r.leads()), r.journals())
		}
		<-tick.C
	}
}

// pass lets time go by, and checks all the while that no device has two homes.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	end := time.Now().Add(d)
	r.within(d+time.Minute, "time goes by", func() bool { r.homes(); return !time.Now().Before(end) })
}

func (r *rig) journals() (all string) {
	for i, n := range r.nodes {
		all += fmt.Sprintf("node %d:\n%s", i, n.log.text())
	}
	return all
}

// journal keeps what is logged.
type journal struct {
	mu    sync.Mutex
	bytes []byte
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.bytes = append(j.bytes, p...)
	return len(p), nil
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.bytes)
}
