// Package fcm wakes devices through Google. One Push is one request: it is
// never repeated here, it never outlives its deadline, and it carries nothing
// of a message but the text its owner asked to show.
//
// The SDK (firebase messaging) builds the requests. Connections, access tokens, the
// record of what came back and the judgement of it are ours, because the SDK
// repeats on its own, waits without a deadline and hides headers.
package fcm

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/messaging"
	"google.golang.org/api/option"

	"rouse/providers"
	"rouse/providers/wire"
)

// Google's own endpoints.
const (
	Endpoint      = "https://fcm.googleapis.com/v1"
	TokenEndpoint = "https://oauth2.googleapis.com/token"
)

const (
	defaultTimeout  = 10 * time.Second
	defaultInFlight = 200
	// perConn is how many requests Google takes on one connection.
	perConn     = 100
	dialTimeout = 4 * time.Second
	idleTimeout = 5 * time.Minute
)

// Options is what the operator decides. The zero value speaks to Google.
type Options struct {
	// Endpoint is an https URL that includes /v1 (http for tests); empty means Google's.
	Endpoint string
	// TokenEndpoint is where access tokens come from, and their audience; empty means Google's.
	TokenEndpoint string
	// RootCAs checks the servers; nil means the system's.
	RootCAs *x509.CertPool
	// Timeout bounds one attempt, waiting for a slot and an access token included; 0 means 10 s, the least that Google advises.
	Timeout time.Duration
	// InFlight is how many pushes may be under way at once; 0 means 200. Each connection carries 100 of them.
	InFlight int
	// Log gets what no Outcome can say; nil means nowhere.
	Log *slog.Logger
	// Observe is told what happens to the connections that carry pushes; nil for nobody. It must not block.
	Observe func(wire.Event)
}

func (o Options) withDefaults() Options {
	if o.Endpoint == "" {
		o.Endpoint = Endpoint
	}
	o.Endpoint = strings.TrimRight(o.Endpoint, "/")
	if o.TokenEndpoint == "" {
		o.TokenEndpoint = TokenEndpoint
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.InFlight <= 0 {
		o.InFlight = defaultInFlight
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Client speaks to FCM for one Firebase project. It implements
// providers.Provider and is safe for concurrent use.
type Client struct {
	sdk    *messaging.Client
	pool   *wire.Pool
	access *accessSource
	// project, host and tokenHost are named in findings.
	project, host, tokenHost string
	// placeholder is what Apple's devices behind FCM show.
	placeholder providers.Placeholder
	timeout     time.Duration
}

// New makes a client for a secret that Check returned. It connects on the first
// Push. The error says that the secret or an endpoint is unusable, and holds
// nothing of the secret.
func New(sealed []byte, o Options) (*Client, error) {
	o = o.withDefaults()
	s, err := openSecret(sealed)
	if err != nil {
		return nil, err
	}
	url, err := wire.ParseEndpoint(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("the FCM endpoint: %w", err)
	}
	tokenURL, err := wire.ParseEndpoint(o.TokenEndpoint)
	if err != nil {
		return nil, fmt.Errorf("the FCM token endpoint: %w", err)
	}
	c := &Client{timeout: o.Timeout, project: s.ProjectID, host: url.Host, tokenHost: tokenURL.Host}
	if s.Placeholder != nil {
		c.placeholder = *s.Placeholder
	}
	c.access = newAccessSource(exchanger{secret: s, endpoint: o.TokenEndpoint, roots: o.RootCAs, now: time.Now}.fetch, o.Log)
	c.pool = wire.New(wire.Options{
		URL: url, RootCAs: o.RootCAs, HTTP1: true,
		Slots: o.InFlight, PerConn: perConn, MaxConns: maxConns(url.Scheme, o.InFlight),
		Dial: min(dialTimeout, o.Timeout), Idle: idleTimeout, Log: o.Log, Observe: o.Observe,
	})
	c.sdk, err = newSDK(s.ProjectID, o.Endpoint, &http.Client{
		Transport:     recorder{pool: c.pool, access: c.access},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// maxConns is how many connections inFlight requests fill. Without TLS there is no HTTP/2, and each carries one.
func maxConns(scheme string, inFlight int) int {
	if scheme == "http" {
		return inFlight
	}
	return (inFlight + perConn - 1) / perConn
}

// newSDK makes the SDK's client. With the project and our HTTP client given it
// looks for no credentials of its own, neither on disk nor in the environment.
func newSDK(project, endpoint string, client *http.Client) (*messaging.Client, error) {
	ctx := context.Background()
	app, err := firebase.NewApp(ctx, &firebase.Config{ProjectID: project}, option.WithHTTPClient(client), option.WithEndpoint(endpoint))
	if err != nil {
		return nil, fmt.Errorf("set up the FCM client: %w", err)
	}
	sdk, err := app.Messaging(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up the FCM client: %w", err)
	}
	return sdk, nil
}

// Push makes one attempt. It returns within the context and Options.Timeout.
func (c *Client) Push(ctx context.Context, p providers.Push) providers.Outcome {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	out := c.push(ctx, p, start)
	out.Took = time.Since(start)
	return out
}

func (c *Client) push(ctx context.Context, p providers.Push, now time.Time) providers.Outcome {
	rec := &record{}
	// The SDK's own view is not asked for: it hides headers, and wraps what cannot be unwrapped.
	_, _ = c.sdk.Send(rec.in(ctx), message(p, c.placeholder, now))
	if !rec.sent {
		return providers.Outcome{Verdict: providers.Rejected, Reason: "bad_request"}
	}
	return c.judge(rec, p.Platform)
}

// Close refuses further pushes at once; each connection closes when what is in
// flight on it is done.
func (c *Client) Close() error {
	c.access.close()
	c.pool.Close()
	return nil
}

var errOutside = errors.New("fcm: a request outside of Push")
