package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rouse/client"
	"rouse/providers/sim"
)

// TestBadCredentialIsToldEverywhere: the app's circuits, its credentials and its events say the same, and so they do once the
// credential is put again.
func TestBadCredentialIsToldEverywhere(t *testing.T) {
	t.Parallel()
	onEngines(t, testBadCredentialIsToldEverywhere)
}

func testBadCredentialIsToldEverywhere(t *testing.T, on engine) {
	r := newRigOn(t, on)
	env := r.adminEnv()
	if out := mustCommand(t, env, "apps", "show", r.app.Id); !strings.Contains(out, "none open") {
		t.Errorf("apps show said:\n%s", out)
	}
	says(t, mustCommand(t, env, "events"), "no events")
	r.sim.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Reason: "InvalidProviderToken"}})
	r.mustSend(r.enrol("phone", "apns").device, `1`)
	comes := func(want []string, words ...string) string {
		t.Helper()
		var out string
		eventually(t, patient, func() (bool, string) {
			out = mustCommand(t, env, words...)
			for _, w := range want {
				if !strings.Contains(out, w) {
					return false, "it does not say " + w + ":\n" + out
				}
			}
			return true, ""
		})
		return out
	}
	comes([]string{"open: apns, production, credential, InvalidProviderToken, since", "tried next"}, "apps", "show", r.app.Id)
	comes([]string{"refused: InvalidProviderToken, since ", " credentials verify " + r.app.Id + " apns\n"}, "credentials", "list", r.app.Id)
	comes([]string{"device.registered    dev_", "circuit.opened       apns, production, credential, InvalidProviderToken, tried next", "credential.failing   apns, production, InvalidProviderToken", "ask Apple why: ", " credentials verify APP apns\n"}, "events")

	var all client.EventList
	bothWays(t, env, &[]client.Event{}, "events", "list", "--types", "circuit.*,credential.failing", "--all")
	if err := json.Unmarshal([]byte(mustCommand(t, env, "events", "-o", "json")), &all); err != nil || len(all.Events) != 3 || all.Cursor == nil {
		t.Fatalf("%v, %+v", err, all)
	}
	var recent client.EventList
	if err := json.Unmarshal([]byte(mustCommand(t, env, "events", "--since", "1h", "--limit", "2", "-o", "json")), &recent); err != nil || len(recent.Events) != 2 || recent.Events[0].Id != all.Events[0].Id {
		t.Errorf("of the last hour: %v, %+v", err, recent)
	}
	if at := time.Now().Add(time.Hour).Format(time.RFC3339); mustCommand(t, env, "events", "--since", at) != "no events\n" {
		t.Error("there are events of an hour ahead")
	}
	refuses(t, env, exitUsage, "--since", "events", "--since", "soon")
	refuses(t, env, exitUsage, "--after", "events", "--since", "1h", "--after", *all.Cursor)
	r.sim.ClearRules()
	if err := putDemoCredentials(t.Context(), r.client(r.admin), r.sim, r.app.Id); err != nil {
		t.Fatal(err)
	}
	comes([]string{"none open"}, "apps", "show", r.app.Id)
	if out := mustCommand(t, env, "events", "--after", *all.Cursor); strings.Count(out, "\n") != 1 || !strings.Contains(out, "circuit.closed") {
		t.Errorf("what came later:\n%s", out)
	}
	if code, out := command(t, env, "events", "--after", "yesterday"); code != exitFailed || !strings.Contains(out, "bad_cursor") {
		t.Errorf("a cursor of one's own: exit %d\n%s", code, out)
	}
}

// canned is a server that gives each path one answer after the other, the last again and again.
func canned(t *testing.T, answers map[string][]string) (env []string) {
	t.Helper()
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list := answers[r.URL.Path]
		n := asked[r.URL.Path] // one command asks one thing at a time
		asked[r.URL.Path]++
		w.Header().Set("Content-Type", "application/json")
		if len(list) == 0 {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(list[min(n, len(list)-1)]))
	}))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return []string{"ROUSE_URL=" + server.URL, "ROUSE_SECRET_KEY=sk", "ROUSE_ADMIN_KEY=admin"}
}

// TestEventsOfLaterServersAreShown: every page is read, and what this program does not know comes as it is.
func TestEventsOfLaterServersAreShown(t *testing.T) {
	t.Parallel()
	env := canned(t, map[string][]string{"/v1/events": {
		`{"events":[{"id":"evt_1","type":"credential.expiring","created_at":"2127-01-02T03:04:05.000Z","data":{"provider":"apns","expires_at":"2127-02-01T00:00:00Z","days":30}}],"cursor":"e1","more":true}`,
		`{"events":[{"id":"evt_3","type":"credential.expiring","created_at":"2020-01-02T03:04:05.000Z","data":{"provider":"apns","expires_at":"2020-01-02T03:00:00Z","days":0}},
		  {"id":"evt_4","type":"circuit.closed","created_at":"2020-01-02T03:04:05.000Z","data":{"provider":"fcm","cause":"mass_death","reason":"SENDER_ID_MISMATCH"}},
		  {"id":"evt_2","type":"moon.risen","created_at":"2027-01-02T03:04:06.000Z","data":{"phase":"full"}}],"cursor":"e2","more":false}`,
	}})
	out := mustCommand(t, env, "events")
	want := "2127-01-02 03:04:05Z  credential.expiring  apns, expires 2127-02-01 00:00:00Z  evt_1\n" +
		"2020-01-02 03:04:05Z  credential.expiring  apns, has run out 2020-01-02 03:00:00Z  evt_3\n2020-01-02 03:04:05Z  circuit.closed       fcm, mass_death (was SENDER_ID_MISMATCH)  evt_4\n2027-01-02 03:04:06Z  moon.risen           {\"phase\":\"full\"}  evt_2\n"
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}

// TestEveryCircuitHasALine with all that is known of it, and nothing is made up of what is not.
func TestEveryCircuitHasALine(t *testing.T) {
	t.Parallel()
	env := canned(t, map[string][]string{"/v1/apps/app_1": {`{"id":"app_1","name":"Bakery","inbox_overflow":"reject","created_at":"2027-01-02T03:04:05Z","circuits":[
		{"provider":"fcm","onward":"apple","state":"half_open","cause":"credential","reason":"THIRD_PARTY_AUTH_ERROR","opened_at":"2027-01-02T03:04:05Z","retry_at":"2027-01-02T04:04:05Z"},
		{"provider":"apns","state":"watching","cause":"mass_death","opened_at":"2027-01-02T03:04:05Z"}]}`}})
	out := mustCommand(t, env, "apps", "show", "app_1")
	for _, want := range []string{
		"half_open: fcm, apple, credential, THIRD_PARTY_AUTH_ERROR, since 2027-01-02 03:04:05Z, tried next 2027-01-02 04:04:05Z\n",
		"watching: apns, mass_death, since 2027-01-02 03:04:05Z\n", "ask Google why: ", " credentials verify app_1 fcm\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestExpiredCertificateIsShouted, and one for half of Apple's phones is no surprise.
func TestExpiredCertificateIsShouted(t *testing.T) {
	t.Parallel()
	env := canned(t, map[string][]string{
		"/v1/apps/app_1/credentials": {`{"credentials":[{"provider":"apns","fingerprint":"f","topic":"a.b","updated_at":"2020-01-02T03:04:05Z","certificate_expires_at":"2021-01-02T03:04:05Z","certificate_environment":"sandbox"}]}`},
		"/v1/apps/app_2/credentials": {`{"credentials":[]}`},
	})
	if out := mustCommand(t, env, "credentials", "list", "app_1"); !strings.Contains(out, "EXPIRED 2021-01-02 03:04:05Z, sandbox only  no longer good: put a new one") {
		t.Errorf("got\n%s", out)
	}
	if out := mustCommand(t, env, "credentials", "list", "app_2"); !strings.Contains(out, "no credentials") {
		t.Errorf("got\n%s", out)
	}
}
