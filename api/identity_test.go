package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

type identityKey struct {
	Kid         string    `json:"kid"`
	Algorithm   string    `json:"algorithm"`
	Fingerprint string    `json:"fingerprint"`
	CreatedAt   time.Time `json:"created_at"`
}

// TestIdentityKeysComeAndGo without ever being shown.
func TestIdentityKeysComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	path := "/v1/apps/" + app.id + "/identity-keys"
	list := func(of tenant) []identityKey {
		var l struct {
			IdentityKeys []identityKey `json:"identity_keys"`
		}
		w.do(call{"GET", "/v1/apps/" + of.id + "/identity-keys", adminKey, nil, nil}).want(200).into(&l)
		if l.IdentityKeys == nil {
			t.Error("null is no list")
		}
		return l.IdentityKeys
	}
	if got := list(app); len(got) != 0 {
		t.Errorf("a new app has %+v", got)
	}
	const canary = "canary-of-at-least-32-characters"
	var made, next identityKey
	a := w.do(call{"PUT", path + "/2030-01", adminKey, obj{"algorithm": "HS256", "secret": canary}, nil}).want(200)
	a.into(&made)
	if made.Kid != "2030-01" || made.Algorithm != "HS256" || made.Fingerprint == "" || time.Since(made.CreatedAt) > time.Minute {
		t.Errorf("made %+v", made)
	}
	w.newBackend(app, "b")
	if got := list(app); len(got) != 2 || got[0] != made || got[1].Algorithm != "EdDSA" {
		t.Errorf("listed %+v", got)
	}
	w.do(call{"PUT", path + "/2030-01", adminKey, obj{"algorithm": "HS256", "secret": canary + "2"}, nil}).want(200).into(&next)
	if next.Fingerprint == made.Fingerprint || len(list(app)) != 2 || len(list(other)) != 0 {
		t.Errorf("made %+v", next)
	}
	if strings.Contains(string(a.body)+w.log.String(), canary) {
		t.Error("the secret is told")
	}
	w.do(call{"DELETE", "/v1/apps/" + other.id + "/identity-keys/b", adminKey, nil, nil}).refused(404, "identity_key_not_found")
	w.do(call{"DELETE", path + "/b", adminKey, nil, nil}).want(204)
	w.do(call{"DELETE", path + "/b", adminKey, nil, nil}).refused(404, "identity_key_not_found")
	w.do(call{"PUT", path + "/b", app.sk, obj{"algorithm": "HS256", "secret": canary}, nil}).refused(403, "wrong_key_kind")
	for _, kid := range []string{"%2e%2e", "a%20b", "a%2Fb", "%00", "%FF", "%C3%B6", "a:b", strings.Repeat("x", 65)} {
		w.do(call{"PUT", path + "/" + kid, adminKey, obj{"algorithm": "HS256", "secret": canary}, nil}).refused(422, "invalid_identity_key")
		w.do(call{"DELETE", path + "/" + kid, adminKey, nil, nil}).refused(404, "identity_key_not_found")
	}
	for _, gone := range []string{"x", "app_00000000000000000000000000"} {
		w.do(call{"GET", "/v1/apps/" + gone + "/identity-keys", adminKey, nil, nil}).refused(404, "app_not_found")
		w.do(call{"PUT", "/v1/apps/" + gone + "/identity-keys/a", adminKey, obj{"algorithm": "HS256", "secret": canary}, nil}).refused(404, "app_not_found")
		w.do(call{"DELETE", "/v1/apps/" + gone + "/identity-keys/a", adminKey, nil, nil}).want(404)
	}
}

func TestBadIdentityKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/apps/" + app.id + "/identity-keys/a"
	private := signingKey(t)
	for i, bad := range []struct {
		body          obj
		code, pointer string
	}{
		{obj{}, "invalid_body", "/algorithm"},
		{obj{"algorithm": "none"}, "invalid_body", "/algorithm"},
		{obj{"algorithm": "hs256", "secret": strings.Repeat("x", 32)}, "invalid_body", "/algorithm"},
		{obj{"algorithm": "HS256", "secret": strings.Repeat("x", 31)}, "invalid_body", "/secret"},
		{obj{"algorithm": "HS256"}, "invalid_identity_key", "/secret"},
		{obj{"algorithm": "ES256", "public_key": private}, "invalid_identity_key", "/public_key"},
		{obj{"algorithm": "HS256", "secret": private}, "invalid_identity_key", "/secret"},
		{obj{"algorithm": "ES256", "public_key": "x", "private_key": "x"}, "invalid_body", "/private_key"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			a := w.do(call{"PUT", path, adminKey, bad.body, nil}).refused(422, bad.code).points(bad.pointer)
			if line := strings.Split(private, "\n")[1]; strings.Contains(string(a.body)+w.log.String(), line) {
				t.Error("the private key is repeated")
			}
		})
	}
	for i := range 20 {
		w.newBackend(app, fmt.Sprint("k", i))
	}
	full := obj{"algorithm": "HS256", "secret": strings.Repeat("x", 32)}
	w.do(call{"PUT", path, adminKey, full, nil}).refused(422, "too_many_identity_keys")
	w.do(call{"PUT", path[:len(path)-1] + "k3", adminKey, full, nil}).want(200)
}
