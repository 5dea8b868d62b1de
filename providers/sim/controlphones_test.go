package sim_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rouse/providers/sim"
)

// TestControlTurnsPhonesOffAndOn tells the story of a phone that was away.
func TestControlTurnsPhonesOffAndOn(t *testing.T) {
	t.Parallel()
	s, c := newRemote(t)
	a := newApple(t, s)
	at := "/control/tokens/" + a.token
	c.call("POST", at+"/online", `{"online":false}`, 409, nil)
	var settings sim.Settings
	c.call("PATCH", "/control/settings", `{"delivery":"real"}`, 200, &settings)
	if settings.Delivery != sim.DeliveryReal || settings.ThrottleErrors != 100 || settings.AccessTokenLife != 3599*time.Second {
		t.Errorf("%+v", settings)
	}
	c.call("POST", at+"/online", `{"online":false}`, 204, nil)
	a.push(ask{})
	a.push(ask{})
	var phone sim.PhoneState
	c.call("GET", at, "", 200, &phone)
	if want := (sim.PhoneState{Provider: sim.APNs, Owner: topic, Held: 1, Lost: sim.Lost{Replaced: 1}}); phone != want {
		t.Errorf("%+v", phone)
	}
	c.call("POST", "/control/clock", `{"advance":"721h"}`, 204, nil)
	c.call("POST", at+"/online", `{"online":true}`, 204, nil)
	c.call("GET", at, "", 200, &phone)
	if phone.Pushes != 0 || phone.Lost.Expired != 1 || !phone.Online {
		t.Errorf("%+v", phone)
	}
	c.call("POST", at+"/dozing", `{"dozing":true}`, 204, nil)
	c.call("POST", at+"/demoted", `{"demoted":true}`, 204, nil)
	c.call("GET", at, "", 200, &phone)
	if !phone.Dozing || !phone.Demoted {
		t.Errorf("%+v", phone)
	}
	c.call("DELETE", at+"?at=2020-01-02T03:04:05Z", "", 204, nil)
	if got := a.push(ask{}); got.status != 410 || got.timestamp != time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC).UnixMilli() {
		t.Errorf("%+v", got)
	}
}

func TestControlSetsRulesAndSettings(t *testing.T) {
	t.Parallel()
	s, c := newRemote(t)
	a := newApple(t, s)
	s.AddRule(sim.Rule{Action: sim.Action{Status: 500}})
	var made struct{ IDs []int }
	c.call("PUT", "/control/rules", `{"rules":[{"action":{"status":503,"retry_after_date":"1m"}}]}`, 200, &made)
	if got := a.push(ask{}); got.status != 503 || len(made.IDs) != 1 || made.IDs[0] != 2 {
		t.Errorf("%+v %+v", got, made)
	}
	c.call("PUT", "/control/rules", `{"rules":[]}`, 200, nil)
	if got := a.push(ask{}); got.status != 200 {
		t.Errorf("%+v", got)
	}
	c.call("PATCH", "/control/settings", `{"access_token_life":"2s","apns_latency":"1ms..2ms","strict":true,"throttle_4xx":true}`, 200, nil)
	want := sim.Settings{
		Strict: true, Throttle4xx: true, ThrottleErrors: 100, AccessTokenLife: 2 * time.Second,
		APNsLatency: sim.Latency{Min: time.Millisecond, Max: 2 * time.Millisecond}, Delivery: sim.DeliveryInstant,
	}
	if got := s.Settings(); got != want {
		t.Errorf("%+v", got)
	}
	var got sim.Settings
	c.call("GET", "/control/settings", "", 200, &got)
	if got != want {
		t.Errorf("%+v", got)
	}
	if g := newGoogle(t, s); !strings.Contains(g.trade(g.assertion(nil, nil)).body, `"expires_in":2`) {
		t.Error("the life of access tokens has not changed")
	}
}

func TestControlRevokes(t *testing.T) {
	t.Parallel()
	s, c := newRemote(t)
	a, g := newApple(t, s), newGoogle(t, s)
	a.push(ask{})
	c.call("DELETE", "/control/apns/keys/"+keyID, "", 204, nil)
	c.call("DELETE", "/control/apns/keys/"+keyID, "", 404, nil)
	if got := a.push(ask{}); got.reason != "InvalidProviderToken" {
		t.Errorf("%+v", got)
	}
	key := s.NewAPNsKey(team, keyID)
	a.bearer = "bearer " + sign(t, key, jwt.SigningMethodES256, keyID, team, time.Now())
	a.client = h2Client(t, s)
	if got := a.push(ask{}); got.status != 200 {
		t.Errorf("%+v", got)
	}
	email := "/control/fcm/accounts/" + url.PathEscape(g.account.Email)
	c.call("DELETE", email, "", 204, nil)
	c.call("DELETE", email, "", 404, nil)
	if got := g.trade(g.assertion(nil, nil)); !strings.Contains(got.body, "invalid_grant") {
		t.Errorf("%+v", got)
	}
	if got := g.send(g.message("")); got.status != 200 {
		t.Errorf("the access token is good still: %+v", got)
	}
	c.call("DELETE", "/control/fcm/access-tokens", "", 204, nil)
	if got := g.send(g.message("")); got.status != 401 {
		t.Errorf("%+v", got)
	}
}

func TestControlFiltersTheLog(t *testing.T) {
	t.Parallel()
	s, c := newRemote(t)
	a := newApple(t, s)
	g := newGoogle(t, s)                  // 1: the token endpoint
	a.push(ask{})                         // 2
	a.push(ask{base: s.APNsSandboxURL()}) // 3: BadDeviceToken
	g.send(g.message(""))                 // 4
	remove := s.AddRule(sim.Rule{Provider: sim.FCM, Action: sim.Action{Status: 503, Fault: sim.FaultGoaway}})
	g.send(g.message("")) // 5
	remove()
	for query, want := range map[string]string{
		"":                                  "1 2 3 4 5",
		"provider=apns":                     "2 3",
		"provider=apns&environment=sandbox": "3",
		"token=" + a.token[:10]:             "2 3",
		"token=" + url.QueryEscape(g.account.Email): "1",
		"status=200":            "1 2 4",
		"reason=BadDeviceToken": "3",
		"fault=goaway":          "5",
		"after=3":               "4 5",
		"after=1&last=2":        "4 5",
		"provider=apns&after=2": "3",
		"connection=1000000":    "",
	} {
		var log struct{ Entries []sim.Entry }
		c.call("GET", "/control/log?"+query, "", 200, &log)
		var got []string
		for _, e := range log.Entries {
			got = append(got, string(rune('0'+e.N)))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", query, got, want)
		}
	}
}

func TestControlSaysWhatElseIsWrong(t *testing.T) {
	t.Parallel()
	s, c := newRemote(t)
	token := s.NewFCMToken(project)
	for _, row := range []struct {
		method, path, in string
		status           int
		says             string
	}{
		{"GET", "/control/log?provder=apns", "", 400, "no filter"},
		{"GET", "/control/log?provider=gcm", "", 400, `"gcm"`},
		{"GET", "/control/log?environment=test", "", 400, `"test"`},
		{"GET", "/control/log?status=ok", "", 400, "status is a number"},
		{"GET", "/control/tokens/x", "", 404, "no such"},
		{"POST", "/control/tokens/x/online", `{"online":true}`, 404, "no such"},
		{"POST", "/control/tokens/" + token + "/asleep", `{"asleep":true}`, 404, "dozing"},
		{"POST", "/control/tokens/" + token + "/online", `{"dozing":true}`, 422, `{"online": true}`},
		{"POST", "/control/tokens/" + token + "/online", `{}`, 422, `{"online": true}`},
		{"POST", "/control/tokens/" + token + "/online", `{"online":"no"}`, 400, "body"},
		{"DELETE", "/control/tokens/" + token + "?at=yesterday", "", 400, "at is a time"},
		{"POST", "/control/clock", `{"advance":"-1h"}`, 422, "20m"},
		{"PATCH", "/control/settings", `{"delivry":"real"}`, 400, "delivry"},
		{"PATCH", "/control/settings", `{"delivery":"slow"}`, 422, "instant or real"},
		{"PATCH", "/control/settings", `{"apns_latency":"fast"}`, 400, "10ms..90ms"},
		{"PATCH", "/control/settings", `{"access_token_life":"0s"}`, 400, "access_token_life"},
		{"PUT", "/control/rules", `{"rules":[{"nth":-1},{"provider":"x"}]}`, 422, "rule 2"},
		{"PUT", "/control/rules", `[]`, 422, "rules"},
		{"DELETE", "/control/apns/keys/x", "", 404, "no key"},
		{"DELETE", "/control/fcm/accounts/x", "", 404, "no service account"},
	} {
		got := c.ask(row.method, row.path, row.in)
		var p struct{ Detail string }
		decode(t, got.body, &p)
		if got.status != row.status || !strings.Contains(p.Detail, row.says) || strings.Contains(p.Detail, "\n") {
			t.Errorf("%s %s %s: %d %s", row.method, row.path, row.in, got.status, got.body)
		}
	}
}
