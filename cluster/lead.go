package cluster

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"rouse/ident"
)

// pause is how long a duty rests that ended by itself.
const pause = time.Second

// Lead has work done by one node at a time: by this one while it holds the duty's lease. Work has to end soon after its
// context does, which is when the lease is lost, this node is cut off from the database for 6 s, or it leaves, or ctx is done. Another node takes the duty
// within 15 s of a death, and at once after an ordered stop. Work that returns by itself, with or without an error, is
// begun again after a second. Lead returns, nil, when ctx is done and work has returned. Call it once for each duty.
//
// Two never work at once as long as work ends within 2 s of its context. A process that was frozen may still finish the one step it was in, after
// another node has taken over: a step that must not be done late has to say so in its statement, or do no harm.
func (c *Cluster) Lead(ctx context.Context, duty string, work func(context.Context) error) error {
	l := &lead{c: c, duty: duty, work: work}
	c.metrics.leading.WithLabelValues(duty).Set(0) // an alarm sees only a series that is there
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		bell := c.listenBell()
		select {
		case <-ctx.Done():
			return nil
		case <-c.gone:
			<-ctx.Done()
			return nil
		case <-bell:
		case <-again.C:
		}
		l.try(ctx)
		again.Reset(beatGap)
	}
}

// lead is one duty of one node.
type lead struct {
	c    *Cluster
	duty string
	work func(context.Context) error

	// node is the id under which it was taken. It stays, if this node joins anew meanwhile.
	node ident.Node

	mu    sync.Mutex
	asked time.Time // guarded by mu: when the renewal was sent that was granted last
}

// take takes or renews the lease, and reports whether this node holds it. On an error it holds what it held.
func (l *lead) take(ctx context.Context) bool {
	// One that was called off could still be granted, and nobody would give it back.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), beatLimit)
	defer cancel()
	sent := time.Now()
	_, ok, err := l.c.o.Store.TakeLease(limited, l.duty, l.node, life)
	if err != nil {
		if ctx.Err() == nil {
			l.c.o.Log.Warn("cannot ask for a duty", "duty", l.duty, "error", err)
		}
		return l.holds(time.Now())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = time.Time{}
	if ok {
		l.asked = sent
	}
	return ok
}

// until is when this node ceases to hold the lease, if nothing is heard: the lease is renewed apart from the beats, and both count.
func (l *lead) until() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.c.view.Load()
	if v == nil || l.asked.IsZero() {
		return time.Time{}
	}
	at := l.asked.Add(hold)
	if v.until.Before(at) {
		return v.until
	}
	return at
}

func (l *lead) holds(now time.Time) bool { return now.Before(l.until()) }

// try leads if the lease is to be had.
func (l *lead) try(ctx context.Context) {
	if !l.c.enter() {
		return
	}
	defer l.c.leads.Done()
	v := l.c.view.Load()
	if !v.fresh(time.Now()) {
		return
	}
	if l.node = v.me.id; l.take(ctx) {
		l.lead(ctx)
	}
}

// lead does the work while the lease is held. It returns when the work has, and the lease is given back or lost.
func (l *lead) lead(ctx context.Context) {
	log := l.c.o.Log.With("node", l.node, "duty", l.duty)
	log.Info("this node takes a duty")
	l.c.metrics.leading.WithLabelValues(l.duty).Set(1)
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := l.watch(cancel)
	defer lost.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		repeat(inner, log, l.duty, l.work)
	}()
	l.renew(inner, cancel)
	<-done
	l.c.metrics.leading.WithLabelValues(l.duty).Set(0)
	if !l.holds(time.Now()) && ctx.Err() == nil && !l.c.left() {
		log.Warn("this node lost a duty")
		return
	}
	l.release(log)
}

// watch ends the work when the lease is over, whatever else hangs.
func (l *lead) watch(cancel context.CancelFunc) *time.Timer {
	var t *time.Timer
	ready := make(chan struct{})
	t = time.AfterFunc(time.Until(l.until()), func() {
		<-ready
		if left := time.Until(l.until()); left > 0 {
			t.Reset(left)
			return
		}
		cancel()
	})
	close(ready)
	return t
}

// renew keeps the lease until it is lost or inner is done.
func (l *lead) renew(inner context.Context, cancel context.CancelFunc) {
	tick := time.NewTicker(beatGap)
	defer tick.Stop()
	for {
		select {
		case <-inner.Done():
			return
		case <-l.c.gone:
			cancel()
			return
		case <-tick.C:
			if !l.take(inner) {
				cancel()
				return
			}
		}
	}
}

// release gives the lease back, so that another node need not wait for its end.
func (l *lead) release(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), beatLimit)
	defer cancel()
	if err := l.c.o.Store.ReleaseLease(ctx, l.duty, l.node); err != nil {
		log.Warn("cannot give a duty back; another node takes it within 10 s", "error", err)
		return
	}
	log.Info("this node gave a duty back")
	if !l.c.left() { // else leave tells
		l.c.tell()
	}
}

// enter counts a lease that is held or asked for; false if the node is leaving.
func (c *Cluster) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left() {
		return false
	}
	c.leads.Add(1)
	return true
}

func (c *Cluster) left() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// repeat does work until ctx is done.
func repeat(ctx context.Context, log *slog.Logger, duty string, work func(context.Context) error) {
	rest := time.NewTimer(pause)
	defer rest.Stop()
	for ctx.Err() == nil {
		if err := work(ctx); err != nil && ctx.Err() == nil {
			log.Error("a duty ended; it begins again", "duty", duty, "error", err)
		}
		rest.Reset(pause)
		select {
		case <-ctx.Done():
		case <-rest.C:
		}
	}
}

// Alone is the place of the only node there is: it is home to everything and does every duty. The zero value is ready.
type Alone struct {
	// Log may be nil.
	Log *slog.Logger
}

// Mine is true.
func (Alone) Mine(ident.Device) bool { return true }

// Others returns 0.
func (Alone) Others() int { return 0 }

// Run waits until ctx is done and returns nil: nobody comes or goes.
func (Alone) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Lead does work until ctx is done and work has returned, and returns nil. Work that returns earlier is begun again after a second.
func (a Alone) Lead(ctx context.Context, duty string, work func(context.Context) error) error {
	if a.Log == nil {
		a.Log = slog.New(slog.DiscardHandler)
	}
	repeat(ctx, a.Log, duty, work)
	return nil
}
