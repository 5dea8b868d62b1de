package api_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rouse/messages"
)

type app struct {
	ID            string    `json:"id"`
	Name          string    `json:"name"`
	InboxOverflow string    `json:"inbox_overflow"`
	CreatedAt     time.Time `json:"created_at"`
	// Circuits is nil where the answer does not tell of them.
	Circuits []circuit `json:"circuits"`
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

func TestKeysComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/apps/" + app.id + "/keys"
	type key struct {
		ID        string     `json:"id"`
		Kind      string     `json:"kind"`
		Name      string     `json:"name"`
		Scopes    []string   `json:"scopes"`
		CreatedAt time.Time  `json:"created_at"`
		ExpiresAt *time.Time `json:"expires_at"`
		Key       string     `json:"key"`
	}
	list := func() []key {
		var l struct {
			Keys []key `json:"keys"`
		}
		w.do(call{"GET", path, adminKey, nil, nil}).want(200).into(&l)
		return l.Keys
	}
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
