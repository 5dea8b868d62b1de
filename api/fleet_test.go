package api_test

import (
	"slices"
	"strings"
	"testing"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
)

// view is a device as its backend sees it.
type view struct {
	device
	Pending     int       `json:"pending"`
	Polling     *bool     `json:"polling"`
	Topics      *[]string `json:"topics"`
	Reachable   bool      `json:"reachable"`
	Unreachable *struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	} `json:"unreachable"`
}

func (w *world) view(app tenant, p phone) (v view) {
	w.t.Helper()
	w.do(call{"GET", "/v1/devices/" + p.id, app.sk, nil, nil}).want(200).into(&v)
	return v
}

// fcmCredential gives the app a credential for Google that is never used.
func (w *world) fcmCredential(app tenant) {
	w.t.Helper()
	w.do(call{"PUT", "/v1/apps/" + app.id + "/credentials/fcm", adminKey, obj{"service_account": account(w.t)}, nil}).want(200)
}

// android is an installation with a token of its own.
func android() obj {
	return installation(obj{"platform": "android", "provider": "fcm", "token": unique(googleToken)})
}

func TestBackendReadsADevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.register(app.pk, iphone("one"))
	v := w.view(app, p)
	if v.ID != p.id || v.InstallationID != "one" || v.Secret != "" || v.Pending != 0 || v.Polling == nil || *v.Polling || v.Topics == nil || len(*v.Topics) != 0 {
		t.Errorf("got %+v", v)
	}
	if v.Reachable || v.Unreachable == nil || v.Unreachable.Code != "no_credentials" || v.Unreachable.Detail == "" {
		t.Errorf("got %+v", v)
	}
	w.send(app, p, 1)
	w.send(app, p, 2)
	w.do(call{"PUT", "/v1/device/topics/news", p.key, nil, nil}).want(204)
	if v = w.view(app, p); v.Pending != 2 || !slices.Equal(*v.Topics, []string{"news"}) {
		t.Errorf("got %+v", v)
	}
	w.wait(p, "wait=55&ack="+w.inbox(p, "").Cursor)
	if v = w.view(app, p); v.Pending != 0 || !*v.Polling {
		t.Errorf("got %+v", v)
	}
	other := w.newApp()
	for _, method := range []string{"GET", "DELETE"} {
		for _, id := range []string{p.id, "nonsense", "dev_00000000000000000000000000", "%00"} {
			w.do(call{method, "/v1/devices/" + id, other.sk, nil, nil}).refused(404, "device_not_found")
		}
	}
	w.do(call{"GET", "/v1/devices/" + p.id, app.pk, nil, nil}).refused(403, "wrong_key_kind")
}

// TestPollingOnAnotherNode: a backend asks any node.
func TestPollingOnAnotherNode(t *testing.T) {
	t.Parallel()
	everywhere(t, 2, func(t *testing.T, all []*world) {
		a, b := all[0], all[1]
		app := a.newApp()
		p := a.newPhone(app)
		b.wait(p, "wait=55")
		a.knows(p, true)
		if v := a.view(app, p); !*v.Polling {
			t.Errorf("got %+v", v)
		}
	})
}

func TestReachable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	w.fcmCredential(app)
	p := w.register(app.pk, android())
	if v := w.view(app, p); !v.Reachable || v.Unreachable != nil {
		t.Errorf("got %+v", v)
	}
	for why, body := range map[string]obj{
		"no_provider": installation(nil), "no_token": {"installation_id": "x", "platform": "android", "provider": "fcm"}, "no_credentials": iphone("y"),
	} {
		if v := w.view(app, w.register(app.pk, body)); v.Reachable || v.Unreachable == nil || v.Unreachable.Code != why {
			t.Errorf("want %s, got %+v %+v", why, v, v.Unreachable)
		}
	}
}

type fleet struct {
	Devices []view `json:"devices"`
	Cursor  string `json:"cursor"`
	More    bool   `json:"more"`
}

// fleet lists all devices that fit the query, in pages.
func (w *world) fleet(app tenant, query string) (ids []string) {
	w.t.Helper()
	after := ""
	for range 50 {
		var f fleet
		w.do(call{"GET", "/v1/devices?" + query + after, app.sk, nil, nil}).want(200).into(&f)
		for _, v := range f.Devices {
			if v.Polling != nil || v.Topics != nil {
				w.t.Error("a list tells what only one device does")
			}
			ids = append(ids, v.ID)
		}
		if !f.More {
			return ids
		}
		after = "&after=" + f.Cursor
	}
	w.t.Fatal("the list does not end")
	return nil
}

func TestBackendListsDevices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	if got := w.fleet(app, ""); len(got) != 0 {
		t.Errorf("a new app has %v", got)
	}
	phone, droid, browser, gone := w.register(app.pk, iphone("one")), w.register(app.pk, android()),
		w.register(app.pk, installation(obj{"platform": "web", "topics": []string{"news"}})), w.newPhone(app)
	w.newPhone(other)
	w.do(call{"DELETE", "/v1/devices/" + gone.id, app.sk, nil, nil}).want(204)
	w.do(call{"PUT", "/v1/users/anna%2F1/devices/" + phone.id, app.sk, nil, nil}).want(204)
	w.do(call{"PUT", "/v1/users/anna%2F1/devices/" + droid.id, app.sk, nil, nil}).want(204)
	w.do(call{"PUT", "/v1/device/topics/news", droid.key, nil, nil}).want(204)
	for query, want := range map[string][]string{
		"":                           {phone.id, droid.id, browser.id},
		"limit=1":                    {phone.id, droid.id, browser.id},
		"user_id=anna%2F1":           {phone.id, droid.id},
		"user_id=anna%2F1&limit=1":   {phone.id, droid.id},
		"user_id=bob":                {},
		"topic=news":                 {droid.id, browser.id},
		"topic=news&limit=1":         {droid.id, browser.id},
		"topic=never":                {},
		"topic=news&user_id=anna/1":  {droid.id},
		"platform=web":               {browser.id},
		"platform=macos":             {},
		"provider=none":              {browser.id},
		"provider=apns&platform=ios": {phone.id},
		"token_state=active":         {phone.id, droid.id},
		"token_state=dead":           {},
		"topic=news&provider=fcm":    {droid.id},
		"after=" + phone.id:          {droid.id, browser.id},
		"after=" + browser.id:        {},
	} {
		if got := w.fleet(app, query); !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("%q: %v, want %v", query, got, want)
		}
	}
	for query, code := range map[string]string{
		"limit=0": "bad_query", "limit=101": "bad_query", "platform=symbian": "bad_query", "platform=": "bad_query", "provider=x": "bad_query", "token_state=x": "bad_query",
		"user_id=": "bad_query", "user_id=%00": "bad_query", "user_id=%FF": "bad_query", "topic=": "bad_query", "topic=a%20b": "bad_query", "user_id=a&user_id=b": "bad_query",
		"after=x": "bad_cursor", "after=": "bad_cursor", "after=" + app.id: "bad_cursor",
	} {
		w.do(call{"GET", "/v1/devices?" + query, app.sk, nil, nil}).refused(400, code)
	}
}

func TestBackendChangesADevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	p := w.register(app.pk, iphone("one"))
	change := func(body obj) answer {
		return w.do(call{"PATCH", "/v1/devices/" + p.id, app.sk, body, nil})
	}
	var v view
	change(obj{"user_id": "anna/ö", "locale": "en", "app_version": "9"}).want(200).into(&v)
	if v.UserID != "anna/ö" || v.Locale != "en" || v.AppVersion != "9" || v.Polling == nil || v.Topics == nil {
		t.Errorf("got %+v", v)
	}
	w.toUser(app, "anna/ö", "hers")
	w.send(app, p, "its own")
	told := w.heard.count(messages.HintToken)
	change(obj{}).want(200)
	change(obj{"user_id": ""}).want(200).into(&v)
	w.holds(p, `"its own"`)
	if w.user(p) != "" || w.heard.count(messages.HintToken) != told {
		t.Errorf("it belongs to %q", w.user(p))
	}
	change(obj{"token": strings.ToLower(appleToken), "environment": "sandbox"}).want(200)
	if h := w.heard.until(t, messages.HintToken, told); string(h.Device) != p.id || h.App != ident.App(app.id) {
		t.Errorf("hinted %+v", h)
	}
	change(obj{"user_id": "a\x00b"}).refused(422, "invalid_user").points("/user_id")
	change(obj{"user_id": strings.Repeat("ö", 200)}).refused(422, "invalid_user").points("/user_id")
	change(obj{"user_id": strings.Repeat("x", 257)}).refused(422, "invalid_body").points("/user_id")
	change(obj{"user_id": nil}).refused(422, "invalid_body").points("/user_id")
	change(obj{"token": "zz"}).refused(422, "invalid_registration").points("/token")
	change(obj{"environment": "sandbox"}).refused(422, "invalid_registration").points("/environment")
	change(obj{"provider": "fcm"}).refused(422, "invalid_body").points("/provider")
	for _, id := range []string{p.id, "nonsense"} {
		w.do(call{"PATCH", "/v1/devices/" + id, other.sk, obj{"user_id": "eve"}, nil}).refused(404, "device_not_found")
	}
	if user := w.user(p); user != "" {
		t.Errorf("it belongs to %q", user)
	}
}

func TestBackendUnregistersADevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	x := w.wait(p, "wait=55")
	w.do(call{"DELETE", "/v1/devices/" + p.id, app.sk, nil, nil}).want(204)
	x.ended(t, 410, "device_unregistered")
	if h := w.heard.until(t, messages.HintGone, 0); string(h.Device) != p.id {
		t.Errorf("hinted %+v", h)
	}
	w.do(call{"GET", "/v1/device", p.key, nil, nil}).refused(410, "device_unregistered")
	w.do(call{"DELETE", "/v1/devices/" + p.id, app.sk, nil, nil}).want(204) // harmless to repeat
	for _, x := range []call{
		{"GET", "/v1/devices/" + p.id, app.sk, nil, nil}, {"PATCH", "/v1/devices/" + p.id, app.sk, obj{}, nil}, {"POST", "/v1/devices/" + p.id + "/wake", app.sk, nil, nil},
	} {
		w.do(x).refused(404, "device_not_found")
	}
}

type wakeReport struct {
	Sent        bool   `json:"sent"`
	Provider    string `json:"provider"`
	Verdict     string `json:"verdict"`
	Reason      string `json:"reason"`
	DurationMS  *int64 `json:"duration_ms"`
	Unreachable *struct{ Code, Detail string }
}

func TestWakeByHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	w.fcmCredential(app)
	p, q := w.register(app.pk, android()), w.newPhone(app)
	wake := func(p phone) answer { return w.do(call{"POST", "/v1/devices/" + p.id + "/wake", app.sk, nil, nil}) }
	w.bell.says = providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED"}
	var got wakeReport
	wake(p).want(200).into(&got)
	if !got.Sent || got.Provider != "fcm" || got.Verdict != "token_dead" || got.Reason != "UNREGISTERED" || got.DurationMS == nil || *got.DurationMS != 7 || got.Unreachable != nil {
		t.Errorf("got %+v", got)
	}
	if v := w.view(app, p); v.TokenState != "active" {
		t.Errorf("it changed the token: %+v", v)
	}
	a := wake(p).refused(429, "rate_limited")
	if wait := a.header.Get("Retry-After"); wait != "10" && wait != "9" {
		t.Errorf("come again in %s s", wait)
	}
	w.bell.quiet, w.bell.says = true, providers.Outcome{}
	got = wakeReport{}
	wake(q).want(200).into(&got) // another device's turn
	if got.Sent || got.Provider+got.Verdict != "" || got.DurationMS != nil || got.Unreachable == nil || got.Unreachable.Code != "no_provider" {
		t.Errorf("got %+v", got)
	}
	w.do(call{"POST", "/v1/devices/" + p.id + "/wake", w.newApp().sk, nil, nil}).refused(404, "device_not_found")
	if !slices.Equal(w.bell.rung, []ident.Device{ident.Device(p.id), ident.Device(q.id)}) {
		t.Errorf("rang at %v", w.bell.rung)
	}
}
