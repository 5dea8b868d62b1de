package worker_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rouse/bus"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
	"rouse/worker"
)

// provider stands in for the two companies: it answers what the test says and
// keeps what it was sent. The real ones are met in providers/ and cmd/rouse.
type provider struct {
	mu     sync.Mutex
	pushes []pushed
	answer func(n int, o worker.Outlet, p providers.Push) providers.Outcome
}

type pushed struct {
	providers.Push
	outlet worker.Outlet
	at     time.Time
}

func (p *provider) Push(ctx context.Context, o worker.Outlet, push providers.Push) providers.Outcome {
	p.mu.Lock()
	p.pushes = append(p.pushes, pushed{Push: push, outlet: o, at: time.Now()})
	n, answer := len(p.pushes), p.answer
	p.mu.Unlock()
	if answer == nil {
		return providers.Outcome{Verdict: providers.Accepted, Status: 200}
	}
	out := answer(n, o, push)
	if out.Verdict == "hang" {
		<-ctx.Done()
		return providers.Outcome{Verdict: providers.Unavailable, Reason: "timeout"}
	}
	return out
}

func (p *provider) sent() []pushed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]pushed(nil), p.pushes...)
}

// home is a store, a bus and a worker on virtual time.
type home struct {
	t        *testing.T
	store    *store.Store
	bus      worker.Bus
	provider *provider
	app      ident.App
	began    time.Time
	stop     func() // ends the worker and waits for it
}

// atHome runs test in a bubble of virtual time with a real store on SQLite.
func atHome(t *testing.T, test func(h *home)) {
	t.Helper()
	t.Parallel()
	dsn := testkit.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		ring, err := tokens.ParseRing(tokens.NewRingKey("a"))
		must(t, err)
		s, err := store.Open(t.Context(), store.Options{DSN: dsn, Ring: ring})
		must(t, err)
		must(t, s.Migrate(t.Context()))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		h := &home{t: t, store: s, bus: &bus.Memory{}, provider: &provider{}, app: ident.NewApp(), began: time.Now()}
		must(t, s.CreateApp(t.Context(), tokens.App{ID: h.app, Name: "test", InboxOverflow: tokens.OverflowReject, CreatedAt: time.Now()}, nil))
		h.start()
		defer func() {
			h.stop()
			cancel()
			if err := errors.Join(<-ended, s.Close()); err != nil {
				t.Error(err)
			}
		}()
		test(h)
	})
}

// start starts a worker that remembers nothing.
func (h *home) start() { h.startWith(worker.Options{}) }

func (h *home) startWith(o worker.Options) {
	o.Sweeps, o.Expiries, o.Pusher = h.store, h.store, h.provider
	if o.Store == nil {
		o.Store = h.store
	}
	if o.Tokens == nil {
		o.Tokens = h.store
	}
	if o.Circuits == nil {
		o.Circuits = h.store
	}
	if o.Hints == nil {
		o.Hints = h.bus
	}
	if o.Fanouts == nil {
		o.Fanouts = h.store
	}
	w := worker.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
	})
	synctest.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pass lets virtual time go by.
func (h *home) pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

func (h *home) device(p tokens.Provider) tokens.Device {
	return h.deviceOf(h.app, p)
}

func (h *home) deviceOf(app ident.App, p tokens.Provider) tokens.Device {
	r := tokens.Registration{App: app, Installation: string(ident.NewDevice()), Platform: tokens.Android, Provider: p}
	switch p {
	case tokens.APNs:
		r.Platform, r.Environment = tokens.IOS, tokens.Production
		r.Token = tokens.Token(fmt.Sprintf("%x", sha256.Sum256([]byte(r.Installation))))
	case tokens.FCM:
		r.Token = tokens.Token("fcm-token-" + r.Installation)
	}
	d, _, err := h.store.Register(h.t.Context(), tokens.Enrol{Registration: r, As: tokens.PublishableKey, ID: ident.NewDevice(), Now: time.Now()})
	must(h.t, err)
	return d
}

func (h *home) send(to ident.Device, u messages.Urgency) messages.Receipt {
	h.t.Helper()
	return h.sendAs(h.app, messages.Send{App: h.app, To: messages.Target{Device: to}, Urgency: u})
}

func (h *home) sendAs(app ident.App, m messages.Send) messages.Receipt {
	h.t.Helper()
	m.App, m.CreatedAt, m.Data = app, time.Now(), []byte(`{"secret":"words"}`)
	if m.TTL == 0 {
		m.TTL = messages.DefaultTTL
	}
	checked, err := messages.New(m)
	must(h.t, err)
	receipt, err := h.store.Accept(h.t.Context(), checked)
	must(h.t, err)
	for _, p := range receipt.Pending {
		h.bus.Hint(messages.Hint{Kind: messages.HintNew, App: app, Device: p.Device, Seq: p.Seq, Class: p.Class})
	}
	synctest.Wait()
	return receipt
}

// fetch does what GET /v1/inbox does for a phone that does not wait, and returns how many it read.
func (h *home) fetch(d ident.Device, ack bool) int {
	h.t.Helper()
	page, err := h.store.Inbox(h.t.Context(), messages.Query{Device: d, Limit: 100, Now: time.Now()})
	must(h.t, err)
	if len(page.Items) == 0 {
		h.bus.Hint(messages.Hint{Kind: messages.HintSeen, Device: d, Seq: page.Seen})
		return 0
	}
	h.bus.Hint(messages.Hint{Kind: messages.HintServed, Device: d, Seq: max(page.Last, page.Seen), More: page.More})
	if ack {
		_, err := h.store.AckUpTo(h.t.Context(), d, page.Last, time.Now())
		must(h.t, err)
		h.bus.Hint(messages.Hint{Kind: messages.HintAcked, Device: d, Seq: page.Last})
	}
	synctest.Wait()
	return len(page.Items)
}

// wants checks how many pushes have gone out since the test began.
func (h *home) wants(n int, why string) {
	h.t.Helper()
	sent := h.provider.sent()
	if len(sent) != n {
		for _, p := range sent {
			h.t.Logf("%s push to %s", p.at.Sub(h.began), p.Device)
		}
		h.t.Fatalf("%d pushes, want %d: %s", len(sent), n, why)
	}
}

// credential puts a credential, as the API does, hint included.
func (h *home) credential(p tokens.Provider) {
	h.t.Helper()
	must(h.t, h.store.PutCredential(h.t.Context(), tokens.Credential{App: h.app, Provider: p, Fingerprint: "f",
		Public: []byte("{}"), Secret: []byte("{}"), UpdatedAt: time.Now()}))
	h.bus.Hint(messages.Hint{Kind: messages.HintCredential, App: h.app, Provider: string(p)})
	h.pass(time.Millisecond)
}

// circuits are what the store knows to be open.
func (h *home) circuits(want ...tokens.CircuitCause) []tokens.Circuit {
	h.t.Helper()
	got, err := h.store.Circuits(h.t.Context(), h.app)
	must(h.t, err)
	if len(got) != len(want) {
		h.t.Fatalf("circuits %+v, want %v", got, want)
	}
	for i := range got {
		if got[i].Cause != want[i] {
			h.t.Errorf("circuits %+v, want %v", got, want)
		}
	}
	return got
}

// told counts the app's events by type, but for the registration of its devices.
func (h *home) told() map[messages.EventType]int {
	h.t.Helper()
	list, _, err := h.store.Events(h.t.Context(), h.app, 0, 1000)
	must(h.t, err)
	n := map[messages.EventType]int{}
	for _, e := range list {
		if e.Type != messages.DeviceRegistered {
			n[e.Type]++
		}
	}
	return n
}

func (h *home) token(d ident.Device) tokens.Device {
	h.t.Helper()
	dev, err := h.store.Device(h.t.Context(), h.app, d)
	must(h.t, err)
	return dev
}

func (h *home) devices(n int, p tokens.Provider) []ident.Device {
	list := make([]ident.Device, n)
	for i := range list {
		list[i] = h.device(p).ID
	}
	return list
}

func (h *home) sendAll(to []ident.Device) {
	h.t.Helper()
	for _, d := range to {
		h.send(d, messages.High)
	}
}

func (h *home) behindGoogle(p tokens.Platform) ident.Device {
	r := tokens.Registration{App: h.app, Installation: string(ident.NewDevice()), Platform: p, Provider: tokens.FCM}
	r.Token = tokens.Token("fcm-token-" + r.Installation)
	d, _, err := h.store.Register(h.t.Context(), tokens.Enrol{Registration: r, As: tokens.PublishableKey, ID: ident.NewDevice(), Now: time.Now()})
	must(h.t, err)
	return d.ID
}

// quiet sends from a goroutine of its own: it does not wait for the bubble.
func (h *home) quiet(to ident.Device) {
	m, err := messages.New(messages.Send{App: h.app, To: messages.Target{Device: to}, Urgency: messages.High,
		Data: []byte("1"), TTL: messages.DefaultTTL, CreatedAt: time.Now()})
	if err != nil {
		panic(err)
	}
	r, err := h.store.Accept(context.Background(), m)
	if err != nil {
		panic(err)
	}
	for _, p := range r.Pending {
		h.bus.Hint(messages.Hint{Kind: messages.HintNew, App: h.app, Device: p.Device, Seq: p.Seq, Class: p.Class})
	}
}

// holdFirst lets the first push hang until goOn is closed, then answers it with first.
func (h *home) holdFirst(first providers.Outcome, then func(n int, o worker.Outlet) providers.Outcome) (started, goOn chan struct{}) {
	started, goOn = make(chan struct{}, 1), make(chan struct{})
	h.provider.answer = func(n int, o worker.Outlet, _ providers.Push) providers.Outcome {
		if n > 1 {
			return then(n, o)
		}
		started <- struct{}{}
		<-goOn
		return first
	}
	return started, goOn
}

// prove lets a push through that shows that the credential works, and forgets it: from now on pushes go out side by side.
func (h *home) prove(p tokens.Provider) {
	answer := h.provider.answer
	h.provider.answer = nil
	d := h.device(p).ID
	h.send(d, messages.High)
	h.fetch(d, true)
	h.provider.mu.Lock()
	defer h.provider.mu.Unlock()
	h.provider.answer, h.provider.pushes = answer, nil
}

// sendSoon sends without waiting for what follows: the provider may hang.
func (h *home) sendSoon(to ...ident.Device) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, d := range to {
			h.quiet(d)
		}
	}()
	<-done
	synctest.Wait()
}

// through counts the pushes from the nth on that match.
func (h *home) through(from int, match func(pushed) bool) int {
	n := 0
	for _, p := range h.provider.sent()[from:] {
		if match(p) {
			n++
		}
	}
	return n
}

// register gives a device another token, with the hint.
func (h *home) register(d tokens.Device, e tokens.Environment) {
	h.t.Helper()
	token := tokens.Token(strings.Repeat("cd", 32))
	p := tokens.Patch{Token: &token}
	if e != "" {
		p.Environment = &e
	}
	_, err := h.store.PatchDevice(h.t.Context(), d.ID, p, time.Now())
	must(h.t, err)
}

func (h *home) hintToken(d ident.Device) {
	h.bus.Hint(messages.Hint{Kind: messages.HintToken, App: h.app, Device: d})
	synctest.Wait()
}

func (h *home) anotherApp() ident.App {
	h.t.Helper()
	app := ident.NewApp()
	must(h.t, h.store.CreateApp(h.t.Context(), tokens.App{ID: app, Name: "other", InboxOverflow: tokens.OverflowReject, CreatedAt: time.Now()}, nil))
	return app
}
