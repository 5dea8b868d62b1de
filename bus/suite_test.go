package bus

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take on a machine that does other things too.
const patience = time.Minute

// node is a bus as one process sees it.
type node interface {
	Hint(hints ...messages.Hint)
	Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error
}

// runner is a node that is to be run.
type runner interface {
	node
	Run(ctx context.Context) error
}

// rig is one kind of bus. join makes a node of it.
type rig struct {
	join func(t *testing.T) node
	// stop cuts every connection as a crash of the server does, start brings it back.
	stop, start func(t *testing.T)
}

// rigs opens each kind of bus that needs no server, or finds one.
var rigs = map[string]func(t *testing.T) rig{
	"memory": func(*testing.T) rig {
		var b Memory
		return rig{join: func(*testing.T) node { return &b }}
	},
	"postgres": func(t *testing.T) rig {
		dsn := testkit.Postgres(t)
		return rig{join: func(t *testing.T) node { return newPostgres(t, dsn) }}
	},
	"nats": openNATS,
}

// mortal opens those that have a server, and one that can be stopped.
var mortal = map[string]func(t *testing.T) rig{
	"postgres": func(t *testing.T) rig {
		c := testkit.NewCluster(t)
		return rig{
			join: func(t *testing.T) node { return newPostgres(t, c.DSN()) },
			stop: func(t *testing.T) { c.Stop(t) }, start: func(t *testing.T) { c.Start(t) },
		}
	},
	"nats": openNATS,
}

func openNATS(t *testing.T) rig {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newNATSServer(t)
	// The address stays the test's own: that of a server which is away anybody may take.
	w := newWire(t, l, "tcp", s.Addr().String())
	return rig{
		join:  func(t *testing.T) node { return newNATS(t, "nats://"+l.Addr().String()) },
		stop:  func(*testing.T) { w.leads(""); s.Shutdown(); s.WaitForShutdown() },
		start: func(t *testing.T) { s = newNATSServer(t); w.leads(s.Addr().String()) },
	}
}

func newPostgres(t *testing.T, dsn string) *Postgres {
	t.Helper()
	b, err := NewPostgres(dsn, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newNATS(t *testing.T, url string) *NATS {
	t.Helper()
	b, err := NewNATS(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newNATSServer(t *testing.T) *natsserver.Server {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS does not start")
	}
	return s
}

// ears is a node that runs and listens; what it heard may be asked for at any time.
type ears struct {
	node
	t       *testing.T
	mu      sync.Mutex
	begun   bool               // guarded by mu: it listens
	hints   []messages.Hint    // guarded by mu
	lost    int                // guarded by mu: how often it was told so, after the beginning
	changed chan struct{}      // holds a token when something was heard
	hold    chan struct{}      // whoever receives a token here is what receive waits for; nil: it does not wait
	stop    func(t *testing.T) // ends it; once
}

// listen runs b and listens until the test ends. It returns when b hears others.
func listen(t *testing.T, b node, hold chan struct{}) *ears {
	t.Helper()
	e := begin(t, b, hold)
	if _, alone := b.(*Memory); !alone {
		e.until("connected", func() bool { return e.lost > 0 })
	}
	return e
}

// begin is listen without the wait.
func begin(t *testing.T, b node, hold chan struct{}) *ears {
	t.Helper()
	e := &ears{node: b, t: t, changed: make(chan struct{}, 1), hold: hold}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Listen(ctx, e.receive) })
	// What is told of the connection is not to be mistaken for the beginning.
	e.until("listening", func() bool { return e.begun })
	if r, ok := b.(runner); ok {
		running.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	e.stop = func(t *testing.T) {
		t.Helper()
		cancel()
		ended := make(chan struct{})
		go func() { running.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the bus does not end")
		}
	}
	t.Cleanup(func() { e.stop(t) })
	return e
}

func (e *ears) receive(hints []messages.Hint, lost bool) {
	e.mu.Lock()
	e.hints = append(e.hints, hints...)
	first := !e.begun
	switch {
	case first && !lost:
		e.t.Error("who begins to listen is not told that hints are missing")
	case lost && !first:
		e.lost++
	}
	e.begun = true
	e.mu.Unlock()
	select {
	case e.changed <- struct{}{}:
	default:
	}
	if e.hold != nil && !first {
		<-e.hold
	}
}

// until waits for what is true of e.hints and e.lost.
func (e *ears) until(what string, is func() bool) {
	e.t.Helper()
	limit, again := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for {
		e.mu.Lock()
		done := is()
		e.mu.Unlock()
		if done {
			return
		}
		select {
		case <-e.changed:
		case <-again.C:
		case <-limit:
			e.t.Fatalf("not %s; heard %d hints, and %d times that some are lost", what, len(e.hints), e.lost)
		}
	}
}

// hears waits for a hint.
func (e *ears) hears(h messages.Hint) {
	e.t.Helper()
	e.until("heard", func() bool { return slices.Contains(e.hints, h) })
}

// reaches has e say a hint, and once more whenever the other was told of a gap, until the other hears it.
func (e *ears) reaches(other *ears, h messages.Hint) {
	e.t.Helper()
	gaps := -1
	other.until("reached", func() bool {
		if other.lost != gaps {
			gaps = other.lost
			e.Hint(h)
		}
		return slices.Contains(other.hints, h)
	})
}

// said is how often e was told that hints are lost.
func (e *ears) said() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost
}

func TestEveryBus(t *testing.T) {
	t.Parallel()
	each(t, rigs, map[string]func(*testing.T, rig){
		"every node hears every hint, and its own once": everyNodeHears,
		"nobody has to listen":                          nobodyListens,
		"a burst arrives whole":                         aBurstArrives,
		"a listener that is behind is told":             aListenerIsBehind,
	})
}

func TestEveryBusWithAServer(t *testing.T) {
	t.Parallel()
	each(t, mortal, map[string]func(*testing.T, rig){
		"a sender that is behind tells":           aSenderIsBehind,
		"a server that dies is found again":       aServerDies,
		"a node ends though the server is away":   endsWithoutServer,
		"a node may begin before its server does": beginsWithoutServer,
	})
}

func each(t *testing.T, rigs map[string]func(*testing.T) rig, tests map[string]func(*testing.T, rig)) {
	for kind, open := range rigs {
		for name, test := range tests {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(t, open(t))
			})
		}
	}
}

func everyNodeHears(t *testing.T, r rig) {
	nodes := []*ears{listen(t, r.join(t), nil), listen(t, r.join(t), nil), listen(t, r.join(t), nil)}
	var all []messages.Hint
	for i, n := range nodes {
		h := messages.Hint{Kind: messages.HintServed, App: ident.NewApp(), Device: ident.NewDevice(), Seq: messages.Seq(i), Parked: true}
		n.Hint(h)
		all = append(all, h)
	}
	for _, n := range nodes {
		for _, h := range all {
			n.hears(h)
		}
	}
	// A second round, heard everywhere, leaves no time for a hint to come back to its sender.
	for _, n := range nodes {
		n.Hint(hint(99))
	}
	for i, n := range nodes {
		n.until("heard by all", func() bool { return count(n.hints, hint(99)) == len(nodes) })
		n.until("heard once", func() bool { return count(n.hints, all[i]) == 1 })
	}
}

func count(hints []messages.Hint, h messages.Hint) (n int) {
	for _, other := range hints {
		if other == h {
			n++
		}
	}
	return n
}

func nobodyListens(t *testing.T, r rig) {
	for n := range 1000 {
		r.join(t).Hint(hint(n))
	}
}

func aBurstArrives(t *testing.T, r rig) {
	a, b := listen(t, r.join(t), nil), listen(t, r.join(t), nil)
	const n = 20_000
	want := map[messages.Seq]bool{}
	for i := range n {
		a.Hint(messages.Hint{Kind: messages.HintNew, App: "app_x", Device: ident.NewDevice(), Seq: messages.Seq(i)})
		want[messages.Seq(i)] = true
	}
	b.until("heard all", func() bool {
		for _, h := range b.hints {
			delete(want, h.Seq)
		}
		return len(want) == 0
	})
	if said := b.said(); said > 1 {
		t.Errorf("told %d times that hints are lost", said)
	}
}

func aListenerIsBehind(t *testing.T, r rig) {
	hold := make(chan struct{})
	a, b := listen(t, r.join(t), nil), listen(t, r.join(t), hold)
	before := b.said()
	// What b may hold already, and one more than it can remember.
	for n := range 2*queueLimit + 1 {
		a.Hint(hint(n))
	}
	b.until("behind", func() bool { return behind(b.node) })
	close(hold)
	b.until("told that it is behind", func() bool { return b.lost > before })
}

// nearOf is the memory from which a node serves its listeners.
func nearOf(n node) *Memory {
	switch b := n.(type) {
	case *Postgres:
		return &b.near
	case *NATS:
		return &b.near
	}
	return n.(*Memory)
}

// behind says whether a listener of this node has to be told that it lost hints.
func behind(n node) (lost bool) {
	near := nearOf(n)
	near.mu.Lock()
	defer near.mu.Unlock()
	for q := range near.listeners {
		q.mu.Lock()
		lost = lost || q.lost
		q.mu.Unlock()
	}
	return lost
}

func aSenderIsBehind(t *testing.T, r rig) {
	b := listen(t, r.join(t), nil)
	before, a := b.said(), r.join(t)
	for n := range queueLimit + 1 {
		a.Hint(hint(n))
	}
	listen(t, a, nil)
	b.until("told that a dropped hints", func() bool { return b.lost > before })
}

func aServerDies(t *testing.T, r rig) {
	a, b := listen(t, r.join(t), nil), listen(t, r.join(t), nil)
	a.Hint(hint(1))
	b.hears(hint(1))
	for round := 1; round <= 2; round++ {
		beforeA, beforeB := a.said(), b.said()
		r.stop(t)
		// A node serves itself while the server is away, and what it says is kept.
		a.Hint(hint(10 * round))
		a.hears(hint(10 * round))
		r.start(t)
		a.until("told", func() bool { return a.lost > beforeA })
		b.until("told", func() bool { return b.lost > beforeB })
		a.Hint(hint(10*round + 1))
		b.hears(hint(10*round + 1))
		b.Hint(hint(10*round + 2))
		a.hears(hint(10*round + 2))
	}
}

func endsWithoutServer(t *testing.T, r rig) {
	a := listen(t, r.join(t), nil)
	r.stop(t)
	a.Hint(hint(1))
	a.stop(t)
	r.start(t)
}

func beginsWithoutServer(t *testing.T, r rig) {
	r.stop(t)
	a, b := begin(t, r.join(t), nil), begin(t, r.join(t), nil)
	a.until("served by itself", func() bool { a.Hint(hint(1)); return slices.Contains(a.hints, hint(1)) })
	r.start(t)
	b.until("connected", func() bool { return b.lost > 0 })
	a.Hint(hint(2))
	b.hears(hint(2))
}
