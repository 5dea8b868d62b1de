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
	// RotateKey stores next, with what old may do, and ends old at the end of its overlap if not before.
	RotateKey(ctx context.Context, old ident.Key, next tokens.Key, until time.Time) (tokens.Key, error)
}

// Callers knows who calls with an app's key. NoteKeyUse does not block.
type Callers interface {
	LookupKey(ctx context.Context, key ident.Key) (tokens.Key, error)
	NoteKeyUse(key ident.Key, now time.Time)
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
	EventPage(ctx context.Context, q messages.EventQuery) (messages.EventPage, error)
	// EventPlace is the place before an app's events since a time, a zero one for now.
	EventPlace(ctx context.Context, app ident.App, since time.Time) (messages.Seq, error)
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

// Users knows which device is whose. Whoever leaves a device leaves nothing on it: what waits there for the user ends.
type Users interface {
	BindUser(ctx context.Context, app ident.App, user string, id ident.Device, now time.Time) error
	// UnbindUser of "" unbinds whoever it is.
	UnbindUser(ctx context.Context, app ident.App, user string, id ident.Device, now time.Time) error
	User(ctx context.Context, app ident.App, user string) (tokens.User, error)
	// EraseUser erases everything of a person; after an error, what it counts is erased all the same.
	EraseUser(ctx context.Context, app ident.App, user string, now time.Time) (tokens.Erasure, error)
}

// IdentityKeys keeps what user tokens are checked with.
type IdentityKeys interface {
	PutIdentityKey(ctx context.Context, k tokens.IdentityKey) error
	// IdentityKeys are opened, for them to be checked with.
	IdentityKeys(ctx context.Context, app ident.App) ([]tokens.IdentityKey, error)
	DeleteIdentityKey(ctx context.Context, app ident.App, kid string) error
}

// Topics keeps audiences.
type Topics interface {
	Topics(ctx context.Context, app ident.App, after string, limit int) (list []tokens.Topic, more bool, err error)
	Topic(ctx context.Context, app ident.App, name string) (tokens.Topic, error)
	DeleteTopic(ctx context.Context, app ident.App, name string) error
}

// Subscriptions keeps who belongs to an audience.
type Subscriptions interface {
	// Subscribe and Unsubscribe have a result for each device, in their order; err is of all.
	Subscribe(ctx context.Context, app ident.App, topic string, devices []ident.Device, now time.Time) (each []error, err error)
	Unsubscribe(ctx context.Context, app ident.App, topic string, devices []ident.Device) (each []error, err error)
	SubscribeUser(ctx context.Context, app ident.App, topic, user string, now time.Time) error
	UnsubscribeUser(ctx context.Context, app ident.App, topic, user string) error
	// DeviceTopics are a device's own and those of its user, by name.
	DeviceTopics(ctx context.Context, device ident.Device) ([]string, error)
}

// Fleet is an app's devices as its backend sees them.
type Fleet interface {
	Devices(ctx context.Context, q tokens.DeviceQuery) (tokens.DeviceList, error)
	Standing(ctx context.Context, app ident.App, id ident.Device) (tokens.Standing, error)
}

// Waker pushes to a device at once, whatever is pending; sent is false if there is no way to try.
type Waker interface {
	Wake(ctx context.Context, d tokens.Device) (outcome providers.Outcome, took time.Duration, sent bool, err error)
}

// Reports keeps what users did with messages.
type Reports interface {
	// Report returns how many were new.
	Report(ctx context.Context, device ident.Device, list []messages.Report, now time.Time) (int, error)
}

// Webhooks keeps where events are posted.
type Webhooks interface {
	// AddWebhook stores a webhook that begins with what happens from now on.
	AddWebhook(ctx context.Context, h messages.Webhook, secret []byte) error
	Webhooks(ctx context.Context, app ident.App) ([]messages.Webhook, error)
	PatchWebhook(ctx context.Context, app ident.App, id ident.Webhook, p messages.WebhookPatch, now time.Time) (messages.Webhook, error)
	DeleteWebhook(ctx context.Context, app ident.App, id ident.Webhook) error
	// RotateWebhookSecret has both secrets sign until then.
	RotateWebhookSecret(ctx context.Context, app ident.App, id ident.Webhook, secret []byte, until time.Time) error
}

// Redeliveries has a webhook's events posted again.
type Redeliveries interface {
	Redeliver(ctx context.Context, app ident.App, id ident.Webhook, r messages.Redelivery) (messages.Webhook, error)
}

// Poster posts to webhooks. It checks where a URL leads; its errors are fault.Invalid at /url.
type Poster interface {
	CheckURL(url string) error
	Test(ctx context.Context, app ident.App, id ident.Webhook) (messages.WebhookTested, error)
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
	// AcceptAll accepts each by itself and all in one commit: a verdict for each, in their order.
	AcceptAll(ctx context.Context, list []messages.Send) ([]messages.Verdict, error)
	Messages(ctx context.Context, q messages.ListQuery) (messages.MessageList, error)
	Message(ctx context.Context, app ident.App, id ident.Message) (messages.Summary, error)
	Cancel(ctx context.Context, app ident.App, id ident.Message, now time.Time) (messages.Summary, error)
}

// Deliveries keeps what became of a message, device by device.
type Deliveries interface {
	Deliveries(ctx context.Context, app ident.App, id ident.Message, after ident.Device, limit int) (list []messages.Delivery, more bool, err error)
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

// Deps is everything the API needs. Those down to Redeliveries are the store.
type Deps struct {
	Apps          Apps
	Keys          Keys
	Callers       Callers
	Credentials   Credentials
	Devices       Devices
	Users         Users
	Door          Door
	Messages      Messages
	Deliveries    Deliveries
	Inboxes       Inboxes
	Circuits      Circuits
	Events        Events
	IdentityKeys  IdentityKeys
	Topics        Topics
	Subscriptions Subscriptions
	Fleet         Fleet
	Reports       Reports
	Webhooks      Webhooks
	Redeliveries  Redeliveries

	Waker    Waker
	Poster   Poster
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
	// Devices is every device's limit by itself, Addresses every address's, whoever calls from there; zero: there is none.
	Devices   Rate
	Addresses Rate
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
	// watchers is who waits for events.
	watchers watchers
	// elsewhere is who is polling on other nodes, order what tells their polls from later ones.
	elsewhere presence
	order     order
	keys      *keyCache
	// apps and identities are what admission asks of an app: settings, and keys for user tokens.
	apps       *cache[ident.App, tokens.App]
	identities *cache[ident.App, identities]
	document   document
	sending    inflight
	batches    batchLine
	byHand     wakes
	metrics    metrics
	limits     limiters
}

// New makes the API. It starts nothing: hints arrive once Run is called. The error is a contract that
// does not compile, or metrics that are registered already.
func New(d Deps) (*API, error) {
	d.Limits = d.Limits.orDefaults()
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	a := &API{
		deps:   d,
		log:    d.Log,
		keys:   newKeyCache(d.Callers.LookupKey),
		limits: newLimiters(),
	}
	a.apps, a.identities = newCache(d.Apps.App, keysKept), newCache(a.lookupIdentities, appsKept)
	var err error
	if a.document, err = carried(); err != nil {
		return nil, fmt.Errorf("reading the contract: %w", err)
	}
	displaced := func() { a.metrics.displaced.Inc() }
	a.parker = park.NewBlocking(park.Options{Draining: d.Draining, Number: a.order.next, Displaced: displaced})
	a.recheck = newRechecker(a.parker, d.Inboxes, d.Limits.Recheck, d.Log)
	if a.metrics, err = newMetrics(d.Metrics, a.parker, &a.watchers); err != nil {
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
		a.watchers.hear(h)
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
