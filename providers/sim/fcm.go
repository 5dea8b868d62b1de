package sim

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// fcmStreams is MAX_CONCURRENT_STREAMS of the fake Google.
const fcmStreams = 100

// fcmBodyLimit is how much of a request body is read.
const fcmBodyLimit = 1 << 20

// fcmRequest is one complete request to FCM or to the token endpoint.
type fcmRequest struct {
	*http.Request
	provider string
	project  string
	body     []byte
	secret   string // bearer or assertion
	subject  string // device token or account, what TokenPrefix looks at
	logged   string // the body as it may be logged
	accept   func() // the effect of a 2xx, nil for none
	at       time.Time
}

// fcmHandler serves the send method and the token endpoint; everything else is
// an HTML 404, as at Google's front end.
func (s *Sim) fcmHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) { s.exchange(w, r, Token, s.judgeToken) })
	mux.HandleFunc("POST /v1/projects/{project}/{method}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("method") != "messages:send" {
			s.exchange(w, r, FCM, judgeUnknown)
			return
		}
		s.exchange(w, r, FCM, s.judgeSend)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.exchange(w, r, FCM, judgeUnknown) })
	return mux
}

func judgeUnknown(r *fcmRequest) answer {
	r.logged = string(r.body)
	return answer{status: http.StatusNotFound, reason: "NOT_FOUND", html: true, body: []byte("<!DOCTYPE html>\n<title>404</title>\n<p>That URL was not found here.\n")}
}

// exchange reads one request, judges it, asks the rules and answers.
func (s *Sim) exchange(w http.ResponseWriter, hr *http.Request, provider string, judge func(*fcmRequest) answer) {
	if !s.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.wg.Done()
	wire := wireOf(hr)
	s.journal.streams(provider, int(wire.streams.Add(1)))
	defer wire.streams.Add(-1)
	body, err := io.ReadAll(http.MaxBytesReader(w, hr.Body, fcmBodyLimit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client broke off
	}
	r := &fcmRequest{Request: hr, provider: provider, project: hr.PathValue("project"), body: body, at: time.Now()}
	ans := judge(r)
	act := s.rules.fire(query{provider: provider, token: r.subject, wire: wire}, s.settings.Load().latency(provider))
	if act.answers() {
		ans = fcmScripted(r, act.Action)
	}
	if act.wait > 0 && !s.pause(r, act.wait) {
		ans, act.Action = answer{}, Action{Fault: clientGone}
	}
	s.settle(r, ans, act.Action)
	s.bend(w, r, ans, act.Action)
}

// pause passes time; false means that the client gave up or the Sim stops.
func (s *Sim) pause(r *fcmRequest, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-s.done:
	}
	return false
}

// settle records the request and lets an accepted one have its effect, before the
// client can see an answer.
func (s *Sim) settle(r *fcmRequest, ans answer, act Action) {
	entry := Entry{
		Provider: r.provider, Method: r.Method, Path: r.URL.Path, Token: r.subject, Headers: r.headers(), Body: r.logged,
		Connection: wireOf(r.Request).number, Fault: act.Fault, At: r.at,
	}
	if act.processed() {
		entry.Status, entry.Reason = ans.status, ans.reason
	}
	s.journal.record(entry, r.secret)
	s.told(entry, r.subject)
	if act.processed() && ans.status == http.StatusOK && r.accept != nil {
		r.accept()
	}
}

// headers are the first value of each header, secrets as fingerprints.
func (r *fcmRequest) headers() map[string]string {
	headers := make(map[string]string, len(r.Header))
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = values[0]
	}
	if _, ok := headers["authorization"]; ok {
		headers["authorization"] = "Bearer " + fingerprint(r.secret)
	}
	return headers
}

// bend answers as the fault allows. net/http turns ErrAbortHandler into
// RST_STREAM INTERNAL_ERROR on HTTP/2 and into a closed connection on HTTP/1.1.
func (s *Sim) bend(w http.ResponseWriter, r *fcmRequest, ans answer, act Action) {
	wire := wireOf(r.Request)
	switch act.Fault {
	case clientGone, FaultRSTInternal:
		panic(http.ErrAbortHandler)
	case FaultHang, FaultBlackhole:
		if act.Fault == FaultBlackhole {
			wire.dark.Store(true)
		}
		select {
		case <-r.Context().Done():
		case <-s.done:
		}
		panic(http.ErrAbortHandler)
	case FaultReset:
		wire.reset()
		panic(http.ErrAbortHandler)
	case FaultCloseAfter:
		_ = wire.Close()
		panic(http.ErrAbortHandler)
	case FaultGoaway:
		w.Header().Set("Connection", "close") // on HTTP/2 net/http sends GOAWAY for it
	}
	if act.Gzip && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		ans.body = compressed(ans.body)
		w.Header().Set("Content-Encoding", "gzip")
	}
	ans.describe(w.Header())
	w.WriteHeader(ans.status)
	switch act.Fault {
	case FaultSlowBody:
		s.dribbleHTTP(w, r, ans.body, act.Delay)
	case FaultTruncate:
		_, _ = w.Write(ans.body[:len(ans.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	default:
		_, _ = w.Write(ans.body)
	}
}

// describe fills in the headers of an answer.
func (a answer) describe(header http.Header) {
	header.Set("Content-Type", "application/json; charset=UTF-8")
	if a.html {
		header.Set("Content-Type", "text/html; charset=UTF-8")
	}
	if a.retryAfter != "" {
		header.Set("Retry-After", a.retryAfter)
	}
	if a.location != "" {
		header.Set("Location", a.location)
	}
	header.Set("Content-Length", fmt.Sprint(len(a.body)))
}

func compressed(body []byte) []byte {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(body) // a buffer takes everything
	_ = z.Close()
	return packed.Bytes()
}

// dribbleHTTP sends the headers and then a byte at a time.
func (s *Sim) dribbleHTTP(w http.ResponseWriter, r *fcmRequest, body []byte, step time.Duration) {
	if step == 0 {
		step = dribbleStep
	}
	flusher := http.NewResponseController(w)
	_ = flusher.Flush()
	for i := range body {
		if !s.pause(r, step) {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(body[i : i+1])
		_ = flusher.Flush()
	}
}

// fcmScripted is the answer that a rule asks for.
func fcmScripted(r *fcmRequest, act Action) answer {
	a := fcmError(act.Reason, act.Status, r.project, "The simulator was told to answer so.")
	if r.provider == Token {
		a = oauthError(act.Reason, act.Status, "The simulator was told to answer so.")
	}
	if act.Body != "" || a.status < 300 {
		a.body, a.html = []byte(act.Body), strings.HasPrefix(act.Body, "<")
	}
	a.retryAfter, a.location = act.after(r.at), act.Location
	return a
}
