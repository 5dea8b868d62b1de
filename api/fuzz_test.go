package api_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"rouse/api"
	"rouse/fault"
)

// fuzzed is a server that answers without sockets, for speed.
func fuzzed(f *testing.F) (*world, func(method, path, key, body string) *httptest.ResponseRecorder) {
	w := newWorld(f)
	return w, func(method, path, key, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+key)
		out := httptest.NewRecorder()
		w.api.ServeHTTP(out, r)
		return out
	}
}

// fine holds an answer to what any body and any query may get: never a 500, never a broken problem.
func fine(t *testing.T, out *httptest.ResponseRecorder) {
	t.Helper()
	if out.Code >= 500 {
		t.Fatalf("status %d: %s", out.Code, out.Body)
	}
	if out.Code >= 400 {
		var p problem
		if err := json.Unmarshal(out.Body.Bytes(), &p); err != nil || p.Code == "" || out.Header().Get("Content-Type") != "application/problem+json" {
			t.Fatalf("not a problem: %s", out.Body)
		}
	}
}

func FuzzMessageBody(f *testing.F) {
	w, ask := fuzzed(f)
	app := w.newApp()
	p := w.newPhone(app)
	for _, seed := range []string{
		`{"to":{"device_id":"` + p.id + `"},"data":{"a":[1,2.5e3,"x",null,true]},"ttl":60,"urgency":"low","collapse_key":"k","notification":{"title":"t","body":"b"},"correlation_id":"c"}`,
		`{"to":{"user_id":"anna"},"data":null}`, `{"to":{"user_id":"\ud800"},"data":1}`, `{"to":{"user_id":"a"},"to":{"device_id":"b"},"data":1}`, `{"to":{"user_id":"a"},"data":1,"ttl":1e400}`,
		`{"data":1}`, `[]`, ``, "\xff", `{"to":{"user_id":"a"},"data":1,"data":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `}`, `{"to":{"user_id":"a"},"data":1,"ttl":-0.0}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		out := ask("POST", "/v1/messages", app.sk, body)
		fine(t, out)
		if out.Code == http.StatusAccepted && !json.Valid([]byte(body)) {
			t.Fatalf("accepted what is not JSON: %q", body)
		}
		// Whatever was accepted must come out as JSON, or the device can read nothing.
		if page := ask("GET", "/v1/inbox?limit=1", p.key, ""); page.Code == 200 {
			var read inboxPage
			if err := json.Unmarshal(page.Body.Bytes(), &read); err != nil {
				t.Fatalf("%v: %s", err, page.Body)
			}
			fine(t, ask("GET", "/v1/inbox?limit=1&ack="+read.Cursor, p.key, ""))
		}
	})
}

func FuzzDeviceBody(f *testing.F) {
	w, ask := fuzzed(f)
	app := w.newApp()
	p := w.newPhone(app)
	for _, seed := range []string{
		`{"installation_id":"x","platform":"ios","provider":"apns","token":"` + appleToken + `","environment":"sandbox","locale":"de-AT","app_version":"1"}`,
		`{"installation_id":"y","platform":"android","provider":"fcm","token":"` + googleToken + `"}`, `{"token":"00"}`, `{"ids":["msg_00000000000000000000000000"]}`, `{"up_to":"AAAAAAAAAAA"}`, `{"ids":[],"IDS":1}`, `{"installation_id":"\u0000"}`,
		`{"priority":"normal","original_priority":"high"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		fine(t, ask("POST", "/v1/devices", app.sk, body))
		fine(t, ask("PATCH", "/v1/device", p.key, body))
		fine(t, ask("POST", "/v1/inbox/acks", p.key, body))
		fine(t, ask("POST", "/v1/device/push-reports", p.key, body))
	})
}

func FuzzAdminBody(f *testing.F) {
	w, ask := fuzzed(f)
	app := w.newApp()
	for _, seed := range []string{
		`{"name":"x","inbox_overflow":"drop_oldest"}`, `{"kind":"secret","scopes":["send"],"expires_in":1e8}`, `{"team_id":"ABCDE12345","key_id":"KEY1234567","private_key":"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----","topic":"a.b"}`,
		`{"service_account":{"type":"service_account","project_id":"p","private_key":"x","client_email":"a@b.c"}}`, `{"topic":"x","certificate":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----","certificate_key":"x"}`, `{"topic":"x","placeholder":{"locales":{"de":{"body":"x"}}}}`,
		`{"topic":"x.y","certificate_p12":"MIIB","certificate_password":"x"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		fine(t, ask("PATCH", "/v1/apps/"+app.id, adminKey, body))
		fine(t, ask("POST", "/v1/apps/"+app.id+"/keys", adminKey, body))
		fine(t, ask("PUT", "/v1/apps/"+app.id+"/credentials/apns", adminKey, body))
		fine(t, ask("PUT", "/v1/apps/"+app.id+"/credentials/fcm", adminKey, body))
	})
}

func FuzzInboxQuery(f *testing.F) {
	w, _ := fuzzed(f)
	app := w.newApp()
	p := w.newPhone(app)
	w.send(app, p, 1)
	cursor := w.inbox(p, "").Cursor
	for _, seed := range []string{"limit=1&after=" + cursor, "ack=" + cursor, "after=&limit=0", "wait=0", "limit=99999999999999999999", "%zz", "a;b", "after=%00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err == nil && q.Get("wait") != "0" {
			q.Del("wait") // a poll that waits only costs time here
			query = q.Encode()
		}
		r := httptest.NewRequest("GET", "/v1/inbox", nil)
		r.URL.RawQuery = query
		r.Header.Set("Authorization", "Bearer "+p.key)
		out := httptest.NewRecorder()
		w.api.ServeHTTP(out, r)
		fine(t, out)
	})
}

func FuzzEventQuery(f *testing.F) {
	w, ask := fuzzed(f)
	app := w.newApp()
	w.throttle(app, 2)
	for _, seed := range []string{"limit=1&after=e1", "after=&limit=0", "after=ezzz", "after=e-1", "after=e%00", "%zz", "a;b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		fine(t, ask("GET", "/v1/events?"+q.Encode(), app.sk, ""))
	})
}

func FuzzPathAndKey(f *testing.F) {
	w, _ := fuzzed(f)
	app := w.newApp()
	f.Add("/v1/users/a%2Fb/devices/dev_00000000000000000000000000", app.sk, "x")
	f.Add("/v1/messages/msg_00000000000000000000000000", app.sk, "x")
	f.Add("/v1/apps/app_00000000000000000000000000/keys/x", adminKey, "rouse_sk_x")
	f.Fuzz(func(t *testing.T, path, key, id string) {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			r := httptest.NewRequest(method, "/", nil)
			r.URL = &url.URL{Path: path}
			r.Header.Set("Authorization", "Bearer "+key)
			r.Header.Set("X-Request-Id", id)
			out := httptest.NewRecorder()
			w.api.ServeHTTP(out, r)
			fine(t, out)
		}
	})
}

// FuzzCheckBody compares what is checked with what is decoded: the same bytes give the same verdict twice, and
// what comes out is valid, and of fields the contract knows.
func FuzzCheckBody(f *testing.F) {
	w := newWorld(f)
	f.Add("sendMessage", []byte(`{"to":{"user_id":"a"},"data":{"a":1}}`))
	f.Add("registerDevice", []byte(`{"installation_id":"x","platform":"ios","provider":"apns","extra":1}`))
	f.Fuzz(func(t *testing.T, operation string, raw []byte) {
		if operation != "sendMessage" && operation != "registerDevice" && operation != "ackMessages" {
			return
		}
		out, err := api.CheckBody(w.api, operation, raw)
		if err != nil {
			if kind := fault.KindOf(err); kind != fault.Malformed && kind != fault.Invalid {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := api.CheckBody(w.api, operation, out)
		if err != nil || !bytes.Equal(out, again) {
			t.Fatalf("%q became %q, and that %q, %v", raw, out, again, err)
		}
	})
}
