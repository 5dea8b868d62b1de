package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"rouse/api/contract"
	"rouse/fault"
)

// statusClientGone is what the log says of a call whose client did not wait for the answer.
const statusClientGone = 499

// statusOf is the one place where an error becomes a status.
func statusOf(e *fault.Error) int {
	switch e.Code {
	case "unsupported_media_type":
		return http.StatusUnsupportedMediaType
	case "method_not_allowed":
		return http.StatusMethodNotAllowed
	}
	switch e.Kind {
	case fault.Malformed:
		return http.StatusBadRequest
	case fault.Invalid:
		return http.StatusUnprocessableEntity
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Gone:
		return http.StatusGone
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.TooMany:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// fail answers err as a problem document, and logs what the client is not told.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if left(r.Context()) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		exchangeOf(r.Context()).status = statusClientGone
		return
	}
	status, header, body := a.problem(r.Context(), err)
	for name, values := range header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	// The client may be gone; there is nobody else to tell.
	_, _ = w.Write(body)
}

// left reports whether the client of a call left. A deadline is our own.
func left(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// problem makes the whole answer of an error.
func (a *API) problem(ctx context.Context, err error) (int, http.Header, []byte) {
	x := exchangeOf(ctx)
	e := disowned(x.caller.kind, publicFace(err))
	status := statusOf(e)
	a.logTrouble(ctx, status, e)
	p := problemOf(e, status, x.id)
	header := http.Header{"Content-Type": {"application/problem+json"}, "Cache-Control": {"no-store"}}
	switch status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", challenge(e.Code))
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		header.Set("Retry-After", seconds(e.RetryAfter))
	}
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers only: it cannot be
		body = []byte("{}")
	}
	return status, header, body
}

// problemOf writes an error of a call down.
func problemOf(e *fault.Error, status int, request string) contract.Problem {
	p := contract.Problem{
		Type:      "urn:rouse:problem:" + e.Code,
		Title:     http.StatusText(status),
		Status:    status,
		Detail:    e.Detail,
		Code:      e.Code,
		RequestId: request,
	}
	if len(e.Fields) > 0 {
		fields := make([]contract.ProblemField, len(e.Fields))
		for i, f := range e.Fields {
			fields[i] = contract.ProblemField{Pointer: f.Pointer, Detail: f.Detail}
		}
		p.Errors = &fields
	}
	return p
}

// itemProblem is the problem of one item of a call that succeeds as a whole, with its status.
func (a *API) itemProblem(ctx context.Context, err error) (int, *contract.Problem) {
	e := publicFace(err)
	status := statusOf(e)
	a.logTrouble(ctx, status, e)
	p := problemOf(e, status, exchangeOf(ctx).id)
	return status, &p
}

// publicFace is what a client may see of err.
func publicFace(err error) *fault.Error {
	var known *fault.Error
	if !errors.As(err, &known) && errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Unavailable, "unavailable", "that took too long; try again").Because(err)
	}
	return fault.From(err)
}

// logTrouble logs what is our trouble; a client's own is in the access line.
func (a *API) logTrouble(ctx context.Context, status int, e *fault.Error) {
	level := slog.LevelError
	switch {
	case status == http.StatusServiceUnavailable:
		level = slog.LevelWarn
	case status < http.StatusInternalServerError:
		return
	}
	x := exchangeOf(ctx)
	a.log.Log(ctx, level, "call failed", "request_id", x.id, "operation", x.operation, "code", e.Code, "err", e)
}

func challenge(code string) string {
	if code == "unauthenticated" {
		return `Bearer realm="rouse"`
	}
	return `Bearer realm="rouse", error="invalid_token"`
}

// seconds writes a wait for Retry-After: whole seconds, at least one.
func seconds(wait time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(wait.Seconds()))))
}
