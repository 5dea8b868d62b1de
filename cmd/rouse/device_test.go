package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// oldPhone writes a profile and the file of a phone that registered before.
func oldPhone(t *testing.T, p profile, phone phoneFile) (env []string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "profile.json")
	p.Phones = filepath.Join(dir, "phones")
	phone.Device, phone.Secret, phone.UsedAt = "dev_1", "rouse_dk_1", time.Now()
	if err := writeJSON(path, p); err != nil {
		t.Fatal(err)
	}
	if err := p.savePhone(phone); err != nil {
		t.Fatal(err)
	}
	return []string{"ROUSE_PROFILE=" + path}
}

func TestDeviceNeverPrintsItsToken(t *testing.T) {
	t.Parallel()
	const token = "a-token-of-Google"
	env := oldPhone(t, profile{ControlURL: "http://127.0.0.1:1"}, phoneFile{Name: "fcm", Provider: "fcm", Token: token})
	code, out := command(t, env, "device")
	if code != exitFailed || !strings.Contains(out, "http://127.0.0.1:1") || !strings.Contains(out, "`rouse dev`") {
		t.Errorf("no simulator: exit %d\n%s", code, out)
	}
	if strings.Contains(out, token) {
		t.Errorf("the token was printed:\n%s", out)
	}
}

// TestDeviceReportsADemotedPush, and the first one after it that came as it was sent; of others there is nothing to tell.
func TestDeviceReportsADemotedPush(t *testing.T) {
	t.Parallel()
	radio := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pushes := []string{`{"n":1,"provider":"fcm","kind":"high"}`, `{"n":2,"provider":"fcm","kind":"normal","demoted":true}`, `{"n":3,"provider":"fcm","kind":"normal"}`, `{"n":4,"provider":"fcm","kind":"high"}`, `{"n":5,"provider":"fcm","kind":"high"}`}
		switch after, _ := strconv.Atoi(r.URL.Query().Get("after")); {
		case r.URL.Query().Get("wait") == "0":
			_, _ = io.WriteString(w, `{"pushes":[]}`)
		case after < len(pushes):
			_, _ = io.WriteString(w, `{"pushes":[`+pushes[after]+`]}`)
		default:
			<-r.Context().Done()
		}
	}))
	t.Cleanup(radio.Close)
	reports := newTranscript()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/v1/device/push-reports":
			_, _ = io.Copy(reports, r.Body)
			w.WriteHeader(http.StatusNoContent)
		case "/v1/inbox":
			_, _ = io.WriteString(w, `{"messages":[],"cursor":"c","more":false}`)
		default:
			_, _ = io.WriteString(w, `{"id":"dev_1"}`)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	env := oldPhone(t, profile{URL: server.URL, ControlURL: radio.URL}, phoneFile{Name: "fcm", Provider: "fcm", Token: "token"})
	phone := startCommand(t, env, "device")
	phone.says(t, `woken: normal push \(sent as high, and demoted\), `)
	phone.says(t, `(?s)normal push.*told the server.*normal push.*high push.*told the server.*high push.*nothing waits`)
	if code := phone.stop(); code != exitOK {
		t.Errorf("exit %d\n%s", code, phone.out)
	}
	if got, want := reports.String(), `{"original_priority":"high","priority":"normal"}{"original_priority":"high","priority":"high"}`; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}

// TestPollingDeviceTellsThatTheServerIsBack, once, although no message comes.
func TestPollingDeviceTellsThatTheServerIsBack(t *testing.T) {
	t.Parallel()
	var polls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/v1/inbox":
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":"dev_1"}`)
		case polls.Add(1) == 1:
			w.WriteHeader(http.StatusBadGateway)
		default:
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	env := oldPhone(t, profile{URL: server.URL}, phoneFile{Name: "none", Provider: "none"})
	phone := startCommand(t, env, "device", "--provider", "none")
	phone.says(t, `back as dev_1, provider none: .*--name`)
	phone.says(t, `trying again`)
	phone.says(t, `the server is back`)
	if code := phone.stop(); code != exitOK {
		t.Errorf("exit %d\n%s", code, phone.out)
	}
}

// TestSleepingDeviceTellsThatTheServerIsBack as soon as it is asked again, although no push comes.
func TestSleepingDeviceTellsThatTheServerIsBack(t *testing.T) {
	t.Parallel()
	var listened atomic.Int32
	radio := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Get("wait") == "0":
			_, _ = io.WriteString(w, `{"pushes":[]}`)
		case listened.Add(1) == 1:
			w.WriteHeader(http.StatusBadGateway)
		default:
			<-r.Context().Done()
		}
	}))
	t.Cleanup(radio.Close)
	var away atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/v1/inbox":
			away.Store(true)
			_, _ = io.WriteString(w, `{"messages":[],"cursor":"c","more":false}`)
		case r.Method == http.MethodGet && away.Swap(false): // the server itself is back a moment later
			w.WriteHeader(http.StatusBadGateway)
		default:
			_, _ = io.WriteString(w, `{"id":"dev_1","user_id":"ann"}`)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	env := oldPhone(t, profile{URL: server.URL, ControlURL: radio.URL}, phoneFile{Name: "fcm", Provider: "fcm", Token: "token"})
	phone := startCommand(t, env, "device")
	phone.says(t, `(?s)back as dev_1.*belongs to user ann, as before.*asleep.*trying again.*the server is back`)
	if code := phone.stop(); code != exitOK || strings.Count(phone.out.String(), "trying again") != 1 {
		t.Errorf("exit %d\n%s", code, phone.out)
	}
}

// TestDeviceOfAnErasedUser registers anew: as the user's that it is started with, else as nobody's, and says so.
func TestDeviceOfAnErasedUser(t *testing.T) {
	t.Parallel()
	w := newDevWorld(t)
	box := startCommand(t, w.env, "device", "--provider", "none", "--user", "ann", "--topic", "news")
	box.says(t, `(?s)belongs to user ann.*waiting on its long poll`)
	mustCommand(t, w.env, "users", "erase", "ann", "--yes")
	box.says(t, `(?s)no longer knows this phone: .*erased.*registered as dev_.*belongs to user ann.*subscribed to news`)
	id := strings.Fields(mustCommand(t, w.env, "send", "--user", "ann", "again"))[0]
	box.says(t, id)
	box.stop()
	mustCommand(t, w.env, "users", "erase", "ann", "--yes")
	box = startCommand(t, w.env, "device", "--provider", "none")
	device := box.says(t, `(?s)no longer knows this phone.*registered as (dev_\S+),.*belongs to nobody; --user`)[1]
	box.stop()
	mustCommand(t, w.env, "users", "bind", "bob", device)
	box = startCommand(t, w.env, "device", "--provider", "none")
	box.says(t, `back as `+device+`(?s).*belongs to user bob, as before`)
}
