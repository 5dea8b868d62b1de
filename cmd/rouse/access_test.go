package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
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
