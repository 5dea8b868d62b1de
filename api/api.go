// Package api is the way in and the way out: it decodes and checks a call, asks the store,
// says "look again" on the bus after the commit, and answers as openapi.yaml says.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse"
	"rouse/api/park"
	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
)

// Apps keeps tenants.
type Apps interface {
	CreateApp(ctx context.Context, app tokens.App, keys []tokens.Key) error
	Apps(ctx context.Context, after ident.App, limit int) ([]tokens.App, error)
	App(ctx context.Context, id ident.App) (tokens.App, error)
	PatchApp(ctx context.Context, id ident.App, p tokens.AppPatch) (tokens.App, error)
	DeleteApp(ctx context.Context, id ident.App) error
}

// Keys keeps what opens an app.
type Keys interface {
	AddKey(ctx context.Context, k tokens.Key) error
	Keys(ctx context.Context, app ident.App) ([]tokens.Key, error)
	DeleteKey(ctx context.Context, app ident.App, key ident.Key) error
	LookupKey(ctx context.Context, key ident.Key) (tokens.Key, error)
}

// Credentials keeps what an app gave us to speak to Apple and Google.
type Credentials interface {
	PutCredential(ctx context.Context, c tokens.Credential) error
	Credentials(ctx context.Context, app ident.App) ([]tokens.Credential, error)
	DeleteCredential(ctx context.Context, app ident.App, p tokens.Provider) error
}

// Verifier asks a provider whether it takes the stored credential; NotFound "no_credential".
type Verifier interface {
	Verify(ctx context.Context, app ident.App, p tokens.Provider) ([]providers.Finding, error)
}

// Circuits knows which ways to phones are not as they should be.
type Circuits interface {
	Circuits(ctx context.Context, app ident.App) ([]tokens.Circuit, error)
}

// Events keeps what an app's backend should know.
type Events interface {
	Events(ctx context.Context, app ident.App, after messages.Seq, limit int) (list []messages.Event, more bool, err error)
}

// CredentialChecker reads what an app uploaded. Its errors are fault.Invalid with pointers, and
// it fills all of a credential but App and UpdatedAt.
type CredentialChecker interface {
	APNs(u providers.APNsUpload) (tokens.Credential, error)
	FCM(u providers.FCMUpload) (tokens.Credential, error)
}

// Devices keeps installations.
type Devices interface {
	Register(ctx context.Context, e tokens.Enrol) (tokens.Device, bool, error)
	PatchDevice(ctx context.Context, id ident.Device, p tokens.Patch, now time.Time) (tokens.Device, error)
	RotateSecret(ctx context.Context, id ident.Device, h tokens.Hash, now time.Time) error
	Unregister(ctx context.Context, app ident.App, id ident.Device, now time.Time) error
	NotePush(ctx context.Context, id ident.Device, demoted bool, now time.Time) error
}

// Users knows which device is whose.
type Users interface {
	BindUser(ctx context.Context, app ident.App, user string, id ident.Device) error
	UnbindUser(ctx context.Context, app ident.App, user string, id ident.Device) error
}

// Door knows a device's key. ConfirmSecret and Contact do not block.
type Door interface {
	DeviceAuth(ctx context.Context, id ident.Device) (d tokens.Device, current, previous tokens.Hash, err error)
	ConfirmSecret(id ident.Device, h tokens.Hash)
	Contact(id ident.Device, now time.Time)
}

// Messages keeps what was sent.
type Messages interface {
	Accept(ctx context.Context, m messages.Send) (messages.Receipt, error)
	Message(ctx context.Context, app ident.App, id ident.Message) (messages.Summary, error)
	Deliveries(ctx context.Context, app ident.App, id ident.Message, after ident.Device, limit int) (list []messages.Delivery, more bool, err error)
	Cancel(ctx context.Context, app ident.App, id ident.Message, now time.Time) (messages.Summary, error)
}

// Inboxes keeps what waits for a device.
type Inboxes interface {
	Inbox(ctx context.Context, q messages.Query) (messages.Page, error)
	Item(ctx context.Context, device ident.Device, id ident.Message, now time.Time) (messages.Item, error)
	AckUpTo(ctx context.Context, device ident.Device, seq messages.Seq, now time.Time) (int, error)
	AckIDs(ctx context.Context, device ident.Device, ids []ident.Message, now time.Time) (int, error)
	// Fresh returns the devices of those polls that would be answered now, in one question.
	Fresh(ctx context.Context, polls []messages.Poll, now time.Time) ([]ident.Device, error)
}

// Hinter says "look again". It must be quick: it is called with locks held.
type Hinter interface {
	Hint(hints ...messages.Hint)
}

// Deps is everything the API needs. The first ten are the store.
type Deps struct {
	Apps        Apps
	Keys        Keys
	Credentials Credentials
	Devices     Devices
	Users       Users
	Door        Door
	Messages    Messages
	Inboxes     Inboxes
	Circuits    Circuits
	Events      Events

	Hints    Hinter
	Checker  CredentialChecker
	Verifier Verifier
	// Admin is the hash of the administrator's key; zero: there is none, and nobody administers.
	Admin  tokens.Hash
	Limits Limits
	// Draining is closed when the server begins to stop: waiting polls are answered. nil: never.
	Draining <-chan struct{}
	// Log may be nil.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
}

// Limits bounds callers; a zero field takes its default.
type Limits struct {
	// Registrations with a publishable key, by address: 50 a second, 1000 at once.
	Registrations Rate
	// FailedAuth by address: 10 a second, 100 at once. Over it, failures answer 429; good keys still pass.
	FailedAuth Rate
	// TrustedProxies may name the client in X-Forwarded-For; empty: nobody may, and the peer is the client.
	TrustedProxies []netip.Prefix
	// Recheck is how often the store is asked about all parked polls without a hint, 10 s, +-20 % at random: a lost hint delays a
	// message, and the end of a poll whose key was revoked elsewhere, by no more than that.
	Recheck time.Duration
}

func (l Limits) orDefaults() Limits {
	l.Registrations = l.Registrations.or(Rate{PerSecond: 50, Burst: 1000})
	l.FailedAuth = l.FailedAuth.or(Rate{PerSecond: 10, Burst: 100})
	if l.Recheck == 0 {
		l.Recheck = 10 * time.Second
	}
	return l
}

// API answers every call of the contract.
type API struct {
	deps    Deps
	log     *slog.Logger
	handler http.Handler
	parker  park.Parker
	recheck *rechecker
	// elsewhere is who is polling on other nodes, order what tells their polls from later ones.
	elsewhere presence
	order     order
	keys      *keyCache
	bodies    map[string]*body
	document  document
	sending   inflight
	metrics   metrics
	// register and refuse are the limits by address.
	register *limiter
	refuse   *limiter
}

// New makes the API. It starts nothing: hints arrive once Run is called. The error is a contract that
// does not compile, or metrics that are registered already.
func New(d Deps) (*API, error) {
	d.Limits = d.Limits.orDefaults()
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{
		deps:     d,
		log:      d.Log,
		keys:     newKeyCache(d.Keys.LookupKey),
		register: newLimiter("registration", d.Limits.Registrations),
		refuse:   newLimiter("failed-auth", d.Limits.FailedAuth),
	}
	var err error
	if a.document, err = readDocument(rouse.Contract()); err != nil {
		return nil, fmt.Errorf("reading the contract: %w", err)
	}
	if a.bodies, err = compileBodies(a.document); err != nil {
		return nil, fmt.Errorf("compiling the contract: %w", err)
	}
	displaced := func() { a.metrics.displaced.Inc() }
	a.parker = park.NewBlocking(park.Options{Draining: d.Draining, Number: a.order.next, Displaced: displaced})
	a.recheck = newRechecker(a.parker, d.Inboxes, d.Limits.Recheck, d.Log)
	if a.metrics, err = newMetrics(d.Metrics, a.parker); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	a.handler = a.front(a.routes())
	return a, nil
}

// ServeHTTP answers one call.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// Run wakes parked polls by what listen hears, and looks after those that no hint reached, until listen returns; it returns
// the error of that. Without it a poll that has begun to wait waits until its time is up.
func (a *API) Run(ctx context.Context, listen func(context.Context, func(hints []messages.Hint, lost bool)) error) error {
	rounds, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { a.recheck.run(rounds) })
	defer running.Wait()
	defer stop()
	return listen(ctx, a.hear)
}

// Recheck looks after all parked polls soon, and tells anew who is polling here: other nodes have become homes, and were not
// told. It does not block.
func (a *API) Recheck() {
	a.recheck.announce.Store(true)
	a.recheck.soon()
}

// hear takes in what was hinted, here or elsewhere.
func (a *API) hear(hints []messages.Hint, lost bool) {
	if lost {
		a.recheck.soon()
	}
	now := time.Now()
	var look []ident.Device
	for _, h := range hints {
		switch h.Kind {
		case messages.HintNew:
			look = append(look, h.Device)
		case messages.HintGone:
			look = append(look, h.Device)
			a.elsewhere.left(h.Device, 0)
		case messages.HintPolling:
			a.polling(h, now)
		case messages.HintIdle:
			a.elsewhere.left(h.Device, int64(h.Seq))
		case messages.HintServed:
			if h.Parked {
				a.elsewhere.left(h.Device, 0)
			}
		}
	}
	a.parker.Wake(look...)
}

// polling takes in that a device polls, on this node or another: a poll of its that is older and parked here is over. Nothing
// is hinted in return, or two nodes would go on telling each other.
func (a *API) polling(h messages.Hint, now time.Time) {
	a.order.heard(int64(h.Seq))
	if own := a.parker.Displace(h.Device, int64(h.Seq)); !own {
		a.elsewhere.came(h.Device, int64(h.Seq), h.Until, now)
	}
}

// present reports whether the device is polling right now, on whichever node.
func (a *API) present(device ident.Device) bool {
	return a.parker.Present(device) || a.elsewhere.has(device, time.Now())
}

// hint says "look again". It is called after the commit, never before: who looks at once must find it.
func (a *API) hint(hints ...messages.Hint) {
	if len(hints) > 0 {
		a.deps.Hints.Hint(hints...)
	}
}
