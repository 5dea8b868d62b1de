package sim_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"rouse/providers/sim"
)

func TestReadRules(t *testing.T) {
	t.Parallel()
	rules, err := sim.ReadRules([]byte(`{"rules":[{"provider":"apns","connection":2,"action":{"latency":"10ms..20ms","timestamp_in":"-1h","reason":"Unregistered"}},{"action":{"fault":"hang"}}]}`))
	if err != nil || len(rules) != 2 || rules[0].Connection != 2 || rules[0].Action.Latency.Max != 20*time.Millisecond || rules[0].Action.TimestampIn != -time.Hour {
		t.Errorf("%+v %v", rules, err)
	}
	_, err = sim.ReadRules([]byte(`{"rules":[
		{"provider":"gcm","nth":-1,"action":{"fault":"explode","status":99}},
		{"action":{"status":503}},
		{"provder":"apns","nth":"2","count":-1,"action":{"stauts":1,"delay":"late","latency":"1s","gzip":1}},
		{"action":{"delay":"soon"}},
		{"action":{"latency":"fast"}},
		{"provider":"fcm","environment":"sandbox","action":{"fault":"refuse"},"token_prefix":"a"},
		{"provider":"fcm"},
		{"action":{}},
		{},
		null,
		{"probability":7},
		{"action":5},
		{"action":{"retry_after":"1\r\nx: y","location":"/\n","streams":4294967296}}]}`))
	if err == nil {
		t.Fatal("nonsense was taken")
	}
	// Every mistake is named, not the first alone.
	for _, want := range []string{
		`rule 1: provider is "gcm"`, "rule 1: nth is -1", `rule 1: action.fault is "explode"`, "rule 1: action.status is 99",
		"rule 3: provder is unknown", `rule 3: nth is "2", not a whole number`, "rule 3: count is -1", "rule 3: action.stauts is unknown",
		`rule 3: action.delay is "late"`, "rule 3: action.gzip is 1, not true or false",
		`rule 4: action.delay is "soon"`, `rule 5: action.latency is "fast", not a latency`,
		"rule 6: environment needs provider apns", "have no token_prefix",
		"rule 7: action is missing", "rule 8: action is missing", "rule 9: action is missing", "rule 10: it is null", "rule 11: action is missing", "rule 11: probability is 7",
		"rule 12: action is 5", "rule 13: action.retry_after has a line break", "rule 13: action.location has", "rule 13: action.streams is 4294967296",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %s in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "rule 2:") {
		t.Errorf("rule 2 is good:\n%v", err)
	}
	if text := err.Error(); strings.Contains(text, "json:") || strings.Count(text, "action is missing") != 4 {
		t.Errorf("not in our own words, or more than once:\n%s", text)
	}
	for file, want := range map[string]string{
		``: "line 1", `null`: "it is null", `[]`: "it is []", `{}`: "missing", `{"rules":null}`: "missing", `{"rule":[]}`: "rule is unknown",
		`{"rules":{}}`: "rules is {}", "{\"rules\":\n[}": "line 2", `{"rules":[]} {}`: "line 1",
	} {
		if _, err := sim.ReadRules([]byte(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, nothing about %s", file, err, want)
		}
	}
}

func TestStartChecksRulesAndSettings(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]sim.Options{
		"rule 2: provider": {Rules: []sim.Rule{{}, {Provider: "gcm"}}},
		"apns_latency":     {APNsLatency: sim.Latency{Min: 2, Max: 1}},
		"throttle_errors":  {ThrottleErrors: -1},
		"delivery":         {Delivery: "slow"},
	} {
		s, err := sim.Start(context.Background(), o)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestRuleMatchesEnvironment(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a, g := newApple(t, s), newGoogle(t, s)
	s.AddRule(sim.Rule{Environment: sim.Sandbox, Action: sim.Action{Status: 503}})
	production, sandbox := a.push(ask{}), a.push(ask{base: s.APNsSandboxURL()})
	if production.status != 200 || sandbox.status != 503 || g.send(g.message("")).status != 200 {
		t.Errorf("production %d, sandbox %d", production.status, sandbox.status)
	}
}

// TestRuleMatchesTheNthConnection counts connections from when the rule came.
func TestRuleMatchesTheNthConnection(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	newGoogle(t, s)
	push := func(client *http.Client) int {
		a.client = client
		return a.push(ask{}).status
	}
	old := h2Client(t, s)
	push(old)
	s.AddRule(sim.Rule{Provider: sim.APNs, Connection: 2, Action: sim.Action{Status: 503}})
	first, second, third := h2Client(t, s), h2Client(t, s), h2Client(t, s)
	for i, want := range []int{200, 200, 503, 200, 503} {
		if got := push([]*http.Client{old, first, second, third, second}[i]); got != want {
			t.Errorf("push %d: %d, want %d", i, got, want)
		}
	}
}

func TestRuleMatchesConnectionsOverACap(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	s.AddRule(sim.Rule{Provider: sim.APNs, OpenOver: 1, Action: sim.Action{Fault: sim.FaultRefuse}})
	one := a.client
	if got := a.push(ask{}); got.status != 200 {
		t.Fatalf("%+v", got)
	}
	a.client = h2Client(t, s)
	if got, err := a.try(within(t, patience), ask{}); err == nil {
		t.Errorf("a second connection was taken: %+v", got)
	}
	waitFor(t, "the first has gone", func() bool {
		one.CloseIdleConnections() // its request may not be cleared away yet
		return s.Stats().APNs.ConnectionsOpen == 0
	})
	if got := a.push(ask{}); got.status != 200 {
		t.Errorf("%+v", got)
	}
}

func TestNewActionsSurviveJSON(t *testing.T) {
	t.Parallel()
	rule := sim.Rule{Environment: sim.Sandbox, Connection: 1, OpenOver: 2, Action: sim.Action{
		RetryAfterDate: time.Minute, TimestampIn: -time.Hour, TimestampText: true, Latency: sim.Fixed(time.Second), Streams: 3,
		Fault: sim.FaultGoaway, Code: "ENHANCE_YOUR_CALM", Debug: "x", Then: sim.ThenStay, Location: "/", Gzip: true,
	}}
	data, err := json.Marshal(rule)
	if err != nil {
		t.Fatal(err)
	}
	var back sim.Rule
	if err := json.Unmarshal(data, &back); err != nil || back != rule {
		t.Errorf("%+v %v\n%s", back, err, data)
	}
}
