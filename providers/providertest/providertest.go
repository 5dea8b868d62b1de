// Package providertest holds every provider to the same promises: one Push is
// one request, one true Outcome within its deadline, whatever the other side
// does. It runs the real provider against the simulator.
package providertest

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"rouse/ident"
	"rouse/providers"
	"rouse/providers/sim"
)

// Settings is what a test asks of the provider it gets.
type Settings struct {
	// Endpoint replaces the simulator's; empty for the simulator's.
	Endpoint string
	// RootCAs checks the server.
	RootCAs  *x509.CertPool
	Timeout  time.Duration
	InFlight int
	Log      *slog.Logger
}

// Answer is one answer of the provider and what must come of it.
type Answer struct {
	Name   string
	Action sim.Action
	// Platform is the device's; empty for other.
	Platform string
	// Want is compared without Took.
	Want providers.Outcome
}

// Signing is what the suite must know of a provider that is shown tokens which we sign.
type Signing struct {
	// Expire gives p a token that the provider calls expired and that is old enough to be replaced.
	Expire func(p providers.Provider)
	// Age makes p's token look signed so long ago.
	Age func(p providers.Provider, by time.Duration)
	// Expired is the outcome for an expired token that may be replaced.
	Expired providers.Outcome
	// TooMany is the answer to a token that comes too soon after another.
	TooMany Answer
}

// Refusal is something that is wrong with a credential, and what Verify must find.
type Refusal struct {
	Name string
	// Provider is whom the rule is for, sim.APNs, sim.FCM or sim.Token.
	Provider string
	Action   sim.Action
	// Want is the last finding, without its sentences.
	Want providers.Finding
}

// Fixture is what the suite must know of a provider.
type Fixture struct {
	// Provider is sim.APNs or sim.FCM.
	Provider string
	// New makes a provider with a credential that s knows, the same one for the same s.
	New func(t *testing.T, s *sim.Sim, o Settings) providers.Provider
	// Stranger makes one with a credential of the right form that s does not know, and Strange is what comes of its pushes.
	Stranger func(t *testing.T, s *sim.Sim, o Settings) providers.Provider
	Strange  providers.Outcome
	// Endpoint is where New would connect.
	Endpoint func(s *sim.Sim) string
	// Token registers a live device.
	Token func(s *sim.Sim) string
	// Body is the exact request body for an alert push.
	Body func(p providers.Push) string
	// Dead is the outcome for a token that died.
	Dead providers.Outcome
	// Answers are scripted, one push each.
	Answers []Answer
	// TurnedAway are ways in which the provider ends every connection before it answers, and what must come of it.
	TurnedAway []Answer
	// Narrows is whether the provider changes its stream limit while pushes are under way.
	Narrows bool
	// Signs is set for a provider that is shown tokens which we sign.
	Signs *Signing
	// Fetches is set for a provider that is shown access tokens from the simulator's token endpoint.
	Fetches bool
	// Refusals are what Verify must tell.
	Refusals []Refusal
	// BurstConnections is how many connections a cold burst of 300 may open.
	BurstConnections int
}

// world is one simulator and one provider, for one test.
type world struct {
	Fixture
	t        *testing.T
	sim      *sim.Sim
	provider providers.Provider
	logs     *buffer
}

const (
	// patience is how long a test waits for what must come.
	patience = 10 * time.Second
	// grace is what the contract allows over a deadline.
	grace = time.Second
	// brief is the deadline of what gets no answer.
	brief = 2 * time.Second
)

// start brings up a world; it is gone when the test is over.
func (f Fixture) start(t *testing.T, o Settings) *world {
	t.Helper()
	s, err := sim.Start(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	w := &world{Fixture: f, t: t, sim: s, logs: &buffer{}}
	w.provider = w.connect(o)
	return w
}

// fork is a world with the same simulator and a provider of its own.
func (w *world) fork(t *testing.T) *world {
	t.Helper()
	other := *w
	other.t = t
	other.provider = other.connect(Settings{})
	return &other
}

// connect makes one more provider.
func (w *world) connect(o Settings) providers.Provider {
	w.t.Helper()
	p := w.New(w.t, w.sim, w.settings(o))
	w.t.Cleanup(func() { _ = p.Close() })
	return p
}

// settings fills in what a test leaves open.
func (w *world) settings(o Settings) Settings {
	w.t.Helper()
	if o.RootCAs == nil {
		o.RootCAs = x509.NewCertPool()
		if !o.RootCAs.AppendCertsFromPEM(w.sim.CAPEM()) {
			w.t.Fatal("the simulator's CA is no certificate")
		}
	}
	if o.Timeout == 0 {
		o.Timeout = patience
	}
	o.Log = slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return o
}

// NewPush is a wake for the token that lives for an hour.
func NewPush(token string) providers.Push {
	return providers.Push{
		ID: uuid.NewString(), Device: ident.NewDevice(), Token: token, Platform: "other", Kind: providers.Alert,
		Head: "AAAAAAAAAAEqdkPXnLh", CollapseID: "rouse-3f", ExpiresAt: time.Now().Add(time.Hour),
	}
}

// push sends one wake and checks that it kept its deadline.
func (w *world) push(p providers.Push, limit time.Duration) providers.Outcome {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), limit)
	defer cancel()
	return w.pushIn(ctx, p)
}

// pushIn is push with a context that ends when the test says so.
func (w *world) pushIn(ctx context.Context, p providers.Push) providers.Outcome {
	w.t.Helper()
	defer w.inTime(ctx, "a push")()
	return w.provider.Push(ctx, p)
}

// inTime checks, when what it returns is called, that the context ended no longer than grace ago. When it did says a goroutine of its
// own: a machine that stands still makes nobody late.
func (w *world) inTime(ctx context.Context, what string) func() {
	w.t.Helper()
	over := make(chan time.Time, 1)
	stop := context.AfterFunc(ctx, func() { over <- time.Now() })
	return func() {
		w.t.Helper()
		if stop() {
			return
		}
		if late := time.Since(<-over); late > grace {
			w.t.Errorf("%s came back %v after its context ended", what, late)
		}
	}
}

// works asserts that the provider wakes a fresh device now.
func (w *world) works() {
	w.t.Helper()
	token := w.Token(w.sim)
	if out := w.push(NewPush(token), patience); out.Verdict != providers.Accepted {
		w.t.Errorf("the next push was not accepted: %+v", out)
	}
	if got := len(w.sim.Pushes(token)); got != 1 {
		w.t.Errorf("the next device got %d pushes, want 1", got)
	}
}

// requests counts what came over the wire for the token.
func (w *world) requests(token string) int {
	n := 0
	for _, e := range w.sim.Log() {
		if e.Provider == w.Provider && (strings.Contains(e.Path, token) || strings.Contains(e.Body, token)) {
			n++
		}
	}
	return n
}

// until waits for a condition of the simulator's counters.
func (w *world) until(what string, done func(sim.ProviderStats) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done(w.stats()) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func (w *world) stats() sim.ProviderStats {
	if w.Provider == sim.FCM {
		return w.sim.Stats().FCM
	}
	return w.sim.Stats().APNs
}

// buffer is a log that may be written from many goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
