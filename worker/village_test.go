package worker_test

import (
	"context"
	"hash/fnv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rouse/bus"
	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
	"rouse/worker"
)

// town is which of a test's workers are homes, and which one leads.
type town struct {
	mu      sync.Mutex
	homes   []int         // guarded by mu, as all below
	leader  int           // -1 for nobody
	changed chan struct{} // closed and replaced when leader changes
	workers []*worker.Worker
}

func newTown() *town { return &town{changed: make(chan struct{})} }

// joins has a worker told of changes.
func (t *town) joins(w *worker.Worker) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.workers = append(t.workers, w)
}

// set says who leads and which nodes are homes.
func (t *town) set(leader int, homes ...int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.homes, t.leader = homes, leader
	close(t.changed)
	t.changed = make(chan struct{})
	for _, w := range t.workers {
		w.Rehome()
	}
}

// citizen is one worker's view of the town.
type citizen struct {
	town   *town
	number int
}

func (t *town) homeOf(d ident.Device) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	best, at := uint64(0), -1
	for _, n := range t.homes {
		h := fnv.New64a()
		_, _ = h.Write([]byte{byte(n)})
		_, _ = h.Write([]byte(d))
		if score := h.Sum64()*0x9e3779b97f4a7c15>>1 + 1; score > best {
			best, at = score, n
		}
	}
	return at
}

func (c citizen) Mine(d ident.Device) bool { return c.town.homeOf(d) == c.number }

func (c citizen) Lead(ctx context.Context, _ string, work func(context.Context) error) error {
	for {
		c.town.mu.Lock()
		leads, changed := c.town.leader == c.number, c.town.changed
		c.town.mu.Unlock()
		if leads {
			c.lead(ctx, changed, work)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (c citizen) lead(ctx context.Context, lost <-chan struct{}, work func(context.Context) error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); _ = work(inner) }()
	select {
	case <-lost:
	case <-done:
	}
	cancel()
	<-done
}

// line is one node's end of a bus between nodes: what is said here is heard here, and by the others as far as the way lets it through.
type line struct {
	near   bus.Memory
	others func() []*line

	mu     sync.Mutex
	passes func(messages.Hint) bool // guarded by mu; nil is everything
}

// lets says which hints the way from here lets through from now on.
func (l *line) lets(passes func(messages.Hint) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passes = passes
}

func (l *line) Hint(hints ...messages.Hint) {
	l.near.Hint(hints...)
	l.mu.Lock()
	passes := l.passes
	l.mu.Unlock()
	for _, o := range l.others() {
		var heard []messages.Hint
		for _, h := range hints {
			if o != l && (passes == nil || passes(h)) {
				heard = append(heard, h)
			}
		}
		if len(heard) > 0 {
			o.near.Hint(heard...)
		}
	}
}

func (l *line) Listen(ctx context.Context, receive func([]messages.Hint, bool)) error {
	return l.near.Listen(ctx, receive)
}

// village is several workers over one store.
type village struct {
	*home
	town  *town
	lines []*line
	kill  []func()
}

// inVillage runs test with n workers, the first of which leads; node 0 is where messages are accepted.
func inVillage(t *testing.T, n int, test func(v *village), change ...func(i int, o *worker.Options)) {
	t.Helper()
	atHome(t, func(h *home) {
		h.stop()
		v := &village{home: h, town: newTown()}
		for i := range n {
			v.town.homes = append(v.town.homes, i)
			v.lines = append(v.lines, &line{others: func() []*line { return v.lines }})
		}
		h.bus = v.lines[0]
		v.kill = make([]func(), n)
		for i := range n {
			v.begin(i, change...)
		}
		h.pass(3 * time.Second)
		h.stop = func() {
			for _, kill := range v.kill {
				kill()
			}
		}
		test(v)
	})
}

func (v *village) begin(i int, change ...func(i int, o *worker.Options)) {
	o := worker.Options{Store: v.store, Tokens: v.store, Circuits: v.store, Sweeps: v.store, Expiries: v.store, Pusher: v.provider,
		Fanouts: v.store, Hints: v.lines[i], Nodes: citizen{v.town, i}}
	for _, f := range change {
		f(i, &o)
	}
	w := worker.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	v.town.joins(w)
	v.kill[i] = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			v.t.Error(err)
		}
	})
}

// live sets which nodes are homes and who leads, and tells all.
func (v *village) live(leader int, homes ...int) {
	v.town.set(leader, homes...)
	synctest.Wait()
}

// at makes n phones that live at a node.
func (v *village) at(node, n int) (list []ident.Device) {
	for len(list) < n {
		if d := v.device(tokens.FCM).ID; v.town.homeOf(d) == node {
			list = append(list, d)
		}
	}
	return list
}

// pushes counts the pushes to each device since the nth.
func (v *village) pushes(from int) map[ident.Device]int {
	n := map[ident.Device]int{}
	for _, p := range v.provider.sent()[from:] {
		n[p.Device]++
	}
	return n
}

// answers is what the provider says from now on; nil is that it takes everything.
func (v *village) answers(f func(int, worker.Outlet, providers.Push) providers.Outcome) {
	v.provider.mu.Lock()
	defer v.provider.mu.Unlock()
	v.provider.answer = f
}

// woken fails unless each was pushed so many times since the nth push.
func (v *village) woken(list []ident.Device, times, from int, why string) {
	v.t.Helper()
	n := v.pushes(from)
	wrong := 0
	for _, d := range list {
		if n[d] != times {
			wrong++
		}
	}
	if wrong > 0 || len(n) > len(list) {
		v.t.Errorf("%d of %d phones were not pushed %d times (%d pushes in all): %s", wrong, len(list), times, len(v.provider.sent())-from, why)
	}
}

// fetchAll is what phones that were woken do.
func (v *village) fetchAll(list []ident.Device) {
	for _, d := range list {
		v.fetch(d, true)
	}
}

func nothing(messages.Hint) bool { return false }
