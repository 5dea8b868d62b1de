package api_test

import (
	"strings"
	"testing"
	"time"

	"rouse/api"
	"rouse/messages"
)

const (
	appleToken  = "0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"
	googleToken = "fcm-token:APA91bH_0123456789-abcdefghijklmnopqrstuvwxyz"
)

type device struct {
	ID             string     `json:"id"`
	Secret         string     `json:"secret"`
	InstallationID string     `json:"installation_id"`
	Platform       string     `json:"platform"`
	Provider       string     `json:"provider"`
	Environment    string     `json:"environment"`
	TokenState     string     `json:"token_state"`
	TokenReason    string     `json:"token_reason"`
	UserID         string     `json:"user_id"`
	AppVersion     string     `json:"app_version"`
	Locale         string     `json:"locale"`
	CreatedAt      time.Time  `json:"created_at"`
	RegisteredAt   time.Time  `json:"registered_at"`
	LastContactAt  *time.Time `json:"last_contact_at"`
	PushDemotedAt  *time.Time `json:"push_demoted_at"`
}

func iphone(installation string) obj {
	return obj{"installation_id": installation, "platform": "ios", "provider": "apns", "token": appleToken, "app_version": "2.4.1", "locale": "de-AT"}
}

func TestRegisterWithAPublishableKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	var d device
	body := iphone("one")
	body["something_new"] = obj{"from": "a newer app"} // the device side ignores what it does not know
	a := w.do(call{"POST", "/v1/devices", app.pk, body, nil}).want(201)
	a.into(&d)
	if d.InstallationID != "one" || d.Platform != "ios" || d.Provider != "apns" || d.Environment != "production" || d.TokenState != "active" || d.AppVersion != "2.4.1" || d.Locale != "de-AT" {
		t.Errorf("got %+v", d)
	}
	if !strings.HasPrefix(d.Secret, "rouse_dev_"+strings.TrimPrefix(d.ID, "dev_")) {
		t.Error("the key does not name its device")
	}
	if strings.Contains(strings.ToLower(string(a.body)), strings.ToLower(appleToken)) || strings.Contains(w.log.String(), appleToken) {
		t.Error("the token came back, or is in the log")
	}
	if h := w.heard.until(t, messages.HintToken, 0); string(h.Device) != d.ID || string(h.App) != app.id {
		t.Errorf("hinted %+v", h)
	}
	if got := a.header.Get("RateLimit-Policy"); got != `"registration";q=1000;w=20` {
		t.Errorf("RateLimit-Policy: %s", got)
	}
	w.do(call{"POST", "/v1/devices", app.pk, body, nil}).refused(409, "installation_exists")
	w.register(w.newApp().pk, iphone("one")) // another app's installations are its own
}

func TestRegisterAgainWithTheDevicesOwnKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.register(app.pk, iphone("one"))
	body := iphone("one")
	body["app_version"] = "3"
	var d device
	a := w.do(call{"POST", "/v1/devices", p.key, body, nil}).want(200)
	a.into(&d)
	if d.ID != p.id || d.Secret != "" || d.AppVersion != "3" {
		t.Errorf("got %+v", d)
	}
	if a.header.Get("RateLimit") != "" {
		t.Error("a device's own registration is limited")
	}
	w.do(call{"POST", "/v1/devices", p.key, iphone("two"), nil}).refused(403, "not_this_device")
	w.register(app.pk, iphone("two"))
	w.do(call{"POST", "/v1/devices", p.key, iphone("two"), nil}).refused(403, "not_this_device")
}

func TestRegisterWithABackendKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.register(app.sk, iphone("one"))
	var d device
	w.do(call{"POST", "/v1/devices", app.sk, iphone("one"), nil}).want(200).into(&d)
	if d.ID != p.id || d.Secret == "" || d.Secret == p.key {
		t.Fatal("a backend that registers a known installation gets its device a new key")
	}
	w.do(call{"GET", "/v1/device", d.Secret, nil, nil}).want(200)
	w.do(call{"GET", "/v1/device", p.key, nil, nil}).refused(401, "unknown_key")
}

func TestBadRegistrations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	const canary = "c4n4ry/c4n4ry/c4n4ry"
	for name, c := range map[string]struct {
		change  obj
		code    string
		pointer string
	}{
		"no installation":        {obj{"installation_id": nil}, "invalid_body", "/installation_id"},
		"empty installation":     {obj{"installation_id": ""}, "invalid_body", "/installation_id"},
		"spaces":                 {obj{"installation_id": "a b"}, "invalid_registration", "/installation_id"},
		"unknown platform":       {obj{"platform": "symbian"}, "invalid_body", "/platform"},
		"platform in capitals":   {obj{"platform": "IOS"}, "invalid_body", "/platform"},
		"unknown provider":       {obj{"provider": "pigeon"}, "invalid_body", "/provider"},
		"apple wakes no android": {obj{"platform": "android"}, "invalid_registration", "/provider"},
		"token not hex":          {obj{"token": canary}, "invalid_registration", "/token"},
		"token odd":              {obj{"token": appleToken[1:]}, "invalid_registration", "/token"},
		"token null":             {obj{"token": nil}, "invalid_body", "/token"},
		"token number":           {obj{"token": 1}, "invalid_body", "/token"},
		"token of nobody":        {obj{"provider": "none"}, "invalid_registration", "/token"},
		"environment of google":  {obj{"provider": "fcm", "token": googleToken, "environment": "sandbox"}, "invalid_registration", "/environment"},
		"unknown environment":    {obj{"environment": "moon"}, "invalid_body", "/environment"},
		"control in version":     {obj{"app_version": "1\u00002"}, "invalid_registration", "/app_version"},
		"locale with spaces":     {obj{"locale": "de AT"}, "invalid_registration", "/locale"},
		"long locale":            {obj{"locale": strings.Repeat("x", 36)}, "invalid_body", "/locale"},
	} {
		t.Run(name, func(t *testing.T) {
			body := iphone("bad")
			for k, v := range c.change {
				body[k] = v
			}
			a := w.do(call{"POST", "/v1/devices", app.pk, body, nil}).refused(422, c.code).points(c.pointer)
			if strings.Contains(string(a.body), canary) || strings.Contains(w.log.String(), canary) {
				t.Errorf("the token is repeated: %s", a.body)
			}
		})
	}
}

func TestRegistrationsAreLimited(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Registrations: api.Rate{PerSecond: 0.01, Burst: 2}}}.start(t)
	app := w.newApp()
	w.newPhone(app)
	p := w.newPhone(app)
	body := obj{"installation_id": "x", "platform": "other", "provider": "none"}
	a := w.do(call{"POST", "/v1/devices", app.pk, body, nil}).refused(429, "rate_limited")
	if a.header.Get("RateLimit") == "" {
		t.Error("no RateLimit")
	}
	w.register(app.sk, body)
	w.do(call{"GET", "/v1/device", p.key, nil, nil}).want(200)
}

func TestDeviceReadsAndChangesItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.register(app.pk, obj{"installation_id": "one", "platform": "ios", "provider": "apns"})
	var d device
	get := func() device {
		var d device
		w.do(call{"GET", "/v1/device", p.key, nil, nil}).want(200).into(&d)
		return d
	}
	if d = get(); d.ID != p.id || d.TokenState != "none" || d.Secret != "" || d.LastContactAt == nil {
		t.Errorf("got %+v", d)
	}
	before := w.heard.count(messages.HintToken)
	w.do(call{"PATCH", "/v1/device", p.key, obj{"token": appleToken, "environment": "sandbox", "from_the_future": 1}, nil}).want(200).into(&d)
	if d.TokenState != "active" || d.Environment != "sandbox" || !d.RegisteredAt.Equal(get().RegisteredAt) {
		t.Errorf("got %+v", d)
	}
	w.heard.until(t, messages.HintToken, before)
	first := d.RegisteredAt
	poll(t, func() bool { return time.Since(first) > 5*time.Millisecond })
	w.do(call{"PATCH", "/v1/device", p.key, obj{"token": appleToken}, nil}).want(200).into(&d)
	if !d.RegisteredAt.After(first) {
		t.Error("a refresh with the same token did not move registered_at")
	}
	w.heard.until(t, messages.HintToken, before+1)
	w.do(call{"PATCH", "/v1/device", p.key, obj{"locale": "en", "app_version": "9"}, nil}).want(200).into(&d)
	if d.Locale != "en" || d.AppVersion != "9" || d.TokenState != "active" {
		t.Errorf("got %+v", d)
	}
	if n := w.heard.count(messages.HintToken); n != before+2 {
		t.Errorf("a change without a token hinted too: %d", n)
	}
	w.do(call{"PATCH", "/v1/device", p.key, obj{}, nil}).want(200)
	w.do(call{"PATCH", "/v1/device", p.key, obj{"token": "zz"}, nil}).refused(422, "invalid_registration").points("/token")
	w.do(call{"PATCH", "/v1/device", p.key, obj{"environment": "sandbox"}, nil}).refused(422, "invalid_registration").points("/environment")
	w.do(call{"PATCH", "/v1/device", p.key, obj{"token": ""}, nil}).refused(422, "invalid_body").points("/token")
}

// TestUnknownFieldsInOtherCapitals: encoding/json would take "TOKEN" for "token", past the schema.
func TestUnknownFieldsInOtherCapitals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.register(app.pk, obj{"installation_id": "one", "platform": "ios", "provider": "apns", "TOKEN": appleToken})
	var d device
	w.do(call{"PATCH", "/v1/device", p.key, obj{"Token": appleToken, "LOCALE": "de"}, nil}).want(200).into(&d)
	if d.TokenState != "none" || d.Locale != "" {
		t.Errorf("an unknown field had an effect: %+v", d)
	}
}

func TestRotateSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.newPhone(w.newApp())
	lost := w.do(call{"POST", "/v1/device/rotate-secret", p.key, nil, nil}).want(200).text("secret")
	w.do(call{"GET", "/v1/device", p.key, nil, nil}).want(200) // the answer may have been lost: the old key goes on
	fresh := w.do(call{"POST", "/v1/device/rotate-secret", p.key, nil, nil}).want(200).text("secret")
	w.do(call{"GET", "/v1/device", fresh, nil, nil}).want(200)
	poll(t, func() bool { return w.do(call{"GET", "/v1/device", p.key, nil, nil}).status == 401 })
	w.do(call{"GET", "/v1/device", p.key, nil, nil}).refused(401, "unknown_key")
	w.do(call{"GET", "/v1/device", lost, nil, nil}).refused(401, "unknown_key")
	w.do(call{"GET", "/v1/device", fresh, nil, nil}).want(200)
}

func TestUnregister(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	message := w.send(app, p, 1)
	w.do(call{"DELETE", "/v1/device", p.key, nil, nil}).want(204)
	if h := w.heard.until(t, messages.HintGone, 0); string(h.Device) != p.id {
		t.Errorf("hinted %+v", h)
	}
	for _, x := range []call{
		{"GET", "/v1/device", p.key, nil, nil},
		{"DELETE", "/v1/device", p.key, nil, nil},
		{"GET", "/v1/inbox", p.key, nil, nil},
		{"POST", "/v1/inbox/acks", p.key, obj{"ids": []string{}}, nil},
		{"POST", "/v1/devices", p.key, iphone("x"), nil},
	} {
		w.do(x).refused(410, "device_unregistered")
	}
	w.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"device_id": p.id}, "data": 1}, nil}).refused(422, "device_unregistered").points("/to/device_id")
	var m sentMessage
	w.do(call{"GET", "/v1/messages/" + message, app.sk, nil, nil}).want(200).into(&m)
	if m.Counters["dropped"] != 1 {
		t.Errorf("counters %v", m.Counters)
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	one, two := w.newPhone(app), w.newPhone(app)
	// Names that need escaping must come out the same whether they are in a path or in a body.
	for path, name := range map[string]string{"anna": "anna", "a%2Fb": "a/b", "50%25": "50%", "%C3%B6l%20%3F": "öl ?", "a%2520b": "a%20b", "x+y": "x+y", "a@b.c:d": "a@b.c:d"} {
		t.Run(path, func(t *testing.T) {
			before := w.heard.count(messages.HintToken)
			w.do(call{"PUT", "/v1/users/" + path + "/devices/" + one.id, app.sk, nil, nil}).want(204)
			w.do(call{"PUT", "/v1/users/" + path + "/devices/" + two.id, app.sk, nil, nil}).want(204)
			w.heard.until(t, messages.HintToken, before+1)
			var d device
			w.do(call{"GET", "/v1/device", one.key, nil, nil}).want(200).into(&d)
			if d.UserID != name {
				t.Errorf("bound to %q, want %q", d.UserID, name)
			}
			var m accepted
			w.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"user_id": name}, "data": 1}, nil}).want(202).into(&m)
			if m.Recipients != 2 || m.Status != "accepted" {
				t.Errorf("got %+v", m)
			}
			w.do(call{"DELETE", "/v1/users/" + path + "/devices/" + one.id, app.sk, nil, nil}).want(204)
			w.do(call{"DELETE", "/v1/users/" + path + "/devices/" + two.id, app.sk, nil, nil}).want(204)
			w.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"user_id": name}, "data": 1}, nil}).want(202).into(&m)
			if m.Recipients != 0 || m.Status != "no_recipients" {
				t.Errorf("got %+v", m)
			}
		})
	}
	foreign := w.newPhone(w.newApp())
	w.do(call{"PUT", "/v1/users/anna/devices/" + foreign.id, app.sk, nil, nil}).refused(404, "device_not_found")
	w.do(call{"DELETE", "/v1/users/anna/devices/" + foreign.id, app.sk, nil, nil}).refused(404, "device_not_found")
	w.do(call{"PUT", "/v1/users/anna/devices/x", app.sk, nil, nil}).refused(404, "device_not_found")
	w.do(call{"PUT", "/v1/users/%00/devices/" + one.id, app.sk, nil, nil}).refused(422, "invalid_user")
	w.do(call{"PUT", "/v1/users/%FF/devices/" + one.id, app.sk, nil, nil}).refused(422, "invalid_user")
	w.do(call{"PUT", "/v1/users/" + strings.Repeat("x", 257) + "/devices/" + one.id, app.sk, nil, nil}).refused(422, "invalid_user")
}
