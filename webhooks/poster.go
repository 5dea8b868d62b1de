// Package webhooks posts an app's events to where its backend wants them: each signed, at least once, those of a device in their
// order, and none to an address that the operator does not allow. One node of those that share a database does it for all.
package webhooks

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

const (
	// duty is what one node does for all.
	duty = "webhooks"
	// tick is how often it is looked which webhooks there are, and whether their apps have events; lookGap the least time between.
	tick    = time.Second
	lookGap = 200 * time.Millisecond
	// allPosts bounds the posts under way to all webhooks, but for the one that each may always have.
	allPosts = 1024
	// appPosts bounds those of one app in the same way: a few apps whose receivers hang leave the others room.
	appPosts = 128
	// allTests bounds the tests under way: whoever makes too many holds up nobody's events.
	allTests = 64
	// testAgain is when to come again with a test for which there is no place.
	testAgain = 5 * time.Second
)

// Store keeps webhooks, and the events that are posted to them.
type Store interface {
	// WebhookTurns are all webhooks that are enabled.
	WebhookTurns(ctx context.Context) ([]messages.WebhookTurn, error)
	// TakeWebhook begins a term, and ends the one before; NotFound "webhook_not_found" for one that is disabled, too.
	TakeWebhook(ctx context.Context, app ident.App, id ident.Webhook) (messages.WebhookDesk, error)
	// EventPage reads events, in their order.
	EventPage(ctx context.Context, q messages.EventQuery) (messages.EventPage, error)
	// NotePosts writes what came of posting; false if the webhook has another term by now.
	NotePosts(ctx context.Context, n messages.WebhookNote) (bool, error)
	// Webhook reads one, for a test; NotFound "webhook_not_found".
	Webhook(ctx context.Context, app ident.App, id ident.Webhook) (messages.WebhookDesk, error)
}

// Bus carries hints; any may be lost. See bus.
type Bus interface {
	// Listen hands over hints until ctx is done; lost says that some are missing before these, and so does the first call, at once.
	Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error
	// Hint tells all nodes, this one included, and does not block.
	Hint(hints ...messages.Hint)
}

// Nodes says which node does what; see cluster.
type Nodes interface {
	// Lead runs work whenever this node, as the only one, has the duty, until ctx is done.
	Lead(ctx context.Context, duty string, work func(context.Context) error) error
}

// Options is everything a Poster needs. Store, Hints and Nodes are required.
type Options struct {
	Store Store
	Hints Bus
	Nodes Nodes
	// Allow are internal addresses that may be posted to, over http too.
	Allow []netip.Prefix
	// Dial is nil for real sockets.
	Dial Dialer
	// Roots is nil for the system's authorities.
	Roots *x509.CertPool
	// Log may be nil.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
}

// Poster posts events to webhooks.
type Poster struct {
	o       Options
	mail    *mailer
	metrics *metrics
	slots   slots
	tests   slots
	looks   chan struct{} // holds a token: look at once

	mu       sync.Mutex
	couriers map[ident.Webhook]*courier // guarded by mu, as the next; lead's goroutine writes
	apps     map[ident.App][]*courier   // the same by app, for hints
	shares   map[ident.App]*slots       // what the posts of an app share
}

// New makes a Poster; Run starts it. The error is one of metrics that are registered already.
func New(o Options) (*Poster, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Poster{o: o, mail: newMailer(guard{o.Allow}, o.Dial, o.Roots), looks: make(chan struct{}, 1), couriers: map[ident.Webhook]*courier{},
		shares: map[ident.App]*slots{}}
	p.slots.left.Store(allPosts)
	p.tests.left.Store(allTests)
	var err error
	if p.metrics, err = newMetrics(o.Metrics, p); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return p, nil
}

// CheckURL says why nothing can be posted to a URL: Invalid "invalid_webhook" at /url. Where a name leads is found out when something is posted.
func (p *Poster) CheckURL(url string) error { return p.mail.guard.check(url) }

// Test makes one post of an event of type webhook.test and says what came of it, within 15 s. It changes nothing.
// NotFound "webhook_not_found", Unavailable "overloaded".
func (p *Poster) Test(ctx context.Context, app ident.App, id ident.Webhook) (messages.WebhookTested, error) {
	hook, err := p.o.Store.Webhook(ctx, app, id)
	if err != nil {
		return messages.WebhookTested{}, err
	}
	if p.tests.take(1) == 0 {
		return messages.WebhookTested{}, fault.New(fault.Unavailable, "overloaded", "too many tests are under way; come again").After(testAgain)
	}
	defer p.tests.give(1)
	begun := time.Now()
	event := messages.Event{ID: ident.NewEvent(), App: app, Type: messages.WebhookTest, At: begun, Data: []byte(`{"webhook_id":"` + id + `"}`)}
	body, err := bodyOf(event)
	if err != nil {
		return messages.WebhookTested{}, fmt.Errorf("write a test event: %w", err)
	}
	o := p.mail.post(ctx, letter{url: hook.URL, id: string(event.ID), body: body, secrets: hook.Secrets})
	if ctx.Err() != nil {
		return messages.WebhookTested{}, ctx.Err()
	}
	return messages.WebhookTested{OK: o.taken, Status: o.status, Error: o.reason, Took: time.Since(begun)}, nil
}

// Run posts whenever this node has the duty, until ctx is done and all its goroutines are gone. The error is the bus's.
func (p *Poster) Run(ctx context.Context) error {
	defer p.mail.close()
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return p.o.Nodes.Lead(inner, duty, p.lead) })
	group.Go(func() error { return p.o.Hints.Listen(inner, p.hear) })
	err := group.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// hear has couriers look whose apps may have events.
func (p *Poster) hear(hints []messages.Hint, lost bool) {
	apps, all, look := map[ident.App]bool{}, lost, lost
	for _, h := range hints {
		switch h.Kind {
		case messages.HintEvents:
			look = true
		case messages.HintAcked, messages.HintGone, messages.HintToken, messages.HintCircuit:
		default:
			continue
		}
		apps[h.App], all = true, all || h.App == ""
	}
	if look {
		p.look()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if all {
		for _, c := range p.couriers {
			c.look()
		}
		return
	}
	for app := range apps {
		for _, c := range p.apps[app] {
			c.look()
		}
	}
}

// look has the webhooks listed at once.
func (p *Poster) look() {
	select {
	case p.looks <- struct{}{}:
	default:
	}
}

// lead has a courier for each webhook until ctx is done, and returns when all are gone.
func (p *Poster) lead(ctx context.Context) error {
	defer p.dismiss()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for troubled := false; ; {
		turns, err := p.o.Store.WebhookTurns(ctx)
		if err == nil {
			p.employ(ctx, turns)
		} else if !troubled && ctx.Err() == nil {
			p.o.Log.Warn("cannot list webhooks", "error", err)
		}
		troubled = err != nil
		timer.Reset(lookGap)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		timer.Reset(tick - lookGap)
		select {
		case <-ctx.Done():
			return nil
		case <-p.looks:
		case <-timer.C:
		}
	}
}

// employ starts and ends couriers so that each webhook has one that knows what it is now.
func (p *Poster) employ(ctx context.Context, turns []messages.WebhookTurn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	listed := make(map[ident.Webhook]bool, len(turns))
	for _, t := range turns {
		listed[t.ID] = true
		c := p.couriers[t.ID]
		switch {
		case c == nil || c.over():
			p.couriers[t.ID] = p.courier(ctx, t)
		case c.term.Load() > 0 && t.Term > c.term.Load():
			c.cancel() // another takes its place once it is gone
		case t.Newest > messages.Seq(c.newest.Load()):
			c.newest.Store(int64(t.Newest))
			c.look()
		}
	}
	for id, c := range p.couriers {
		if listed[id] {
			continue
		}
		if c.cancel(); c.over() {
			delete(p.couriers, id)
		}
	}
	p.apps = make(map[ident.App][]*courier, len(p.couriers))
	for _, c := range p.couriers {
		p.apps[c.app] = append(p.apps[c.app], c)
	}
	maps.DeleteFunc(p.shares, func(app ident.App, _ *slots) bool { return len(p.apps[app]) == 0 })
}

// share returns what an app's couriers share.
func (p *Poster) share(app ident.App) *slots {
	s := p.shares[app]
	if s == nil {
		s = &slots{}
		s.left.Store(appPosts)
		p.shares[app] = s
	}
	return s
}

// courier starts one.
func (p *Poster) courier(ctx context.Context, t messages.WebhookTurn) *courier {
	ctx, cancel := context.WithCancel(ctx)
	c := &courier{p: p, id: t.ID, app: t.App, share: p.share(t.App), log: p.o.Log.With("app", t.App, "webhook", t.ID), cancel: cancel, ended: make(chan struct{}),
		looks: make(chan struct{}, 1), results: make(chan result, mostPosts)}
	c.newest.Store(int64(t.Newest))
	go func() {
		c.run(ctx)
		cancel()
		p.look()
	}()
	return c
}

// over reports whether the courier is gone.
func (c *courier) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// dismiss ends all couriers and waits for them.
func (p *Poster) dismiss() {
	p.mu.Lock()
	all := p.couriers
	p.couriers, p.apps = map[ident.Webhook]*courier{}, nil
	p.mu.Unlock()
	for _, c := range all {
		c.cancel()
	}
	for _, c := range all {
		<-c.ended
	}
}

// slots are what many share.
type slots struct{ left atomic.Int64 }

// take takes up to n and returns how many.
func (s *slots) take(n int) int {
	for {
		left := s.left.Load()
		got := min(int64(n), left)
		if got <= 0 {
			return 0
		}
		if s.left.CompareAndSwap(left, left-got) {
			return int(got)
		}
	}
}

func (s *slots) give(n int) { s.left.Add(int64(n)) }
