package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// screen is a terminal that tests read while a command writes to it.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// startSim runs rouse sim until the test ends, and returns its control API.
func startSim(t *testing.T, flags ...string) (control string) {
	t.Helper()
	control, _ = startSimOn(t, flags...)
	return control
}

// startSimOn is startSim, and returns what it writes too.
func startSimOn(t *testing.T, flags ...string) (control string, out *screen) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, done := &screen{}, make(chan int, 1)
	args := append([]string{"sim", "--control-listen", "127.0.0.1:0", "--ca-file", filepath.Join(t.TempDir(), "ca.pem")}, flags...)
	go func() { done <- run(ctx, args, nil, strings.NewReader(""), out, out) }()
	t.Cleanup(func() {
		cancel()
		if code := <-done; code != exitOK {
			t.Errorf("exit %d\n%s", code, out)
		}
	})
	at := regexp.MustCompile(`Control API: (http://\S+)`)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		if m := at.FindStringSubmatch(out.String()); m != nil {
			return m[1], out
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never came up:\n%s", out)
		}
	}
}

// read gets a part of the control API.
func read(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", url, resp.Status, err)
	}
	return string(data)
}

// TestSimTakesItsFlags: each flag shows in what the control API tells of the simulator.
func TestSimTakesItsFlags(t *testing.T) {
	t.Parallel()
	rules := filepath.Join(t.TempDir(), "rules.json")
	if err := os.WriteFile(rules, []byte(`{"rules":[{"provider":"apns","action":{"status":503}},{"action":{"fault":"refuse"},"connection":9}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	control := startSim(t, "--rules", rules, "--strict", "--throttle-4xx", "--throttle-errors", "7", "--access-token-life", "5s", "--seed", "3",
		"--apns-latency", "50ms p99=400ms", "--fcm-latency", "10ms..90ms", "--token-latency", "5ms", "--delivery", "real", "--hosts", "push.test,192.0.2.7")
	var got map[string]any
	if err := json.Unmarshal([]byte(read(t, control+"/control/settings")), &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"strict": true, "throttle_4xx": true, "throttle_errors": 7.0, "access_token_life": "5s", "delivery": "real",
		"apns_latency": "50ms p99=400ms", "fcm_latency": "10ms..90ms", "token_latency": "5ms",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if list := read(t, control+"/control/rules"); strings.Count(list, `"id"`) != 2 || !strings.Contains(list, `"connection":9`) {
		t.Errorf("rules: %s", list)
	}
}

// TestSimSaysWhereEverythingIs: what it prints is what the control API tells, and
// not for Rouse alone.
func TestSimSaysWhereEverythingIs(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "own.pem")
	control, out := startSimOn(t, "--ca-file", ca)
	var where map[string]string
	if err := json.Unmarshal([]byte(read(t, control+"/control/endpoints")), &where); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Point your backend at:", "APNs               " + where["apns"] + "\n", "APNs sandbox       " + where["apns_sandbox"] + "\n",
		"FCM                " + where["fcm"] + "\n", "FCM's tokens       " + where["fcm_token"] + "\n", "FCM without TLS    " + where["fcm_plain"] + " ",
		ca + " (made anew", "ROUSE_APNS_ENDPOINT=" + where["apns"] + "\n", "ROUSE_FCM_CA=" + ca + "\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("nothing about %q in\n%s", want, out)
		}
	}
}

// TestSimSaysWhatIsWrong: the simulator does not start, and each mistake is named.
func TestSimSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "rules.json")
	if err := os.WriteFile(bad, []byte(`{"rules":[{"provider":"gcm","action":{"status":503}},{"action":{}},{"nth":-1,"action":{"status":1}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		flags []string
		says  []string
	}{
		{[]string{"--rules", bad}, []string{`rule 1: provider is "gcm"`, "\nrule 2: action is missing", "\nrule 3: nth", "\nrule 3: action.status is 1"}},
		{[]string{"--rules", bad + ".none"}, []string{"--rules"}},
		{[]string{"--apns-latency", "soon"}, []string{`"soon" is not a latency`}},
		{[]string{"--delivery", "slow"}, []string{"delivery", "real"}},
	} {
		ca := filepath.Join(t.TempDir(), "ca.pem")
		code, out := command(t, nil, append([]string{"sim", "--control-listen", "127.0.0.1:0", "--ca-file", ca}, row.flags...)...)
		if code == exitOK {
			t.Errorf("%v started", row.flags)
		}
		for _, want := range row.says {
			if !strings.Contains(out, want) {
				t.Errorf("%v: nothing about %q in\n%s", row.flags, want, out)
			}
		}
	}
}

// TestSimPageNamesRealFlags: the page tells of every flag but --help and --log-level, and of no other.
func TestSimPageNamesRealFlags(t *testing.T) {
	t.Parallel()
	_, help := command(t, nil, "sim", "--help")
	name := regexp.MustCompile(`--[a-z][a-z0-9-]+`)
	known := map[string]bool{}
	for _, flag := range name.FindAllString(help, -1) {
		known[flag] = true
	}
	told := map[string]bool{}
	for _, line := range strings.Split(readPage(t, "docs/sim.md"), "\n") {
		if strings.HasPrefix(line, "curl ") {
			continue
		}
		for _, flag := range name.FindAllString(line, -1) {
			told[flag] = true
			if !known[flag] {
				t.Errorf("docs/sim.md tells of %s, which rouse sim does not know", flag)
			}
		}
	}
	for flag := range known {
		if !told[flag] && flag != "--help" && flag != "--log-level" && flag != "--version" {
			t.Errorf("docs/sim.md says nothing about %s", flag)
		}
	}
}
