// Package cluster knows which nodes share a database, which of them is home to a device, and which does a duty. Nodes
// write a row each, read the others', and decide alone: who follows the same rows comes to the same end, and who cannot read
// them holds nothing. docs/decisions/0011-nodes.md says why no two hold the same.
package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/ident"
	"rouse/messages"
)

const (
	// beatGap is how often a node says that it lives, and retryGap how soon it says it again when it was not heard.
	beatGap  = 2 * time.Second
	retryGap = 500 * time.Millisecond
	// beatLimit is how long one beat may take.
	beatLimit = 2 * time.Second
	// life is how long a row counts as alive after its beat, and a lease without being renewed.
	life = messages.NodeLife
	// hold is how long a node counts on what it was told: from when it asked, by its own monotonic clock.
	hold = 6 * time.Second
	// settle is how long a node that joined waits until it is home: longer than anyone goes on without having read of it.
	settle = 7 * time.Second
	// slack covers that clocks of different machines do not run equally fast, and are read in milliseconds.
	slack = 100 * time.Millisecond
	// leaveLimit is how long a stop waits for duties to end, so that their leases can be given back.
	leaveLimit = 3 * time.Second
	// lookGap is the least time between two beats that hints ask for.
	lookGap = 100 * time.Millisecond
)

// Store keeps the rows of nodes and leases. Each call answers within seconds, whatever state the database is in.
type Store interface {
	// Beat says that the node lives, as one that has just come if it has no row, and returns the database's clock and all rows.
	Beat(ctx context.Context, node ident.Node) (now time.Time, all []messages.Node, err error)
	// Leave takes the node's row away.
	Leave(ctx context.Context, node ident.Node) error
	// TakeLease has the node hold a lease for life from now on, if nobody else does. The term grows with each change of hands.
	TakeLease(ctx context.Context, name string, node ident.Node, life time.Duration) (term int64, ok bool, err error)
	// ReleaseLease lets others take the lease at once.
	ReleaseLease(ctx context.Context, name string, node ident.Node) error
}

// Bus carries hints to and from the other nodes; see package bus.
type Bus interface {
	Hint(hints ...messages.Hint)
	Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error
}

// Options is what New needs. Store and Bus are required.
type Options struct {
	Store Store
	Bus   Bus
	// Changed is called, from Run's goroutine, after what Mine answers has changed: nodes came or went, or this one began or
	// ceased to count. It must not block. It may be nil.
	Changed func()
	// Log may be nil.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
}

// Cluster is this node among the others. Its methods are safe for concurrent use.
type Cluster struct {
	o        Options
	me       ident.Node
	metrics  *metrics
	place    place                // Run's goroutine alone
	skewed   bool                 // the same: the clocks were told to differ
	troubled bool                 // the same: the database was told not to answer
	lapsed   bool                 // the same: this node held nothing for a moment, and that is not told yet
	view     atomic.Pointer[view] // Run writes; nil before the first beat and after the last
	looks    chan struct{}        // holds one token: look at once

	mu    sync.Mutex
	bell  chan struct{}  // guarded by mu: closed, and replaced, when duties should be tried at once
	gone  chan struct{}  // closed when the node leaves
	leads sync.WaitGroup // leases held; Add is called under mu and not once gone is closed
}

// New makes a node; Run has it join.
func New(o Options) *Cluster {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	c := &Cluster{o: o, place: place{me: ident.NewNode()}, looks: make(chan struct{}, 1), bell: make(chan struct{}), gone: make(chan struct{})}
	c.metrics = newMetrics(o.Metrics, c.view.Load)
	return c
}

// ID names this node, in the tables nodes and leases and in the log; "" while it is none of them. It is another one
// after the node was taken for dead.
func (c *Cluster) ID() ident.Node {
	if v := c.view.Load(); v != nil {
		return v.me.id
	}
	return ""
}

// Mine reports whether this node is home to the device now. At any moment at most one node is; for some seconds after one
// died or joined none may be. It takes less than a microsecond and asks nobody.
func (c *Cluster) Mine(d ident.Device) bool { return c.view.Load().mine(d, time.Now()) }

// Others counts the other nodes that are alive; 0 while this one cannot know.
func (c *Cluster) Others() int {
	if v := c.view.Load(); v.fresh(time.Now()) {
		return len(v.others)
	}
	return 0
}

// Run has the node join, and keeps it alive and informed until ctx is done. Then it leaves in order: it is home to nothing, its
// duties end, their leases and its row go, and the others are told; that takes up to 5 s. Trouble with the database is waited out. Run
// may be called once; it returns nil, when all its goroutines are gone.
func (c *Cluster) Run(ctx context.Context) error {
	var listening sync.WaitGroup
	listening.Go(func() { c.listen(ctx) })
	c.loop(ctx)
	c.leave(context.WithoutCancel(ctx))
	listening.Wait()
	return nil
}

// listen looks at once when a node says that it came or went.
func (c *Cluster) listen(ctx context.Context) {
	err := c.o.Bus.Listen(ctx, func(hints []messages.Hint, _ bool) {
		for _, h := range hints {
			if h.Kind == messages.HintNodes {
				c.look()
				return
			}
		}
	})
	if err != nil && ctx.Err() == nil {
		c.o.Log.Warn("cannot hear of nodes that come and go; they are noticed some seconds later", "error", err)
	}
}

func (c *Cluster) look() {
	select {
	case c.looks <- struct{}{}:
	default:
	}
}

// loop beats, and tells of every change, when the rows change and when a time has come.
func (c *Cluster) loop(ctx context.Context) {
	var seen homes
	asked := false // a hint asks for a look
	next := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.looks:
			asked = true
			next = earlier(next, c.place.asked.Add(lookGap))
		case <-timer.C:
		}
		if !time.Now().Before(next) {
			next = time.Now().Add(c.beat(ctx))
			if asked {
				asked = false
				c.ring()
			}
		}
		now := time.Now()
		if h := c.view.Load().homes(now); c.lapsed || !h.same(seen) {
			c.tellHomes(seen, h)
			seen, c.lapsed = h, false
			c.o.Changed()
		}
		timer.Reset(min(time.Until(next), c.view.Load().turns(now)))
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// beat says that this node lives, takes in who else does, and returns when to do it again.
func (c *Cluster) beat(ctx context.Context) time.Duration {
	// One that was called off could still arrive, after the row was taken away.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), beatLimit)
	defer cancel()
	sent := time.Now()
	if c.place.lost(sent) {
		c.place = place{me: ident.NewNode()}
	}
	joins := c.place.asked.IsZero()
	now, rows, err := c.o.Store.Beat(limited, c.place.me)
	answered := time.Now()
	if err != nil {
		c.beatFailed(ctx, err)
		return retryGap
	}
	c.beatHeard()
	if old := c.view.Load(); old != nil && !old.fresh(answered) {
		c.lapsed = true // what was hinted meanwhile found nobody at home
	}
	c.measure(sent, answered, now)
	v, again := c.place.heard(beat{sent: sent, answered: answered, now: now, rows: rows})
	c.view.Store(v)
	if joins {
		c.o.Log.Info("this node joined", "node", c.place.me, "others", len(v.others))
		c.ring()
		c.tell()
	}
	if again {
		return 0
	}
	return beatGap
}

func (c *Cluster) beatFailed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	c.metrics.failures.Inc()
	if !c.troubled {
		c.troubled = true
		c.o.Log.Warn("cannot say that this node lives; after 6 s without it holds nothing", "error", err)
	}
}

func (c *Cluster) beatHeard() {
	if c.troubled {
		c.troubled = false
		c.o.Log.Info("this node says again that it lives")
	}
}

func (c *Cluster) tellHomes(before, now homes) {
	level := slog.LevelInfo
	if len(before) > 0 && len(now) == 0 {
		level = slog.LevelWarn
	}
	c.o.Log.Log(context.Background(), level, "homes changed", "node", c.place.me, "homes", now, "before", before)
}

// ring has duties tried at once.
func (c *Cluster) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.bell)
	c.bell = make(chan struct{})
}

func (c *Cluster) listenBell() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bell
}

// leave gives up what this node holds, first here and then in the database: never the other way round.
func (c *Cluster) leave(ctx context.Context) {
	c.view.Store(nil)
	c.o.Changed()
	c.mu.Lock()
	close(c.gone)
	c.mu.Unlock()
	released := make(chan struct{})
	go func() { c.leads.Wait(); close(released) }()
	limit := time.NewTimer(leaveLimit)
	defer limit.Stop()
	select {
	case <-released:
	case <-limit.C:
		c.o.Log.Warn("a duty did not end in time; another node begins with it when its lease is over")
	}
	limited, cancel := context.WithTimeout(ctx, beatLimit)
	defer cancel()
	if err := c.o.Store.Leave(limited, c.place.me); err != nil && !errors.Is(err, context.Canceled) {
		c.o.Log.Warn("cannot take this node's row away; the others notice within 10 s", "error", err)
	}
	c.tell()
}

// tell has the others look at once.
func (c *Cluster) tell() { c.o.Bus.Hint(messages.Hint{Kind: messages.HintNodes}) }
