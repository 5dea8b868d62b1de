package sim_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"rouse/providers/sim"
)

func TestFCMDeliversExactly(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	sent := g.message(`,"android":{"priority":"HIGH","ttl":"3600s","direct_boot_ok":true}`)
	got := g.send(sent)
	if got.status != 200 || !regexp.MustCompile(`"projects/demo-project/messages/0:\d+%[0-9a-f]{16}"`).MatchString(got.body) {
		t.Fatalf("%+v", got)
	}
	pushes := s.Pushes(g.token)
	if len(pushes) != 1 || string(pushes[0].Body) != sent || pushes[0].Kind != "high" || pushes[0].Provider != sim.FCM || pushes[0].Token != g.token {
		t.Fatalf("%+v", pushes)
	}
	if _, leaked := pushes[0].Headers["authorization"]; leaked || pushes[0].Headers["content-type"] != "application/json" {
		t.Errorf("headers %v", pushes[0].Headers)
	}
	stats := s.Stats()
	if stats.FCM.Accepted != 1 || stats.Token.Requests != 1 || stats.Token.Accepted != 1 || stats.FCM.ConnectionsOpened != 1 || stats.FCM.DistinctJWTs != 1 {
		t.Errorf("%+v", stats)
	}
	for _, e := range s.Log() {
		text, _ := json.Marshal(e)
		if strings.Contains(string(text), g.bearer) {
			t.Errorf("the log shows the access token: %s", text)
		}
	}
}

func TestFCMKinds(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	for more, want := range map[string]string{
		``:                                 "normal",
		`,"android":{"priority":"normal"}`: "normal",
		`,"android":{"priority":"high"}`:   "high",
		`,"notification":{"title":"T"}`:    "high",
		`,"apns":{"headers":{"apns-priority":"10"},"payload":{"aps":{}}}`:                                                          "high",
		`,"apns":{"headers":{"apns-priority":"5"}}`:                                                                                "normal",
		`,"android":{"directBootOk":true,"collapseKey":"k"},"fcmOptions":{"analyticsLabel":"x"},"webpush":{"headers":{"TTL":"1"}}`: "normal",
	} {
		if got := g.send(g.message(more)); got.status != 200 {
			t.Errorf("%s: %+v", more, got)
			continue
		}
		pushes := s.Pushes(g.token)
		if got := pushes[len(pushes)-1].Kind; got != want {
			t.Errorf("%s is %s, want %s", more, got, want)
		}
	}
}

func TestFCMDryRunAndTopicsReachNobody(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	got := g.send(strings.Replace(g.message(""), "{", `{"validate_only":true,`, 1))
	if got.status != 200 || !strings.Contains(got.body, "projects/demo-project/messages/fake_message_id") {
		t.Errorf("%+v", got)
	}
	for _, target := range []string{`"topic":"news"`, `"condition":"'a' in topics"`} {
		if got := g.send(`{"message":{` + target + `}}`); got.status != 200 {
			t.Errorf("%s: %+v", target, got)
		}
	}
	if n := len(s.Pushes(g.token)); n != 0 {
		t.Errorf("%d pushes", n)
	}
}

// TestFCMRefuses has a row for each check of messages:send.
func TestFCMRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	foreign := s.NewFCMToken("other-project")
	dead := s.NewFCMToken(project)
	s.KillToken(dead, time.Now())
	gone := "d" + strings.Repeat("x", 20) + ":APA91b" + strings.Repeat("y", 134)
	for name, row := range map[string]struct {
		body      string
		status    int
		word      string
		errorCode string
		first     string // the end of the first detail's type
		field     string // of the first violation
	}{
		"not JSON":          {`{`, 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", ""},
		"an array":          {`[]`, 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", ""},
		"unknown field":     {g.message(`,"colour":"red"`), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message"},
		"capital field":     {g.message(`,"Android":{}`), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message"},
		"data not a string": {strings.Replace(g.message(""), `"1"`, `1`, 1), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message.data"},
		"no message":        {`{}`, 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message.token"},
		"no target":         {`{"message":{}}`, 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message.token"},
		"two targets":       {g.message(`,"topic":"x"`), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message.token"},
		"priority":          {g.message(`,"android":{"priority":"URGENT"}`), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message.android.priority"},
		"ttl":               {g.message(`,"android":{"ttl":"1h"}`), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message.android.ttl"},
		"ttl too long":      {g.message(`,"android":{"ttl":"2419201s"}`), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message.android.ttl"},
		"reserved key":      {strings.Replace(g.message(""), `"rouse"`, `"from"`, 1), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message.data"},
		"google key":        {strings.Replace(g.message(""), `"rouse"`, `"google.x"`, 1), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message.data"},
		"android data key":  {g.message(`,"android":{"data":{"gcm.x":"1"}}`), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", "message.android.data"},
		"too large":         {strings.Replace(g.message(""), `"1"`, `"`+strings.Repeat("x", 4092)+`"`, 1), 400, "INVALID_ARGUMENT", "", "", ""},
		"malformed token":   {`{"message":{"token":"not-a-token"}}`, 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "FcmError", ""},
		"another project's": {`{"message":{"token":"` + foreign + `"}}`, 403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", "FcmError", ""},
		"dead":              {`{"message":{"token":"` + dead + `"}}`, 404, "NOT_FOUND", "UNREGISTERED", "FcmError", ""},
		"never registered":  {`{"message":{"token":"` + gone + `"}}`, 404, "NOT_FOUND", "UNREGISTERED", "FcmError", ""},
	} {
		got := g.send(row.body)
		f := got.failure(t)
		first, field := "", ""
		if len(f.Error.Details) > 0 {
			first = f.Error.Details[0]["@type"].(string)
			if violations, ok := f.Error.Details[0]["fieldViolations"].([]any); ok {
				field, _ = violations[0].(map[string]any)["field"].(string)
			}
		}
		if got.status != row.status || f.Error.Code != row.status || f.Error.Status != row.word || f.errorCode() != row.errorCode ||
			!strings.HasSuffix(first, row.first) || field != row.field || (row.first == "") != (first == "") {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if n := len(s.Pushes(g.token)) + len(s.Pushes(foreign)) + len(s.Pushes(dead)); n != 0 {
		t.Errorf("%d refused messages reached a phone", n)
	}
}

func TestFCMTakesTheLimit(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, start(t, sim.Options{}))
	if got := g.send(strings.Replace(g.message(`,"android":{"ttl":"2419200s"}`), `"1"`, `"`+strings.Repeat("x", 4091)+`"`, 1)); got.status != 200 {
		t.Errorf("%+v", got)
	}
}

// TestFCMChecksTheCallerFirst sends nonsense: who may not send learns nothing else.
func TestFCMChecksTheCallerFirst(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	s.NewServiceAccount("other-project")
	good := g.bearer
	check := func(name, to string, status int, word string) {
		t.Helper()
		got := g.post(g.base+"/projects/"+to+"/messages:send", "application/json", `{`)
		f := got.failure(t)
		if got.status != status || f.Error.Status != word || f.errorCode() != "" {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	check("unknown project", "no-such-project", 404, "NOT_FOUND")
	check("another project", "other-project", 403, "PERMISSION_DENIED")
	if got := g.post(g.base+"/projects/other-project/messages:send", "application/json", `{}`); !strings.Contains(got.body, `"IAM_PERMISSION_DENIED"`) {
		t.Errorf("not in Google's word for a missing role: %s", got.body)
	}
	g.bearer = ""
	check("no bearer", project, 401, "UNAUTHENTICATED")
	g.bearer = "ya29.fake-nonsense"
	check("unknown bearer", project, 401, "UNAUTHENTICATED")
	g.bearer = good
	s.RevokeAccessTokens()
	check("revoked", project, 401, "UNAUTHENTICATED")
	g.bearer = g.login()
	if got := g.send(g.message("")); got.status != 200 {
		t.Errorf("a fresh access token: %+v", got)
	}
}

func TestFCMAccessTokensExpire(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, start(t, sim.Options{AccessTokenLife: 300 * time.Millisecond}))
	waitFor(t, "the access token expires", func() bool { return g.send(g.message("")).status == 401 })
}

func TestFCMOtherPathsAreHTML(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, start(t, sim.Options{}))
	for _, path := range []string{"/projects/demo-project/messages:batch", "/projects/demo-project", "/x"} {
		got := g.post(g.base+path, "application/json", "{}")
		if got.status != 404 || !strings.HasPrefix(got.header.Get("content-type"), "text/html") {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestFCMOverHTTP1(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	secure := &http.Transport{TLSClientConfig: trust(t, s), TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	plain := &http.Transport{}
	t.Cleanup(secure.CloseIdleConnections)
	t.Cleanup(plain.CloseIdleConnections)
	g := newGoogle(t, s)
	g.client = &http.Client{Transport: secure}
	if got := g.send(g.message("")); got.status != 200 {
		t.Errorf("%+v", got)
	}
	g.client, g.base, g.tokenURL = &http.Client{Transport: plain}, s.FCMPlainURL(), strings.TrimSuffix(s.FCMPlainURL(), "/v1")+"/token"
	g.bearer = g.login() // the audience is the plain address
	if got := g.send(g.message("")); got.status != 200 {
		t.Errorf("%+v", got)
	}
	if n := len(s.Pushes(g.token)); n != 2 {
		t.Errorf("%d pushes", n)
	}
}

func TestFCMScriptedAnswers(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	for _, row := range []struct {
		action          sim.Action
		status          int
		word, errorCode string
		also            string // the end of another detail's type
	}{
		{sim.Action{Reason: "UNREGISTERED"}, 404, "NOT_FOUND", "UNREGISTERED", ""},
		{sim.Action{Reason: "UNAVAILABLE", RetryAfter: "121"}, 503, "UNAVAILABLE", "UNAVAILABLE", ""},
		{sim.Action{Status: 503}, 503, "UNAVAILABLE", "", ""},
		{sim.Action{Reason: "INTERNAL"}, 500, "INTERNAL", "INTERNAL", ""},
		{sim.Action{Reason: "QUOTA_EXCEEDED", RetryAfter: "Wed, 21 Oct 2026 07:28:00 GMT"}, 429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "QuotaFailure"},
		{sim.Action{Reason: "QUOTA_EXCEEDED_DEVICE"}, 429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "QuotaFailure"},
		{sim.Action{Reason: "RATE_LIMIT_EXCEEDED"}, 429, "RESOURCE_EXHAUSTED", "", "ErrorInfo"},
		{sim.Action{Status: 429}, 429, "RESOURCE_EXHAUSTED", "", ""},
		{sim.Action{Reason: "UNAUTHENTICATED"}, 401, "UNAUTHENTICATED", "", ""},
		{sim.Action{Reason: "PERMISSION_DENIED"}, 403, "PERMISSION_DENIED", "", "ErrorInfo"},
		{sim.Action{Reason: "NOT_FOUND"}, 404, "NOT_FOUND", "", ""},
		{sim.Action{Reason: "THIRD_PARTY_AUTH_ERROR"}, 401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", "ApnsError"},
		{sim.Action{Reason: "SOMETHING_NEW"}, 400, "INVALID_ARGUMENT", "SOMETHING_NEW", ""},
	} {
		remove := s.AddRule(sim.Rule{Provider: sim.FCM, Action: row.action})
		got := g.send(g.message(""))
		remove()
		f := got.failure(t)
		also := row.also == ""
		for _, d := range f.Error.Details {
			also = also || strings.HasSuffix(d["@type"].(string), row.also)
		}
		if got.status != row.status || f.Error.Status != row.word || f.errorCode() != row.errorCode || !also || got.header.Get("retry-after") != row.action.RetryAfter {
			t.Errorf("%+v: %d %s", row.action, got.status, got.body)
		}
	}
	for _, row := range []struct {
		action     sim.Action
		body, kind string
	}{
		{sim.Action{Status: 404, Body: "<html>"}, "<html>", "text/html"},
		{sim.Action{Status: 200, Body: "<html>"}, "<html>", "text/html"},
		{sim.Action{Status: 200, Body: "{}"}, "{}", "application/json"},
		{sim.Action{Status: 302, Body: "{}"}, "{}", "application/json"},
		{sim.Action{Status: 200, Body: `{"name":"proj`}, `{"name":"proj`, "application/json"},
	} {
		remove := s.AddRule(sim.Rule{Provider: sim.FCM, Action: row.action})
		got := g.send(g.message(""))
		remove()
		if got.status != row.action.Status || got.body != row.body || !strings.HasPrefix(got.header.Get("content-type"), row.kind) {
			t.Errorf("%+v: %+v", row.action, got)
		}
	}
}

// TestFCMFaults checks what a real HTTP/2 client makes of each fault, and whether the phone got the push.
func TestFCMFaults(t *testing.T) {
	t.Parallel()
	fails := func(t *testing.T, _ said, err error) {
		t.Helper()
		if err == nil {
			t.Error("an answer came")
		}
	}
	for _, row := range []struct {
		fault     string
		delivered int
		check     func(t *testing.T, got said, err error)
	}{
		{sim.FaultHang, 0, isGivenUp},
		{sim.FaultBlackhole, 0, isGivenUp},
		{sim.FaultReset, 0, func(t *testing.T, _ said, err error) {
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v, want a connection reset", err)
			}
		}},
		{sim.FaultRSTInternal, 0, func(t *testing.T, _ said, err error) {
			var stream http2.StreamError
			if !errors.As(err, &stream) || stream.Code != http2.ErrCodeInternal {
				t.Errorf("%v, want INTERNAL_ERROR", err)
			}
		}},
		{sim.FaultGoaway, 1, isOK},
		{sim.FaultSlowBody, 1, isOK},
		{sim.FaultCloseAfter, 1, fails},
	} {
		t.Run(row.fault, func(t *testing.T) {
			t.Parallel()
			s := start(t, sim.Options{})
			g := newGoogle(t, s)
			s.AddRule(sim.Rule{Provider: sim.FCM, Count: 1, Action: sim.Action{Fault: row.fault, Delay: time.Millisecond}})
			ctx := within(t, patience)
			if row.fault == sim.FaultHang || row.fault == sim.FaultBlackhole {
				ctx = untilLogged(t, s, 2)
			}
			got, err := g.try(ctx, g.sendURL(), "application/json", g.message(""))
			row.check(t, got, err)
			if n := len(s.Pushes(g.token)); n != row.delivered {
				t.Errorf("delivered %d times, want %d", n, row.delivered)
			}
			if e := s.Log()[1]; e.Fault != row.fault {
				t.Errorf("log %+v", e)
			}
			if row.fault == sim.FaultBlackhole {
				g.client = h2Client(t, s)
			}
			if got := g.send(g.message("")); got.status != 200 {
				t.Errorf("afterwards: %+v", got)
			}
			if log := s.Log(); row.fault == sim.FaultGoaway && log[1].Connection == log[2].Connection {
				t.Error("GOAWAY did not end the connection")
			}
		})
	}
}

func TestFCMAnnouncesItsStreamLimit(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	c := dialSilent(t, s, s.FCMURL())
	_, err := io.WriteString(c.conn, http2.ClientPreface)
	c.must(err)
	c.must(c.framer.WriteSettings())
	if n := c.limit(); n != 100 {
		t.Errorf("MAX_CONCURRENT_STREAMS is %d", n)
	}
}
