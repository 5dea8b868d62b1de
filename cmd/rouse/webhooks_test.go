package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"rouse/client"
	"rouse/messages"
)

// hook takes an app's events and checks their signatures.
type hook struct {
	url    string
	secret atomic.Pointer[string] // what the next posts must be signed with
	broken atomic.Bool
	posts  chan client.Event
	errs   chan error
}

func newHook(t *testing.T) *hook {
	t.Helper()
	r := &hook{posts: make(chan client.Event, 100), errs: make(chan error, 100)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		var e client.Event
		var check *standardwebhooks.Webhook
		if err == nil {
			check, err = standardwebhooks.NewWebhook(*r.secret.Load())
		}
		if err == nil {
			err = errors.Join(check.Verify(body, q.Header), json.Unmarshal(body, &e))
		}
		if err != nil {
			r.errs <- err
		}
		if r.broken.Load() || err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		r.posts <- e
	}))
	t.Cleanup(server.Close)
	r.url = server.URL + "/hook?token=canary"
	return r
}

// next is the next event that was posted, of the type.
func (r *hook) next(t *testing.T, kind string) client.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	for {
		select {
		case e := <-r.posts:
			if e.Type == kind {
				return e
			}
		case err := <-r.errs:
			t.Fatalf("a post that cannot be verified: %v", err)
		case <-ctx.Done():
			t.Fatalf("no %s was posted", kind)
		}
	}
}

// TestWebhooksByCommand: made, tested, rotated, switched off and on, and events posted again, by commands alone.
func TestWebhooksByCommand(t *testing.T) {
	t.Parallel()
	onEngines(t, testWebhooksByCommand)
}

func testWebhooksByCommand(t *testing.T, on engine) {
	r := newRigOn(t, on, "--webhook-allow", "127.0.0.0/8")
	env, to := r.adminEnv(), newHook(t)
	says(t, mustCommand(t, env, "webhooks", "list"), "no webhooks")
	var made client.WebhookCreated
	_, doc, _ := commandIn(t, env, "", "webhooks", "create", to.url, "--events", "device.*,message.acked", "--description", "books", "-o", "json")
	unmarshalOne(t, doc, &made)
	to.secret.Store(&made.Secret)
	r.secret(made.Secret)
	id := made.Id

	mustCommand(t, env, "webhooks", "test", id)
	to.next(t, "webhook.test")
	phone := r.enrol("phone", "none")
	registered := to.next(t, "device.registered")
	if !strings.Contains(string(registered.Data), phone.device) {
		t.Errorf("told of %s", registered.Data)
	}
	mustCommand(t, env, "webhooks", "redeliver", id, "--event", registered.Id)
	if again := to.next(t, "device.registered"); again.Id != registered.Id {
		t.Errorf("%s came again instead of %s", again.Id, registered.Id)
	}
	says(t, mustCommand(t, env, "webhooks", "redeliver", id, "--since", "1h"), "they will be posted")
	to.next(t, "device.registered")

	var secret client.WebhookSecret
	_, doc, _ = commandIn(t, env, "", "webhooks", "rotate", id, "--overlap", "1h", "-o", "json")
	unmarshalOne(t, doc, &secret)
	to.secret.Store(&secret.Secret)
	r.secret(secret.Secret)
	mustCommand(t, env, "webhooks", "test", id)
	to.next(t, "webhook.test")

	var one client.Webhook
	var all []client.Webhook
	says(t, bothWays(t, env, &one, "webhooks", "show", id), "description   books\n", "state         enabled\n", "retrying      0\n")
	says(t, mustCommand(t, env, "webhooks", "set", id, "--disable"), "state         disabled: manual\n", "webhooks set "+id+" --enable\n")
	says(t, bothWays(t, env, &all, "webhooks", "list"), "disabled: manual  device.*,message.acked  0")
	refuses(t, env, exitUsage, "say what to change", "webhooks", "set", id)
	refuses(t, env, exitUsage, "--event ID, or --since", "webhooks", "redeliver", id)
	refuses(t, env, exitUsage, "--since", "webhooks", "redeliver", id, "--since", "soon")
	says(t, mustCommand(t, env, "webhooks", "redeliver", id, "--since", "1h"), "they will be posted once it is switched on\n")
	testWebhookThatFails(t, r, env, id, to)
	mustCommand(t, env, "webhooks", "delete", id)
	says(t, mustCommand(t, env, "webhooks", "create", to.url), "events  *\n", "It gets all events; fewer with --events")
	refuses(t, env, exitFailed, "webhook_not_found", "webhooks", "show", id)
	refuses(t, env, exitFailed, "invalid_webhook", "webhooks", "create", "https://192.168.0.1/hook")
}

// testWebhookThatFails: what the receiver does not take is told by test, show and the doctor.
func testWebhookThatFails(t *testing.T, r *rig, env []string, id string, to *hook) {
	t.Helper()
	to.broken.Store(true)
	refuses(t, env, exitFailed, "not taken, status 500", "webhooks", "test", id)
	mustCommand(t, env, "webhooks", "set", id, "--enable")
	r.enrol("other", "none")
	var out string
	eventually(t, patient, func() (bool, string) {
		out = mustCommand(t, env, "webhooks", "show", id)
		return strings.Contains(out, "failing since") || strings.Contains(out, "retrying      1"), "it does not fail:\n" + out
	})
	says(t, out, "500")
	if _, after, found := strings.Cut(out, "last error"); !found || strings.Contains(after, "canary") {
		t.Errorf("the error tells the path:\n%s", out)
	}
	code, told := command(t, append(r.env(), "ROUSE_LISTEN=127.0.0.1:0"), "doctor", "--offline", "-o", "json")
	if !strings.Contains(told, id) || strings.Contains(told, "canary") {
		t.Errorf("doctor: exit %d\n%s", code, told)
	}
}

// TestDoctorOnWebhooks: each state has its finding, but those that somebody chose.
func TestDoctorOnWebhooks(t *testing.T) {
	t.Parallel()
	then := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		hook messages.Webhook
		want string
	}{
		{messages.Webhook{}, ""},
		{messages.Webhook{DisabledAt: then, DisabledReason: messages.WebhookManual}, ""},
		{messages.Webhook{DisabledAt: then, DisabledReason: messages.WebhookFailing, LastError: "status 500"}, "disabled on 2027-01-02 03:04:05Z, because it took nothing for days; its last error: status 500. --enable"},
		{messages.Webhook{FailingSince: then}, "takes nothing since 2027-01-02 03:04:05Z; its last error: none."},
		{messages.Webhook{Retrying: 2, LastError: "status 400"}, "but not 2 of them"},
	} {
		c.hook.ID = "whk_1"
		switch f := webhookFinding(c.hook); {
		case f == nil && c.want != "", f != nil && c.want == "":
			t.Errorf("of %+v it says %+v, want %q", c.hook, f, c.want)
		case f != nil:
			for _, part := range strings.Split(c.want, ". ") {
				says(t, f.Cause+f.Cure, part, "whk_1")
			}
		}
	}
}
