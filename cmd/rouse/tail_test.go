package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"rouse/client"
)

// detour is an address that stays while the server behind it changes its own; 502 while that is away.
func detour(t *testing.T, to func() string) string {
	t.Helper()
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		if u, err := url.Parse(to()); err == nil {
			r.SetURL(u)
		}
	}, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return server.URL
}

// TestTailMissesNothing: it begins with what happens from now on, goes on where it was after the server died and came back, and says
// at its end where to go on; so does the one that is told.
func TestTailMissesNothing(t *testing.T) {
	t.Parallel()
	onEngines(t, testTailMissesNothing)
}

func testTailMissesNothing(t *testing.T, on engine) {
	r := newRigOn(t, on)
	phone := r.enrol("phone", "none")
	acked := func(data string) string {
		t.Helper()
		id := r.mustSend(phone.device, data)
		r.drain(phone)
		return id
	}
	old := acked(`0`)
	var at atomic.Pointer[string]
	at.Store(&r.child.at.api)
	env := []string{"ROUSE_URL=" + detour(t, func() string { return *at.Load() }), "ROUSE_SECRET_KEY=" + r.app.SecretKey}
	tail := startCommand(t, env, "tail", "--types", "message.*")
	tail.says(t, `following; Ctrl-C ends it`)
	first := acked(`1`)
	tail.says(t, `message\.acked +`+first+", "+phone.device)

	r.kill()
	tail.says(t, `trying again`)
	r.start()
	r.again(phone)
	during := acked(`2`) // before the tail finds the server again
	r.enrol("other", "none")
	at.Store(&r.child.at.api)
	tail.says(t, during)
	tail.says(t, `the server is back`)
	last := acked(`3`)
	tail.says(t, last)
	if code := tail.stop(); code != exitOK {
		t.Errorf("Ctrl-C: exit %d", code)
	}
	out := tail.out.String()
	if strings.Contains(out, old) || strings.Contains(out, "device.registered") || strings.Count(out, "message.acked") != 3 {
		t.Errorf("the tail said\n%s", out)
	}
	cursor := tail.says(t, `go on later with --after (\S+)`)[1]
	next := acked(`4`)

	// In JSON, from a cursor, and from the beginning.
	for words, want := range map[string][]string{"--after " + cursor: {next}, "--since 1h": {old, first, during, last, next}} {
		more := startCommand(t, env, append([]string{"tail", "-o", "json", "--types", "message.acked"}, strings.Fields(words)...)...)
		more.says(t, next)
		if code := more.stop(); code != exitOK {
			t.Errorf("%s: exit %d", words, code)
		}
		if got := ackedIn(t, more.out.String()); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s told of %v, want %v", words, got, want)
		}
	}
	refuses(t, env, exitFailed, "bad_cursor", "tail", "--after", "yesterday")
	if _, out, said := commandIn(t, env, "", "tail", "--types", "moon.risen"); strings.Contains(out+said, "following;") || !strings.Contains(said, "--types: types of events") {
		t.Errorf("types that are none: %s%s", out, said)
	}
	refuses(t, append(env, "ROUSE_SECRET_KEY=rouse_sk_wrong"), exitFailed, "bad_key", "tail")
}

// ackedIn reads the messages of events out of lines of JSON; what is no JSON was said beside them.
func ackedIn(t *testing.T, out string) (ids []string) {
	t.Helper()
	for scan := bufio.NewScanner(strings.NewReader(out)); scan.Scan(); {
		if !strings.HasPrefix(scan.Text(), "{") {
			continue
		}
		var e client.Event
		var d eventData
		if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(e.Data, &d); err != nil || d.MessageID == nil {
			t.Fatalf("%v in %s", err, e.Data)
		}
		ids = append(ids, *d.MessageID)
	}
	return ids
}
