package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

// exchange is what is known of one call. It travels in the context, because generated
// code lies between the door and the handlers; only the call's own goroutine touches it.
type exchange struct {
	id        string
	operation string
	caller    caller
	status    int
	// end is when a poll is answered at the latest; zero for other calls.
	end time.Time
	// meters are the limits of the key and the app that the call counts on, told the limit that the client is told of; empty without limits.
	meters []meter
	told   *told
}

type exchangeKey struct{}

// exchangeOf returns the call's exchange; an empty one where there is no call.
func exchangeOf(ctx context.Context) *exchange {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x
	}
	return &exchange{}
}

// caller is who calls, proven.
type caller struct {
	kind   tokens.KeyKind
	app    ident.App
	key    ident.Key
	device tokens.Device
	// proof is the hash of the key that a device presented.
	proof tokens.Hash
}

// front wraps everything: request id, recovery, metrics and the access line.
func (a *API) front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		x := &exchange{id: requestID(r.Header.Get("X-Request-Id")), operation: "none"}
		r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		// chi matches the escaped path if there is one; always giving it makes "%2F" in a user id mean the same everywhere.
		r.URL.RawPath = r.URL.EscapedPath()
		h := w.Header()
		h.Set("X-Request-Id", x.id)
		h.Set("X-Content-Type-Options", "nosniff")
		out := &recorder{ResponseWriter: w, exchange: x}
		defer func() {
			a.recovered(out, r, recover())
			a.settle(r, x, time.Since(start))
		}()
		next.ServeHTTP(out, r)
	})
}

// recovered turns a panic into a 500, so that one bad call does not end the others.
func (a *API) recovered(w *recorder, r *http.Request, cause any) {
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares the value too
		panic(cause) // the server's own way to cut a connection
	}
	a.log.Error("call panicked", "request_id", exchangeOf(r.Context()).id, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	if w.exchange.status == 0 {
		a.fail(w, r, fault.New(fault.Internal, "internal", "something went wrong on our side"))
	}
}

// settle counts the call and writes its access line. The path is left out: it may hold a user's id.
func (a *API) settle(r *http.Request, x *exchange, took time.Duration) {
	if x.status == 0 {
		x.status = statusClientGone
	}
	a.metrics.requests.WithLabelValues(x.operation, strconv.Itoa(x.status)).Inc()
	a.metrics.duration.WithLabelValues(x.operation).Observe(took.Seconds())
	ctx := r.Context()
	if !a.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request_id", x.id), slog.String("operation", x.operation),
		slog.Int("status", x.status), slog.Duration("took", took),
	}
	for _, who := range []struct{ name, id string }{
		{"app", string(x.caller.app)}, {"key", string(x.caller.key)}, {"device", string(x.caller.device.ID)},
	} {
		if who.id != "" {
			attrs = append(attrs, slog.String(who.name, who.id))
		}
	}
	a.log.LogAttrs(ctx, slog.LevelInfo, "call", attrs...)
}

// recorder notes the status of an answer.
type recorder struct {
	http.ResponseWriter
	exchange *exchange
}

func (w *recorder) WriteHeader(status int) {
	if w.exchange.status == 0 {
		w.exchange.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.exchange.status == 0 {
		w.exchange.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// requestID keeps a caller's own id if it is of a sane shape, and makes one if not.
func requestID(given string) string {
	const most = 64
	sane := given != "" && len(given) <= most
	for i := 0; sane && i < len(given); i++ {
		c := given[i]
		sane = c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.' || c == ':'
	}
	// A key pasted into the wrong header must not reach the log.
	if sane && !looksLikeKey(given) {
		return given
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return "req_" + hex.EncodeToString(b[:])
}

func looksLikeKey(s string) bool {
	const prefix = "rouse_"
	return len(s) >= len(prefix) && s[:len(prefix)] == prefix
}
