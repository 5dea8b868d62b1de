package sim_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/net/http2"

	"rouse/providers/sim"
)

const (
	project = "demo-project"
	scope   = "https://www.googleapis.com/auth/firebase.messaging"
)

// google is a service account with one client that speaks to FCM.
type google struct {
	t        *testing.T
	sim      *sim.Sim
	client   *http.Client
	base     string // ends in /v1
	tokenURL string
	token    string
	bearer   string
	account  struct {
		Type        string `json:"type"`
		Email       string `json:"client_email"`
		KeyID       string `json:"private_key_id"`
		Key         string `json:"private_key"`
		ProjectID   string `json:"project_id"`
		TokenURI    string `json:"token_uri"`
		Certificate string `json:"auth_provider_x509_cert_url"`
	}
}

func newGoogle(t *testing.T, s *sim.Sim) *google {
	t.Helper()
	g := &google{t: t, sim: s, client: h2Client(t, s), base: s.FCMURL(), tokenURL: s.FCMTokenURL(), token: s.NewFCMToken(project)}
	if err := json.Unmarshal(s.NewServiceAccount(project), &g.account); err != nil {
		t.Fatal(err)
	}
	g.bearer = g.login()
	return g
}

// login trades a good assertion for an access token.
func (g *google) login() string {
	g.t.Helper()
	got := g.trade(g.assertion(nil, nil))
	var grant struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(got.body), &grant); err != nil || got.status != 200 || grant.TokenType != "Bearer" || grant.ExpiresIn < 1 {
		g.t.Fatalf("%+v %v", got, err)
	}
	return grant.AccessToken
}

// assertion makes a good assertion, with these claims and headers changed.
func (g *google) assertion(claims, header map[string]any) string {
	g.t.Helper()
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(g.account.Key))
	if err != nil {
		g.t.Fatal(err)
	}
	now := time.Now().Unix()
	all := jwt.MapClaims{"iss": g.account.Email, "aud": g.tokenURL, "scope": scope, "iat": now, "exp": now + 3600}
	for name, value := range claims {
		all[name] = value
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, all)
	token.Header["kid"] = g.account.KeyID
	for name, value := range header {
		token.Header[name] = value
	}
	signed, err := token.SignedString(key)
	if err != nil {
		g.t.Fatal(err)
	}
	return signed
}

func (g *google) trade(assertion string) said {
	g.t.Helper()
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
	return g.post(g.tokenURL, "application/x-www-form-urlencoded", form.Encode())
}

func (g *google) post(to, kind, body string) said {
	g.t.Helper()
	got, err := g.try(within(g.t, patience), to, kind, body)
	if err != nil {
		g.t.Fatal(err)
	}
	return got
}

func (g *google) try(ctx context.Context, to, kind, body string) (said, error) {
	g.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	if g.bearer != "" {
		r.Header.Set("Authorization", "Bearer "+g.bearer)
	}
	return roundTrip(g.client, r)
}

func (g *google) sendURL() string { return g.base + "/projects/" + project + "/messages:send" }

func (g *google) send(body string) said {
	g.t.Helper()
	return g.post(g.sendURL(), "application/json", body)
}

// message is a good send, with more members of message appended.
func (g *google) message(more string) string {
	return fmt.Sprintf(`{"message":{"token":%q,"data":{"rouse":"1"}%s}}`, g.token, more)
}

// failure is Google's error.
type failure struct {
	Error struct {
		Code    int              `json:"code"`
		Message string           `json:"message"`
		Status  string           `json:"status"`
		Details []map[string]any `json:"details"`
	} `json:"error"`
}

func (a said) failure(t *testing.T) failure {
	t.Helper()
	var f failure
	if err := json.Unmarshal([]byte(a.body), &f); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return f
}

// errorCode is the FcmError's code, empty if there is none.
func (f failure) errorCode() string {
	for _, d := range f.Error.Details {
		if strings.HasSuffix(d["@type"].(string), "v1.FcmError") {
			return d["errorCode"].(string)
		}
	}
	return ""
}

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
		"unknown field":     {g.message(`,"colour":"red"`), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", ""},
		"capital field":     {g.message(`,"Android":{}`), 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", "BadRequest", ""},
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
				field = violations[0].(map[string]any)["field"].(string)
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

func TestTokenEndpointRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	stranger := newGoogle(t, s)
	now := time.Now().Unix()
	forged := *g
	forged.account.Key = stranger.account.Key
	hs := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"iss": g.account.Email, "aud": g.tokenURL, "scope": scope, "iat": now, "exp": now + 60})
	hs.Header["kid"] = g.account.KeyID
	hmac, _ := hs.SignedString([]byte(g.account.Key))
	for name, row := range map[string]struct{ assertion, code, says string }{
		"garbage":        {"x.y.z", "invalid_grant", "parsed"},
		"HS256":          {hmac, "invalid_grant", "RS256"},
		"unknown iss":    {g.assertion(map[string]any{"iss": "x@y.z"}, nil), "invalid_grant", "account not found"},
		"wrong kid":      {g.assertion(nil, map[string]any{"kid": "0"}), "invalid_grant", "kid"},
		"wrong key":      {forged.assertion(nil, nil), "invalid_grant", "Invalid JWT Signature"},
		"live for 2 h":   {g.assertion(map[string]any{"exp": now + 7200}, nil), "invalid_grant", "iat and exp"},
		"expired":        {g.assertion(map[string]any{"iat": now - 4000, "exp": now - 400}, nil), "invalid_grant", "iat and exp"},
		"clock ahead":    {g.assertion(map[string]any{"iat": now + 600, "exp": now + 1200}, nil), "invalid_grant", "iat and exp"},
		"wrong audience": {g.assertion(map[string]any{"aud": "https://oauth2.example.com/token"}, nil), "invalid_grant", "audience"},
		"wrong scope":    {g.assertion(map[string]any{"scope": "email"}, nil), "invalid_scope", "firebase.messaging"},
	} {
		got := g.trade(row.assertion)
		var e struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		_ = json.Unmarshal([]byte(got.body), &e)
		if got.status != 400 || e.Error != row.code || !strings.Contains(e.Description, row.says) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	for name, row := range map[string]struct{ kind, body, code string }{
		"JSON":         {"application/json", "{}", "invalid_request"},
		"grant type":   {"application/x-www-form-urlencoded", "grant_type=password", "unsupported_grant_type"},
		"no assertion": {"application/x-www-form-urlencoded", "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer", "invalid_request"},
	} {
		if got := g.post(g.tokenURL, row.kind, row.body); got.status != 400 || !strings.Contains(got.body, `"`+row.code+`"`) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, good := range []string{
		g.assertion(map[string]any{"scope": "email https://www.googleapis.com/auth/cloud-platform"}, nil),
		g.assertion(map[string]any{"iat": now + 200, "exp": now + 3800}, nil),
	} {
		if got := g.trade(good); got.status != 200 {
			t.Errorf("%+v", got)
		}
	}
	for _, e := range s.Log() {
		if strings.Contains(e.Body, "assertion=") || strings.Contains(e.Body, "eyJ") {
			t.Errorf("the log shows an assertion: %s", e.Body)
		}
	}
}

func TestServiceAccountFile(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	if g.account.Type != "service_account" || g.account.ProjectID != project || g.account.TokenURI != s.FCMTokenURL() || !strings.Contains(g.account.Email, "@"+project+".") {
		t.Errorf("%+v", g.account)
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(g.account.Key))
	if err != nil || key.N.BitLen() != 2048 {
		t.Errorf("%v", err)
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

func TestTokenEndpointScripted(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	for _, row := range []struct {
		action sim.Action
		status int
		body   string
	}{
		{sim.Action{Reason: "invalid_grant"}, 400, `"invalid_grant"`},
		{sim.Action{Reason: "invalid_client"}, 401, `"invalid_client"`},
		{sim.Action{Status: 500}, 500, `"internal_failure"`},
		{sim.Action{Status: 503, Body: "<html>"}, 503, "<html>"},
	} {
		remove := s.AddRule(sim.Rule{Provider: sim.Token, TokenPrefix: g.account.Email, Action: row.action})
		got := g.trade(g.assertion(nil, nil))
		remove()
		if got.status != row.status || !strings.Contains(got.body, row.body) {
			t.Errorf("%+v: %+v", row.action, got)
		}
	}
	s.AddRule(sim.Rule{Provider: sim.Token, Action: sim.Action{Fault: sim.FaultHang}})
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {g.assertion(nil, nil)}}
	_, err := g.try(untilLogged(t, s, len(s.Log())+1), g.tokenURL, "application/x-www-form-urlencoded", form.Encode())
	isGivenUp(t, said{}, err)
	if got := g.send(g.message("")); got.status != 200 {
		t.Errorf("sending goes on: %+v", got)
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
