package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"rouse/client"
)

// receiver is a backend's webhook: it keeps which events it took. Now and then it fails the first time it is shown one.
type receiver struct {
	server *httptest.Server

	mu       sync.Mutex
	verifier *standardwebhooks.Webhook // guarded by mu, as all below
	posts    int
	failed   map[string]bool
	took     map[string]int // by event id, from 1 in the order in which each was taken first
	again    int
	wrong    []string
}

// failEvery is which of the posts that bring something new are failed.
const failEvery = 100

// startReceiver starts one and tells the app of it.
func startReceiver(r *rig) *receiver {
	r.t.Helper()
	v := &receiver{failed: map[string]bool{}, took: map[string]int{}}
	v.server = httptest.NewServer(v)
	r.t.Cleanup(v.server.Close)
	v.mu.Lock()
	defer v.mu.Unlock()
	hook, err := answer[client.WebhookCreated](r.backend().CreateWebhook(r.t.Context(), client.WebhookCreate{Url: v.server.URL, Events: []string{"message.*"}}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.secret(hook.Secret)
	if v.verifier, err = standardwebhooks.NewWebhook(hook.Secret); err != nil {
		r.t.Fatal(err)
	}
	return v
}

// ServeHTTP takes an event, or fails it.
func (v *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		w.WriteHeader(http.StatusBadRequest) // cut off in the middle
		return
	}
	if err := v.verifier.Verify(body, req.Header); err != nil {
		v.wrong = append(v.wrong, fmt.Sprintf("%v: %s", err, body))
	}
	var e client.Event
	if err := json.Unmarshal(body, &e); err != nil || e.Id != req.Header.Get("webhook-id") {
		v.wrong = append(v.wrong, fmt.Sprintf("%q: %s", req.Header.Get("webhook-id"), body))
	}
	if v.took[e.Id] > 0 {
		v.again++
		return
	}
	if v.posts++; v.posts%failEvery == 0 && !v.failed[e.Id] {
		v.failed[e.Id] = true
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	v.took[e.Id] = len(v.took) + 1
}

// lacks counts the events that did not arrive.
func (v *receiver) lacks(events []client.Event) (n int, example client.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range events {
		if v.took[e.Id] == 0 {
			n, example = n+1, e
		}
	}
	return n, example
}

// judgeOrder fails for every device whose events were not taken in the order of the events, and for every post that was not as it should be.
func (v *receiver) judgeOrder(t *testing.T, events []client.Event) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	last := map[string]client.Event{}
	for _, e := range events {
		var of told
		if err := json.Unmarshal(e.Data, &of); err != nil {
			t.Fatal(err)
		}
		if was, ok := last[of.Device]; ok && v.took[was.Id] > v.took[e.Id] {
			t.Errorf("%s: event %s was taken before %s", of.Device, e.Id, was.Id)
		}
		last[of.Device] = e
	}
	for i, w := range v.wrong {
		if i == 10 {
			break
		}
		t.Errorf("a post is wrong: %s", w)
	}
	t.Logf("%d events taken, %d failed once, %d posted again", len(v.took), len(v.failed), v.again)
}
