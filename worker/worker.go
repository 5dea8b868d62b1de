// Package worker wakes phones: it listens to hints, decides by a pure state
// machine when a device is to be pushed, and sweeps the store by age so that no
// wake depends on memory. It never talks to api: they meet in the store.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
)

// Store is what waking a device reads and writes.
type Store interface {
	// Waiting reads what lies un-acked in one inbox, and the device, in one instant.
	Waiting(ctx context.Context, device ident.Device, now time.Time) (messages.Waiting, tokens.Device, error)
	// RecordWake notes a push; it does not block.
	RecordWake(messages.Wake)
}

// Tokens keeps what providers say of tokens.
type Tokens interface {
	// MarkToken changes the state of a token if the device still has that generation of it.
	MarkToken(ctx context.Context, m tokens.TokenMark) (bool, error)
	// MoveToken puts a token of that generation into the environment it turned out to belong to.
	MoveToken(ctx context.Context, device ident.Device, generation int64, to tokens.Environment) (bool, error)
	// TakeBackDeaths makes suspects of the app's tokens that died since, and returns whose; some even beside an error.
	TakeBackDeaths(ctx context.Context, app ident.App, p tokens.Provider, since time.Time) ([]ident.Device, error)
}

// Circuits keeps what is paused, so that a start begins with it.
type Circuits interface {
	// NoteCircuit writes what a circuit is now, Circuits reads all of an app that are not closed, or of all apps.
	NoteCircuit(ctx context.Context, c tokens.Circuit, now time.Time) error
	Circuits(ctx context.Context, app ident.App) ([]tokens.Circuit, error)
}

// Sweeps is what makes wakes certain: scans by age with durable cursors, and the end of lives.
type Sweeps interface {
	SweepCursor(ctx context.Context, name string) (messages.Seq, error)
	MoveSweepCursor(ctx context.Context, name string, to messages.Seq) error
	Sweep(ctx context.Context, q messages.SweepQuery) (due []messages.Due, next messages.Seq, more bool, err error)
	Expire(ctx context.Context, now time.Time, limit int) (int, error)
	Purge(ctx context.Context, before, now time.Time, limit int) (int, error)
}

// Expiries knows which credentials run out.
type Expiries interface {
	// TellExpiring writes the events that are due and returns the credentials they tell of.
	TellExpiring(ctx context.Context, now time.Time) ([]tokens.Credential, error)
	// Expiries returns app, provider and end of all credentials that have one.
	Expiries(ctx context.Context) ([]tokens.Credential, error)
}

// Outlet is one way to phones: circuits, limits and queues are kept for each.
type Outlet = tokens.Outlet

// Pusher makes one attempt through an outlet. An app without a credential is
// CredentialBad with the reason no_credentials.
type Pusher interface {
	Push(ctx context.Context, o Outlet, p providers.Push) providers.Outcome
}

// Bus carries hints; any may be lost. See bus.
type Bus interface {
	// Listen hands over hints until ctx is done; lost says that some are missing before these, and so does the first call, at once.
	Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error
	// Hint tells all nodes, this one included, and does not block.
	Hint(hints ...messages.Hint)
}

// Nodes says what of the work is this node's; see cluster.
type Nodes interface {
	// Mine reports whether this node is home to the device: at most one node at a time is, and none for a moment while
	// homes change. It is asked often. After each change Rehome has to be called.
	Mine(device ident.Device) bool
	// Lead runs work whenever this node, as the only one, has the duty, until ctx is done; work's context ends with the
	// duty. It returns when work has.
	Lead(ctx context.Context, duty string, work func(context.Context) error) error
}

// Options is everything a Worker needs. The first seven are required.
type Options struct {
	Store    Store
	Tokens   Tokens
	Circuits Circuits
	Sweeps   Sweeps
	Expiries Expiries
	Hints    Bus
	Pusher   Pusher
	// Fanouts may be nil: then nothing is fanned out here.
	Fanouts Fanouts
	// Nodes may be nil: then there is no other node.
	Nodes Nodes
	// Log may be nil.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
	// Grace is how long presence postpones a wake; 0 is DefaultGrace.
	Grace time.Duration
	// InFlight bounds the pushes under way for each outlet; 0 is 500 for APNs, 200 for FCM.
	InFlight int
	// Total bounds the pushes under way in all, but for the few that each outlet may always have; 0 is 5,000.
	Total int
	// Readers bounds the store reads for devices not yet known; 0 is 8.
	Readers int
	// Memory bounds the devices remembered; those that wait for nothing are forgotten first. 0 is 200,000.
	Memory int
	// Retention is how long a finished delivery can be looked up; 0 is 7 days.
	Retention time.Duration
}

const (
	defaultReaders   = 8
	defaultMemory    = 200_000
	defaultRetention = 7 * 24 * time.Hour
	apnsInFlight     = 500
	fcmInFlight      = 200
	defaultTotal     = 5_000
	// outletFloor is how many pushes each outlet may have under way when all places are taken.
	outletFloor = 16
	// attemptLimit ends an attempt whose provider does not keep its own deadline.
	attemptLimit = 15 * time.Second
	// drainLimit is how long Run lets pushes finish once it is told to stop.
	drainLimit = 8 * time.Second
)

// Worker is the home of all devices of this node.
type Worker struct {
	o       Options
	metrics *metrics
	events  chan any       // everything the hub reacts to; see hub.handle
	resweep chan struct{}  // hints were lost: look at everything new; holds one token
	rehomed chan struct{}  // homes have changed; holds one token
	retried chan ident.App // apps with a new credential: look at all they have pending
	rewarn  chan struct{}  // a credential came that may run out; holds one token
	fans    chan struct{}  // there may be something to fan out; holds one token
	desk    desk
}

// New makes a Worker; Run starts it.
func New(o Options) *Worker {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Grace = orElse(o.Grace, DefaultGrace)
	o.Retention = orElse(o.Retention, defaultRetention)
	if o.Readers <= 0 {
		o.Readers = defaultReaders
	}
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	if o.Total <= 0 {
		o.Total = defaultTotal
	}
	if o.Nodes == nil {
		o.Nodes = alone{}
	}
	return &Worker{
		o: o, metrics: newMetrics(o.Metrics), events: make(chan any, 256),
		resweep: make(chan struct{}, 1), rehomed: make(chan struct{}, 1), retried: make(chan ident.App, 64),
		rewarn: make(chan struct{}, 1), fans: make(chan struct{}, 1),
	}
}

// Run wakes devices until ctx is done. Then it starts nothing new, lets pushes in
// flight end for up to 8 s, and returns when all its goroutines are gone. The error is nil
// unless something failed that it could not go on without.
func (w *Worker) Run(ctx context.Context) error {
	// Attempts outlive ctx by the drain: a push half sent is better finished than cut.
	attempts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	hub := newHub(w, attempts, cut)
	circuits, err := w.o.Circuits.Circuits(ctx, "")
	if err != nil {
		return fmt.Errorf("reading the circuits: %w", err)
	}
	hub.restore(circuits)
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { hub.run(inner); return nil })
	group.Go(func() error { return w.o.Nodes.Lead(inner, duty, w.sweep) })
	if w.o.Fanouts != nil {
		group.Go(func() error { return w.o.Nodes.Lead(inner, fanDuty, w.fanOut) })
	}
	group.Go(func() error { return w.look(inner) })
	group.Go(func() error {
		return w.o.Hints.Listen(inner, func(hints []messages.Hint, lost bool) {
			if lost {
				w.post(inner, lostEvent{})
				w.lookAgain()
				hints = append(hints, messages.Hint{Kind: messages.HintCircuit}) // of any app
			}
			if lost || hasFanout(hints) {
				w.fanSoon()
			}
			w.post(inner, w.desk.taken(hints))
		})
	})
	err = group.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// lookAt asks for a sweep of all that one app has pending. If too many are asked for at once, the
// ladder finds the rest.
func (w *Worker) lookAt(app ident.App) {
	select {
	case w.rewarn <- struct{}{}:
	default:
	}
	select {
	case w.retried <- app:
	default:
		w.o.Log.Warn("too many new credentials at once; the ladder will wake what waits", "app", app)
	}
}

// lookAgain asks for the sweep of a start: hints were lost.
func (w *Worker) lookAgain() {
	select {
	case w.resweep <- struct{}{}:
	default:
	}
}

// post hands an event to the hub; false if ctx ended first.
func (w *Worker) post(ctx context.Context, event any) bool {
	select {
	case w.events <- event:
		return true
	case <-ctx.Done():
		return false
	}
}
