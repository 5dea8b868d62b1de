package sim_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"rouse/providers/sim"
)

func TestAPNsResetsStreamsWithEachCode(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	for fault, code := range map[string]http2.ErrCode{
		sim.FaultRSTRefused: http2.ErrCodeRefusedStream, sim.FaultRSTInternal: http2.ErrCodeInternal, sim.FaultRSTProtocol: http2.ErrCodeProtocol,
		sim.FaultRSTCancel: http2.ErrCodeCancel, sim.FaultRSTCalm: http2.ErrCodeEnhanceYourCalm,
	} {
		remove := s.AddRule(sim.Rule{Count: 1, Action: sim.Action{Fault: fault}})
		c := dialRaw(t, s)
		c.push(1, a)
		if r := next[*http2.RSTStreamFrame](c); r.StreamID != 1 || r.ErrCode != code {
			t.Errorf("%s: %v", fault, r)
		}
		c.push(3, a)
		if got := c.status(3); got != "200" {
			t.Errorf("%s: afterwards %s", fault, got)
		}
		remove()
	}
	if n := len(s.Pushes(a.token)); n != 5 {
		t.Errorf("%d pushes, want those after the resets", n)
	}
}

// TestAPNsGoawayWithCodeAndDebugData closes with a push under way, or leaves it to the client.
func TestAPNsGoawayWithCodeAndDebugData(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	for name, row := range map[string]struct {
		action    sim.Action
		last      uint32
		debug     string
		answered  bool
		delivered int
	}{
		"answered, closed when idle": {sim.Action{Fault: sim.FaultGoaway, Code: "ENHANCE_YOUR_CALM", Debug: `{"reason":"Shutdown"}`}, 3, `{"reason":"Shutdown"}`, true, 1},
		"answered, stays":            {sim.Action{Fault: sim.FaultGoaway, Then: sim.ThenStay}, 3, "", true, 1},
		"closed unanswered":          {sim.Action{Fault: sim.FaultGoaway, Code: "INTERNAL_ERROR", Debug: "oops", Then: sim.ThenClose}, 3, "oops", false, 1},
		"lower, stays":               {sim.Action{Fault: sim.FaultGoawayLower, Then: sim.ThenStay}, 1, "", false, 0},
		"zero, stays":                {sim.Action{Fault: sim.FaultGoawayZero, Reason: "BadCertificate", Code: "PROTOCOL_ERROR", Then: sim.ThenStay}, 0, `{"reason":"BadCertificate"}`, false, 0},
	} {
		before := len(s.Pushes(a.token))
		c := dialRaw(t, s)
		c.push(1, a)
		c.status(1)
		remove := s.AddRule(sim.Rule{Action: row.action})
		c.push(3, a)
		g := next[*http2.GoAwayFrame](c)
		if g.LastStreamID != row.last || string(g.DebugData()) != row.debug || g.ErrCode.String() != orNone(row.action.Code) {
			t.Errorf("%s: %v %q", name, g, g.DebugData())
		}
		remove()
		if row.answered && c.status(3) != "200" {
			t.Errorf("%s: it was not answered", name)
		}
		if row.action.Then == sim.ThenStay {
			c.must(c.framer.WritePing(false, [8]byte{1}))
			if p := next[*http2.PingFrame](c); !p.IsAck() {
				t.Errorf("%s: %v", name, p)
			}
			_ = c.conn.Close()
		} else {
			c.ended()
		}
		if n := len(s.Pushes(a.token)) - before - 1; n != row.delivered {
			t.Errorf("%s: delivered %d times, want %d", name, n, row.delivered)
		}
	}
}

func orNone(code string) string {
	if code == "" {
		return "NO_ERROR"
	}
	return code
}

func TestAPNsChangesTheStreamLimitUnderWay(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	c := dialRaw(t, s)
	c.limit()
	c.push(1, a)
	if n := c.limit(); n != 1000 {
		t.Fatalf("limit %d", n)
	}
	c.status(1)
	for i, n := range []int{1, 10, 1000} {
		remove := s.AddRule(sim.Rule{Action: sim.Action{Streams: n}})
		id := uint32(i)*6 + 3
		c.push(id, a)
		if got := c.limit(); got != uint32(n) {
			t.Errorf("limit %d, want %d", got, n)
		}
		if got := c.status(id); got != "200" {
			t.Errorf("status %s", got)
		}
		remove()
		c.headers(id+2, a, false)
		c.headers(id+4, a, false) // one too many, where the limit is 1
		if n > 1 {
			c.must(c.framer.WriteData(id+4, true, []byte(body)))
			if got := c.status(id + 4); got != "200" {
				t.Errorf("status %s", got)
			}
		} else if r := next[*http2.RSTStreamFrame](c); r.StreamID != id+4 || r.ErrCode != http2.ErrCodeRefusedStream {
			t.Errorf("%v", r)
		}
		c.must(c.framer.WriteData(id+2, true, []byte(body)))
		if got := c.status(id + 2); got != "200" {
			t.Errorf("status %s", got)
		}
	}
}

func TestAPNsThrottlesAfterRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{Throttle4xx: true, ThrottleErrors: 5})
	a := newApple(t, s)
	dead := s.NewAPNsToken(topic, false)
	s.KillToken(dead, time.Now())
	live := a.token
	c := dialRaw(t, s)
	c.push(1, a)
	c.limit()
	c.limit()
	c.status(1)
	say := func(id uint32, token, want string) {
		t.Helper()
		a.token = token
		c.push(id, a)
		if got := c.status(id); got != want {
			t.Errorf("stream %d: %s, want %s", id, got, want)
		}
	}
	say(3, dead, "410") // a 410 costs nothing
	a.token = "abcd"
	c.push(5, a) // 2 of 5
	if n := c.limit(); n != 1 {
		t.Errorf("limit %d after a refusal", n)
	}
	c.status(5)
	a.token = live
	c.push(7, a)
	if n := c.limit(); n != 1000 {
		t.Errorf("limit %d after an acceptance", n)
	}
	c.status(7)
	remove := s.AddRule(sim.Rule{Action: sim.Action{Reason: "TooManyRequests"}})
	a.token = live
	c.push(9, a) // 3 of 5
	if n := c.limit(); n != 1 {
		t.Errorf("limit %d after another refusal", n)
	}
	c.status(9)
	remove()
	a.token = "abcd"
	c.push(11, a) // 5 of 5
	if g := c.ended(); g == nil || g.LastStreamID != 11 {
		t.Errorf("GOAWAY %v", g)
	}
}

func TestAPNsTimesOfARefusal(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	for _, row := range []struct {
		in     time.Duration
		asText bool
	}{{-48 * time.Hour, false}, {time.Hour, false}, {-time.Hour, true}} {
		remove := s.AddRule(sim.Rule{Action: sim.Action{Reason: "Unregistered", TimestampIn: row.in, TimestampText: row.asText, RetryAfterDate: time.Hour}})
		got := a.push(ask{})
		remove()
		if quoted := strings.Contains(got.body, `"timestamp":"`); quoted != row.asText || got.status != 410 {
			t.Errorf("%+v: %s", row, got.body)
		}
		if at := time.UnixMilli(got.timestamp); !row.asText && (time.Until(at)-row.in).Abs() > time.Minute {
			t.Errorf("%+v: %v", row, at)
		}
		if at, err := http.ParseTime(got.header.Get("retry-after")); err != nil || (time.Until(at)-time.Hour).Abs() > time.Minute {
			t.Errorf("Retry-After %v %v", at, err)
		}
	}
}

// TestTruncatedBodies: the client sees the status and half a body. The push was processed.
func TestTruncatedBodies(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a, g := newApple(t, s), newGoogle(t, s)
	s.AddRule(sim.Rule{Action: sim.Action{Fault: sim.FaultTruncate}})
	got, err := g.try(within(t, patience), g.sendURL(), "application/json", g.message(""))
	if err == nil || got.status != 200 || got.body == "" {
		t.Errorf("%+v %v", got, err)
	}
	a.bearer = "bearer nonsense"
	got, err = a.try(within(t, patience), ask{})
	var stream http2.StreamError
	if !errors.As(err, &stream) || got.status != 403 || got.body != `{"reason":"Inval` {
		t.Errorf("%+v %v", got, err)
	}
	if n := len(s.Pushes(g.token)); n != 1 {
		t.Errorf("%d pushes", n)
	}
	r, err := http.Post(strings.TrimSuffix(s.FCMPlainURL(), "/v1")+"/token", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	if _, err := io.ReadAll(r.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("over HTTP/1.1: %v", err)
	}
}

func TestFCMRedirectAndGzip(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	stay := *g.client
	stay.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	g.client = &stay
	remove := s.AddRule(sim.Rule{Action: sim.Action{Status: 302, Location: "https://elsewhere.invalid/"}})
	if got := g.send(g.message("")); got.status != 302 || got.header.Get("location") != "https://elsewhere.invalid/" {
		t.Errorf("%+v", got)
	}
	remove()
	s.AddRule(sim.Rule{Action: sim.Action{Reason: "UNREGISTERED", Gzip: true}})
	for accepts, want := range map[string]string{"gzip": "gzip", "identity": ""} {
		r, err := http.NewRequest(http.MethodPost, g.sendURL(), strings.NewReader(g.message("")))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", accepts)
		resp, err := g.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Content-Encoding"); got != want {
			t.Errorf("asked for %s, got %q", accepts, got)
		}
	}
	if got := g.send(g.message("")); !strings.Contains(got.body, "UNREGISTERED") {
		t.Errorf("a transport that unpacks by itself: %+v", got)
	}
}

// TestFCMDryRunChecksAll: validate_only says of a bad request what sending it would.
func TestFCMDryRunChecksAll(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	dead := s.NewFCMToken(project)
	s.KillToken(dead, time.Now())
	for message, want := range map[string]int{
		g.message(""):                              200,
		g.message(`,"android":{"ttl":"1h"}`):       400,
		`{"message":{"token":"not-a-token"}}`:      400,
		`{"message":{"token":"` + dead + `"}}`:     404,
		`{"message":{"token":"x","topic":"also"}}`: 400,
	} {
		if got := g.send(strings.Replace(message, "{", `{"validate_only":true,`, 1)); got.status != want {
			t.Errorf("%s: %+v", message, got)
		}
	}
	s.RevokeAccessTokens()
	if got := g.send(strings.Replace(g.message(""), "{", `{"validate_only":true,`, 1)); got.status != 401 {
		t.Errorf("%+v", got)
	}
	if n := len(s.Pushes(g.token)); n != 0 {
		t.Errorf("%d pushes", n)
	}
}
