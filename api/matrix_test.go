package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rouse/api"
	"rouse/ident"
	"rouse/tokens"
)

// TestWhoMayDoWhat calls every operation of the contract with every kind of key, and with what belongs to others.
func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{FailedAuth: api.Rate{PerSecond: 1, Burst: 10000}}}.start(t)
	dead := w.deadKeys()
	t.Run("all", func(t *testing.T) {
		for _, m := range methods(t) {
			t.Run(m.id, func(t *testing.T) {
				t.Parallel()
				own := *w
				own.client = &client{t: t, base: w.base, http: w.http}
				own.nobodyElse(m, dead)
				own.nothingOfOthers(m)
				own.theRightful(m)
			})
		}
	})
	t.Logf("%d calls", calls.Load())
}

// deadKeys are keys that nobody has, or has any more, and what is said to whoever shows one.
func (w *world) deadKeys() map[string]string {
	w.t.Helper()
	s := w.scene()
	revoked := s.do(call{"POST", "/v1/apps/" + s.app.id + "/keys", adminKey, obj{"kind": "secret"}, nil}).want(201)
	w.do(call{"DELETE", "/v1/apps/" + s.app.id + "/keys/" + revoked.text("id"), adminKey, nil, nil}).want(204)
	dead := map[string]string{"": "unauthenticated", "garbage": "bad_key", flip(s.app.sk): "bad_key", flip(s.app.pk): "bad_key", revoked.text("key"): "unknown_key"}
	for _, kind := range []tokens.KeyKind{tokens.SecretKey, tokens.PublishableKey} {
		k := tokens.Key{ID: ident.NewKey(), App: ident.App(s.app.id), Kind: kind, Scopes: tokens.AllScopes(), CreatedAt: time.Now().Add(-time.Hour), ExpiresAt: time.Now().Add(-time.Minute)}
		secret := tokens.MintKey(kind, strings.TrimPrefix(string(k.ID), ident.KeyPrefix))
		k.Hash = tokens.HashOf(secret)
		if err := w.store.AddKey(w.t.Context(), k); err != nil {
			w.t.Fatal(err)
		}
		dead[string(secret)] = "expired_key"
	}
	s.value("device_id")
	old := s.device.key
	next := w.do(call{"POST", "/v1/device/rotate-secret", old, nil, nil}).want(200).text("secret")
	w.do(call{"GET", "/v1/device", next, nil, nil}).want(200)
	poll(w.t, func() bool { return w.do(call{"GET", "/v1/device", old, nil, nil}).status == 401 })
	dead[old] = "unknown_key"
	gone := w.newPhone(s.app)
	w.do(call{"DELETE", "/v1/device", gone.key, nil, nil}).want(204)
	dead[gone.key] = "device_unregistered"
	return dead
}

// nobodyElse calls with every key that is not the rightful one's: nothing is told, nothing is done, and no body is read.
func (w *world) nobodyElse(m method, dead map[string]string) {
	w.t.Helper()
	s := w.scene()
	s.need(m)
	for key, code := range dead {
		status := 401
		if code == "device_unregistered" {
			status = 410
			if !slices.Contains(m.takes, "deviceKey") {
				status, code = 403, "wrong_key_kind"
			}
		}
		s.call(m, key, s.value).refused(status, code)
	}
	s.value("device_id")
	kinds := map[string]string{"adminKey": adminKey, "secretKey": s.app.sk, "publishableKey": s.app.pk, "deviceKey": s.device.key}
	for kind, key := range kinds {
		if !slices.Contains(m.takes, kind) {
			s.call(m, key, s.value).refused(403, "wrong_key_kind")
		}
	}
	if m.scope != "" {
		lacking := s.keyWith(slices.DeleteFunc(tokens.AllScopes(), func(x tokens.Scope) bool { return x == m.scope })...)
		if detail := s.call(m, lacking, s.value).refused(403, "missing_scope").problem().Detail; !strings.Contains(detail, `"`+string(m.scope)+`"`) {
			w.t.Errorf("it lacks %s: %s", m.scope, detail)
		}
	}
	if m.attempt.body != "" {
		text := "%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n"
		if status := w.raw(fmt.Sprintf(text, m.method, s.fill(m.path, s.value))); status != 401 {
			w.t.Errorf("a body that did not come was waited for: %d", status)
		}
	}
}

// need makes all that a call speaks of, or needs.
func (s *scene) need(m method) {
	s.t.Helper()
	for _, name := range m.attempt.needs {
		s.value(name)
	}
	s.fill(m.path+m.attempt.query+m.attempt.body, s.value)
}

// nothingOfOthers: what belongs to another app, or another device, is answered as what nobody has, and stays as it is.
func (w *world) nothingOfOthers(m method) {
	w.t.Helper()
	s := w.scene()
	s.need(m)
	key := s.rightful(m)[0]
	others := []*scene{w.scene()}
	if slices.Contains(m.takes, "deviceKey") {
		others = append(others, s.sibling())
	}
	for _, found := range named.FindAllStringSubmatch(m.path+m.attempt.query+m.attempt.body, -1) {
		name := found[1]
		unknown, ok := owned[name]
		if !ok {
			continue
		}
		for i, other := range others {
			if i > 0 && !slices.Contains(ofDevice, name) {
				continue // the rest is the app's
			}
			theirs := other.value(name)
			before := other.snapshot()
			got := other.asked(m, s, key, name, theirs)
			want := other.asked(m, s, key, name, unknown)
			if got != want {
				w.t.Errorf("{%s} of another is answered\n%s\nand of nobody\n%s", name, got, want)
			}
			if after := other.snapshot(); after != before {
				w.t.Errorf("{%s} of another was\n%s\nand is\n%s", name, before, after)
			}
		}
	}
}

var (
	requestIDs = regexp.MustCompile(`"request_id":"[^"]*"`)
	freshIDs   = regexp.MustCompile(`\b(app_|dev_|msg_|key_|whk_|evt_|rouse_dev_|installation-)[0-9a-v]+\b`)
	times      = regexp.MustCompile(`"[0-9-]{10}T[0-9:.]+Z"`)
	contacts   = regexp.MustCompile(`"last_(contact|used)_at":"[^"]*",?`)
)

// asked is what s is answered with another value for one name, but for that value, the request's id and, where something was made, what is new in it.
func (*scene) asked(m method, s *scene, key, name, value string) string {
	s.t.Helper()
	a := s.call(m, key, func(n string) string {
		if n == name {
			return value
		}
		return s.value(n)
	})
	body := strings.ReplaceAll(requestIDs.ReplaceAllString(string(a.body), `"request_id":""`), value, "VALUE")
	if a.status < 400 {
		body = times.ReplaceAllString(freshIDs.ReplaceAllString(body, "$1"), `"TIME"`)
	}
	return fmt.Sprint(a.status, " ", body)
}

// snapshot is what there is of a scene, as its own backend sees it.
func (s *scene) snapshot() string {
	s.t.Helper()
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.made)) {
		path := map[string]string{
			"device_id": "/v1/devices/", "message_id": "/v1/messages/", "webhook_id": "/v1/webhooks/", "user": "/v1/users/", "topic": "/v1/topics/",
		}[name]
		x := call{"GET", path + s.made[name], s.app.sk, nil, nil}
		switch {
		case name == "key_id":
			x = call{"GET", "/v1/apps/" + s.app.id + "/keys", adminKey, nil, nil}
		case name == "kid":
			x = call{"GET", "/v1/apps/" + s.app.id + "/identity-keys", adminKey, nil, nil}
		case path == "":
			continue
		}
		fmt.Fprintf(&all, "%s: %s\n", name, contacts.ReplaceAllString(string(s.do(x).want(200).body), ""))
	}
	return all.String()
}

// rightful are the keys that may call, of each kind one; a secret one has the one scope alone.
func (s *scene) rightful(m method) (keys []string) {
	s.t.Helper()
	for _, kind := range m.takes {
		switch kind {
		case "adminKey":
			keys = append(keys, adminKey)
		case "secretKey":
			keys = append(keys, s.keyWith(m.scope))
		case "publishableKey":
			keys = append(keys, s.app.pk)
		case "deviceKey":
			s.value("device_id")
			keys = append(keys, s.device.key)
		}
	}
	return keys
}

// theRightful may do it, with each kind of key, and a secret one of all scopes too.
func (w *world) theRightful(m method) {
	w.t.Helper()
	for i := range m.takes {
		s := w.scene()
		s.need(m)
		key := s.rightful(m)[i]
		if m.takes[i] == "deviceKey" {
			s.made["installation"] = s.installation // the key of a device registers that one
		}
		w.succeeds(m, s.call(m, key, s.value))
	}
	if m.scope != "" {
		s := w.scene()
		s.need(m)
		w.succeeds(m, s.call(m, s.app.sk, s.value))
	}
}

// succeeds: the whole of it, each part of a batch included.
func (w *world) succeeds(m method, a answer) {
	w.t.Helper()
	var parts struct{ Results []struct{ Status int } }
	_ = json.Unmarshal(a.body, &parts) // not every answer has any
	for _, part := range parts.Results {
		if part.Status >= http.StatusBadRequest {
			a.status = part.Status
		}
	}
	if a.status < 200 || a.status > 299 {
		w.t.Errorf("the rightful caller of %s is answered %d: %s", m.id, a.status, a.body)
	}
}
