package client

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// WithKey sends the key with every request.
func WithKey(key string) ClientOption {
	return WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+key)
		return nil
	})
}

// Error is an answer that was not what was asked for.
type Error struct {
	// Problem is the server's own words. Its Code is empty if the answer came from something else in between.
	Problem
	// RetryAfter is how long the server asks to stay away; 0 if it does not say.
	RetryAfter time.Duration
}

// Error returns status, code, sentence, and the id to quote to the operator.
func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("the server answered %d %s", e.Status, e.Title)
	}
	s := fmt.Sprintf("%s (%d %s)", e.Detail, e.Status, e.Code)
	if e.Errors != nil {
		for _, f := range *e.Errors {
			s += fmt.Sprintf("; %s %s", f.Pointer, f.Detail)
		}
	}
	return s + " [" + e.RequestId + "]"
}

// Temporary reports whether the same request may succeed later.
func (e *Error) Temporary() bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout || e.Status >= http.StatusInternalServerError
}

// Check returns an *Error for an answer other than 2xx, and nil for those. body is the answer's body, as the
// generated methods keep it.
func Check(r *http.Response, body []byte) error {
	if r.StatusCode >= 200 && r.StatusCode < 300 {
		return nil
	}
	e := &Error{RetryAfter: retryAfter(r.Header)}
	if json.Unmarshal(body, &e.Problem) != nil {
		e.Problem = Problem{} // not a problem document: a proxy's page
	}
	e.Status = r.StatusCode
	if e.Title == "" {
		e.Title = http.StatusText(r.StatusCode)
	}
	return e
}

// retryAfter reads the header's seconds; the date form is not used by this server.
func retryAfter(h http.Header) time.Duration {
	s, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || s < 0 || s > math.MaxInt32 {
		return 0
	}
	return time.Duration(s) * time.Second
}
