package sim_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

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
