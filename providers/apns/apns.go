// Package apns wakes devices through Apple. One Push is one request: it is
// never repeated here, it never outlives its deadline, and it carries nothing
// of a message but the text its owner asked to show.
//
// The SDK (apns2) builds and signs the requests; connections, the record of
// what came back, and the judgement of it are ours.
package apns

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/sideshow/apns2"
	apnstoken "github.com/sideshow/apns2/token"

	"rouse/providers"
	"rouse/providers/wire"
	"rouse/tokens"
)

// Apple's own endpoints.
const (
	ProductionEndpoint = apns2.HostProduction
	SandboxEndpoint    = apns2.HostDevelopment
)

const (
	defaultTimeout  = 10 * time.Second
	defaultInFlight = 500
	dialTimeout     = 4 * time.Second
	// idleTimeout lets go of connections nobody uses; Apple likes those in use to live for hours.
	idleTimeout = 20 * time.Minute
)

// Options is what the operator decides. The zero value speaks to Apple.
type Options struct {
	// Endpoint and SandboxEndpoint are https URLs without a path; empty means Apple's.
	Endpoint, SandboxEndpoint string
	// RootCAs checks the server; nil means the system's.
	RootCAs *x509.CertPool
	// Timeout bounds one attempt, waiting for a slot included; 0 means 10 s.
	Timeout time.Duration
	// InFlight is how many pushes may be under way at once; 0 means 500.
	InFlight int
	// Log gets what no Outcome can say; nil means nowhere.
	Log *slog.Logger
	// Observe is told what happens to the connections that carry pushes; nil for nobody. It must not block.
	Observe func(wire.Event)
}

func (o Options) endpoint(sandbox bool) string {
	switch {
	case sandbox && o.SandboxEndpoint != "":
		return o.SandboxEndpoint
	case sandbox:
		return SandboxEndpoint
	case o.Endpoint != "":
		return o.Endpoint
	default:
		return ProductionEndpoint
	}
}

func (o Options) withDefaults() Options {
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

// Client speaks to one environment of APNs with one credential. It implements
// providers.Provider and is safe for concurrent use.
type Client struct {
	sdk     *apns2.Client
	pool    *wire.Pool
	secret  secret
	sandbox bool
	options Options
	timeout time.Duration
	log     *slog.Logger

	mu sync.Mutex // guards what follows
	// healed is the epoch begun because Apple called our token expired or its key unrelated, 0 if never.
	healed uint64
	// sound is the newest epoch in which Apple accepted a push.
	sound uint64
	// shown is the provider token of the newest epoch that carried a push, before the one of the epoch before it.
	shown, before shown
	// refusal is the last outcome that dismissed those who waited.
	refusal providers.Outcome
}

// New makes a client for a secret that Check returned. It connects on the first
// Push. The error says that the secret or the endpoint is unusable, and holds
// nothing of the secret.
func New(sealed []byte, sandbox bool, o Options) (*Client, error) {
	s, err := openSecret(sealed)
	if err != nil {
		return nil, err
	}
	return newClient(s, sandbox, o.withDefaults())
}

func newClient(s secret, sandbox bool, o Options) (*Client, error) {
	url, err := wire.ParseEndpoint(o.endpoint(sandbox))
	if err != nil || url.Scheme != "https" || (url.Path != "" && url.Path != "/") {
		return nil, fmt.Errorf("the APNs endpoint must be of the form https://host[:port]")
	}
	c := &Client{secret: s, sandbox: sandbox, options: o, timeout: o.Timeout, log: o.Log}
	signer, certificates, err := s.identity()
	if err != nil {
		return nil, err
	}
	c.pool = wire.New(wire.Options{
		URL: url, RootCAs: o.RootCAs, Certificates: certificates,
		Slots: o.InFlight, PerConn: o.InFlight, MaxConns: 1,
		Dial: min(dialTimeout, o.Timeout), Idle: idleTimeout, Log: o.Log, Prepare: c.authorize, Observe: o.Observe,
	})
	c.sdk = &apns2.Client{
		Host:  url.Scheme + "://" + url.Host,
		Token: signer,
		HTTPClient: &http.Client{
			Transport:     recorder{c.pool},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	return c, nil
}

// identity returns what the secret signs with: a token that was made once to
// prove that it can be, or a certificate.
func (s secret) identity() (*apnstoken.Token, []tls.Certificate, error) {
	if s.Certificate != "" {
		pair, err := tls.X509KeyPair([]byte(s.Certificate), []byte(s.CertificateKey))
		if err != nil {
			return nil, nil, fmt.Errorf("the stored APNs certificate cannot be used")
		}
		return nil, []tls.Certificate{pair}, nil
	}
	key, problem := parseSigningKey(s.PrivateKey)
	if problem != "" {
		return nil, nil, fmt.Errorf("the stored APNs key cannot be used: %s", problem)
	}
	signer := &apnstoken.Token{AuthKey: key, KeyID: s.KeyID, TeamID: s.TeamID}
	if _, err := signer.Generate(); err != nil {
		return nil, nil, fmt.Errorf("the stored APNs key does not sign")
	}
	return signer, nil, nil
}

// Push makes one attempt. It returns within the context and Options.Timeout.
func (c *Client) Push(ctx context.Context, p providers.Push) providers.Outcome {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	out := c.push(ctx, p)
	out.Took = time.Since(start)
	return out
}

func (c *Client) push(ctx context.Context, p providers.Push) providers.Outcome {
	// The SDK puts the token into the URL as it is.
	if _, err := tokens.ParseToken(tokens.APNs, p.Token); err != nil || p.Token == "" {
		return providers.Outcome{Verdict: providers.TokenSuspect, Reason: "BadDeviceToken"}
	}
	n, err := notification(p, c.secret)
	if err != nil {
		return providers.Outcome{Verdict: providers.Rejected, Reason: "bad_payload"}
	}
	rec := &record{expiration: providers.APNsExpiration(p.ExpiresAt, time.Now())}
	// The SDK's own view is not asked for: it loses the status of an answer that is no JSON, and all headers.
	_, _ = c.sdk.PushWithContext(rec.in(ctx), n)
	if !rec.sent {
		return providers.Outcome{Verdict: providers.Rejected, Reason: "bad_request"}
	}
	return c.judge(rec)
}

// Close refuses further pushes at once; each connection closes when what is in
// flight on it is done.
func (c *Client) Close() error {
	c.pool.Close()
	return nil
}
