package sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rouse/providers/sim"
)

// remote speaks to the control API.
type remote struct {
	t    *testing.T
	base string
}

func newRemote(t *testing.T) (*sim.Sim, *remote) {
	t.Helper()
	s := start(t, sim.Options{ControlListen: "127.0.0.1:0"})
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s, &remote{t: t, base: s.ControlURL()}
}

// call sends a request; the answer must have this status and is decoded into out, if that is not nil.
func (c *remote) call(method, path, in string, status int, out any) {
	c.t.Helper()
	got := c.ask(method, path, in)
	if got.status != status {
		c.t.Fatalf("%s %s: %d %s", method, path, got.status, got.body)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal([]byte(got.body), out); err != nil {
		c.t.Fatalf("%s %s: %v in %s", method, path, err, got.body)
	}
}

func (c *remote) ask(method, path, in string) said {
	c.t.Helper()
	r, err := http.NewRequestWithContext(within(c.t, patience), method, c.base+path, strings.NewReader(in))
	if err != nil {
		c.t.Fatal(err)
	}
	got, err := roundTrip(http.DefaultClient, r)
	if err != nil {
		c.t.Fatal(err)
	}
	return got
}

// TestControlRunsAWholeStory does everything over HTTP that a program in another
// language would: credentials, tokens, pushes, rules, log, counters, reset.
func TestControlRunsAWholeStory(t *testing.T) {
	t.Parallel()
	s, c := newRemote(t)
	a := newApple(t, s)
	var key struct {
		PrivateKey string `json:"private_key"`
	}
	c.call("POST", "/control/apns/keys", `{"team_id":"T","key_id":"K","topics":["com.example.app"]}`, 201, &key)
	a.bearer = "bearer " + sign(t, key.PrivateKey, jwt.SigningMethodES256, "K", "T", time.Now())
	var made struct{ Token string }
	c.call("POST", "/control/tokens", `{"provider":"apns","topic":"com.example.app"}`, 201, &made)
	a.token = made.Token
	var rule struct{ ID int }
	c.call("POST", "/control/rules", `{"provider":"apns","token_prefix":"`+a.token[:8]+`","count":1,"action":{"status":503,"reason":"Shutdown","delay":"1ms"}}`, 201, &rule)
	if got := a.push(ask{}); got.reason != "Shutdown" {
		t.Errorf("%+v", got)
	}
	var rules struct {
		Rules []struct {
			ID, Seen, Fired int
			Rule            sim.Rule
		}
	}
	c.call("GET", "/control/rules", "", 200, &rules)
	if len(rules.Rules) != 1 || rules.Rules[0].ID != rule.ID || rules.Rules[0].Fired != 1 || rules.Rules[0].Rule.Action.Delay != time.Millisecond {
		t.Errorf("%+v", rules)
	}
	c.call("DELETE", "/control/rules/1", "", 204, nil)
	c.call("DELETE", "/control/rules/1", "", 404, nil)
	if got := a.push(ask{}); got.status != 200 {
		t.Errorf("%+v", got)
	}
	var pushes struct{ Pushes []sim.Delivered }
	c.call("GET", "/control/pushes?token="+a.token, "", 200, &pushes)
	if len(pushes.Pushes) != 1 || string(pushes.Pushes[0].Body) != body || pushes.Pushes[0].Kind != "alert" {
		t.Errorf("%+v", pushes)
	}
	var log struct{ Entries []sim.Entry }
	c.call("GET", "/control/log", "", 200, &log)
	if len(log.Entries) != 2 || log.Entries[0].Reason != "Shutdown" || log.Entries[1].Status != 200 {
		t.Errorf("%+v", log)
	}
	var stats sim.Stats
	c.call("GET", "/control/stats", "", 200, &stats)
	if stats.APNs.Requests != 2 || stats.APNs.Rejected != 1 {
		t.Errorf("%+v", stats)
	}
	c.call("DELETE", "/control/tokens/"+a.token, "", 204, nil)
	if got := a.push(ask{}); got.status != 410 {
		t.Errorf("%+v", got)
	}
	c.call("POST", "/control/reset", "", 204, nil)
	c.call("GET", "/control/log", "", 200, &log)
	if len(log.Entries) != 0 {
		t.Errorf("%+v", log)
	}
}

func TestControlMakesGoogleAccounts(t *testing.T) {
	t.Parallel()
	s, c := newRemote(t)
	g := &google{t: t, sim: s, client: h2Client(t, s), base: s.FCMURL(), tokenURL: s.FCMTokenURL()}
	c.call("POST", "/control/fcm/accounts", `{"project":"demo-project"}`, 201, &g.account)
	var made struct{ Token string }
	c.call("POST", "/control/tokens", `{"provider":"fcm","project":"demo-project"}`, 201, &made)
	g.token, g.bearer = made.Token, g.login()
	if got := g.send(g.message("")); got.status != 200 {
		t.Errorf("%+v", got)
	}
	c.call("DELETE", "/control/tokens/"+g.token, "", 204, nil)
	if got := g.send(g.message("")); got.failure(t).errorCode() != "UNREGISTERED" {
		t.Errorf("%+v", got)
	}
	var where map[string]string
	c.call("GET", "/control/endpoints", "", 200, &where)
	if where["apns"] != s.APNsURL() || where["fcm"] != s.FCMURL() || where["fcm_token"] != s.FCMTokenURL() || where["ca"] != string(s.CAPEM()) {
		t.Errorf("%v", where)
	}
}

// TestControlWakesASleepingPhone is the terminal phone: it waits, and the answer
// comes with the push and not with the end of the wait.
func TestControlWakesASleepingPhone(t *testing.T) {
	t.Parallel()
	s, c := newRemote(t)
	a := newApple(t, s)
	var pushes struct{ Pushes []sim.Delivered }
	woken := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(woken)
		c.call("GET", "/control/pushes?after=1&wait=55&token="+a.token, "", 200, &pushes)
	}()
	a.push(ask{})
	a.push(ask{})
	<-woken
	if len(pushes.Pushes) != 1 || pushes.Pushes[0].N != 2 || time.Since(began) > patience {
		t.Errorf("%+v after %v", pushes, time.Since(began))
	}
	began = time.Now()
	c.call("GET", "/control/pushes?after=2&wait=1&token="+a.token, "", 200, &pushes)
	if took := time.Since(began); len(pushes.Pushes) != 0 || took < time.Second {
		t.Errorf("%+v after %v", pushes, took)
	}
}

func TestControlSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s, c := newRemote(t)
	token := s.NewFCMToken(project)
	for _, row := range []struct {
		method, path, in string
		status           int
		says             string
	}{
		{"GET", "/control/nothing", "", 404, "not part"},
		{"PUT", "/control/reset", "", 404, "PUT"},
		{"POST", "/control/rules", `{`, 400, "body"},
		{"POST", "/control/rules", `{"nht":1}`, 422, "nht"},
		{"POST", "/control/rules", `{"action":{"stauts":1},"nth":-1}`, 422, "stauts"},
		{"POST", "/control/rules", `{"action":{"delay":"soon"}}`, 422, "300ms"},
		{"POST", "/control/rules", `null`, 422, "null"},
		{"POST", "/control/rules", `{}`, 422, "action is missing"},
		{"POST", "/control/rules", `{"action":{"retry_after":"1\r\n"}}`, 422, "retry_after"},
		{"PUT", "/control/rules", `{"rules":[{},{"nth":-1}]}`, 422, "rule 1: action is missing or says nothing; it is what happens, such as {\"status\": 503}; rule 2: action"},
		{"POST", "/control/rules", `{"action":{"fault":"explode"}}`, 422, "goaway_zero"},
		{"POST", "/control/rules", `{"probability":2}`, 422, "between 0 and 1"},
		{"DELETE", "/control/rules/x", "", 404, "no rule"},
		{"POST", "/control/apns/keys", `{"team_id":"T"}`, 422, "key_id"},
		{"POST", "/control/apns/keys", `{"team_id":"T","key_id":"K","environment":"test"}`, 422, "sandbox"},
		{"POST", "/control/fcm/accounts", `{}`, 422, "project"},
		{"POST", "/control/tokens", `{"provider":"apns","project":"x"}`, 422, "topic"},
		{"POST", "/control/tokens", `{"provider":"wns"}`, 422, `"wns"`},
		{"DELETE", "/control/tokens/x", "", 404, "no such"},
		{"GET", "/control/pushes?token=x", "", 404, "no such"},
		{"GET", "/control/pushes?wait=56&token=" + token, "", 400, "55"},
		{"GET", "/control/pushes?after=-1&token=" + token, "", 400, "after"},
	} {
		got := c.ask(row.method, row.path, row.in)
		var problem struct {
			Title, Detail string
			Status        int
		}
		_ = json.Unmarshal([]byte(got.body), &problem)
		if got.status != row.status || !strings.Contains(problem.Detail, row.says) {
			t.Errorf("%s %s %s: %d %s", row.method, row.path, row.in, got.status, got.body)
		}
		if row.says != "" && (got.header.Get("content-type") != "application/problem+json" || problem.Status != row.status || problem.Title == "") {
			t.Errorf("%s %s: %v %+v", row.method, row.path, got.header, problem)
		}
	}
}

// TestControlRefusesOtherSites: a page in the developer's browser must not reset the simulator.
func TestControlRefusesOtherSites(t *testing.T) {
	t.Parallel()
	_, c := newRemote(t)
	r, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, c.base+"/control/reset", nil)
	r.Header.Set("Origin", "https://evil.example")
	got, err := roundTrip(http.DefaultClient, r)
	if err != nil || got.status != http.StatusForbidden {
		t.Errorf("%+v %v", got, err)
	}
}

func TestNoControlUnlessAsked(t *testing.T) {
	t.Parallel()
	if url := start(t, sim.Options{}).ControlURL(); url != "" {
		t.Errorf("it listens on %s", url)
	}
}

func TestRuleSurvivesJSON(t *testing.T) {
	t.Parallel()
	rule := sim.Rule{
		Provider: sim.APNs, TokenPrefix: "ab", Nth: 2, Count: 3, Probability: 0.5,
		Action: sim.Action{
			Delay: 1500 * time.Millisecond, Status: 410, Reason: "Unregistered", Body: "{}", RetryAfter: "1",
			Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Fault: sim.FaultSlowBody,
		},
	}
	data, err := json.Marshal(rule)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"provider":"apns","token_prefix":"ab","nth":2,"count":3,"probability":0.5,"action":{"delay":"1.5s","status":410,` +
		`"reason":"Unregistered","body":"{}","retry_after":"1","timestamp":"2026-01-02T03:04:05Z","fault":"slow_body"}}`
	equalJSON(t, data, []byte(want))
	var back sim.Rule
	if err := json.Unmarshal(data, &back); err != nil || back != rule {
		t.Errorf("%+v %v", back, err)
	}
	if data, _ := json.Marshal(sim.Rule{}); !bytes.Equal(data, []byte(`{"action":{}}`)) {
		t.Errorf("the zero rule is %s", data)
	}
}
