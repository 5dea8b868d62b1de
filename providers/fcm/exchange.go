package fcm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"

	"rouse/providers/wire"
)

// scope is all that a push needs; the SDK would ask for far more.
const scope = "https://www.googleapis.com/auth/firebase.messaging"

const (
	// assertedLife is the longest that Google allows.
	assertedLife = time.Hour
	// assumedLife is for an answer that names none.
	assumedLife = 10 * time.Minute
	// minSkew is how far a clock has to be off before a refusal is blamed on it.
	minSkew = time.Minute
	// maxGrant is the most that is read of an answer.
	maxGrant = 1 << 20
)

// exchanger turns an assertion signed by the service account into an access token.
type exchanger struct {
	secret   secret
	endpoint string
	roots    *x509.CertPool
	// now is our clock.
	now func() time.Time
}

// fetch makes one call, and if it was refused and our clock is off a second one, by Google's clock: a node whose clock is wrong
// would make its own refusal everybody's. The error is an *accessError.
func (e exchanger) fetch(ctx context.Context) (grant, error) {
	g, err := e.ask(ctx, 0)
	if err == nil {
		return g, nil
	}
	if refused := ofAccess(err); refused.bad && refused.skew.Abs() >= minSkew {
		if g, again := e.ask(ctx, refused.skew); again == nil {
			return g, nil
		}
	}
	return grant{}, err
}

// ask makes one call as if our clock were ahead by so much.
func (e exchanger) ask(ctx context.Context, ahead time.Duration) (grant, error) {
	assertion, err := e.assertion(e.now().Add(-ahead))
	if err != nil {
		return grant{}, &accessError{reason: "token_endpoint_unavailable", cause: err}
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return grant{}, &accessError{reason: "token_endpoint_unavailable", cause: err}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Transport: e.transport(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return grant{}, ofFetch(ctx, err, e.now())
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxGrant))
	if err == nil && (res.StatusCode < 200 || res.StatusCode > 299) {
		err = &oauth2.RetrieveError{Response: res, Body: body}
	}
	if err != nil {
		return grant{}, ofFetch(ctx, err, e.now())
	}
	return granted(body)
}

// assertion is what the service account signs.
func (e exchanger) assertion(now time.Time) (string, error) {
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(e.secret.PrivateKey))
	if err != nil {
		return "", err
	}
	begins := now.Add(-10 * time.Second) // clocks differ a little
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": e.secret.ClientEmail, "scope": scope, "aud": e.endpoint, "iat": begins.Unix(), "exp": begins.Add(assertedLife).Unix(),
	})
	t.Header["kid"] = e.secret.PrivateKeyID
	return t.SignedString(key)
}

// granted reads an answer.
func granted(body []byte) (grant, error) {
	var said struct {
		AccessToken string      `json:"access_token"`
		ExpiresIn   json.Number `json:"expires_in"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return grant{}, &accessError{reason: "token_endpoint_unavailable", cause: errors.New("the answer cannot be read")}
	}
	if said.AccessToken == "" {
		return grant{}, &accessError{reason: "token_endpoint_unavailable", cause: errors.New("the answer holds no access token")}
	}
	life := assumedLife
	if seconds, err := said.ExpiresIn.Float64(); err == nil && seconds > 0 {
		life = time.Duration(seconds * float64(time.Second))
	}
	return grant{value: said.AccessToken, life: life}, nil
}

// transport opens a connection for one call an hour and closes it.
func (e exchanger) transport() *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: e.roots},
		DisableKeepAlives:   true,
	}
}

// ofFetch classifies a failed call: only Google's own refusal of the assertion is held against the account.
func ofFetch(ctx context.Context, err error, now time.Time) *accessError {
	if ctx.Err() != nil {
		return givenUp(ctx)
	}
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		return &accessError{reason: "token_endpoint_unavailable", cause: err, way: wayThere(err)}
	}
	status := refused.Response.StatusCode
	e := &accessError{
		reason: "token_endpoint_unavailable", status: status, cause: errors.New(refused.Response.Status),
		retryAfter: wire.RetryAfter(refused.Response.Header.Get("Retry-After"), now),
		skew:       skew(refused.Response.Header.Get("Date"), now),
	}
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(refused.Body, &said) != nil || wire.Word(said.Error) == "" {
		return e
	}
	if status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout {
		e.bad, e.reason = true, wire.Word(said.Error)
	}
	return e
}

// skew is how far our clock is ahead of the one that wrote a Date header; 0 if there is none.
func skew(date string, now time.Time) time.Duration {
	at, err := http.ParseTime(date)
	if err != nil {
		return 0
	}
	return now.Sub(at)
}

// wayThere says in wire's words why the token endpoint was not reached; empty if it was, or for another reason.
func wayThere(err error) string {
	var untrusted *tls.CertificateVerificationError
	var dial *net.OpError
	var slow net.Error
	switch {
	case errors.As(err, &untrusted):
		return wire.UntrustedCertificate
	case errors.As(err, &slow) && slow.Timeout():
		return wire.ConnectTimeout
	case errors.As(err, &dial) && dial.Op == "dial":
		return wire.ConnectFailed
	default:
		return ""
	}
}
