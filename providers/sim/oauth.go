package sim

import (
	"crypto/rsa"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	grantType     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	assertionLife = time.Hour
	assertionSkew = 5 * time.Minute
)

var sendScopes = []string{"https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"}

// assertionClaims are what a service account says of itself.
type assertionClaims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Scope    string `json:"scope"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	Subject  string `json:"sub,omitempty"`
}

// The claims are checked by hand, in our order; these satisfy the parser.
func (c assertionClaims) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil }
func (c assertionClaims) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil }
func (c assertionClaims) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (c assertionClaims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c assertionClaims) GetSubject() (string, error)                  { return c.Subject, nil }
func (c assertionClaims) GetAudience() (jwt.ClaimStrings, error)       { return nil, nil }

// judgeToken trades an assertion for an access token, or says why not.
func (s *Sim) judgeToken(r *fcmRequest) answer {
	form, err := url.ParseQuery(string(r.body))
	if err != nil || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return oauthError("invalid_request", 0, "The body is not a form.")
	}
	r.logged = "grant_type=" + form.Get("grant_type")
	r.secret = form.Get("assertion")
	switch {
	case form.Get("grant_type") != grantType:
		return oauthError("unsupported_grant_type", 0, "grant_type must be "+grantType+".")
	case r.secret == "":
		return oauthError("invalid_request", 0, "assertion is missing.")
	}
	var claims assertionClaims
	account, why := s.proveAssertion(r.secret, &claims)
	readable, _ := json.Marshal(claims)
	r.logged, r.subject = string(readable), claims.Issuer
	if why == "" {
		why = s.checkClaims(r, claims)
	}
	switch {
	case why != "":
		return oauthError("invalid_grant", 0, why)
	case !slices.ContainsFunc(strings.Fields(claims.Scope), func(scope string) bool { return slices.Contains(sendScopes, scope) }):
		return oauthError("invalid_scope", 0, "The scope holds neither firebase.messaging nor cloud-platform.")
	}
	life := s.settings.Load().AccessTokenLife
	body, _ := json.Marshal(map[string]any{
		"access_token": s.accounts.issue(account.project, r.at, life),
		"expires_in":   max(1, int(life/time.Second)), "token_type": "Bearer",
	})
	return answer{status: http.StatusOK, body: body}
}

// proveAssertion checks algorithm, account, key id and signature.
func (s *Sim) proveAssertion(assertion string, claims *assertionClaims) (*account, string) {
	var known *account
	why := "Invalid JWT: it cannot be parsed."
	parser := jwt.NewParser(jwt.WithoutClaimsValidation())
	_, err := parser.ParseWithClaims(assertion, claims, func(t *jwt.Token) (any, error) {
		known = s.accounts.get(claims.Issuer)
		kid, _ := t.Header["kid"].(string)
		switch {
		case t.Method != jwt.SigningMethodRS256:
			why = "Invalid JWT: the algorithm must be RS256."
		case known == nil:
			why = "Invalid grant: account not found."
		case kid != known.keyID:
			why = "Invalid JWT Signature: unknown kid."
		default:
			why = "Invalid JWT Signature."
			return known.public, nil
		}
		return (*rsa.PublicKey)(nil), jwt.ErrTokenUnverifiable
	})
	if err != nil {
		return nil, why
	}
	return known, ""
}

// checkClaims returns what is wrong with times and audience.
func (s *Sim) checkClaims(r *fcmRequest, c assertionClaims) string {
	issued, expires := time.Unix(c.IssuedAt, 0), time.Unix(c.Expires, 0)
	const times = "Invalid JWT: it must be short-lived (60 minutes). Check your iat and exp values."
	switch {
	case expires.Sub(issued) > assertionLife || !expires.After(r.at):
		return times
	case issued.Sub(r.at) > assertionSkew || r.at.Sub(issued) > assertionLife+assertionSkew:
		return times
	case c.Audience != s.FCMTokenURL() && c.Audience != requestURL(r):
		return "Invalid JWT: the audience is not this endpoint."
	}
	return ""
}

// requestURL is the address the client used, by whatever name of ours.
func requestURL(r *fcmRequest) string {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	return scheme + r.Host + r.URL.Path
}

// oauthError is an error as RFC 6749 section 5.2 has it; a status of 0 takes the one that belongs to the code.
func oauthError(code string, status int, description string) answer {
	if status == 0 {
		status = http.StatusBadRequest
		if code == "invalid_client" || code == "unauthorized_client" {
			status = http.StatusUnauthorized
		}
		if code == "" {
			status = http.StatusOK
		}
	}
	reason := code
	if code == "" {
		code = "internal_failure"
	}
	body, _ := json.Marshal(map[string]string{"error": code, "error_description": description})
	return answer{status: status, reason: reason, body: body}
}
