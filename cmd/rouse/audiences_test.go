package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"rouse/client"
)

// TestAudiencesByCommand: devices, users and topics are bound, listed, sent to and erased by commands alone.
func TestAudiencesByCommand(t *testing.T) {
	t.Parallel()
	onEngines(t, testAudiencesByCommand)
}

func testAudiencesByCommand(t *testing.T, on engine) {
	r := newRigOn(t, on)
	env := r.adminEnv()
	var phones []*testPhone
	for n := range 3 {
		phones = append(phones, r.enrol(fmt.Sprint("phone-", n), "fcm"))
	}
	testDevicesByCommand(t, r, env, phones)
	testUsersByCommand(t, env, phones)
	testTopicsByCommand(t, env, phones)
	testSendsByCommand(t, r, env, phones)

	var gone client.Erasure
	_, out, _ := commandIn(t, env, "", "users", "erase", "ann", "--yes", "-o", "json")
	unmarshalOne(t, out, &gone)
	if gone.Devices != 2 || gone.Deliveries == 0 || gone.Subscriptions == 0 {
		t.Errorf("erased %+v", gone)
	}
	says(t, mustCommand(t, env, "users", "erase", "ann", "--yes"), "devices              0\n")
	refuses(t, env, exitUsage, "--yes", "users", "erase", "ann")
	refuses(t, env, exitFailed, "device_not_found", "devices", "show", phones[0].device)
	mustCommand(t, env, "devices", "delete", phones[2].device)
	says(t, bothWays(t, env, &struct {
		Devices []client.DeviceView
		More    bool
		Cursor  string
	}{}, "devices", "list"), "no devices")
}

func testDevicesByCommand(t *testing.T, r *rig, env []string, phones []*testPhone) {
	var one struct {
		Devices []client.DeviceView
		Cursor  string
		More    bool
	}
	out := bothWays(t, env, &one, "devices", "list", "--limit", "1", "--provider", "fcm", "--token-state", "active")
	if len(one.Devices) != 1 || !one.More || one.Cursor == "" || one.Devices[0].Id != phones[0].device || strings.Contains(out, phones[1].device) {
		t.Errorf("one device: %+v\n%s", one, out)
	}
	if _, _, said := commandIn(t, env, "", "devices", "list", "--limit", "1"); !strings.Contains(said, "--after "+one.Cursor) {
		t.Errorf("nothing is said of the others: %s", said)
	}
	var rest []client.DeviceView
	says(t, bothWays(t, env, &rest, "devices", "list", "--after", one.Cursor, "--all"), "REACHABLE", phones[1].device+"  android   fcm       active  -     0", "yes\n")
	if len(rest) != 2 {
		t.Errorf("the others: %+v", rest)
	}
	var none []client.DeviceView
	says(t, bothWays(t, env, &none, "devices", "list", "--platform", "ios", "--all"), "no devices")
	refuses(t, env, exitUsage, "--limit", "devices", "list", "--limit", "0")

	var d client.DeviceView
	mustCommand(t, env, "devices", "set", phones[0].device, "--app-version", "1.2", "--locale", "de-AT")
	says(t, bothWays(t, env, &d, "devices", "show", phones[0].device), "app version   1.2\n", "locale        de-AT\n", "polling       no\n", "reachable     yes\n")
	token := r.sim.NewFCMToken(demoProject)
	r.secret(token)
	if code, out, said := commandIn(t, env, token+"\n", "devices", "set", phones[0].device, "--token-file", "-"); code != exitOK || strings.Contains(out+said, token) {
		t.Errorf("a token from standard input: exit %d\n%s%s", code, out, said)
	}
	phones[0].token = token
	var woke client.WakeReport
	before := r.heard(phones[0])
	_, out, _ = commandIn(t, env, "", "devices", "wake", phones[0].device, "-o", "json")
	unmarshalOne(t, out, &woke)
	r.awaitPush(phones[0], before)
	if !woke.Sent || *woke.Verdict != "accepted" {
		t.Errorf("woken: %s", out)
	}
	refuses(t, env, exitFailed, "rate_limited", "devices", "wake", phones[0].device)
	box := r.enrol("box", "none")
	refuses(t, env, exitFailed, "not sent  no_provider", "devices", "wake", box.device)
	mustCommand(t, env, "devices", "delete", box.device)
	refuses(t, env, exitUsage, "say what to change", "devices", "set", phones[0].device)
	refuses(t, env, exitFailed, "device_not_found", "devices", "show", "dev_nobody")
}

func testUsersByCommand(t *testing.T, env []string, phones []*testPhone) {
	mustCommand(t, env, "users", "bind", "ann", phones[0].device)
	mustCommand(t, env, "users", "bind", "ann", phones[1].device)
	mustCommand(t, env, "users", "bind", "bob", phones[2].device)
	var user client.User
	says(t, bothWays(t, env, &user, "users", "show", "ann"), "devices  2\n", phones[0].device, phones[1].device)
	var hers []client.DeviceView
	if bothWays(t, env, &hers, "devices", "list", "--user", "ann", "--all"); len(hers) != 2 {
		t.Errorf("hers: %+v", hers)
	}
	mustCommand(t, env, "users", "unbind", "bob", phones[2].device)
	says(t, bothWays(t, env, &user, "users", "show", "bob"), "devices  0\n")
	mustCommand(t, env, "devices", "set", phones[2].device, "--user", "bob")
	mustCommand(t, env, "devices", "set", phones[2].device, "--no-user")
	says(t, mustCommand(t, env, "devices", "show", phones[2].device), "user          -\n")
}

func testTopicsByCommand(t *testing.T, env []string, phones []*testPhone) {
	says(t, mustCommand(t, env, "topics", "list"), "no topics")
	says(t, mustCommand(t, env, "topics", "subscribe", "news", phones[2].device, "--user", "ann"), "2 subscribed, 0 refused")
	var topic client.Topic
	says(t, bothWays(t, env, &topic, "topics", "show", "news"), "subscribers  3\n")
	// From a file: one that is, one that never was, and an empty line.
	nobody := "dev_" + strings.Repeat("0", 26)
	code, out, said := commandIn(t, env, phones[0].device+"\n\n"+nobody+"\n", "topics", "subscribe", "sport", "--from", "-", "-o", "json")
	list := strings.Split(strings.TrimSpace(out), "\n")
	if code != exitFailed || len(list) != 2 || !strings.Contains(said, "1 of 2 could not be subscribed") {
		t.Errorf("two from a file: exit %d\n%s%s", code, out, said)
	}
	var results [2]enlisted
	for n, line := range list {
		if err := json.Unmarshal([]byte(line), &results[n]); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
	if results[0].Status != 204 || results[1].DeviceID != nobody || results[1].Error == nil {
		t.Errorf("the results are %+v", results)
	}
	refuses(t, env, exitFailed, nobody+": ", "topics", "subscribe", "sport", nobody)
	refuses(t, env, exitUsage, "say whom", "topics", "subscribe", "sport")
	_, out, said = commandIn(t, env, "", "topics", "subscribe", "bad name", nobody, phones[0].device, "--user", "ann")
	says(t, out, "ann: the name of a topic is", nobody+" and one more: the name of a topic is", "0 subscribed, 3 refused\n")
	says(t, said, "3 of 3 could not be subscribed")
	refuses(t, append(env, "ROUSE_SECRET_KEY=rouse_sk_wrong"), exitFailed, "0 subscribed, 0 refused\nrouse: "+nobody+": ", "topics", "subscribe", "sport", nobody)
	refuses(t, append(env, "ROUSE_URL=http://127.0.0.1:1"), exitFailed, "0 subscribed, 0 refused, of 1 nobody knows\n", "topics", "subscribe", "sport", nobody)
	// What a URL takes for a step: this one would erase ann.
	refuses(t, env, exitUsage, `<topic> is ".."`, "topics", "unsubscribe", "..", "--user", "ann")
	refuses(t, env, exitUsage, `<user> is ".."`, "users", "unbind", "..", phones[0].device)
	refuses(t, env, exitUsage, `--user is "."`, "topics", "unsubscribe", "sport", "--user", ".")
	refuses(t, env, exitUsage, "<device> is empty", "devices", "delete", "")
	says(t, mustCommand(t, env, "users", "show", "ann"), "devices  2\n")
	var all []client.Topic
	if out := bothWays(t, env, &all, "topics", "list", "--all"); len(all) != 2 || !strings.Contains(out, "news   3 ") {
		t.Errorf("topics: %+v\n%s", all, out)
	}
	mustCommand(t, env, "topics", "unsubscribe", "sport", phones[0].device, "--user", "ann")
	says(t, mustCommand(t, env, "topics", "show", "sport"), "subscribers  0\n")
	mustCommand(t, env, "topics", "delete", "sport", "--yes")
	refuses(t, env, exitFailed, "topic_not_found", "topics", "show", "sport")
}

func testSendsByCommand(t *testing.T, r *rig, env []string, phones []*testPhone) {
	sent := func(args ...string) client.MessageAccepted {
		t.Helper()
		_, out, said := commandIn(t, env, "", append([]string{"send", "-o", "json"}, args...)...)
		var one client.MessageAccepted
		if unmarshalOne(t, out, &one); one.Id == "" {
			t.Fatalf("sent %s%s", out, said)
		}
		return one
	}
	reaches := func(id string, n int) {
		t.Helper()
		var m client.Message
		eventually(t, patient, func() (bool, string) {
			_, out, _ := commandIn(t, env, "", "messages", "show", id, "-o", "json")
			unmarshalOne(t, out, &m)
			return m.Status == "accepted" && m.Recipients == n, fmt.Sprintf("%+v is not for %d", m, n)
		})
	}
	news := sent("--topic", "news", "--correlation-id", "c1", `{"n":1}`)
	reaches(news.Id, 3)
	reaches(sent("--broadcast", `{"n":2}`).Id, 3)
	hers := sent("--user", "ann", "--idempotency-key", "k1", "hello")
	if again := sent("--user", "ann", "--idempotency-key", "k1", "hello"); again.Id != hers.Id {
		t.Errorf("sent twice: %s and %s", hers.Id, again.Id)
	}
	later := sent("--to", phones[0].device, "--at", "+2h", "later")
	if later.Status != "scheduled" || later.SendAt == nil || time.Until(*later.SendAt) < 110*time.Minute {
		t.Errorf("for later: %+v", later)
	}
	says(t, mustCommand(t, env, "trace", later.Id), "scheduled, to "+phones[0].device, "scheduled for ")
	says(t, mustCommand(t, env, "messages", "cancel", later.Id), "status          canceled\n")
	soon := sent("--to", phones[0].device, "--at", "+1s", "soon")
	reaches(soon.Id, 1)

	var one client.Message
	says(t, bothWays(t, env, &one, "messages", "show", news.Id), "to              topic news\n", "recipients      3\n", "correlation id  c1\n")
	var list []client.Message
	if bothWays(t, env, &list, "messages", "list", "--correlation-id", "c1", "--topic", "news", "--since", "1h", "--all"); len(list) != 1 || list[0].Id != news.Id {
		t.Errorf("listed: %+v", list)
	}
	if out := bothWays(t, env, &list, "messages", "list", "--all"); len(list) != 5 {
		t.Errorf("listed %d, want 5:\n%s", len(list), out)
	}
	says(t, mustCommand(t, env, "messages", "list", "--until", "1h"), "no messages")
	var deliveries []client.Delivery
	if bothWays(t, env, &deliveries, "messages", "deliveries", news.Id, "--all"); len(deliveries) != 3 {
		t.Errorf("deliveries: %+v", deliveries)
	}
	first := deliveries[0].DeviceId
	if told := mustCommand(t, env, "trace", news.Id, "--limit", "1"); !strings.Contains(told, "there are more: ") || !strings.Contains(told, first) {
		t.Errorf("the trace of one:\n%s", told)
	}
	if got := r.drain(phones[0]); len(got) != 4 {
		t.Errorf("the phone got %v", got)
	}
	for words, want := range map[string]string{"send": "say what to send", "send x --at yesterday --broadcast": "--at", "messages list --since soon": "--since", "send x --count 2 --idempotency-key k --broadcast": "for one message"} {
		refuses(t, env, exitUsage, want, strings.Fields(words)...)
	}
}
