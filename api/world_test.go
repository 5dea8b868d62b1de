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
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"rouse"
	"rouse/api"
	"rouse/bus"
	"rouse/messages"
	"rouse/providers"
	"rouse/providers/apns"
	"rouse/providers/fcm"
	"rouse/store"
	"rouse/tokens"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const adminKey = "correct-horse-battery-staple"

// world is a whole server over a real database and real sockets.
type world struct {
	*client
	api      *api.API
	store    *store.Store
	server   *httptest.Server
	heard    *heard
	log      *syncBuffer
	metrics  *prometheus.Registry
	draining chan struct{}
	drain    func()
}

// setup is what a test may change; the zero value is the ordinary server.
type setup struct {
	limits        api.Limits
	inboxMessages int
	noAdmin       bool
}

func newWorld(t testing.TB) *world { return setup{}.start(t) }

func (s setup) start(t testing.TB) *world {
	t.Helper()
	w := &world{heard: &heard{}, log: &syncBuffer{}, metrics: prometheus.NewRegistry(), draining: make(chan struct{})}
	w.drain = sync.OnceFunc(func() { close(w.draining) })
	log := slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.store = openStore(t, log, s.inboxMessages)
	hints := &bus.Memory{}
	w.heard.bus = hints
	deps := api.Deps{
		Apps: w.store, Keys: w.store, Credentials: w.store, Devices: w.store, Users: w.store, Door: w.store, Messages: w.store, Inboxes: w.store,
		Hints: w.heard, Checker: checker{}, Admin: tokens.HashOf(adminKey), Limits: s.limits, Draining: w.draining, Log: log, Metrics: w.metrics,
	}
	if s.noAdmin {
		deps.Admin = tokens.Hash{}
	}
	var err error
	if w.api, err = api.New(deps); err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) { _ = w.api.Run(ctx, hints.Listen) })
	w.server = httptest.NewServer(w.api)
	t.Cleanup(w.server.Close)
	t.Cleanup(w.drain) // runs first: no poll may hold the server up
	w.client = &client{t: t, base: w.server.URL, http: w.server.Client()}
	return w
}

func openStore(t testing.TB, log *slog.Logger, inboxMessages int) *store.Store {
	t.Helper()
	ring, err := tokens.ParseRing(tokens.NewRingKey("test"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Options{
		DSN: "sqlite:" + filepath.Join(t.TempDir(), "rouse.db"), Ring: ring, Log: log, InboxMessages: inboxMessages,
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
	bus *bus.Memory

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
	public, secret, fingerprint, err := apns.Check(u, time.Now())
	return tokens.Credential{Provider: tokens.APNs, Public: public, Secret: secret, Fingerprint: fingerprint}, err
}

func (checker) FCM(account []byte) (tokens.Credential, error) {
	public, secret, fingerprint, err := fcm.Check(account, time.Now())
	return tokens.Credential{Provider: tokens.FCM, Public: public, Secret: secret, Fingerprint: fingerprint}, err
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

// contract is the contract as an independent reader understands it.
var contract = sync.OnceValue(func() routers.Router {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(rouse.Contract()))
	if err == nil {
		err = doc.Validate(context.Background())
	}
	if err != nil {
		panic(err)
	}
	// A schema without a type takes null in 3.1; this validator reads it as 3.0 did, so it is told.
	doc.Components.Schemas["InboxMessage"].Value.Properties["data"].Value.Type = &openapi3.Types{"null", "boolean", "number", "string", "array", "object"}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		panic(err)
	}
	return router
})

// client is the one way tests call the server: it checks every answer against the contract.
type client struct {
	t    testing.TB
	base string
	http *http.Client
}

// call is one request; body may be nil, a string sent as it is, or anything that marshals.
type call struct {
	method, path, key string
	body              any
	header            map[string]string
}

// answer is what came back.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
}

func (c *client) do(x call) answer {
	c.t.Helper()
	a, err := c.try(c.t.Context(), x)
	if err != nil {
		c.t.Fatalf("%s %s: %v", x.method, x.path, err)
	}
	return a
}

func (c *client) try(ctx context.Context, x call) (answer, error) {
	c.t.Helper()
	var body io.Reader
	switch b := x.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		body = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, x.method, c.base+x.path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if x.key != "" {
		r.Header.Set("Authorization", "Bearer "+x.key)
	}
	for name, value := range x.header {
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
	}
	response, err := c.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{t: c.t, status: response.StatusCode, header: response.Header, body: raw}
	c.validate(r, a)
	return a, nil
}

// validate checks an answer against the contract; a path or method that is not in it must be a problem all the same.
func (c *client) validate(r *http.Request, a answer) {
	c.t.Helper()
	if a.header.Get("X-Request-Id") == "" {
		c.t.Errorf("%s %s: no X-Request-Id", r.Method, r.URL.Path)
	}
	if a.status >= 400 {
		a.checkProblem()
	}
	route, params, err := contract().FindRoute(r)
	if err != nil {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
			c.t.Errorf("%s %s is not in the contract and answered %d", r.Method, r.URL.Path, a.status)
		}
		return
	}
	if a.status == http.StatusMethodNotAllowed {
		return
	}
	options := &openapi3filter.Options{
		IncludeResponseStatus: true, MultiError: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
		// These two are looked at elsewhere; the validator would parse them.
		ExcludeResponseBody: strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || a.header.Get("Content-Type") == "application/yaml",
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route, Options: options},
		Status:                 a.status, Header: a.header, Options: options,
	}
	input.SetBodyBytes(a.body)
	if err := openapi3filter.ValidateResponse(c.t.Context(), input); err != nil {
		c.t.Errorf("%s %s answered %d against the contract: %v\n%s", r.Method, r.URL.Path, a.status, err, a.body)
	}
}

// problem is the part of a problem document tests look at.
type problem struct {
	Type, Title, Detail, Code string
	Status                    int
	RequestID                 string `json:"request_id"`
	Errors                    []struct{ Pointer, Detail string }
}

func (a answer) problem() problem {
	a.t.Helper()
	var p problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		a.t.Fatalf("not a problem: %s", a.body)
	}
	return p
}

// checkProblem holds every failure to what all of them promise.
func (a answer) checkProblem() {
	a.t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("status %d with Content-Type %q: %s", a.status, got, a.body)
		return
	}
	p := a.problem()
	if p.Status != a.status || p.RequestID != a.header.Get("X-Request-Id") || p.Code == "" || p.Detail == "" || p.Title == "" || p.Type != "urn:rouse:problem:"+p.Code {
		a.t.Errorf("status %d: an incomplete problem: %s", a.status, a.body)
	}
	if !strings.Contains(errorsPage(), "`"+p.Code+"`") {
		a.t.Errorf("docs/errors.md does not explain %q", p.Code)
	}
	if a.status == http.StatusUnauthorized != (a.header.Get("WWW-Authenticate") != "") {
		a.t.Errorf("status %d with WWW-Authenticate %q", a.status, a.header.Get("WWW-Authenticate"))
	}
	if (a.status == 429 || a.status == 503) != (a.header.Get("Retry-After") != "") {
		a.t.Errorf("status %d with Retry-After %q", a.status, a.header.Get("Retry-After"))
	}
}

// want stops the test unless the status is as wanted; it returns the answer for chaining.
func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("got status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// refused stops the test unless the answer is the problem wanted.
func (a answer) refused(status int, code string) answer {
	a.t.Helper()
	a.want(status)
	if got := a.problem().Code; got != code {
		a.t.Fatalf("got code %q, want %q: %s", got, code, a.body)
	}
	return a
}

// points reports whether the problem points there.
func (a answer) points(pointer string) answer {
	a.t.Helper()
	for _, e := range a.problem().Errors {
		if e.Pointer == pointer {
			return a
		}
	}
	a.t.Fatalf("nothing points at %q: %s", pointer, a.body)
	return a
}

// into decodes the answer, and refuses fields the type does not know.
func (a answer) into(v any) {
	a.t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		a.t.Fatalf("%v in %s", err, a.body)
	}
}

func (a answer) text(name string) string {
	a.t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		a.t.Fatalf("%v in %s", err, a.body)
	}
	s, _ := m[name].(string)
	return s
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
