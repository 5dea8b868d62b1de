package webhooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"rouse/messages"
)

const (
	// postLimit is how long one post may take, from the look-up of the name to the end of the answer.
	postLimit = 15 * time.Second
	// answerBytes is how much of an answer is read, for the connection to be used again; and how long its head may be.
	answerBytes = 4 << 10
	headBytes   = 16 << 10
	// idleConns and idlePerHost bound connections that wait for the next post, for idleFor.
	idleConns   = 512
	idlePerHost = 16
	idleFor     = 60 * time.Second
	// drainLimit is how long the rest of an answer is waited for whose head has come.
	drainLimit = 2 * time.Second
	agent      = "Rouse-Webhooks/1"
)

// errAddress is what dialing an address ends with that is not allowed.
var errAddress = errors.New("the address is private, and the operator does not allow it")

// Dialer opens connections for posts. control is to be called with each address before it is dialed, after names were looked up: an
// error means that it must not be.
type Dialer func(ctx context.Context, network, address string, control func(address string) error) (net.Conn, error)

// dialWith is the Dialer over real sockets; a nil resolver is the system's.
func dialWith(resolver *net.Resolver) Dialer {
	return func(ctx context.Context, network, address string, control func(address string) error) (net.Conn, error) {
		d := net.Dialer{Timeout: postLimit, KeepAlive: 15 * time.Second, Resolver: resolver,
			Control: func(_, at string, _ syscall.RawConn) error { return control(at) }}
		return d.DialContext(ctx, network, address)
	}
}

// mailer makes single posts.
type mailer struct {
	guard guard
	// secure and plain are for https and for http, which may lead to fewer addresses; they share no connections.
	secure, plain *http.Client
}

func newMailer(g guard, d Dialer, roots *x509.CertPool) *mailer {
	if d == nil {
		d = dialWith(nil)
	}
	client := func(may func(netip.Addr) bool) *http.Client {
		return &http.Client{
			Transport: &http.Transport{
				// No proxy: one would look names up by itself, and dial what it likes.
				DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					return d(ctx, network, address, func(at string) error { return permit(at, may) })
				},
				TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
				ForceAttemptHTTP2: true, DisableCompression: true, MaxResponseHeaderBytes: headBytes,
				HTTP2:        &http.HTTP2Config{SendPingTimeout: postLimit, PingTimeout: 5 * time.Second},
				MaxIdleConns: idleConns, MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: idleFor,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &mailer{guard: g, secure: client(g.open), plain: client(g.lists)}
}

// permit refuses an address, host:port, that may not be dialed.
func permit(address string, may func(netip.Addr) bool) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !may(at.Addr()) {
		return errAddress
	}
	return nil
}

func (m *mailer) close() {
	m.secure.CloseIdleConnections()
	m.plain.CloseIdleConnections()
}

// outcome is what came of one post.
type outcome struct {
	taken bool
	// status is the receiver's, 0 if it did not answer.
	status int
	// reason says what went wrong. It repeats neither what the receiver wrote nor the URL.
	reason string
	// wait is how long the receiver wants to be left alone, 0 if it did not say.
	wait time.Duration
	// gone says that the receiver wants nothing any more.
	gone bool
}

// label is what a post counts as.
func (o outcome) label() string {
	switch {
	case o.taken:
		return "taken"
	case o.status != 0:
		return "refused"
	default:
		return "unanswered"
	}
}

// wireEvent is an event as listEvents shows it.
type wireEvent struct {
	CreatedAt time.Time       `json:"created_at"`
	Data      json.RawMessage `json:"data"`
	ID        string          `json:"id"`
	Type      string          `json:"type"`
}

// bodyOf writes an event. The error is one of data that is no JSON.
func bodyOf(e messages.Event) ([]byte, error) {
	return json.Marshal(wireEvent{ID: string(e.ID), Type: string(e.Type), CreatedAt: e.At.UTC().Truncate(time.Millisecond), Data: e.Data})
}

// letter is one post to be made.
type letter struct {
	url     string
	id      string
	body    []byte
	secrets messages.WebhookSecrets
}

// post makes one attempt, which takes up to postLimit.
func (m *mailer) post(ctx context.Context, l letter) outcome {
	ctx, cancel := context.WithTimeout(ctx, postLimit)
	defer cancel()
	if err := m.guard.check(l.url); err != nil { // what is allowed may have changed since it was stored
		return outcome{reason: "the URL is not allowed any more"}
	}
	r, err := request(ctx, l, time.Now())
	if err != nil {
		return outcome{reason: "the URL cannot be used"}
	}
	client := m.secure
	if r.URL.Scheme == "http" {
		client = m.plain
	}
	response, err := client.Do(r)
	if err != nil {
		return outcome{reason: reasonOf(ctx, err)}
	}
	defer func() { _ = response.Body.Close() }() // it was thrown away
	// The status says it all; an answer that does not end is cut off with its connection.
	defer time.AfterFunc(drainLimit, cancel).Stop()
	_, _ = io.CopyN(io.Discard, response.Body, answerBytes)
	return verdict(response, time.Now())
}

// request is a signed post.
func request(ctx context.Context, l letter, now time.Time) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(l.body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", agent)
	var signatures []string
	for _, secret := range l.secrets.At(now) {
		w, err := standardwebhooks.NewWebhookRaw(secret)
		if err != nil {
			return nil, fmt.Errorf("read a secret: %w", err)
		}
		signature, err := w.Sign(l.id, now, l.body)
		if err != nil {
			return nil, fmt.Errorf("sign a post: %w", err)
		}
		signatures = append(signatures, signature)
	}
	r.Header.Set(standardwebhooks.HeaderWebhookID, l.id)
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return r, nil
}

// verdict reads an answer's head.
func verdict(r *http.Response, now time.Time) outcome {
	o := outcome{status: r.StatusCode, reason: fmt.Sprintf("answered %d", r.StatusCode)}
	switch {
	case r.StatusCode >= 200 && r.StatusCode < 300:
		return outcome{status: r.StatusCode, taken: true}
	case r.StatusCode >= 300 && r.StatusCode < 400:
		o.reason += ", a redirect, which is not followed"
	case r.StatusCode == http.StatusGone:
		o.gone = true
	case r.StatusCode == http.StatusTooManyRequests || r.StatusCode == http.StatusServiceUnavailable:
		o.wait = retryAfter(r.Header.Get("Retry-After"), now)
	}
	return o
}

// reasonOf puts an error into words of our own: its own may repeat the URL, or what the receiver wrote into a certificate.
func reasonOf(ctx context.Context, err error) string {
	var name *net.DNSError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, errAddress):
		return errAddress.Error()
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Sprintf("did not answer within %.0f s", postLimit.Seconds())
	case errors.As(err, &name):
		return "its name cannot be looked up"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused the connection"
	case errors.As(err, &authority):
		return "its certificate is by an authority that is not known"
	case errors.As(err, &host):
		return "its certificate is for another name"
	case errors.As(err, &invalid):
		return "its certificate is not valid, or not any more"
	case errors.As(err, &alert), errors.As(err, &record):
		return "does not speak TLS as it should"
	}
	return "the connection failed"
}
