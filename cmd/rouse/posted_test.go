package main

import (
	"bytes"
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

// mailbox is a backend that keeps what it was posted, word for word, and takes nothing the first time it is called.
type mailbox struct {
	mu       sync.Mutex
	verifier *standardwebhooks.Webhook // set before anything is posted
	posted   map[string][]string       // guarded by mu: by event
}

func (m *mailbox) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil || m.verifier.Verify(body, q.Header) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	id := q.Header.Get("webhook-id")
	if m.posted[id] = append(m.posted[id], string(body)); len(m.posted) == 1 && len(m.posted[id]) == 1 {
		w.WriteHeader(http.StatusTeapot)
	}
}

func (m *mailbox) of(id string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.posted[id]
}

// TestEventsArePostedAsTheyAreListed: what a webhook gets is, byte for byte, what listEvents has, signed; and an event comes again by
// its id.
func TestEventsArePostedAsTheyAreListed(t *testing.T) {
	t.Parallel()
	onEngines(t, testEventsArePostedAsTheyAreListed)
}

func testEventsArePostedAsTheyAreListed(t *testing.T, on engine) {
	r := newRigOn(t, on, "--webhook-allow", "127.0.0.0/8")
	r.secret("token-of-the-receiver")
	m := &mailbox{posted: map[string][]string{}}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	hook, err := answer[client.WebhookCreated](r.backend().CreateWebhook(t.Context(), client.WebhookCreate{Url: server.URL + "/token-of-the-receiver", Events: []string{"*"}}))
	if err != nil {
		t.Fatal(err)
	}
	r.secret(hook.Secret)
	if m.verifier, err = standardwebhooks.NewWebhook(hook.Secret); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		r.enrol(fmt.Sprintf("phone-%d", i), "none")
	}
	listed := r.rawEvents()
	for id := range listed {
		eventually(t, patient, func() (bool, string) { return len(m.of(id)) > 0, id + " did not come" })
		if got := m.of(id)[0]; got != listed[id] {
			t.Errorf("posted %s\nlisted %s", got, listed[id])
		}
	}
	r.awaitMetric(`rouse_webhook_posts_total{result="taken"}`, 3)
	r.awaitMetric(`rouse_webhook_posts_total{result="refused"}`, 1)
	for id := range listed {
		before := len(m.of(id))
		mustCommand(t, r.adminEnv(), "webhooks", "redeliver", hook.Id, "--event", id)
		eventually(t, patient, func() (bool, string) { return len(m.of(id)) > before, id + " did not come again" })
	}
}

// rawEvents are the app's events as they are listed, by their ids.
func (r *rig) rawEvents() map[string]string {
	r.t.Helper()
	var page struct{ Events []json.RawMessage }
	if err := json.Unmarshal([]byte(mustCommand(r.t, r.adminEnv(), "events", "list", "-o", "json")), &page); err != nil {
		r.t.Fatal(err)
	}
	all := map[string]string{}
	for _, raw := range page.Events {
		var e client.Event
		var text bytes.Buffer
		if err := json.Unmarshal(raw, &e); err != nil {
			r.t.Fatal(err)
		}
		if err := json.Compact(&text, raw); err != nil {
			r.t.Fatal(err)
		}
		all[e.Id] = text.String()
	}
	return all
}
