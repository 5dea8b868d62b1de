package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"golang.org/x/net/http2"
)

// The reasons of an Error. They are stable and end up in timelines and metrics.
const (
	// Timeout: no answer came in time.
	Timeout = "timeout"
	// QueueTimeout: the deadline passed before a slot was free; nothing was sent.
	QueueTimeout = "queue_timeout"
	// Canceled: the caller gave up.
	Canceled = "canceled"
	// Closed: the pool was closed; nothing was sent.
	Closed = "closed"
	// Dismissed: whoever owns the pool gave up those who waited; nothing was sent.
	Dismissed = "dismissed"
	// ConnectTimeout: no connection in time; nothing was sent.
	ConnectTimeout = "connect_timeout"
	// ConnectFailed: the server could not be reached or does not speak the protocol; nothing was sent.
	ConnectFailed = "connect_failed"
	// UntrustedCertificate: the server's certificate does not check; nothing was sent.
	UntrustedCertificate = "untrusted_certificate"
	// GoAway: the server ended the connection in an orderly way before it answered.
	GoAway = "goaway"
	// ConnectionReset: the connection broke.
	ConnectionReset = "connection_reset"
	// StreamRefused: the server did not begin with the request.
	StreamRefused = "stream_refused"
	// StreamReset: the server gave the request up.
	StreamReset = "stream_reset"
	// EnhanceYourCalm: the server gave the request up because there are too many.
	EnhanceYourCalm = "enhance_your_calm"
)

// Error is a request without a usable answer.
type Error struct {
	// Reason is one of the constants above.
	Reason string
	// Lost is whether another connection may fare better at once.
	Lost bool
	// Said is the reason the server gave in the debug data of its GOAWAY, empty if none.
	Said string
	// Epoch is that of the connection used, 0 if there was none.
	Epoch uint64
	cause error
}

// Error returns reason and cause, for logs.
func (e *Error) Error() string {
	s := "wire: " + e.Reason
	if e.Said != "" {
		s += " (" + e.Said + ")"
	}
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap returns the cause, nil if there is none.
func (e *Error) Unwrap() error { return e.cause }

// givenUp says why the caller's context ended; waiting is the reason to report for a deadline.
func givenUp(ctx context.Context, waiting string) *Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{Reason: waiting, cause: ctx.Err()}
	}
	return &Error{Reason: Canceled, cause: ctx.Err()}
}

// ofDial classifies a failed connect.
func ofDial(err error) *Error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verify *tls.CertificateVerificationError
	if errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify) {
		return &Error{Reason: UntrustedCertificate, cause: err}
	}
	var slow net.Error
	if errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &slow) && slow.Timeout()) {
		return &Error{Reason: ConnectTimeout, cause: err}
	}
	return &Error{Reason: ConnectFailed, cause: err}
}

// ofExchange classifies a request that failed on conn.
func ofExchange(ctx context.Context, c *conn, err error) *Error {
	if ctx.Err() != nil {
		e := givenUp(ctx, Timeout)
		e.Epoch = c.epoch
		return e
	}
	if end := c.watch.ended.Load(); end != nil {
		err = errors.Join(err, *end) // the HTTP client may say no more than that the connection is gone
	}
	e := &Error{Reason: ConnectionReset, Lost: true, Epoch: c.epoch, cause: err}
	var stream http2.StreamError
	said, gone := c.goneAway()
	switch {
	case gone:
		e.Reason, e.Said = GoAway, said
	case errors.As(err, &stream):
		e.Reason = StreamReset
		switch stream.Code {
		case http2.ErrCodeRefusedStream:
			e.Reason = StreamRefused
		case http2.ErrCodeEnhanceYourCalm:
			e.Reason, e.Lost = EnhanceYourCalm, false
		}
	}
	return e
}

// spoils reports whether the HTTP client sends nothing more on the connection after this. It still counts the
// connection as open, and nobody could tell it from one that the server narrowed.
func (e *Error) spoils() bool {
	var stream http2.StreamError
	return e.Reason == ConnectionReset || errors.As(e.cause, &stream) && stream.Code == http2.ErrCodeProtocol
}
