package api_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rouse/messages"
)

type app struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	InboxOverflow string `json:"inbox_overflow"`
	Registration  string `json:"registration"`
	BroadcastRate int    `json:"broadcast_rate"`
	// EventTypes is nil for all.
	EventTypes *[]string  `json:"event_types"`
	RateLimit  *rateLimit `json:"rate_limit"`
	CreatedAt  time.Time  `json:"created_at"`
	// Circuits is nil where the answer does not tell of them.
	Circuits []circuit `json:"circuits"`
}

type rateLimit struct {
	PerSecond float64 `json:"per_second"`
	Burst     int     `json:"burst"`
}

type circuit struct {
	Provider    string     `json:"provider"`
	Environment string     `json:"environment"`
	Onward      string     `json:"onward"`
	State       string     `json:"state"`
	Cause       string     `json:"cause"`
	Reason      string     `json:"reason"`
	OpenedAt    time.Time  `json:"opened_at"`
	RetryAt     *time.Time `json:"retry_at"`
}

func TestAppsComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do(call{"POST", "/v1/apps", adminKey, obj{"name": " Bakery "}, nil}).want(201)
	path := "/v1/apps/" + made.text("id")
	var a app
	w.do(call{"GET", path, adminKey, nil, nil}).want(200).into(&a)
	if a.Name != "Bakery" || a.InboxOverflow != "reject" || time.Since(a.CreatedAt) > time.Minute {
		t.Errorf("got %+v", a)
	}
	w.do(call{"PATCH", path, adminKey, obj{"inbox_overflow": "drop_oldest"}, nil}).want(200).into(&a)
	if a.Name != "Bakery" || a.InboxOverflow != "drop_oldest" {
		t.Errorf("got %+v", a)
	}
	w.do(call{"PATCH", path, adminKey, obj{"name": "Mill"}, nil}).want(200)
	w.do(call{"PATCH", path, adminKey, obj{}, nil}).want(200).into(&a)
	if a.Name != "Mill" || a.InboxOverflow != "drop_oldest" {
		t.Errorf("an empty change changed it: %+v", a)
	}
	w.do(call{"PATCH", path, adminKey, obj{"name": "  "}, nil}).refused(422, "invalid_body").points("/name")
	w.do(call{"PATCH", path, adminKey, obj{"inbox_overflow": "burn"}, nil}).refused(422, "invalid_body").points("/inbox_overflow")
	w.do(call{"DELETE", path, adminKey, nil, nil}).want(204)
	for i, provider := range []string{"apns", "fcm"} {
		// Who keeps its credentials open, or shows a circuit of it, has to let go.
		if h := w.heard.until(t, messages.HintCredential, i); string(h.App) != made.text("id") || h.Provider != provider {
			t.Errorf("hinted %+v", h)
		}
	}
	for _, method := range []string{"GET", "DELETE"} {
		w.do(call{method, path, adminKey, nil, nil}).refused(404, "app_not_found")
	}
	w.do(call{"PATCH", path, adminKey, obj{"name": "x"}, nil}).refused(404, "app_not_found")
	w.do(call{"GET", "/v1/apps/nonsense", adminKey, nil, nil}).refused(404, "app_not_found")
}

func TestAppsArePaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	type page struct {
		Apps   []app  `json:"apps"`
		Cursor string `json:"cursor"`
		More   bool   `json:"more"`
	}
	var empty page
	w.do(call{"GET", "/v1/apps", adminKey, nil, nil}).want(200).into(&empty)
	if len(empty.Apps) != 0 || empty.More || empty.Cursor != "" {
		t.Errorf("got %+v", empty)
	}
	var made, listed []string
	for range 5 {
		made = append(made, w.newApp().id)
	}
	after := ""
	for range 3 {
		var p page
		w.do(call{"GET", "/v1/apps?limit=2" + after, adminKey, nil, nil}).want(200).into(&p)
		for _, a := range p.Apps {
			listed = append(listed, a.ID)
		}
		if p.More != (len(listed) < 5) {
			t.Errorf("more is %v after %d", p.More, len(listed))
		}
		after = "&after=" + p.Cursor
	}
	if !slices.Equal(listed, made) {
		t.Errorf("listed %v, made %v", listed, made)
	}
	var last page
	w.do(call{"GET", "/v1/apps?limit=2" + after, adminKey, nil, nil}).want(200).into(&last)
	if len(last.Apps) != 0 || "&after="+last.Cursor != after {
		t.Errorf("past the end: %+v", last)
	}
	for query, code := range map[string]string{
		"limit=0": "bad_query", "limit=101": "bad_query", "limit=x": "bad_query", "limit=1&limit=2": "bad_query", "limit=": "bad_query", "after=x": "bad_cursor", "after=": "bad_cursor",
	} {
		w.do(call{"GET", "/v1/apps?" + query, adminKey, nil, nil}).refused(400, code)
	}
}

type key struct {
	ID         string     `json:"id"`
	Kind       string     `json:"kind"`
	Name       string     `json:"name"`
	Scopes     []string   `json:"scopes"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  *time.Time `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	RateLimit  *rateLimit `json:"rate_limit"`
	Key        string     `json:"key"`
}

func (w *world) keys(app tenant) []key {
	w.t.Helper()
	var l struct {
		Keys []key `json:"keys"`
	}
	w.do(call{"GET", "/v1/apps/" + app.id + "/keys", adminKey, nil, nil}).want(200).into(&l)
	return l.Keys
}

func TestKeysComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/apps/" + app.id + "/keys"
	list := func() []key { return w.keys(app) }
	if keys := list(); len(keys) != 2 {
		t.Fatalf("a new app has %d keys", len(keys))
	}
	var made key
	w.do(call{"POST", path, adminKey, obj{"kind": "secret", "name": "sender", "scopes": []string{"send"}, "expires_in": 60}, nil}).want(201).into(&made)
	if made.Kind != "secret" || made.Name != "sender" || !slices.Equal(made.Scopes, []string{"send"}) || made.ExpiresAt == nil || made.ExpiresAt.Sub(made.CreatedAt) != time.Minute {
		t.Errorf("made %+v", made)
	}
	var public key
	w.do(call{"POST", path, adminKey, obj{"kind": "publishable"}, nil}).want(201).into(&public)
	w.register(public.Key, obj{"installation_id": "one", "platform": "web", "provider": "none"})
	keys := list()
	if len(keys) != 4 {
		t.Fatalf("have %d keys", len(keys))
	}
	for _, k := range keys {
		if k.Key != "" {
			t.Error("the list gives keys out")
		}
	}
	w.do(call{"DELETE", path + "/" + public.ID, adminKey, nil, nil}).want(204)
	w.do(call{"DELETE", path + "/" + public.ID, adminKey, nil, nil}).refused(404, "key_not_found")
	w.do(call{"DELETE", path + "/x", adminKey, nil, nil}).refused(404, "key_not_found")
	other := w.newApp()
	w.do(call{"DELETE", "/v1/apps/" + other.id + "/keys/" + made.ID, adminKey, nil, nil}).refused(404, "key_not_found")
	gone := "/v1/apps/app_00000000000000000000000000/keys"
	w.do(call{"GET", gone, adminKey, nil, nil}).refused(404, "app_not_found")
	w.do(call{"POST", gone, adminKey, obj{"kind": "secret"}, nil}).refused(404, "app_not_found")
	for i, bad := range []struct {
		body    obj
		pointer string
	}{
		{obj{}, "/kind"},
		{obj{"kind": "device"}, "/kind"},
		{obj{"kind": "publishable", "scopes": []string{"send"}}, "/scopes"},
		{obj{"kind": "secret", "scopes": []string{}}, "/scopes"},
		{obj{"kind": "secret", "scopes": []string{"send", "send"}}, "/scopes"},
		{obj{"kind": "secret", "scopes": []string{"root"}}, "/scopes/0"},
		{obj{"kind": "secret", "expires_in": 0}, "/expires_in"},
		{obj{"kind": "secret", "expires_in": 1.5}, "/expires_in"},
		{obj{"kind": "secret", "expires_in": nil}, "/expires_in"},
		{obj{"kind": "secret", "nmae": "x"}, "/nmae"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w.do(call{"POST", path, adminKey, bad.body, nil}).refused(422, "invalid_body").points(bad.pointer)
		})
	}
}

// TestSettingsOfApps come back as they were given, at creation and later.
func TestSettingsOfApps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	settings := obj{
		"name": "Bakery", "inbox_overflow": "drop_oldest", "registration": "token", "broadcast_rate": 50,
		"event_types": []string{"message.*", "device.token_dead"}, "rate_limit": obj{"per_second": 0.1, "burst": 3},
	}
	made := w.do(call{"POST", "/v1/apps", adminKey, settings, nil}).want(201)
	path := "/v1/apps/" + made.text("id")
	check := func(a answer, registration string, rate int, limit *rateLimit, types ...string) {
		t.Helper()
		var got app
		a.decode(&got)
		if got.Registration != registration || got.BroadcastRate != rate || got.EventTypes == nil || !slices.Equal(*got.EventTypes, types) ||
			(got.RateLimit == nil) != (limit == nil) || limit != nil && *got.RateLimit != *limit {
			t.Errorf("got %s", a.body)
		}
	}
	types := []string{"message.*", "device.token_dead"}
	check(made, "token", 50, &rateLimit{0.1, 3}, types...)
	check(w.do(call{"GET", path, adminKey, nil, nil}).want(200), "token", 50, &rateLimit{0.1, 3}, types...)
	check(w.do(call{"PATCH", path, adminKey, obj{"registration": "server"}, nil}).want(200), "server", 50, &rateLimit{0.1, 3}, types...)
	change := obj{"event_types": []string{}, "rate_limit": obj{"per_second": 2.5}, "broadcast_rate": 1000000}
	check(w.do(call{"PATCH", path, adminKey, change, nil}).want(200), "server", 1000000, &rateLimit{2.5, 5})
	check(w.do(call{"PATCH", path, adminKey, obj{"rate_limit": obj{"per_second": 0, "burst": 9}, "event_types": []string{"*"}}, nil}).want(200), "server", 1000000, nil, "*")
	check(w.do(call{"GET", path, adminKey, nil, nil}).want(200), "server", 1000000, nil, "*")
	var plain app
	w.do(call{"GET", "/v1/apps/" + w.newApp().id, adminKey, nil, nil}).want(200).into(&plain)
	if plain.Registration != "open" || plain.BroadcastRate != 2000 || plain.EventTypes == nil || !slices.Equal(*plain.EventTypes, []string{"*"}) || plain.RateLimit != nil {
		t.Errorf("a new app is %+v", plain)
	}
	for i, bad := range []struct {
		change  obj
		pointer string
	}{
		{obj{"registration": "closed"}, "/registration"},
		{obj{"registration": ""}, "/registration"},
		{obj{"broadcast_rate": 0}, "/broadcast_rate"},
		{obj{"broadcast_rate": 1000001}, "/broadcast_rate"},
		{obj{"event_types": []string{"message.acked", "message.lost"}}, "/event_types/1"},
		{obj{"event_types": []string{"mess*"}}, "/event_types/0"},
		{obj{"event_types": []string{".*"}}, "/event_types/0"},
		{obj{"event_types": []string{""}}, "/event_types/0"},
		{obj{"event_types": []string{"message.acked message.lost"}}, "/event_types/0"},
		{obj{"event_types": []string{"webhook.test"}}, "/event_types/0"},
		{obj{"event_types": []string{"*", "*"}}, "/event_types"},
		{obj{"event_types": nil}, "/event_types"},
		{obj{"rate_limit": obj{"burst": 1}}, "/rate_limit/per_second"},
		{obj{"rate_limit": obj{"per_second": -1}}, "/rate_limit/per_second"},
		{obj{"rate_limit": obj{"per_second": 0.0001}}, "/rate_limit/per_second"},
		{obj{"rate_limit": obj{"per_second": 1, "burst": 0}}, "/rate_limit/burst"},
		{obj{"rate_limit": obj{"per_second": 1, "window": 1}}, "/rate_limit/window"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w.do(call{"PATCH", path, adminKey, bad.change, nil}).refused(422, "invalid_body").points(bad.pointer)
			bad.change["name"] = "x"
			w.do(call{"POST", "/v1/apps", adminKey, bad.change, nil}).refused(422, "invalid_body").points(bad.pointer)
		})
	}
}

// TestKeysAreReplaced: the new key does what the old one did, which works on for a while.
func TestKeysAreReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/apps/" + app.id + "/keys"
	var old, next, last key
	w.do(call{"POST", path, adminKey, obj{"kind": "secret", "name": "reader", "scopes": []string{"devices"}, "rate_limit": obj{"per_second": 1000, "burst": 7}}, nil}).want(201).into(&old)
	if old.RateLimit == nil || *old.RateLimit != (rateLimit{1000, 7}) {
		t.Errorf("made %+v", old)
	}
	before := time.Now()
	w.do(call{"POST", path + "/" + old.ID + "/rotate", adminKey, obj{}, nil}).want(201).into(&next)
	if next.ID == old.ID || next.Key == old.Key || next.Kind != "secret" || next.Name != "reader" || !slices.Equal(next.Scopes, old.Scopes) || *next.RateLimit != *old.RateLimit || next.ExpiresAt != nil {
		t.Errorf("the next one is %+v", next)
	}
	works := func(k key) int { return w.do(call{"GET", "/v1/devices", k.Key, nil, nil}).status }
	if works(old) != 200 || works(next) != 200 {
		t.Errorf("the old one answers %d, the new one %d", works(old), works(next))
	}
	at := slices.IndexFunc(w.keys(app), func(k key) bool { return k.ID == old.ID })
	if end := w.keys(app)[at].ExpiresAt; end == nil || end.Sub(before) < 23*time.Hour || end.Sub(before) > 25*time.Hour {
		t.Errorf("the old one ends at %v", end)
	}
	w.do(call{"POST", path + "/" + next.ID + "/rotate", adminKey, obj{"overlap": 0, "expires_in": 60}, nil}).want(201).into(&last)
	if last.ExpiresAt == nil || last.ExpiresAt.Sub(last.CreatedAt) != time.Minute {
		t.Errorf("the last one is %+v", last)
	}
	if works(last) != 200 {
		t.Errorf("the last one answers %d", works(last))
	}
	w.do(call{"GET", "/v1/devices", next.Key, nil, nil}).refused(401, "expired_key")
	w.do(call{"POST", path + "/" + next.ID + "/rotate", adminKey, obj{}, nil}).refused(404, "key_not_found")
	for _, k := range w.keys(app) {
		if k.Kind == "publishable" {
			var public key
			w.do(call{"POST", path + "/" + k.ID + "/rotate", adminKey, obj{"overlap": 60}, nil}).want(201).into(&public)
			w.register(public.Key, obj{"installation_id": "one", "platform": "web", "provider": "none"})
			w.register(app.pk, obj{"installation_id": "two", "platform": "web", "provider": "none"})
		}
	}
	for _, bad := range []string{"x", "key_00000000000000000000000000", w.keys(w.newApp())[0].ID} {
		w.do(call{"POST", path + "/" + bad + "/rotate", adminKey, obj{}, nil}).refused(404, "key_not_found")
	}
	w.do(call{"POST", path + "/" + last.ID + "/rotate", adminKey, obj{"overlap": 7776001}, nil}).refused(422, "invalid_body").points("/overlap")
	w.do(call{"POST", path + "/" + last.ID + "/rotate", adminKey, obj{"expires_in": 0}, nil}).refused(422, "invalid_body").points("/expires_in")
	w.do(call{"POST", "/v1/apps/x/keys/" + last.ID + "/rotate", adminKey, obj{}, nil}).refused(404, "app_not_found")
}

func TestKeysTellWhenTheyWereUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	for _, k := range w.keys(app) {
		if k.LastUsedAt != nil {
			t.Errorf("a new key was used at %v", k.LastUsedAt)
		}
	}
	before := time.Now().Add(-time.Second)
	w.do(call{"GET", "/v1/devices", app.sk, nil, nil}).want(200)
	poll(t, func() bool {
		used := 0
		for _, k := range w.keys(app) {
			if k.LastUsedAt != nil && k.LastUsedAt.After(before) {
				used++
			}
		}
		return used == 1
	})
}
