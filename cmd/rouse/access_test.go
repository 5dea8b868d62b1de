package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// TestRefusedKeyOfTheProfileIsNamed: whoever forgot a setting learns which key was used instead.
func TestRefusedKeyOfTheProfileIsNamed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	path := filepath.Join(t.TempDir(), "profile.json")
	if err := writeJSON(path, profile{URL: server.URL, SecretKey: "rouse_sk_1", AdminKey: "admin_1"}); err != nil {
		t.Fatal(err)
	}
	env := []string{"ROUSE_PROFILE=" + path}
	for setting, words := range map[string][]string{
		"ROUSE_SECRET_KEY": {"send", "--to", "dev_1", "hello"},
		"ROUSE_ADMIN_KEY":  {"apps", "list"},
	} {
		code, out := command(t, env, words...)
		if code != exitFailed || !strings.Contains(out, path) || !strings.Contains(out, setting) || strings.Contains(out, "_1") {
			t.Errorf("%v: exit %d\n%s", words, code, out)
		}
		if _, out := command(t, append(env, setting+"=mine"), words...); strings.Contains(out, path) {
			t.Errorf("%v with a key of one's own:\n%s", words, out)
		}
	}
}

// TestPhoneOfTheProfileIsForItsServerAlone: a message for another server or app never goes to a phone that only rouse dev knows.
func TestPhoneOfTheProfileIsForItsServerAlone(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write([]byte(`{"id":"msg_1","status":"accepted","recipients":1}`))
	}))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	path := filepath.Join(t.TempDir(), "profile.json")
	p := profile{URL: server.URL, SecretKey: "sk", Phones: filepath.Join(t.TempDir(), "phones")}
	if err := errors.Join(writeJSON(path, p), p.savePhone(phoneFile{Name: "fcm", Device: "dev_1"})); err != nil {
		t.Fatal(err)
	}
	known, none := "ROUSE_PROFILE="+path, "ROUSE_PROFILE="+path+".none"
	for name, env := range map[string][]string{
		"another server":            {known, "ROUSE_URL=http://127.0.0.1:1", "ROUSE_SECRET_KEY=sk"},
		"another key":               {known, "ROUSE_SECRET_KEY=other"},
		"another key, server named": {known, "ROUSE_URL=" + server.URL, "ROUSE_SECRET_KEY=other"},
		"no profile":                {none, "ROUSE_URL=" + server.URL, "ROUSE_SECRET_KEY=sk"},
	} {
		if code, out := command(t, env, "send", "hello"); code != exitUsage || !strings.Contains(out, "give --to or --user") {
			t.Errorf("%s: exit %d\n%s", name, code, out)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
	mustCommand(t, []string{known}, "send", "hello")
	mustCommand(t, []string{known, "ROUSE_URL=" + server.URL, "ROUSE_SECRET_KEY=sk"}, "send", "hello")
}

func TestServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	env := []string{"ROUSE_URL=http://127.0.0.1:1", "ROUSE_SECRET_KEY=sk"}
	code, out := command(t, env, "send", "--to", "dev_1", "hello")
	if code != exitFailed || !strings.Contains(out, "does `rouse serve` or `rouse dev` run?") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

func TestDevTellsWhichFlagMovesATakenPort(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	for _, flag := range []string{"--sim-listen", "--listen", "--ops-listen"} {
		words := []string{"dev", "--dir", t.TempDir()}
		for _, f := range []string{"--sim-listen", "--listen", "--ops-listen"} {
			address := "127.0.0.1:0"
			if f == flag {
				address = server.Listener.Addr().String()
			}
			words = append(words, f, address)
		}
		code, out := command(t, []string{"ROUSE_PROFILE=" + filepath.Join(t.TempDir(), "profile.json")}, words...)
		if code != exitFailed || !strings.Contains(out, "("+flag+")") || !strings.Contains(out, "another `rouse dev`") {
			t.Errorf("%s: exit %d\n%s", flag, code, out)
		}
	}
}

// TestMissingKeyIsNamedAsItsCommandTakesIt, in the setting and in the flag.
func TestMissingKeyIsNamedAsItsCommandTakesIt(t *testing.T) {
	t.Parallel()
	none := "ROUSE_PROFILE=" + filepath.Join(t.TempDir(), "none.json")
	for words, want := range map[string]string{"tail": "ROUSE_SECRET_KEY, or give --key\n", "apps list": "ROUSE_ADMIN_KEY, or give --admin-key\n"} {
		refuses(t, []string{none, "ROUSE_URL=http://127.0.0.1:1"}, exitUsage, "a key for http://127.0.0.1:1 is needed: set "+want, strings.Fields(words)...)
		refuses(t, []string{none}, exitUsage, "start `rouse dev` in another terminal first, or name a server and a key: ROUSE_URL (--url) and "+strings.Fields(want)[0][:11], strings.Fields(words)...)
	}
	if _, out := command(t, []string{none}, "device"); !strings.Contains(out, "start `rouse dev`") || strings.Contains(out, "--url") {
		t.Errorf("device: %s", out)
	}
}
