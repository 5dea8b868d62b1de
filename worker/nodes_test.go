package worker_test

import (
	"context"
	"errors"
	"hash/fnv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/bus"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/providers"
	"rouse/store"
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
		Hints: v.lines[i], Nodes: citizen{v.town, i}}
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

func TestADeviceIsWokenByItsHomeAlone(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		phones := append(append(v.at(0, 5), v.at(1, 5)...), v.at(2, 5)...)
		v.sendAll(phones)
		v.pass(time.Second)
		v.woken(phones, 1, 0, "one node is home to each")
		v.pass(90 * time.Second)
		v.woken(phones, 2, 0, "the ladder's first step, handed to each home once")
	})
}

func TestALossyBusLosesNoWake(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		phones := append(append(v.at(0, 15), v.at(1, 15)...), v.at(2, 15)...)
		v.sendAll(phones)
		v.pass(90 * time.Second)
		n := v.pushes(0)
		if len(n) != len(phones) {
			t.Errorf("%d of %d phones were woken", len(n), len(phones))
		}
		for d, times := range n {
			if times > 2 {
				t.Errorf("%s was pushed %d times: once and by the first step at most", d, times)
			}
		}
	}, lossyLines())
}

// lossyLines gives all nodes one bus that drops half of the hints.
func lossyLines() func(int, *worker.Options) {
	shared := sync.OnceValue(func() worker.Bus { return testkit.NewLossy(&bus.Memory{}, 7) })
	return func(_ int, o *worker.Options) { o.Hints = shared() }
}

func TestADeadBusLosesNoWake(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		for _, l := range v.lines {
			l.lets(nothing)
		}
		phones := append(append(v.at(0, 5), v.at(1, 5)...), v.at(2, 5)...)
		v.sendAll(phones)
		v.pass(time.Second)
		v.woken(v.atOf(phones, 0), 1, 0, "those at home where the message came hear of it")
		v.pass(90 * time.Second)
		if n := v.pushes(0); len(n) != len(phones) {
			t.Errorf("%d of %d phones were woken: the sweep takes in whose home does not answer", len(n), len(phones))
		}
		v.fetchAll(phones)
		v.pass(time.Second)
		from := len(v.provider.sent())
		v.sendAll(v.at(2, 5))
		v.pass(75 * time.Second)
		if n := v.pushes(from); len(n) != 5 {
			t.Errorf("%d of 5 phones were woken", len(n))
		}
	})
}

// atOf picks those that live at a node.
func (v *village) atOf(list []ident.Device, node int) (here []ident.Device) {
	for _, d := range list {
		if v.town.homeOf(d) == node {
			here = append(here, d)
		}
	}
	return here
}

// The homes hear, but the sweep does not hear their answers for a while: told again and again, they call once.
func TestAHomeThatIsToldAgainCallsOnce(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		phones := v.at(1, 20)
		v.sendAll(phones)
		v.pass(time.Second)
		v.woken(phones, 1, 0, "at once")
		v.pass(45 * time.Second)
		lostUntil := time.Now().Add(9 * time.Second)
		v.lines[1].lets(func(h messages.Hint) bool { return h.Kind != messages.HintTaken || time.Now().After(lostUntil) })
		v.pass(3 * time.Minute)
		v.woken(phones, 2, 0, "the step once, also where it came while the home was still being told")
	})
}

// All answers are lost: the sweep takes the phones in beside their homes, and finds in the store that they were called.
func TestAHomeWhoseAnswersAreLostIsNotDoubled(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		phones := v.at(1, 10)
		v.lines[1].lets(func(h messages.Hint) bool { return h.Kind != messages.HintTaken })
		v.sendAll(phones)
		v.pass(2 * time.Minute)
		v.woken(phones, 2, 0, "the push and one step")
	})
}

func TestAnHeirFindsARetryThatOnlyMemoryKnew(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		v.answers(func(int, worker.Outlet, providers.Push) providers.Outcome {
			return providers.Outcome{Verdict: providers.DeviceThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: 15 * time.Minute}
		})
		phones := v.at(1, 5)
		v.sendAll(phones)
		v.pass(8 * time.Minute) // past the first two steps of the ladder
		v.answers(nil)
		from := len(v.provider.sent())
		v.kill[1]()
		v.live(0, 0)
		v.pass(3 * time.Second)
		v.woken(phones, 1, from, "no push stands for their message")
		v.live(0, 0)
		v.pass(3 * time.Second)
		v.woken(phones, 1, from, "looking again finds nothing to do")
	})
}

func TestAnHeirFindsWhatADeadNodeWasHanded(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		v.lines[0].lets(func(h messages.Hint) bool { return h.Kind != messages.HintNew })
		release := make(chan struct{})
		v.answers(func(int, worker.Outlet, providers.Push) providers.Outcome {
			<-release
			return providers.Outcome{Verdict: providers.Unavailable, Reason: "cut"}
		})
		phones := v.at(2, 5)
		v.sendAll(phones)
		v.pass(80 * time.Second) // handed over, taken, and the cursor has moved
		close(release)
		v.answers(nil)
		v.kill[2]()
		from := len(v.provider.sent())
		v.live(0, 0, 1)
		v.pass(3 * time.Second)
		v.woken(phones, 1, from, "the new homes find them behind the cursor")
	})
}

func TestANodeThatJoinsPushesNobodyTwice(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		v.live(0, 0)
		v.pass(2 * time.Second)
		phones := v.devices(40, tokens.FCM)
		v.sendAll(phones)
		v.pass(100 * time.Millisecond) // the last pushes are not in the store yet
		v.live(0, 0, 1)
		v.pass(20 * time.Second)
		v.woken(phones, 1, 0, "the new home reads what was pushed before it pushes")
		v.live(0, 1)
		v.pass(time.Second)
		more := v.at(1, 3)
		from := len(v.provider.sent())
		v.sendAll(more)
		v.pass(2 * time.Second)
		v.woken(more, 1, from, "and wakes from now on")
	})
}

func TestANodeThatIsHomeToNobodyHoldsNothing(t *testing.T) {
	inVillage(t, 1, func(v *village) {
		v.live(-1)
		phones := v.devices(5, tokens.FCM)
		v.sendAll(phones)
		v.pass(time.Minute)
		v.wants(0, "it holds nothing")
		v.live(-1, 0)
		v.pass(3 * time.Second)
		v.woken(phones, 1, 0, "home again, it looks")
	})
}

func TestDevicesThatMovedAreForgotten(t *testing.T) {
	registry := prometheus.NewRegistry()
	inVillage(t, 1, func(v *village) {
		v.sendAll(v.devices(5, tokens.FCM))
		if n := active(t, registry); n != 5 {
			t.Fatalf("%v devices are remembered, want 5", n)
		}
		v.live(0)
		if n := active(t, registry); n != 0 {
			t.Errorf("%v devices are remembered whose home is elsewhere", n)
		}
	}, func(_ int, o *worker.Options) { o.Metrics = registry })
}

func active(t *testing.T, r *prometheus.Registry) float64 {
	t.Helper()
	all, err := r.Gather()
	must(t, err)
	for _, f := range all {
		if f.GetName() == "rouse_active_devices" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no such metric")
	return 0
}

func TestAPushUnderWayWhenHomesChangeEndsAndIsForgotten(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		started, goOn := v.holdFirst(providers.Outcome{Verdict: providers.Accepted, Status: 200},
			func(int, worker.Outlet) providers.Outcome {
				return providers.Outcome{Verdict: providers.Accepted, Status: 200}
			})
		phone := v.at(1, 1)[0]
		v.sendSoon(phone)
		<-started
		v.live(0, 0)
		v.pass(500 * time.Millisecond)
		close(goOn)
		v.pass(5 * time.Second)
		v.wants(1, "it came back before the new home looked")
		v.send(phone, messages.High)
		v.pass(5 * time.Second)
		v.wants(1, "a wake is outstanding, and the new home knows")
		v.fetch(phone, true)
		v.send(phone, messages.High)
		v.pass(5 * time.Second)
		v.wants(2, "the new home wakes it")
	})
}

// stuckSweeps does not move the first step's cursor.
type stuckSweeps struct{ *store.Store }

func (s stuckSweeps) MoveSweepCursor(ctx context.Context, name string, to messages.Seq) error {
	if name == "high/1m0s" {
		return errors.New("the database is away")
	}
	return s.Store.MoveSweepCursor(ctx, name, to)
}

func TestASweeperThatDiesBeforeItsCursorMovesCallsNobodyTwice(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		v.live(2, 0, 1)
		v.pass(2 * time.Second)
		phones := append(v.at(0, 5), v.at(1, 5)...)
		v.sendAll(phones)
		v.pass(60 * time.Second) // some are handed over, and told once more each second
		v.kill[2]()
		v.live(0, 0, 1)
		v.pass(60 * time.Second)
		v.woken(phones, 2, 0, "the push and one step, whoever swept")
		cursor, err := v.store.SweepCursor(v.t.Context(), "high/1m0s")
		if err != nil || cursor == 0 {
			v.t.Errorf("the cursor is at %d, %v: the next sweeper moves it", cursor, err)
		}
	}, func(i int, o *worker.Options) {
		if i == 2 {
			o.Sweeps = stuckSweeps{o.Sweeps.(*store.Store)}
		}
	})
}

func TestAClockThatIsAheadDoesNotMakeAPollEndless(t *testing.T) {
	inVillage(t, 1, func(v *village) {
		phone := v.device(tokens.FCM).ID
		v.bus.Hint(messages.Hint{Kind: messages.HintPolling, Device: phone, Until: time.Now().Add(10 * time.Minute)})
		v.pass(61 * time.Second)
		v.send(phone, messages.High)
		v.wants(1, "no poll lasts longer than a minute")
	})
}

// What one node is told of a phone's presence holds at its next home, once it is told anew.
func TestPresenceThatIsToldAnewHoldsAPushBackAtTheHeir(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		phone := v.at(1, 1)[0]
		polling := messages.Hint{Kind: messages.HintPolling, Device: phone, Until: time.Now().Add(50 * time.Second)}
		v.bus.Hint(polling)
		v.pass(time.Second)
		v.lines[0].lets(nothing)
		v.send(phone, messages.High) // its home hears nothing
		v.live(0, 0)
		v.bus.Hint(polling)
		v.pass(5 * time.Second)
		v.wants(0, "the phone gets it on its poll")
		v.pass(10 * time.Second)
		v.wants(1, "it did not: presence postpones a wake and does not cancel it")
	})
}

func TestOneNodeClimbsAtATime(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		v.live(-1, 0, 1)
		phones := append(v.at(0, 3), v.at(1, 3)...)
		v.sendAll(phones)
		v.pass(3 * time.Minute)
		v.woken(phones, 1, 0, "nobody leads, nobody climbs")
		v.live(1, 0, 1)
		v.pass(time.Minute)
		v.woken(phones, 2, 0, "who leads climbs for all")
	})
}
