package sim_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rouse/providers/sim"
)

func TestAPNsDeliversExactly(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	const id = "9a8e2c4e-3f6b-4f0a-9a55-2f4f1a7f9d10"
	got := a.push(ask{header: map[string]string{"apns-id": id, "apns-expiration": "0", "apns-collapse-id": strings.Repeat("x", 64)}})
	if got.status != http.StatusOK || got.body != "" || got.header.Get("apns-id") != id {
		t.Fatalf("answer %+v", got)
	}
	if got.header.Get("apns-unique-id") != "" {
		t.Error("production gives no apns-unique-id")
	}
	pushes := s.Pushes(a.token)
	if len(pushes) != 1 {
		t.Fatalf("the phone got %d pushes", len(pushes))
	}
	p := pushes[0]
	if p.N != 1 || p.Provider != sim.APNs || p.Token != a.token || p.Kind != "alert" || string(p.Body) != body || p.At.IsZero() {
		t.Errorf("push %+v", p)
	}
	if p.Headers["apns-expiration"] != "0" || p.Headers["apns-topic"] != topic || p.Headers["authorization"] != "" {
		t.Errorf("headers %v", p.Headers)
	}
	log := s.Log()
	if len(log) != 1 || log[0].Status != 200 || log[0].Stream != 1 || log[0].Body != body || log[0].Environment != sim.Production {
		t.Fatalf("log %+v", log)
	}
	if strings.Contains(log[0].Headers["authorization"], a.bearer[len("bearer "):]) || !strings.HasPrefix(log[0].Headers["authorization"], "bearer sha256:") {
		t.Errorf("the log shows the JWT: %q", log[0].Headers["authorization"])
	}
	want := sim.ProviderStats{ConnectionsOpened: 1, ConnectionsOpen: 1, Requests: 1, Accepted: 1, PeakStreams: 1, DistinctJWTs: 1}
	if stats := s.Stats(); stats.APNs != want {
		t.Errorf("stats %+v, want %+v; %v", stats.APNs, want, stats.Violations)
	}
}

// TestAPNsRefuses has a row for each check; each row breaks one thing.
func TestAPNsRefuses(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	narrow := s.NewAPNsKey(team, "NARROWKEY1", "com.example.other")
	narrowBearer := "bearer " + sign(t, narrow, jwt.SigningMethodES256, "NARROWKEY1", team, time.Now())
	sandboxed := "/3/device/" + s.NewAPNsToken(topic, true)
	foreign := "/3/device/" + s.NewAPNsToken("com.example.other", false)
	rows := []struct {
		name   string
		ask    ask
		status int
		reason string
	}{
		{"method", ask{method: http.MethodPut}, 405, "MethodNotAllowed"},
		{"path", ask{path: "/4/broadcasts/x"}, 404, "BadPath"},
		{"no token", ask{path: "/3/device/"}, 400, "MissingDeviceToken"},
		{"topic twice", ask{twice: "apns-topic"}, 400, "DuplicateHeaders"},
		{"bearer twice", ask{twice: "authorization"}, 400, "DuplicateHeaders"},
		{"no bearer", ask{header: map[string]string{"authorization": ""}}, 403, "MissingProviderToken"},
		{"empty bearer", ask{header: map[string]string{"authorization": "bearer "}}, 403, "MissingProviderToken"},
		{"other scheme", ask{header: map[string]string{"authorization": "Basic eDp5"}}, 403, "MissingProviderToken"},
		{"not a JWT", ask{header: map[string]string{"authorization": "bearer x.y.z"}}, 403, "InvalidProviderToken"},
		{"no topic", ask{header: map[string]string{"apns-topic": ""}}, 400, "MissingTopic"},
		{"bad topic", ask{header: map[string]string{"apns-topic": "com..x"}}, 400, "BadTopic"},
		{"voip topic on alert", ask{header: map[string]string{"apns-topic": topic + ".voip"}}, 400, "BadTopic"},
		{"plain topic on voip", ask{header: map[string]string{"apns-push-type": "voip"}}, 400, "BadTopic"},
		{"topic of another key", ask{header: map[string]string{"authorization": narrowBearer}}, 400, "TopicDisallowed"},
		{"upper-case id", ask{header: map[string]string{"apns-id": "9A8E2C4E-3F6B-4F0A-9A55-2F4F1A7F9D10"}}, 400, "BadMessageId"},
		{"bad expiration", ask{header: map[string]string{"apns-expiration": "-1"}}, 400, "BadExpirationDate"},
		{"date expiration", ask{header: map[string]string{"apns-expiration": "tomorrow"}}, 400, "BadExpirationDate"},
		{"priority 7", ask{header: map[string]string{"apns-priority": "7"}}, 400, "BadPriority"},
		{"background 10", ask{header: map[string]string{"apns-push-type": "background"}}, 400, "BadPriority"},
		{"push type", ask{header: map[string]string{"apns-push-type": "shout"}}, 400, "InvalidPushType"},
		{"collapse id", ask{header: map[string]string{"apns-collapse-id": strings.Repeat("x", 65)}}, 400, "BadCollapseId"},
		{"no payload", ask{body: "-"}, 400, "PayloadEmpty"},
		{"large payload", ask{body: padded(4097)}, 413, "PayloadTooLarge"},
		{"very large payload", ask{body: padded(200_000)}, 413, "PayloadTooLarge"},
		{"token not hex", ask{path: "/3/device/zz" + strings.Repeat("a", 62)}, 400, "BadDeviceToken"},
		{"token of odd length", ask{path: "/3/device/abc"}, 400, "BadDeviceToken"},
		{"token that climbs", ask{path: "/3/device/../4/broadcasts?x=1"}, 400, "BadDeviceToken"},
		{"unknown token", ask{path: "/3/device/" + strings.Repeat("ab", 32)}, 400, "BadDeviceToken"},
		{"sandbox token", ask{path: sandboxed}, 400, "BadDeviceToken"},
		{"token of another app", ask{path: foreign}, 400, "DeviceTokenNotForTopic"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			mine := *a
			mine.t, mine.client = t, h2Client(t, s)
			got := mine.push(row.ask)
			if got.status != row.status || got.reason != row.reason {
				t.Errorf("%d %s, want %d %s", got.status, got.reason, row.status, row.reason)
			}
			if got.header.Get("apns-id") == "" || got.header.Get("content-type") != "application/json" {
				t.Errorf("headers %v", got.header)
			}
		})
	}
	t.Cleanup(func() {
		if n := len(s.Pushes(a.token)); n != 0 {
			t.Errorf("%d refused pushes reached the phone", n)
		}
	})
}

// padded is a JSON payload of exactly n bytes.
func padded(n int) string {
	const frame = `{"aps":{"alert":""}}`
	return `{"aps":{"alert":"` + strings.Repeat("x", n-len(frame)) + `"}}`
}

func TestAPNsTakesTheLimits(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	for name, q := range map[string]ask{
		"4096 bytes":      {body: padded(4096)},
		"5120 for voip":   {body: padded(5120), header: map[string]string{"apns-topic": topic + ".voip", "apns-push-type": "voip"}},
		"upper-case hex":  {path: "/3/device/" + strings.ToUpper(a.token)},
		"priority 1":      {header: map[string]string{"apns-priority": "1"}},
		"no push type":    {header: map[string]string{"apns-push-type": ""}},
		"live activity":   {header: map[string]string{"apns-topic": topic + ".push-type.liveactivity", "apns-push-type": "liveactivity"}},
		"payload no JSON": {body: "not json"},
	} {
		if got := a.push(q); got.status != 200 {
			t.Errorf("%s: %d %s", name, got.status, got.reason)
		}
	}
	for _, p := range s.Pushes(a.token) {
		if p.Token != a.token {
			t.Errorf("token %q", p.Token)
		}
	}
	if v := strings.Join(s.Stats().Violations, "; "); !strings.Contains(v, "not a JSON object") || !strings.Contains(v, "apns-push-type is missing") {
		t.Errorf("violations: %s", v)
	}
}

func TestAPNsAuthenticatesBeforeItTalksOfTokens(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	s.KillToken(a.token, time.Now())
	if got := a.push(ask{header: map[string]string{"authorization": ""}}); got.reason != "MissingProviderToken" {
		t.Errorf("a stranger learnt %s", got.reason)
	}
	if got := a.push(ask{header: map[string]string{"apns-topic": ""}}); got.reason != "MissingTopic" {
		t.Errorf("%s before the topic was checked", got.reason)
	}
}

func TestAPNsDeadTokenCarriesItsTime(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	died := time.Date(2026, 3, 1, 12, 0, 0, 123_000_000, time.UTC)
	s.KillToken(strings.ToUpper(a.token), died)
	got := a.push(ask{})
	if got.status != 410 || got.reason != "Unregistered" || got.timestamp != died.UnixMilli() {
		t.Errorf("%+v", got)
	}
	if n := len(s.Pushes(a.token)); n != 0 {
		t.Errorf("a dead phone got %d pushes", n)
	}
}

func TestAPNsSandbox(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	if got := a.push(ask{base: s.APNsSandboxURL()}); got.reason != "BadDeviceToken" {
		t.Errorf("a production token in the sandbox: %+v", got)
	}
	a.token = s.NewAPNsToken(topic, true)
	got := a.push(ask{base: s.APNsSandboxURL()})
	if got.status != 200 || got.header.Get("apns-unique-id") == "" {
		t.Errorf("%+v", got)
	}
	log := s.Log()
	if log[len(log)-1].Environment != sim.Sandbox {
		t.Errorf("environment %q", log[len(log)-1].Environment)
	}
}

func TestAPNsProviderTokens(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	other := s.NewAPNsKey("TEAM000002", "KEY0000002")
	boxed := s.NewAPNsKeyIn(sim.Sandbox, team, "KEY0000003")
	es := jwt.SigningMethodES256
	now := time.Now()
	for name, row := range map[string]struct{ token, reason string }{
		"unknown kid":     {sign(t, a.key, es, "KEY9999999", team, now), "InvalidProviderToken"},
		"another's key":   {sign(t, other, es, keyID, team, now), "InvalidProviderToken"},
		"HS256":           {sign(t, a.key, jwt.SigningMethodHS256, keyID, team, now), "InvalidProviderToken"},
		"wrong team":      {sign(t, a.key, es, keyID, "TEAM000002", now), "InvalidProviderToken"},
		"from the future": {sign(t, a.key, es, keyID, team, now.Add(61*time.Minute)), "InvalidProviderToken"},
		"expired":         {sign(t, a.key, es, keyID, team, now.Add(-61*time.Minute)), "ExpiredProviderToken"},
		"wrong world":     {sign(t, boxed, es, "KEY0000003", team, now), "BadEnvironmentKeyIdInToken"},
		"almost expired":  {sign(t, a.key, es, keyID, team, now.Add(-59*time.Minute)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mine := *a
			mine.t, mine.client, mine.bearer = t, h2Client(t, s), "bearer "+row.token
			if got := mine.push(ask{}); got.reason != row.reason {
				t.Errorf("%d %s, want %s", got.status, got.reason, row.reason)
			}
		})
	}
}

func TestAPNsConnectionBelongsToOneTeamAndKey(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	foreign := sign(t, s.NewAPNsKey("TEAM000002", "KEY0000002"), jwt.SigningMethodES256, "KEY0000002", "TEAM000002", time.Now())
	sibling := sign(t, s.NewAPNsKey(team, "KEY0000003"), jwt.SigningMethodES256, "KEY0000003", team, time.Now())
	for _, step := range []struct{ bearer, reason string }{
		{a.bearer, ""}, {"bearer " + foreign, "InvalidProviderToken"}, {"bearer " + sibling, "UnrelatedKeyIdInToken"}, {a.bearer, ""},
	} {
		if got := a.push(ask{header: map[string]string{"authorization": step.bearer}}); got.reason != step.reason {
			t.Errorf("%q, want %q", got.reason, step.reason)
		}
	}
	a.client = h2Client(t, s)
	if got := a.push(ask{header: map[string]string{"authorization": "bearer " + sibling}}); got.status != 200 {
		t.Errorf("a new connection: %+v", got)
	}
}

func TestAPNsExpiredTokenSpoilsTheConnection(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	good := a.bearer
	old := "bearer " + sign(t, a.key, jwt.SigningMethodES256, keyID, team, time.Now().Add(-2*time.Hour))
	for i, bearer := range []string{good, old, good} {
		want := []string{"", "ExpiredProviderToken", "ExpiredProviderToken"}[i]
		if got := a.push(ask{header: map[string]string{"authorization": bearer}}); got.reason != want {
			t.Errorf("push %d: %q, want %q", i, got.reason, want)
		}
	}
	a.client = h2Client(t, s)
	if got := a.push(ask{}); got.status != 200 {
		t.Errorf("a new connection: %+v", got)
	}
}

func TestAPNsScriptedExpirySpoilsTheConnectionToo(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	s.AddRule(sim.Rule{Count: 1, Action: sim.Action{Reason: "ExpiredProviderToken"}})
	for range 2 {
		if got := a.push(ask{}); got.status != 403 || got.reason != "ExpiredProviderToken" {
			t.Errorf("%+v", got)
		}
	}
	a.client = h2Client(t, s)
	if got := a.push(ask{}); got.status != 200 {
		t.Errorf("a new connection: %+v", got)
	}
}

func TestAPNsCountsProviderTokenUpdates(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	var got []string
	for i := range 4 {
		bearer := "bearer " + sign(t, a.key, jwt.SigningMethodES256, keyID, team, time.Now().Add(-time.Duration(i)*time.Minute))
		got = append(got, a.push(ask{header: map[string]string{"authorization": bearer}}).reason)
	}
	// The first one is no update, the second is the one allowed in 20 minutes.
	want := []string{"", "", "TooManyProviderTokenUpdates", "TooManyProviderTokenUpdates"}
	if strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("%v, want %v", got, want)
	}
	if n := s.Stats().APNs.DistinctJWTs; n != 4 {
		t.Errorf("%d distinct JWTs", n)
	}
}

// TestAPNsOpensUpAfterAuthentication sends one push, then 300 at once: with the
// limit known, they need neither a second connection nor a refused stream.
func TestAPNsOpensUpAfterAuthentication(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{Strict: true})
	a := newApple(t, s)
	a.push(ask{})
	s.AddRule(sim.Rule{Action: sim.Action{Delay: 200 * time.Millisecond}})
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			got, err := a.try(within(t, patience), ask{header: map[string]string{"apns-collapse-id": strconv.Itoa(i)}})
			if err != nil || got.status != 200 {
				t.Errorf("push %d: %+v %v", i, got, err)
			}
		})
	}
	wg.Wait()
	stats := s.Stats().APNs
	if stats.ConnectionsOpened != 1 || stats.RefusedStreams != 0 || stats.Accepted != 301 || stats.Violations != 0 {
		t.Errorf("%+v", stats)
	}
	if stats.PeakStreams < 20 {
		t.Errorf("the 300 went out %d at a time", stats.PeakStreams)
	}
	seen := map[string]bool{}
	for i, p := range s.Pushes(a.token) {
		if p.N != i+1 {
			t.Fatalf("push %d has number %d", i, p.N)
		}
		seen[p.Headers["apns-collapse-id"]] = true
	}
	if len(seen) != 301 { // 300 and the first, which had none
		t.Errorf("%d different pushes arrived", len(seen))
	}
}

// TestAPNsShowsTheColdStart is the same without the first push: what a client does
// that does not warm its connection up must be visible here.
func TestAPNsShowsTheColdStart(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	s.AddRule(sim.Rule{Action: sim.Action{Delay: 200 * time.Millisecond}})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got, err := a.try(within(t, patience), ask{}); err != nil || got.status != 200 {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	wg.Wait()
	if stats := s.Stats().APNs; stats.RefusedStreams == 0 || stats.Accepted != 50 {
		t.Errorf("%+v", stats)
	}
}
