package sim_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"rouse/providers/sim"
)

func TestAPNsScriptedAnswers(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_700_000_000_123)
	for name, row := range map[string]struct {
		action sim.Action
		status int
		body   string
		kind   string
	}{
		"reason alone":     {sim.Action{Reason: "TooManyRequests"}, 429, `{"reason":"TooManyRequests"}`, "application/json"},
		"status and none":  {sim.Action{Status: 503}, 503, "", ""},
		"status, reason":   {sim.Action{Status: 503, Reason: "Shutdown"}, 503, `{"reason":"Shutdown"}`, "application/json"},
		"live spelling":    {sim.Action{Reason: "BadEnvironmentKeyInToken"}, 403, `{"reason":"BadEnvironmentKeyInToken"}`, "application/json"},
		"unknown reason":   {sim.Action{Reason: "Whatever"}, 400, `{"reason":"Whatever"}`, "application/json"},
		"410 with time":    {sim.Action{Reason: "ExpiredToken", Timestamp: at}, 410, `{"reason":"ExpiredToken","timestamp":1700000000123}`, "application/json"},
		"410 without time": {sim.Action{Reason: "Unregistered"}, 410, `{"reason":"Unregistered"}`, "application/json"},
		"410, string time": {sim.Action{Status: 410, Body: `{"reason":"Unregistered","timestamp":"1"}`}, 410, `{"reason":"Unregistered","timestamp":"1"}`, "application/json"},
		"HTML":             {sim.Action{Status: 502, Body: "<html>Bad gateway</html>"}, 502, "<html>Bad gateway</html>", "text/html; charset=utf-8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, sim.Options{})
			a := newApple(t, s)
			row.action.RetryAfter = "17"
			s.AddRule(sim.Rule{Provider: sim.APNs, Action: row.action})
			got := a.push(ask{})
			if got.status != row.status || got.body != row.body || got.header.Get("content-type") != row.kind || got.header.Get("retry-after") != "17" {
				t.Errorf("%+v", got)
			}
			if n := len(s.Pushes(a.token)); n != 0 {
				t.Errorf("delivered %d times", n)
			}
			if e := s.Log()[0]; e.Status != row.status || e.Reason != row.action.Reason {
				t.Errorf("log %+v", e)
			}
		})
	}
}

// TestAPNsFaults checks what a real client makes of each fault, and whether the phone got the push.
func TestAPNsFaults(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		fault     string
		delivered int
		check     func(t *testing.T, got said, err error)
	}{
		{sim.FaultHang, 0, isGivenUp},
		{sim.FaultBlackhole, 0, isGivenUp},
		{sim.FaultReset, 0, func(t *testing.T, _ said, err error) {
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v, want a connection reset", err)
			}
		}},
		{sim.FaultRSTInternal, 0, func(t *testing.T, _ said, err error) {
			var stream http2.StreamError
			if !errors.As(err, &stream) || stream.Code != http2.ErrCodeInternal {
				t.Errorf("%v, want INTERNAL_ERROR", err)
			}
		}},
		{sim.FaultRSTRefused, 1, isOK}, // the transport tries again by itself
		{sim.FaultGoawayLower, 1, isOK},
		{sim.FaultGoaway, 1, isOK},
		{sim.FaultSlowBody, 1, isOK},
		{sim.FaultCloseAfter, 1, func(t *testing.T, _ said, err error) {
			if err == nil {
				t.Error("an answer came")
			}
		}},
	} {
		t.Run(row.fault, func(t *testing.T) {
			t.Parallel()
			s := start(t, sim.Options{})
			a := newApple(t, s)
			a.push(ask{})
			s.AddRule(sim.Rule{Provider: sim.APNs, Count: 1, Action: sim.Action{Fault: row.fault}})
			ctx := within(t, patience)
			if row.fault == sim.FaultHang || row.fault == sim.FaultBlackhole {
				ctx = untilLogged(t, s, 2)
			}
			got, err := a.try(ctx, ask{})
			row.check(t, got, err)
			if n := len(s.Pushes(a.token)) - 1; n != row.delivered {
				t.Errorf("delivered %d times, want %d", n, row.delivered)
			}
			if e := s.Log()[1]; e.Fault != row.fault || e.Status != map[bool]int{true: 200}[e.Status != 0] {
				t.Errorf("log %+v", e)
			}
			if row.fault == sim.FaultBlackhole {
				a.client = h2Client(t, s) // the transport cannot know that its connection is dead
			}
			if got := a.push(ask{}); got.status != 200 {
				t.Errorf("afterwards: %+v", got)
			}
		})
	}
}

func isGivenUp(t *testing.T, _ said, err error) {
	t.Helper()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v; it should have gone on until the client gave up", err)
	}
}

// untilLogged returns a context that ends a moment after the log has n entries:
// long enough for an answer that should not come.
func untilLogged(t *testing.T, s *sim.Sim, n int) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if len(s.Log()) >= n {
					cancel()
				}
			}
		}
	})
	return ctx
}

func isOK(t *testing.T, got said, err error) {
	t.Helper()
	if err != nil || got.status != 200 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestAPNsGoawayAnswersAndMovesOn(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	s.AddRule(sim.Rule{Nth: 2, Action: sim.Action{Fault: sim.FaultGoaway}})
	for range 3 {
		a.push(ask{})
	}
	var connections []int
	for _, e := range s.Log() {
		connections = append(connections, e.Connection)
	}
	if connections[0] != connections[1] || connections[1] == connections[2] {
		t.Errorf("connections %v: the third push needs a new one", connections)
	}
	waitFor(t, "the old connection is closed", func() bool { return s.Stats().APNs.ConnectionsOpen == 1 })
}

func TestAPNsGoawayLowerLeavesOlderStreamsAlone(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	c := dialRaw(t, s)
	c.push(1, a)
	c.status(1)
	c.headers(3, a, false) // waits for its body
	s.AddRule(sim.Rule{Action: sim.Action{Fault: sim.FaultGoawayLower}})
	c.push(5, a)
	if g := next[*http2.GoAwayFrame](c); g.LastStreamID != 3 || g.ErrCode != http2.ErrCodeNo {
		t.Fatalf("%v", g)
	}
	s.ClearRules()
	c.push(7, a) // too late: nobody looks at it
	c.must(c.framer.WriteData(3, true, []byte(body)))
	if got := c.status(3); got != "200" {
		t.Errorf("status %s", got)
	}
	c.ended()
	if n := len(s.Pushes(a.token)); n != 2 {
		t.Errorf("%d pushes, want those of streams 1 and 3", n)
	}
}

// TestAPNsGoawayZero is the loop of a bad credential: every new connection is
// sent away with the reason as debug data, before any answer.
func TestAPNsGoawayZero(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	remove := s.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Fault: sim.FaultGoawayZero, Reason: "BadCertificateEnvironment"}})
	for range 3 {
		c := dialRaw(t, s)
		c.push(1, a)
		goaway := c.ended()
		if goaway == nil || goaway.LastStreamID != 0 || goaway.ErrCode != http2.ErrCodeNo {
			t.Fatalf("%v", goaway)
		}
		equalJSON(t, goaway.DebugData(), []byte(`{"reason":"BadCertificateEnvironment"}`))
	}
	_, err := a.try(within(t, 300*time.Millisecond), ask{})
	if err == nil {
		t.Error("a push went through")
	}
	if n := len(s.Pushes(a.token)); n != 0 {
		t.Errorf("%d delivered", n)
	}
	remove()
	remove() // a second time does nothing
	if got := a.push(ask{}); got.status != 200 {
		t.Errorf("afterwards: %+v", got)
	}
}

func TestAPNsSlowBodyDribbles(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	s.AddRule(sim.Rule{Action: sim.Action{Fault: sim.FaultSlowBody, Reason: "BadTopic", Delay: time.Millisecond}})
	c := dialRaw(t, s)
	c.push(1, a)
	if got := c.status(1); got != "400" {
		t.Fatalf("status %s", got)
	}
	frames := 0
	for {
		data := next[*http2.DataFrame](c)
		frames++
		if data.StreamEnded() {
			break
		}
	}
	if want := len(`{"reason":"BadTopic"}`); frames != want {
		t.Errorf("%d frames for %d bytes", frames, want)
	}
}

func TestAPNsDelay(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	a.push(ask{})
	s.AddRule(sim.Rule{Nth: 1, Action: sim.Action{Delay: 80 * time.Millisecond}})
	began := time.Now()
	if got := a.push(ask{}); got.status != 200 || time.Since(began) < 80*time.Millisecond {
		t.Errorf("%+v after %v", got, time.Since(began))
	}
	s.AddRule(sim.Rule{Action: sim.Action{Delay: time.Hour}})
	ctx, cancel := context.WithCancel(context.Background())
	fails := make(chan error, 1)
	go func() {
		_, err := a.try(ctx, ask{})
		fails <- err
	}()
	waitFor(t, "the rule has the push", func() bool { return s.RuleFired(2) == 1 })
	cancel()
	if err := <-fails; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	waitFor(t, "the log knows that the client gave up", func() bool {
		log := s.Log()
		return log[len(log)-1].Fault == "client_gone"
	})
	if n := len(s.Pushes(a.token)); n != 2 {
		t.Errorf("%d pushes; what the client gave up must not arrive", n)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	other := s.NewAPNsToken(topic, false)
	statuses := func(n int, token string) string {
		var got []string
		for range n {
			got = append(got, http.StatusText(a.push(ask{path: "/3/device/" + token}).status)[:2])
		}
		return strings.Join(got, " ")
	}
	fails := sim.Action{Status: 503}
	for _, row := range []struct {
		name  string
		rules []sim.Rule
		want  string
	}{
		{"none", nil, "OK OK OK OK"},
		{"all", []sim.Rule{{Action: fails}}, "Se Se Se Se"},
		{"nth", []sim.Rule{{Nth: 3, Action: fails}}, "OK OK Se OK"},
		{"count", []sim.Rule{{Count: 2, Action: fails}}, "Se Se OK OK"},
		{"oldest first", []sim.Rule{{Count: 1, Action: fails}, {Action: sim.Action{Status: 429}}}, "Se To To To"},
		{"all rules count", []sim.Rule{{Nth: 1, Action: fails}, {Nth: 2, Action: sim.Action{Status: 429}}}, "Se To OK OK"},
		{"provider", []sim.Rule{{Provider: sim.FCM, Action: fails}}, "OK OK OK OK"},
		{"prefix", []sim.Rule{{TokenPrefix: a.token[:16], Action: fails}}, "Se Se Se Se"},
		{"other prefix", []sim.Rule{{TokenPrefix: other[:16], Action: fails}}, "OK OK OK OK"},
	} {
		s.ClearRules()
		for _, r := range row.rules {
			s.AddRule(r)
		}
		if got := statuses(4, a.token); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

func TestRuleProbabilityIsTheSameOnEveryRun(t *testing.T) {
	t.Parallel()
	run := func() (got string) {
		s := start(t, sim.Options{})
		a := newApple(t, s)
		s.AddRule(sim.Rule{Probability: 0.3, Action: sim.Action{Status: 503}})
		for range 100 {
			got += map[bool]string{true: "1", false: "0"}[a.push(ask{}).status == 503]
		}
		return got
	}
	first, second := run(), run()
	if first != second {
		t.Errorf("%s\n%s", first, second)
	}
	if n := strings.Count(first, "1"); n < 15 || n > 45 {
		t.Errorf("%d of 100 at 0.3", n)
	}
}

func TestAddRulePanicsOnNonsense(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	for _, r := range []sim.Rule{
		{Provider: "gcm"}, {Nth: -1}, {Count: -1}, {Probability: 1.5}, {Action: sim.Action{Fault: "explode"}},
		{Action: sim.Action{Status: 99}}, {Action: sim.Action{Delay: -1}}, {Provider: sim.FCM, Action: sim.Action{Fault: sim.FaultGoawayZero}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v was taken", r)
				}
			}()
			s.AddRule(r)
		}()
	}
}

// TestScripted200DoesNotDeliverWhatWasWrong: a rule may hide a refusal from the
// client, but not put a bad push on the phone.
func TestScripted200DoesNotDeliverWhatWasWrong(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a, g := newApple(t, s), newGoogle(t, s)
	s.AddRule(sim.Rule{Action: sim.Action{Status: 200, Body: "{}"}})
	for _, priority := range []string{"7", "10"} {
		if got := a.push(ask{header: map[string]string{"apns-priority": priority}}); got.status != 200 {
			t.Errorf("%+v", got)
		}
	}
	for _, more := range []string{`,"android":{"priority":"URGENT"}`, ""} {
		if got := g.send(g.message(more)); got.status != 200 {
			t.Errorf("%+v", got)
		}
	}
	if apns, fcm := len(s.Pushes(a.token)), len(s.Pushes(g.token)); apns != 1 || fcm != 1 {
		t.Errorf("%d and %d pushes, want the good one of each", apns, fcm)
	}
}
