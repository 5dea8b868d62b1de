package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"rouse/api"
	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/tokens"
)

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	minted := regexp.MustCompile(`^req_[0-9a-f]{16}$`)
	for given, kept := range map[string]bool{
		"": false, "abc-123_x.y:z": true, strings.Repeat("x", 64): true, strings.Repeat("x", 65): false, "a b": false, "a\"b": false, "rouse_sk_123": false, "ö": false,
	} {
		a := w.do(call{"GET", "/nowhere", "", nil, map[string]string{"X-Request-Id": given}})
		got := a.header.Get("X-Request-Id")
		if kept && got != given || !kept && !minted.MatchString(got) {
			t.Errorf("given %q, got %q", given, got)
		}
		if !strings.Contains(w.log.String(), `"request_id":"`+got+`"`) {
			t.Errorf("%q is not in the log", got)
		}
	}
}

func TestAccessLineNamesTheCallerAndNoSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	w.do(call{"PUT", "/v1/users/anna-the-secret/devices/" + p.id, app.sk, nil, nil}).want(204)
	w.do(call{"GET", "/v1/device", p.key, nil, nil}).want(200)
	log := w.log.String()
	for _, want := range []string{`"operation":"bindUserDevice"`, `"app":"` + app.id + `"`, `"device":"` + p.id + `"`, `"status":204`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	for _, secret := range []string{app.sk, app.pk, p.key, adminKey, "anna-the-secret"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
}

// broken is a store in which everything fails in a given way.
type broken struct {
	api.Callers
	fail func() error
}

func (b broken) LookupKey(context.Context, ident.Key) (tokens.Key, error) {
	return tokens.Key{}, b.fail()
}

func TestTroubleInside(t *testing.T) {
	t.Parallel()
	const hidden = "the cause is for the log alone"
	for name, c := range map[string]struct {
		fail   func() error
		status int
		code   string
	}{
		"an error nobody foresaw": {func() error { return errors.New(hidden) }, 500, "internal"},
		"a panic":                 {func() error { panic(hidden) }, 500, "internal"},
		"too slow":                {func() error { return context.DeadlineExceeded }, 503, "unavailable"},
		"known trouble": {func() error {
			return fault.New(fault.Unavailable, "overloaded", "too much").Because(errors.New(hidden))
		}, 503, "overloaded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &syncBuffer{}
			a, err := api.New(api.Deps{Callers: broken{fail: c.fail}, Apps: testkit.Store(t), Log: slog.New(slog.NewJSONHandler(log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(a)
			defer server.Close()
			client := &client{t: t, base: server.URL, http: server.Client()}
			key := string(tokens.MintKey(tokens.SecretKey, "06000000000000000000000000"))
			got := client.do(call{"GET", "/v1/messages/x", key, nil, nil}).refused(c.status, c.code)
			if strings.Contains(string(got.body), hidden) {
				t.Errorf("the client learns the cause: %s", got.body)
			}
			if !strings.Contains(log.String(), got.problem().RequestID) || name != "too slow" && !strings.Contains(log.String(), hidden) {
				t.Errorf("the log lacks the cause or the id: %s", log)
			}
		})
	}
}

// TestNoSecretComesBack puts secrets wherever they may end up by mistake, and looks for them in answers and log.
func TestNoSecretComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	stray := string(tokens.MintKey(tokens.SecretKey, "06000000000000000000000000"))
	token := strings.Repeat("c4n4ryzz", 8)
	var calls []call
	for _, secret := range []string{stray, token} {
		quoted, _ := json.Marshal(secret)
		for _, body := range []string{
			string(quoted), `{` + string(quoted) + `:1}`, `{"token":` + string(quoted) + `}`, `{"token":` + string(quoted), `{"to":` + string(quoted) + `,"data":1}`,
			`{"to":{"device_id":` + string(quoted) + `},"data":1}`, `{"ids":` + string(quoted) + `}`, `{"up_to":` + string(quoted) + `}`, `{"name":[` + string(quoted) + `]}`,
			`{"kind":` + string(quoted) + `}`, `{"installation_id":"x","platform":` + string(quoted) + `,"provider":` + string(quoted) + `}`,
		} {
			for method, where := range map[string][2]string{
				"POST /v1/messages": {"POST", app.sk}, "PATCH /v1/device": {"PATCH", p.key}, "POST /v1/inbox/acks": {"POST", p.key},
				"POST /v1/devices": {"POST", app.pk}, "POST /v1/apps/" + app.id + "/keys": {"POST", adminKey}, "PUT /v1/apps/" + app.id + "/credentials/apns": {"PUT", adminKey},
			} {
				_, path, _ := strings.Cut(method, " ")
				calls = append(calls, call{where[0], path, where[1], body, nil})
			}
		}
		calls = append(calls,
			call{"GET", "/v1/inbox?after=" + secret, p.key, nil, nil}, call{"GET", "/v1/inbox?wait=" + secret, p.key, nil, nil},
			call{"GET", "/v1/inbox/" + secret, p.key, nil, nil}, call{"GET", "/v1/apps?limit=" + secret, adminKey, nil, nil},
			call{"GET", "/" + secret, "", nil, nil}, call{"GET", "/v1/apps/" + secret, adminKey, nil, nil},
			call{"GET", "/v1/device", secret, nil, nil}, call{"PUT", "/v1/users/x/devices/" + secret, app.sk, nil, nil},
			call{"POST", "/v1/messages", app.sk, `{}`, map[string]string{"Idempotency-Key": secret, "X-Request-Id": stray}},
			call{"POST", "/v1/messages", app.sk, `{}`, map[string]string{"Content-Type": secret}},
		)
	}
	for _, x := range calls {
		a := w.do(x)
		if a.status >= 500 {
			t.Errorf("%s %s %v: status %d", x.method, x.path, x.body, a.status)
		}
		for _, secret := range []string{stray, token} {
			if strings.Contains(string(a.body), secret) || strings.Contains(a.header.Get("X-Request-Id"), secret) {
				t.Errorf("%s %s %v: the answer repeats the secret: %s", x.method, x.path, x.body, a.body)
			}
		}
	}
	for _, secret := range []string{stray, token} {
		if strings.Contains(w.log.String(), secret) {
			t.Error("the log holds the secret")
		}
	}
}

var _ http.Handler = (*api.API)(nil)
