package fcm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"rouse/providers/wire"
)

// maxBody is how much of an answer is kept; Google's have a few kilobytes.
const maxBody = 64 << 10

// record is what came back for one request. It rides in the request's context,
// the one way through the SDK, and belongs to one Push.
type record struct {
	sent bool
	// generation is that of the access token used.
	generation uint64
	reply      wire.Reply
	failure    *wire.Error  // no answer from FCM
	access     *accessError // no access token, so nothing was sent
}

type recordKey struct{}

func (r *record) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, recordKey{}, r)
}

// recorder is the SDK's way to the network: it authorizes, sends once, records.
type recorder struct {
	pool   *wire.Pool
	access *accessSource
}

// RoundTrip never returns an error for a request that was tried, and never a
// 503 as it came: the SDK would repeat both. The request was built for this one call, so it may be changed.
func (t recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	rec, ok := req.Context().Value(recordKey{}).(*record)
	if !ok {
		return nil, errOutside
	}
	if rec.sent {
		return giveUp(req), nil
	}
	rec.sent = true
	token, generation, err := t.access.token(req.Context())
	if err != nil {
		rec.access = ofAccess(err)
		return giveUp(req), nil
	}
	rec.generation = generation
	req.Header.Set("Authorization", "Bearer "+token)
	rec.reply, err = t.pool.Send(req, maxBody)
	if err != nil {
		if !errors.As(err, &rec.failure) {
			rec.failure = &wire.Error{Reason: wire.ConnectionReset, Lost: true}
		}
		return giveUp(req), nil
	}
	if rec.reply.Status == http.StatusServiceUnavailable {
		return giveUp(req), nil
	}
	return &http.Response{
		StatusCode: rec.reply.Status,
		Header:     rec.reply.Header,
		Body:       io.NopCloser(bytes.NewReader(rec.reply.Body)),
		Request:    req,
	}, nil
}

// giveUp is an answer that the SDK does not repeat: it does so for transport errors and 503.
func giveUp(req *http.Request) *http.Response {
	const noSuchStatus = 599
	return &http.Response{
		StatusCode: noSuchStatus,
		Header:     http.Header{"Content-Type": {"application/json"}},
		Body:       io.NopCloser(bytes.NewReader([]byte("{}"))),
		Request:    req,
	}
}
