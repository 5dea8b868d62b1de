package main

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
	"rouse/worker"
)

// recheck is how old a client's credential may be before it is compared with
// the store's: the hint that says it changed may be lost.
const recheck = 30 * time.Second

// credentials is where a pusher looks up what an app gave, and whom a wake by hand is for.
type credentials interface {
	Credential(ctx context.Context, app ident.App, p tokens.Provider) (tokens.Credential, error)
	Device(ctx context.Context, app ident.App, id ident.Device) (tokens.Device, error)
}

// opener makes a provider client for a credential in an environment.
type opener func(c tokens.Credential, env tokens.Environment) (providers.Provider, error)

// pusher sends pushes through one client for each outlet, made when it is first needed and replaced when the
// app's credential is. It is safe for concurrent use.
type pusher struct {
	store credentials
	open  opener
	log   *slog.Logger

	mu      sync.Mutex
	epoch   int // guarded by mu; grows with each forget, so that a client made from an older read is not kept
	lines   map[worker.Outlet]*line
	closing sync.WaitGroup // owns the goroutines that close clients
}

// line is one open client. It is closed when it is retired and the last push has ended.
type line struct {
	client     providers.Provider
	credential tokens.Credential
	checked    time.Time // guarded by pusher.mu
	users      int       // guarded by pusher.mu
	retired    bool      // guarded by pusher.mu
}

func newPusher(store credentials, open opener, log *slog.Logger) *pusher {
	return &pusher{store: store, open: open, log: log, lines: map[worker.Outlet]*line{}}
}

// Push makes one attempt. An app without a credential is CredentialBad with the
// reason no_credentials.
func (p *pusher) Push(ctx context.Context, o worker.Outlet, push providers.Push) providers.Outcome {
	begun := time.Now()
	o.Onward = "" // who carries it on is behind the provider: the connection is the same
	l, err := p.take(ctx, o)
	if err != nil {
		out := p.refusal(o, err)
		out.Took = time.Since(begun)
		return out
	}
	defer p.release(l)
	return l.client.Push(ctx, push)
}

// wakeLife is how long a provider may keep a wake by hand for a phone that is away.
const wakeLife = time.Minute

// Wake pushes to a device now, an alert without a message, and says what came of it. It asks nothing of the worker, waits for no pause, and
// leaves token and circuits as they are. sent is false where there is nothing to try with: no provider, no token, or a credential that is
// missing or unusable, which the outcome says. NotFound "device_not_found".
func (p *pusher) Wake(ctx context.Context, d tokens.Device) (outcome providers.Outcome, took time.Duration, sent bool, err error) {
	if d, err = p.store.Device(ctx, d.App, d.ID); err != nil || d.Token == "" {
		return outcome, 0, false, err
	}
	o := tokens.OutletOf(d)
	o.Onward = ""
	l, err := p.take(ctx, o)
	if err != nil {
		return p.refusal(o, err), 0, false, nil
	}
	defer p.release(l)
	begun := time.Now()
	outcome = l.client.Push(ctx, providers.Push{
		ID: uuid.NewString(), Device: d.ID, Token: string(d.Token), Platform: string(d.Platform), Locale: d.Locale,
		Kind: providers.Alert, CollapseID: "rouse-by-hand", ExpiresAt: begun.Add(wakeLife),
	})
	return outcome, time.Since(begun), true, nil
}

// Verify asks the provider whether it takes the app's stored credential, in each environment there is, over connections of their
// own. NotFound "no_credential".
func (p *pusher) Verify(ctx context.Context, app ident.App, provider tokens.Provider) ([]providers.Finding, error) {
	credential, err := p.store.Credential(ctx, app, provider)
	if err != nil {
		return nil, err
	}
	return verify(ctx, p.open, credential), nil
}

// refusal turns a client that could not be had into an outcome.
func (p *pusher) refusal(o worker.Outlet, err error) providers.Outcome {
	switch fault.KindOf(err) {
	case fault.NotFound:
		return providers.Outcome{Verdict: providers.CredentialBad, Reason: "no_credentials"}
	case fault.Invalid:
		p.log.Error("an app's credential does not work", "app", o.App, "provider", o.Provider, "error", err)
		return providers.Outcome{Verdict: providers.CredentialBad, Reason: "credential_unusable"}
	}
	p.log.Error("cannot read an app's credential", "app", o.App, "provider", o.Provider, "error", err)
	return providers.Outcome{Verdict: providers.Unavailable, Reason: "credential_unreadable"}
}

// take returns the outlet's client and counts the caller as its user.
func (p *pusher) take(ctx context.Context, o worker.Outlet) (*line, error) {
	p.mu.Lock()
	l, ok := p.lines[o]
	if ok && time.Since(l.checked) < recheck {
		l.users++
		p.mu.Unlock()
		return l, nil
	}
	epoch := p.epoch
	p.mu.Unlock()

	credential, err := p.store.Credential(ctx, o.App, o.Provider)
	if err != nil {
		if fault.KindOf(err) == fault.NotFound {
			p.drop(func(have worker.Outlet) bool { return have == o })
		}
		return nil, err
	}
	return p.keep(o, credential, epoch)
}

// keep returns the outlet's client for the credential, the one there is if it was made from the same.
func (p *pusher) keep(o worker.Outlet, c tokens.Credential, epoch int) (*line, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, ok := p.lines[o]
	if ok && old.credential.Fingerprint == c.Fingerprint && bytes.Equal(old.credential.Public, c.Public) {
		old.checked = time.Now()
		old.users++
		return old, nil
	}
	client, err := p.open(c, o.Environment)
	if err != nil {
		return nil, fault.New(fault.Invalid, "credential_unusable", "the credential cannot be used").Because(err)
	}
	l := &line{client: client, credential: c, checked: time.Now(), users: 1}
	if epoch != p.epoch {
		// The credential may have been replaced since it was read: good for this push, not for the next.
		l.retired = true
		return l, nil
	}
	if ok {
		p.retire(old)
	}
	p.lines[o] = l
	return l, nil
}

func (p *pusher) release(l *line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.users--
	if l.retired && l.users == 0 {
		p.close(l)
	}
}

// retire takes a client out of use; p.mu is held.
func (p *pusher) retire(l *line) {
	l.retired = true
	if l.users == 0 {
		p.close(l)
	}
}

func (p *pusher) close(l *line) {
	p.closing.Go(func() {
		if err := l.client.Close(); err != nil {
			p.log.Warn("closing a provider's connections", "error", err)
		}
	})
}

// drop retires the clients of the outlets that match.
func (p *pusher) drop(match func(worker.Outlet) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch++
	for o, l := range p.lines {
		if match(o) {
			delete(p.lines, o)
			p.retire(l)
		}
	}
}

// Close retires every client and returns when their connections are closed.
// Nothing may be pushed any more.
func (p *pusher) Close() {
	p.drop(func(worker.Outlet) bool { return true })
	p.closing.Wait()
}

// before returns a bus that drops what a hint says is stale, and only then hands the hint on: the worker
// closes its circuit on the same hint, and its next push must not meet the old credential.
func (p *pusher) before(hints worker.Bus) worker.Bus { return credentialsFirst{hints, p} }

type credentialsFirst struct {
	worker.Bus
	pusher *pusher
}

func (c credentialsFirst) Listen(ctx context.Context, receive func([]messages.Hint, bool)) error {
	return c.Bus.Listen(ctx, func(hints []messages.Hint, lost bool) {
		if lost {
			c.pusher.drop(func(worker.Outlet) bool { return true })
		}
		for _, h := range hints {
			if h.Kind == messages.HintCredential {
				c.pusher.drop(func(o worker.Outlet) bool { return o.App == h.App && string(o.Provider) == h.Provider })
			}
		}
		receive(hints, lost)
	})
}
