package apns

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"rouse/providers/wire"
)

// maxBody is how much of an answer is kept; Apple's are far shorter.
const maxBody = 512

// record is what one request carries past the SDK and what came back. It rides
// in the request's context, the one way through the SDK, and belongs to one Push.
type record struct {
	expiration string
	sent       bool
	reply      wire.Reply
	failure    *wire.Error // nil if there is an answer
}

type recordKey struct{}

func (r *record) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, recordKey{}, r)
}

// recorder is the SDK's way to the network.
type recorder struct{ pool *wire.Pool }

// RoundTrip sends once and records. The request was built for this one call, so it may be changed.
func (t recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	rec, ok := req.Context().Value(recordKey{}).(*record)
	if !ok || rec.sent {
		return nil, errors.New("apns: a request outside of Push")
	}
	rec.sent = true
	req.Header.Set("Apns-Expiration", rec.expiration)
	reply, err := t.pool.Send(req, maxBody)
	rec.reply = reply
	if err != nil && !errors.As(err, &rec.failure) {
		rec.failure = &wire.Error{Reason: wire.ConnectionReset, Lost: true}
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: reply.Status,
		Header:     reply.Header,
		Body:       io.NopCloser(bytes.NewReader(reply.Body)),
		Request:    req,
	}, nil
}

// CloseIdleConnections is there because the SDK panics without it.
func (t recorder) CloseIdleConnections() {}
