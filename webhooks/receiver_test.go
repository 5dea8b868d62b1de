package webhooks_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"rouse/ident"
	"rouse/messages"
)

// got is an event as a receiver got it.
type got struct {
	ID        ident.Event        `json:"id"`
	Type      messages.EventType `json:"type"`
	CreatedAt time.Time          `json:"created_at"`
	Data      struct {
		Device ident.Device `json:"device_id"`
		Hook   string       `json:"webhook_id"`
		Reason string       `json:"reason"`
	} `json:"data"`
	at time.Time
}

// receiver is an app's backend. It checks every post with the published verifier.
type receiver struct {
	t       *testing.T
	address string
	calls   chan net.Conn
	server  *http.Server

	mu      sync.Mutex
	down    bool
	shared  bool     // by several webhooks
	secrets [][]byte // each has to have signed
	answer  func(w http.ResponseWriter, r *http.Request, e got)
	tries   int
	taken   []got
	flying  map[ident.Device]int
}

// receiver starts one at an address of its own.
func (o *office) receiver() *receiver {
	r := newReceiver(o.t, fmt.Sprintf("10.0.0.%d:80", len(o.receivers)+1))
	o.receivers[r.address] = r
	return r
}

func newReceiver(t *testing.T, address string) *receiver {
	r := &receiver{t: t, address: address, calls: make(chan net.Conn), flying: map[ident.Device]int{}}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	go func() { _ = r.server.Serve(r) }()
	return r
}

func (r *receiver) end() {
	if err := r.server.Close(); err != nil {
		r.t.Error(err)
	}
}

// Accept takes the next call.
func (r *receiver) Accept() (net.Conn, error) {
	c, ok := <-r.calls
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (r *receiver) Close() error { close(r.calls); return nil }

func (r *receiver) Addr() net.Addr { return &net.TCPAddr{} }

func (r *receiver) isDown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		r.tries++
	}
	return r.down
}

func (r *receiver) set(change func(*receiver)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if r.isDown() {
		panic(http.ErrAbortHandler)
	}
	body, err := io.ReadAll(q.Body)
	var e got
	if err := errors.Join(err, json.Unmarshal(body, &e), r.verify(body, q.Header, e)); err != nil {
		r.t.Error(err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	e.at = time.Now()
	defer r.enter(e)()
	r.mu.Lock()
	answer := r.answer
	r.mu.Unlock()
	status := &recorder{ResponseWriter: w, status: http.StatusOK}
	if answer != nil {
		answer(status, q, e)
	}
	if status.status < 300 {
		r.set(func(r *receiver) { r.taken = append(r.taken, e) })
	}
}

// enter counts a post as under way, and says if another of the device is.
func (r *receiver) enter(e got) (leave func()) {
	r.set(func(r *receiver) {
		if r.tries++; e.Data.Device == "" {
			return
		}
		if r.flying[e.Data.Device]++; r.flying[e.Data.Device] > 1 && !r.shared {
			r.t.Errorf("two posts of %s are under way at once", e.Data.Device)
		}
	})
	return func() { r.set(func(r *receiver) { r.flying[e.Data.Device]-- }) }
}

// verify checks that each of the secrets has signed, and no more.
func (r *receiver) verify(body []byte, h http.Header, e got) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, secret := range r.secrets {
		w, err := standardwebhooks.NewWebhookRaw(secret)
		if err == nil {
			err = w.Verify(body, h)
		}
		if err != nil {
			return fmt.Errorf("event %s: %w", e.ID, err)
		}
	}
	if id := h.Get("webhook-id"); id != string(e.ID) {
		return fmt.Errorf("event %s came as %s", e.ID, id)
	}
	return nil
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// got are the events that were taken so far, in their order.
func (r *receiver) got() []got {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.taken)
}

func (r *receiver) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tries
}

// ids are those of events that were taken, each where it first came.
func (r *receiver) ids() (list []ident.Event) {
	for _, e := range r.got() {
		if !slices.Contains(list, e.ID) {
			list = append(list, e.ID)
		}
	}
	return list
}

// complete checks that all of these events came, and those of each device in their order; twice is allowed.
func (r *receiver) complete(t *testing.T, want []messages.Event) {
	t.Helper()
	devices := map[ident.Event]ident.Device{}
	for _, e := range want {
		devices[e.ID] = e.Device
	}
	came := map[ident.Device][]ident.Event{}
	seen := map[ident.Event]bool{}
	for _, e := range r.got() {
		d, known := devices[e.ID]
		if !known {
			t.Errorf("event %s came, which did not happen", e.ID)
		}
		if !seen[e.ID] {
			seen[e.ID] = true
			came[d] = append(came[d], e.ID)
		}
	}
	ordered := map[ident.Device][]ident.Event{}
	for _, e := range want {
		if !seen[e.ID] {
			t.Errorf("event %s of %s never came", e.ID, e.Device)
		}
		ordered[e.Device] = append(ordered[e.Device], e.ID)
	}
	for d, list := range ordered {
		if d != "" && !slices.Equal(came[d], list) {
			t.Errorf("events of %s came out of order: %v, want %v", d, came[d], list)
		}
	}
}
