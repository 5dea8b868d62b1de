package api_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

func (w *world) newWebhook(app tenant, body obj) answer {
	w.t.Helper()
	return w.do(call{"POST", "/v1/webhooks", app.sk, body, nil})
}

func TestAWebhookFromItsBeginningToItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	made := w.newWebhook(app, obj{"url": "https://example.com/rouse?a=b", "events": []string{"message.*", "device.registered"}, "description": "the till"}).want(201)
	secret, ok := strings.CutPrefix(made.text("secret"), "whsec_")
	if raw, err := base64.StdEncoding.DecodeString(secret); !ok || err != nil || len(raw) < 24 || len(raw) > 64 {
		t.Errorf("the secret has %d bytes, %v", len(raw), err)
	}
	path := "/v1/webhooks/" + made.text("id")
	if hint := w.heard.until(t, messages.HintEvents, 0); string(hint.App) != app.id {
		t.Errorf("hinted: %+v", hint)
	}
	got := w.do(call{"GET", path, app.sk, nil, nil}).want(200)
	if got.text("url") != "https://example.com/rouse?a=b" || got.text("description") != "the till" || strings.Contains(string(got.body), "secret") {
		t.Errorf("%s", got.body)
	}
	var all struct{ Webhooks []obj }
	w.do(call{"GET", "/v1/webhooks", app.sk, nil, nil}).want(200).decode(&all)
	if len(all.Webhooks) != 1 || all.Webhooks[0]["enabled"] != true {
		t.Errorf("%+v", all)
	}
	got = w.do(call{"PATCH", path, app.sk, obj{"enabled": false, "events": []string{"*"}, "url": "https://example.org/"}, nil}).want(200)
	if got.text("disabled_reason") != "manual" || got.text("url") != "https://example.org/" {
		t.Errorf("%s", got.body)
	}
	rotated := w.do(call{"POST", path + "/rotate-secret", app.sk, obj{"overlap": 60}, nil}).want(200).text("secret")
	if !strings.HasPrefix(rotated, "whsec_") || rotated == made.text("secret") {
		t.Errorf("another secret: %q", rotated)
	}
	w.do(call{"POST", path + "/rotate-secret", app.sk, obj{"overlap": 30*86400 + 1}, nil}).refused(422, "invalid_body").points("/overlap")
	for _, x := range []call{
		{"GET", path, other.sk, nil, nil}, {"PATCH", path, other.sk, obj{}, nil}, {"DELETE", path, other.sk, nil, nil},
		{"POST", path + "/rotate-secret", other.sk, obj{}, nil}, {"POST", path + "/test", other.sk, nil, nil}, {"POST", path + "/redeliver", other.sk, obj{"since": time.Now()}, nil},
		{"GET", "/v1/webhooks/" + string(ident.NewWebhook()), app.sk, nil, nil}, {"DELETE", "/v1/webhooks/nonsense", app.sk, nil, nil},
	} {
		w.do(x).refused(404, "webhook_not_found")
	}
	w.do(call{"DELETE", path, app.sk, nil, nil}).want(204)
	w.do(call{"GET", path, app.sk, nil, nil}).refused(404, "webhook_not_found")
}

func TestWhatNoWebhookCanBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	good := []string{"*"}
	for _, c := range []struct {
		body          obj
		code, pointer string
	}{
		{obj{"url": "https://169.254.169.254/", "events": good}, "invalid_webhook", "/url"},
		{obj{"url": "http://example.com/", "events": good}, "invalid_webhook", "/url"},
		{obj{"url": "https://example.com/", "events": []string{"message.acked", "message.eaten"}}, "invalid_body", "/events/1"},
		{obj{"url": "https://example.com/", "events": []string{"webhook.test"}}, "invalid_body", "/events/0"},
		{obj{"url": "https://example.com/", "events": []string{}}, "invalid_body", "/events"},
		{obj{"url": "https://example.com/", "events": good, "description": "a\x00b"}, "invalid_body", "/description"},
		{obj{"url": "https://example.com/", "events": good, "secret": "mine"}, "invalid_body", "/secret"},
	} {
		w.newWebhook(app, c.body).refused(422, c.code).points(c.pointer)
	}
	var last string
	for i := range messages.MaxWebhooks {
		last = w.newWebhook(app, obj{"url": fmt.Sprintf("https://example.com/%d", i), "events": good}).want(201).text("id")
	}
	w.newWebhook(app, obj{"url": "https://example.com/", "events": good}).refused(422, "too_many_webhooks")
	for _, c := range []struct {
		body    obj
		pointer string
	}{{obj{"url": "https://127.0.0.1/"}, "/url"}, {obj{"events": []string{"nothing.*"}}, "/events/0"}, {obj{"description": "\x00"}, "/description"}} {
		w.do(call{"PATCH", "/v1/webhooks/" + last, app.sk, c.body, nil}).want(422).points(c.pointer)
	}
}

func TestAWebhookIsTestedAndPostsAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/webhooks/" + w.newWebhook(app, obj{"url": "https://example.com/path-of-theirs", "events": []string{"*"}}).want(201).text("id")
	var tested struct {
		OK         bool   `json:"ok"`
		Error      string `json:"error"`
		DurationMS *int64 `json:"duration_ms"`
	}
	a := w.do(call{"POST", path + "/test", app.sk, nil, nil}).want(200)
	if a.into(&tested); tested.OK || tested.Error != "the connection failed" || tested.DurationMS == nil {
		t.Errorf("%s", a.body)
	}
	w.newPhone(app)
	list, _, err := w.store.Events(t.Context(), ident.App(app.id), 0, 10)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	event := string(list[0].ID)
	hook := w.do(call{"GET", path, app.sk, nil, nil}).want(200).text("id")
	desk, err := w.store.TakeWebhook(t.Context(), ident.App(app.id), ident.Webhook(hook))
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := w.store.NotePosts(t.Context(), messages.WebhookNote{ID: desk.ID, App: desk.App, Term: desk.Term, Place: list[0].Seq}); !ok || err != nil {
		t.Fatal(ok, err)
	}
	var after struct {
		Retrying int `json:"retrying"`
	}
	w.do(call{"POST", path + "/redeliver", app.sk, obj{"event_id": event}, nil}).want(202).decode(&after)
	if after.Retrying != 1 {
		t.Errorf("%+v", after)
	}
	w.do(call{"POST", path + "/redeliver", app.sk, obj{"since": time.Now().Add(-time.Hour)}, nil}).want(202)
	w.do(call{"POST", path + "/redeliver", app.sk, obj{"event_id": string(ident.NewEvent())}, nil}).refused(404, "event_not_found")
	w.do(call{"POST", path + "/redeliver", app.sk, obj{"event_id": event, "since": time.Now()}, nil}).refused(422, "invalid_body")
	w.do(call{"POST", path + "/redeliver", app.sk, obj{}, nil}).refused(422, "invalid_body")
	w.do(call{"POST", path + "/redeliver", app.sk, obj{"event_id": "evt_1"}, nil}).refused(422, "invalid_body").points("/event_id")
}

func TestWebhooksTakeTheirOwnScope(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	key := func(scope tokens.Scope) string {
		return w.do(call{"POST", "/v1/apps/" + app.id + "/keys", adminKey, obj{"kind": "secret", "scopes": []tokens.Scope{scope}}, nil}).want(201).text("key")
	}
	w.do(call{"GET", "/v1/webhooks", key(tokens.ScopeWebhooks), nil, nil}).want(200)
	w.do(call{"GET", "/v1/webhooks", key(tokens.ScopeRead), nil, nil}).refused(403, "missing_scope")
}
