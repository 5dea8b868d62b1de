package fcm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"rouse/providers/wire"
)

// scope is all that a push needs; the SDK would ask for far more.
const scope = "https://www.googleapis.com/auth/firebase.messaging"

// assumedLife is for an answer that names none.
const assumedLife = 10 * time.Minute

// exchanger turns an assertion signed by the service account into an access token.
type exchanger struct {
	secret   secret
	endpoint string
	roots    *x509.CertPool
}

// fetch makes one call. The error is an *accessError.
func (e exchanger) fetch(ctx context.Context) (grant, error) {
	config := jwt.Config{
		Email: e.secret.ClientEmail, PrivateKey: []byte(e.secret.PrivateKey), PrivateKeyID: e.secret.PrivateKeyID,
		Scopes: []string{scope}, TokenURL: e.endpoint, Audience: e.endpoint,
	}
	line := e.transport(ctx)
	client := &http.Client{
		Transport:     line,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	token, err := config.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client)).Token()
	if err != nil {
		return grant{}, ofFetch(ctx, err, line.failure)
	}
	if token.AccessToken == "" {
		return grant{}, &accessError{reason: "token_endpoint_unavailable", cause: errors.New("the answer holds no access token")}
	}
	life := assumedLife
	if !token.Expiry.IsZero() {
		life = time.Until(token.Expiry)
	}
	return grant{value: token.AccessToken, life: life}, nil
}

// transport opens a connection for one call an hour and closes it.
func (e exchanger) transport(ctx context.Context) *bound {
	return &bound{ctx: ctx, base: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: e.roots},
		DisableKeepAlives:   true,
	}}
}

// bound binds a call to its context, which the library does not, and keeps the error that the library turns into text.
type bound struct {
	ctx     context.Context //nolint:containedctx // of the one call it is made for
	base    http.RoundTripper
	failure error
}

// RoundTrip sends once.
func (b *bound) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.base.RoundTrip(req.WithContext(b.ctx))
	b.failure = err
	return res, err
}

// ofFetch classifies a failed call: only Google's own refusal of the assertion is held against the account.
// failure is that of the way there, nil if there was an answer.
func ofFetch(ctx context.Context, err, failure error) *accessError {
	if ctx.Err() != nil {
		return givenUp(ctx)
	}
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		return &accessError{reason: "token_endpoint_unavailable", cause: err, way: wayThere(failure)}
	}
	status := refused.Response.StatusCode
	e := &accessError{
		reason: "token_endpoint_unavailable", status: status, cause: errors.New(refused.Response.Status),
		retryAfter: wire.RetryAfter(refused.Response.Header.Get("Retry-After"), time.Now()),
		skew:       skew(refused.Response.Header.Get("Date"), time.Now()),
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
