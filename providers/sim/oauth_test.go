package sim_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rouse/providers/sim"
)

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
