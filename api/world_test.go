package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"rouse/api"
	"rouse/bus"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/providers"
	"rouse/providers/apns"
	"rouse/providers/fcm"
	"rouse/store"
	"rouse/tokens"
	"rouse/webhooks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const adminKey = "correct-horse-battery-staple"

// world is a whole server over a real database and real sockets.
type world struct {
	*client
	api    *api.API
	store  *store.Store
	server *httptest.Server
	heard  *heard
	asked  *asked
	bell   *bell
	log    *syncBuffer
	// db is the folder of the database's files.
	db       string
	metrics  *prometheus.Registry
	draining chan struct{}
	drain    func()
}

// setup is what a test may change; the zero value is the ordinary server.
type setup struct {
	limits        api.Limits
	inboxMessages int
	noAdmin       bool
	// door and inboxes, if set, stand before the store's own.
	door    func(api.Door) api.Door
	inboxes func(api.Inboxes) api.Inboxes
	// messages and events too.
	messages func(api.Messages) api.Messages
	events   func(api.Events) api.Events
	// server, if set, changes it before it starts; one of HTTP/2 speaks TLS.
	server func(*httptest.Server)
}

func newWorld(t testing.TB) *world { return setup{}.start(t) }

func (s setup) start(t testing.TB) *world {
	t.Helper()
	w := s.parts(t)
	w.store = openStore(t, w.db, w.logger(), s.inboxMessages)
	s.serve(t, w, &bus.Memory{})
	return w
}

// parts is a world that has nothing to serve yet.
func (s setup) parts(t testing.TB) *world {
	w := &world{heard: &heard{}, log: &syncBuffer{}, db: t.TempDir(), metrics: prometheus.NewRegistry(), draining: make(chan struct{})}
	w.drain = sync.OnceFunc(func() { close(w.draining) })
	return w
}

func (w *world) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// serve starts the API over w's store, and hints on the bus.
func (s setup) serve(t testing.TB, w *world, hints testkit.Bus) {
	t.Helper()
	w.asked, w.bell = &asked{store: w.store}, &bell{}
	w.heard.bus = hints
	deps := api.Deps{
		Apps: w.store, Keys: w.store, Callers: w.store, Credentials: w.store, Devices: w.store, Users: w.store, Door: w.store, Messages: w.store, Deliveries: w.store, Inboxes: w.store,
		IdentityKeys: w.store, Topics: w.store, Subscriptions: w.store, Fleet: w.store, Reports: w.store, Webhooks: w.store, Redeliveries: w.store, Waker: w.bell, Poster: s.poster(t, w),
		Circuits: w.store, Events: w.store, Hints: w.heard, Checker: checker{}, Verifier: w.asked, Admin: tokens.HashOf(adminKey), Limits: s.limits, Draining: w.draining, Log: w.logger(), Metrics: w.metrics,
	}
	if s.door != nil {
		deps.Door = s.door(w.store)
	}
	if s.inboxes != nil {
		deps.Inboxes = s.inboxes(w.store)
	}
	if s.messages != nil {
		deps.Messages = s.messages(w.store)
	}
	if s.events != nil {
		deps.Events = s.events(w.store)
	}
	if s.noAdmin {
		deps.Admin = tokens.Hash{}
	}
	var err error
	if w.api, err = api.New(deps); err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) { _ = w.api.Run(ctx, hints.Listen) })
	w.server = httptest.NewUnstartedServer(w.api)
	if s.server != nil {
		s.server(w.server)
	}
	if w.server.EnableHTTP2 {
		w.server.StartTLS()
	} else {
		w.server.Start()
	}
	t.Cleanup(w.server.Close)
	t.Cleanup(w.drain) // runs first: no poll may hold the server up
	w.client = &client{t: t, base: w.server.URL, http: w.server.Client()}
}

// poster checks webhooks as serve's does, and reaches no receiver.
func (s setup) poster(t testing.TB, w *world) *webhooks.Poster {
	t.Helper()
	p, err := webhooks.New(webhooks.Options{Store: w.store, Dial: func(context.Context, string, string, func(string) error) (net.Conn, error) {
		return nil, errors.New("nobody is reached in these tests")
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func openStore(t testing.TB, dir string, log *slog.Logger, inboxMessages int) *store.Store {
	t.Helper()
	ring, err := tokens.ParseRing(tokens.NewRingKey("test"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "rouse.db")
	testkit.PutSQLite(t, path)
	s, err := store.Open(t.Context(), store.Options{
		DSN: "sqlite:" + path, Ring: ring, Log: log, InboxMessages: inboxMessages,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) { _ = s.Run(ctx) })
	return s
}

// background runs f until the test ends, and waits for it.
func background(t testing.TB, f func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// heard passes hints on and remembers them.
type heard struct {
	bus testkit.Bus

	mu    sync.Mutex
	hints []messages.Hint
	wait  chan struct{}
}

func (h *heard) Hint(hints ...messages.Hint) {
	h.mu.Lock()
	h.hints = append(h.hints, hints...)
	if h.wait != nil {
		close(h.wait)
		h.wait = nil
	}
	h.mu.Unlock()
	h.bus.Hint(hints...)
}

// until waits for a hint of the kind after the first skip ones, and returns it.
func (h *heard) until(t testing.TB, kind messages.HintKind, skip int) messages.Hint {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		h.mu.Lock()
		seen := slices.DeleteFunc(slices.Clone(h.hints), func(x messages.Hint) bool { return x.Kind != kind })
		if h.wait == nil {
			h.wait = make(chan struct{})
		}
		wait := h.wait
		h.mu.Unlock()
		if len(seen) > skip {
			return seen[skip]
		}
		select {
		case <-wait:
		case <-ctx.Done():
			t.Fatalf("no hint of kind %d came; have %d of it", kind, len(seen))
		}
	}
}

func (h *heard) count(kind messages.HintKind) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, x := range h.hints {
		if x.Kind == kind {
			n++
		}
	}
	return n
}

// checker reads uploads as serve does.
type checker struct{}

func (checker) APNs(u providers.APNsUpload) (tokens.Credential, error) {
	c, err := apns.Check(u, time.Now())
	return tokens.Credential{Provider: tokens.APNs, Public: c.Public, Secret: c.Secret, Fingerprint: c.Fingerprint, ExpiresAt: c.ExpiresAt}, err
}

func (checker) FCM(u providers.FCMUpload) (tokens.Credential, error) {
	c, err := fcm.Check(u, time.Now())
	return tokens.Credential{Provider: tokens.FCM, Public: c.Public, Secret: c.Secret, Fingerprint: c.Fingerprint, ExpiresAt: c.ExpiresAt}, err
}

// asked looks for the stored credential as serve does, and finds what the test says in the provider's place.
type asked struct {
	store *store.Store
	found []providers.Finding
	// left is how long the last question might have taken.
	left time.Duration
}

func (a *asked) Verify(ctx context.Context, app ident.App, p tokens.Provider) ([]providers.Finding, error) {
	if end, ok := ctx.Deadline(); ok {
		a.left = time.Until(end)
	}
	_, err := a.store.Credential(ctx, app, p)
	return a.found, err
}

// bell rings at phones in a provider's place: it notes whom it was told to wake, and answers what the test says.
type bell struct {
	mu    sync.Mutex
	rung  []ident.Device
	quiet bool
	says  providers.Outcome
}

func (b *bell) Wake(_ context.Context, d tokens.Device) (providers.Outcome, time.Duration, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rung = append(b.rung, d.ID)
	return b.says, 7 * time.Millisecond, !b.quiet, nil
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// tenant is an app with its keys.
type tenant struct{ id, sk, pk string }

func (w *world) newApp() tenant {
	w.t.Helper()
	a := w.do(call{"POST", "/v1/apps", adminKey, obj{"name": "Bakery"}, nil}).want(201)
	return tenant{id: a.text("id"), sk: a.text("secret_key"), pk: a.text("publishable_key")}
}

// phone is a registered device.
type phone struct{ id, key string }

func (w *world) newPhone(app tenant) phone {
	w.t.Helper()
	return w.register(app.pk, obj{"installation_id": unique("phone"), "platform": "other", "provider": "none"})
}

func (w *world) register(key string, body obj) phone {
	w.t.Helper()
	a := w.do(call{"POST", "/v1/devices", key, body, nil}).want(201)
	return phone{id: a.text("id"), key: a.text("secret")}
}

func (w *world) send(app tenant, to phone, data any) string {
	w.t.Helper()
	return w.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"device_id": to.id}, "data": data}, nil}).want(202).text("id")
}

type obj = map[string]any

// inboxPage is a page as a client sees it.
type inboxPage struct {
	Messages []struct {
		ID          string          `json:"id"`
		Data        json.RawMessage `json:"data"`
		Urgency     string          `json:"urgency"`
		CollapseKey string          `json:"collapse_key"`
		CreatedAt   time.Time       `json:"created_at"`
		ExpiresAt   time.Time       `json:"expires_at"`
		Attempt     int             `json:"attempt"`
	} `json:"messages"`
	Cursor string `json:"cursor"`
	More   bool   `json:"more"`
	Gap    *struct {
		From   string `json:"from"`
		To     string `json:"to"`
		Count  int    `json:"count"`
		Reason string `json:"reason"`
	} `json:"gap"`
}

func (w *world) inbox(p phone, query string) inboxPage {
	w.t.Helper()
	var page inboxPage
	w.do(call{"GET", "/v1/inbox" + query, p.key, nil, nil}).want(200).into(&page)
	return page
}

var counter struct {
	sync.Mutex
	n int
}

func unique(prefix string) string {
	counter.Lock()
	defer counter.Unlock()
	counter.n++
	return fmt.Sprintf("%s-%d", prefix, counter.n)
}

// signingKey is a fresh .p8.
func signingKey(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
