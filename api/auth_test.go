package api_test

import (
	"strings"
	"testing"
	"time"

	"rouse/api"
	"rouse/tokens"
)

func TestKeysAtTheDoor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	device := w.newPhone(app)
	typo := flip(app.sk)
	stranger := string(tokens.MintKey(tokens.SecretKey, "06000000000000000000000000"))
	// The right id with another secret: only the hash tells.
	forged := string(tokens.MintKey(tokens.SecretKey, app.sk[len("rouse_sk_"):][:26]))
	crossed := string(tokens.MintKey(tokens.PublishableKey, app.sk[len("rouse_sk_"):][:26]))
	forgedDevice := string(tokens.MintKey(tokens.DeviceKey, device.key[len("rouse_dev_"):][:26]))
	for _, c := range []struct{ name, header, code string }{
		{"nothing", "", "unauthenticated"},
		{"no scheme", app.sk, "unauthenticated"},
		{"basic", "Basic " + app.sk, "unauthenticated"},
		{"empty bearer", "Bearer ", "unauthenticated"},
		{"typo", "Bearer " + typo, "bad_key"},
		{"cut short", "Bearer " + app.sk[:40], "bad_key"},
		{"words", "Bearer open sesame", "bad_key"},
		{"admin with a space", "Bearer " + adminKey + " x", "bad_key"},
		{"never given out", "Bearer " + stranger, "unknown_key"},
		{"forged", "Bearer " + forged, "unknown_key"},
		{"crossed", "Bearer " + crossed, "unknown_key"},
		{"forged device", "Bearer " + forgedDevice, "unknown_key"},
		{"device never made", "Bearer " + string(tokens.MintKey(tokens.DeviceKey, "06000000000000000000000000")), "unknown_key"},
		{"well-spelt admin", "Bearer " + string(tokens.MintKey(tokens.AdminKey, "06000000000000000000000000")), "unknown_key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := w.do(call{"GET", "/v1/device", "", nil, map[string]string{"Authorization": c.header}}).refused(401, c.code)
			if secret := strings.TrimPrefix(c.header, "Bearer "); len(secret) > 12 && strings.Contains(string(a.body), secret) {
				t.Errorf("the answer repeats the key: %s", a.body)
			}
		})
	}
	if strings.Contains(w.log.String(), app.sk) || strings.Contains(w.log.String(), typo) || strings.Contains(w.log.String(), adminKey) {
		t.Error("the log holds a key")
	}
	w.do(call{"GET", "/v1/device", "", nil, map[string]string{"Authorization": "bearer " + device.key}}).want(200)
}

// flip changes one character of the secret part.
func flip(key string) string {
	i := len(key) - 20
	c := byte('a')
	if key[i] == c {
		c = 'b'
	}
	return key[:i] + string(c) + key[i+1:]
}

func TestAnyWordsAdminister(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do(call{"GET", "/v1/apps", adminKey, nil, nil}).want(200)
	w.do(call{"GET", "/v1/apps", adminKey + "x", nil, nil}).refused(401, "bad_key")
}

func TestWithoutAnAdminKeyNobodyAdministers(t *testing.T) {
	t.Parallel()
	w := setup{noAdmin: true}.start(t)
	w.do(call{"GET", "/v1/apps", adminKey, nil, nil}).refused(401, "bad_key")
	w.do(call{"GET", "/v1/apps", "", nil, nil}).refused(401, "unauthenticated")
}

func TestScopes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	device := w.newPhone(app)
	message := w.send(app, device, 1)
	calls := map[string]call{
		"send":    {"POST", "/v1/messages", "", obj{"to": obj{"device_id": device.id}, "data": 1}, nil},
		"devices": {"PUT", "/v1/users/anna/devices/" + device.id, "", nil, nil},
		"read":    {"GET", "/v1/messages/" + message, "", nil, nil},
		"events":  {"GET", "/v1/events", "", nil, nil},
	}
	scopes := map[string]string{"send": "send", "devices": "devices", "read": "read", "events": "read"}
	for _, have := range []string{"send", "devices", "read"} {
		key := w.do(call{"POST", "/v1/apps/" + app.id + "/keys", adminKey, obj{"kind": "secret", "scopes": []string{have}}, nil}).want(201).text("key")
		for need, x := range calls {
			x.key = key
			if a := w.do(x); scopes[need] == have && a.status >= 300 {
				t.Errorf("scope %s was refused: %s", have, a.body)
			} else if scopes[need] != have {
				a.refused(403, "missing_scope")
			}
		}
	}
}

func TestExpiredKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	made := w.do(call{"POST", "/v1/apps/" + app.id + "/keys", adminKey, obj{"kind": "secret", "expires_in": 1}, nil}).want(201)
	ends, err := time.Parse(time.RFC3339, made.text("expires_at"))
	if err != nil {
		t.Fatal(err)
	}
	x := call{"GET", "/v1/messages/msg_00000000000000000000000000", made.text("key"), nil, nil}
	if a := w.do(x); time.Now().Before(ends) { // so it was when the key was looked at
		a.refused(404, "message_not_found")
	}
	poll(t, func() bool { return w.do(x).status == 401 })
	w.do(x).refused(401, "expired_key")
}

// poll asks until ok, on a ticker, for up to ten seconds: for what changes with the clock alone.
func poll(t testing.TB, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it did not happen within 10 s")
		}
	}
}

func TestRevokedKeyEndsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	made := w.do(call{"POST", "/v1/apps/" + app.id + "/keys", adminKey, obj{"kind": "secret"}, nil}).want(201)
	x := call{"GET", "/v1/messages/msg_00000000000000000000000000", made.text("key"), nil, nil}
	w.do(x).refused(404, "message_not_found") // now it is in the cache
	w.do(call{"DELETE", "/v1/apps/" + app.id + "/keys/" + made.text("id"), adminKey, nil, nil}).want(204)
	w.do(x).refused(401, "unknown_key")
}

func TestDeletedAppEndsItsKeysAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	device := w.newPhone(app)
	message := w.send(app, device, 1)
	w.do(call{"DELETE", "/v1/apps/" + app.id, adminKey, nil, nil}).want(204)
	w.do(call{"GET", "/v1/messages/" + message, app.sk, nil, nil}).refused(401, "unknown_key")
	if a := w.do(call{"GET", "/v1/device", device.key, nil, nil}); a.status != 401 && a.status != 410 {
		t.Errorf("the device of a deleted app got %d", a.status)
	}
	w.do(call{"GET", "/v1/apps/" + app.id, adminKey, nil, nil}).refused(404, "app_not_found")
}

func TestFailedAuthenticationIsLimitedButGoodKeysPass(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{FailedAuth: api.Rate{PerSecond: 0.01, Burst: 3}}}.start(t)
	app := w.newApp()
	for range 3 {
		w.do(call{"GET", "/v1/device", flip(app.sk), nil, nil}).refused(401, "bad_key")
	}
	a := w.do(call{"GET", "/v1/device", flip(app.sk), nil, nil}).refused(429, "rate_limited")
	if got := a.header.Get("RateLimit-Policy"); got != `"failed-auth";q=3;w=300` {
		t.Errorf("RateLimit-Policy: %s", got)
	}
	if got := a.header.Get("RateLimit"); !strings.HasPrefix(got, `"failed-auth";r=0;t=`) {
		t.Errorf("RateLimit: %s", got)
	}
	w.newPhone(app)
}
