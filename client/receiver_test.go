package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rouse/api"
	"rouse/bus"
	"rouse/client"
	"rouse/internal/testkit"
	"rouse/store"
	"rouse/tokens"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const adminKey = "correct-horse-battery-staple"

// world is a real server, and one app with one device.
type world struct {
	t        *testing.T
	server   *httptest.Server
	draining chan struct{}
	backend  *client.ClientWithResponses
	phone    *client.ClientWithResponses
	device   string
	// front, if set, sees each request first and may answer it.
	front atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, draining: make(chan struct{})}
	ring, err := tokens.ParseRing(tokens.NewRingKey("test"))
	ok(t, err)
	s, err := store.Open(t.Context(), store.Options{DSN: testkit.SQLite(t), Ring: ring})
	ok(t, err)
	t.Cleanup(func() { _ = s.Close() })
	ok(t, s.Migrate(t.Context()))
	hints := &bus.Memory{}
	a, err := api.New(api.Deps{
		Apps: s, Keys: s, Callers: s, Credentials: s, Devices: s, Users: s, Door: s, Messages: s, Inboxes: s,
		Hints: hints, Admin: tokens.HashOf(adminKey), Draining: w.draining,
	})
	ok(t, err)
	background(t, func(ctx context.Context) { _ = s.Run(ctx) })
	background(t, func(ctx context.Context) { _ = a.Run(ctx, hints.Listen) })
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if front := w.front.Load(); front != nil && (*front)(rw, r) {
			return
		}
		a.ServeHTTP(rw, r)
	}))
	t.Cleanup(w.server.Close)
	w.enrol()
	return w
}

func (w *world) enrol() {
	w.t.Helper()
	app, err := w.as(adminKey).CreateAppWithResponse(w.t.Context(), client.AppCreate{Name: "Bakery"})
	ok(w.t, err)
	w.backend = w.as(app.JSON201.SecretKey)
	device, err := w.as(app.JSON201.PublishableKey).RegisterDeviceWithResponse(w.t.Context(), client.DeviceRegistration{
		InstallationId: "one", Platform: client.Other, Provider: client.None,
	})
	ok(w.t, err)
	w.device = device.JSON201.Id
	w.phone = w.as(*device.JSON201.Secret)
}

func (w *world) as(key string) *client.ClientWithResponses {
	w.t.Helper()
	c, err := client.NewClientWithResponses(w.server.URL, client.WithKey(key), client.WithHTTPClient(w.server.Client()))
	ok(w.t, err)
	return c
}

func (w *world) send(data string) {
	w.t.Helper()
	answer, err := w.backend.SendMessageWithResponse(w.t.Context(), nil, client.MessageSend{
		To: client.Recipient{DeviceId: &w.device}, Data: json.RawMessage(data),
	})
	ok(w.t, err)
	ok(w.t, client.Check(answer.HTTPResponse, answer.Body))
}

// pending is what lies un-acked.
func (w *world) pending() int {
	w.t.Helper()
	answer, err := w.phone.GetInboxWithResponse(w.t.Context(), nil)
	ok(w.t, err)
	return len(answer.JSON200.Messages)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func background(t *testing.T, f func(context.Context)) {
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

// receiving is a Receiver at work.
type receiving struct {
	pages chan client.InboxPage
	stop  context.CancelFunc
	ended chan error

	mu      sync.Mutex
	trouble []error
}

func (w *world) receive(r client.Receiver, handle func(client.InboxPage) error) *receiving {
	ctx, cancel := context.WithCancel(w.t.Context())
	x := &receiving{pages: make(chan client.InboxPage, 100), stop: cancel, ended: make(chan error, 1)}
	r.Client = w.phone
	r.Trouble = func(err error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.trouble = append(x.trouble, err)
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		x.ended <- r.Run(ctx, func(_ context.Context, page client.InboxPage) error {
			if handle != nil {
				if err := handle(page); err != nil {
					return err
				}
			}
			x.pages <- page
			return nil
		})
	}()
	w.t.Cleanup(func() {
		cancel()
		<-finished
	})
	return x
}

// got collects n messages.
func (x *receiving) got(t *testing.T, n int) []string {
	t.Helper()
	var all []string
	end := time.After(20 * time.Second)
	for len(all) < n {
		select {
		case page := <-x.pages:
			for _, m := range page.Messages {
				all = append(all, string(m.Data))
			}
		case err := <-x.ended:
			t.Fatalf("it ended with %v after %v", err, all)
		case <-end:
			t.Fatalf("only %v arrived", all)
		}
	}
	return all
}

func (x *receiving) wantEnd(t *testing.T, target error) {
	t.Helper()
	select {
	case err := <-x.ended:
		if !errors.Is(err, target) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}

func TestReceiverGetsEverythingOnceAndInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var want []string
	for i := range 25 {
		want = append(want, fmt.Sprint(i))
	}
	for _, data := range want[:10] {
		w.send(data)
	}
	x := w.receive(client.Receiver{Limit: 3}, nil)
	got := x.got(t, 10)
	for _, data := range want[10:] {
		w.send(data)
	}
	got = append(got, x.got(t, 15)...)
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	x.stop()
	x.wantEnd(t, context.Canceled)
	if n := w.pending(); n != 0 {
		t.Errorf("%d are un-acked after the end", n)
	}
}

func TestReceiverAcksNothingUnhandled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.send("1")
	spoilt := errors.New("spoilt")
	x := w.receive(client.Receiver{}, func(client.InboxPage) error { return spoilt })
	x.wantEnd(t, spoilt)
	if n := w.pending(); n != 1 {
		t.Errorf("%d are un-acked, want 1", n)
	}
}

func TestReceiverOutlivesTrouble(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var failures atomic.Int32
	front := func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/inbox" {
			return false
		}
		switch failures.Add(1) {
		case 1: // a proxy's own page
			rw.WriteHeader(http.StatusBadGateway)
			_, _ = rw.Write([]byte("<html>"))
		case 2: // a cut connection
			panic(http.ErrAbortHandler)
		case 3: // a page that is none
			_, _ = rw.Write([]byte("fine"))
		default:
			return false
		}
		return true
	}
	w.front.Store(&front)
	x := w.receive(client.Receiver{}, nil)
	w.send("1")
	x.got(t, 1)
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.trouble) < 2 {
		t.Errorf("told of %v", x.trouble)
	}
}

func TestReceiverHonoursRetryAfter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var first atomic.Int64
	var again atomic.Int64
	front := func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/inbox" {
			return false
		}
		if first.CompareAndSwap(0, time.Now().UnixNano()) {
			rw.Header().Set("Retry-After", "2")
			rw.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		again.CompareAndSwap(0, time.Now().UnixNano())
		return false
	}
	w.front.Store(&front)
	w.send("1")
	w.receive(client.Receiver{}, nil).got(t, 1)
	if gap := time.Duration(again.Load() - first.Load()); gap < 2*time.Second {
		t.Errorf("came back after %s", gap)
	}
}

func TestReceiverStopsWhenItIsHopeless(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	x := w.receive(client.Receiver{}, nil)
	w.send("1")
	x.got(t, 1)
	if _, err := w.phone.DeleteOwnDeviceWithResponse(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := <-x.ended
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Code != "device_unregistered" || refused.Temporary() || !strings.Contains(err.Error(), refused.RequestId) {
		t.Errorf("ended with %v", err)
	}
}

// TestTwoReceiversDoNotFight: each displaces the other, and neither may do so as fast as it can.
func TestTwoReceiversDoNotFight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var polls atomic.Int32
	front := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/inbox" {
			polls.Add(1)
		}
		return false
	}
	w.front.Store(&front)
	one, two := w.receive(client.Receiver{}, nil), w.receive(client.Receiver{}, nil)
	timer := time.NewTimer(3 * time.Second)
	defer timer.Stop()
	<-timer.C
	if n := polls.Load(); n > 30 {
		t.Errorf("%d polls in 3 s", n)
	}
	w.send("1")
	select {
	case <-one.pages:
	case <-two.pages:
	case <-time.After(20 * time.Second):
		t.Error("nobody got it")
	}
}

func TestReceiverStaysAwayWhileTheServerStops(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var polls atomic.Int32
	front := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v1/inbox" {
			polls.Add(1)
		}
		return false
	}
	w.front.Store(&front)
	close(w.draining)
	x := w.receive(client.Receiver{}, nil)
	w.send("1")
	if n := len(x.got(t, 1)); n != 1 {
		t.Errorf("got %d", n)
	}
	if n := polls.Load(); n > 15 {
		t.Errorf("%d polls", n)
	}
}

func TestCheckReadsProblems(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	answer, err := w.backend.SendMessageWithResponse(t.Context(), nil, client.MessageSend{Data: json.RawMessage("1")})
	ok(t, err)
	var refused *client.Error
	if err := client.Check(answer.HTTPResponse, answer.Body); !errors.As(err, &refused) || refused.Code != "invalid_body" || !strings.Contains(err.Error(), "/to") {
		t.Errorf("got %v", err)
	}
}
