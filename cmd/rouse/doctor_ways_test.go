package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/providers"
	"rouse/providers/sim"
)

// TestDoctorTellsWhyAnEndpointCannotBeReached meets each kind of trouble for real; all at once, within the limit of the whole.
func TestDoctorTellsWhyAnEndpointCannotBeReached(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var lc net.ListenConfig
	silent, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	old := httptest.NewTLSServer(http.NotFoundHandler()) // HTTP/1.1 alone
	defer old.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	stranger, err := sim.Start(context.Background(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	ca := authorities(t, r, old)
	address := func(l net.Listener) string { return "https://" + l.Addr().String() }
	code, x := r.doctor("--apns-endpoint", "https://127.0.0.1:1", "--apns-sandbox-endpoint", address(silent), "--apns-ca", ca,
		"--fcm-endpoint", stranger.FCMURL(), "--fcm-token-endpoint", "https://does-not-exist.invalid/token")
	if code != exitFailed {
		t.Errorf("exit %d", code)
	}
	if f := x.want(t, "endpoint_apns_production", providers.FindingFail, "connect_refused"); !strings.Contains(f.Cure, "ROUSE_APNS_ENDPOINT") {
		t.Errorf("the cure is %q", f.Cure)
	}
	x.want(t, "endpoint_apns_sandbox", providers.FindingFail, "tls_timeout")
	if f := x.want(t, "endpoint_fcm", providers.FindingFail, "untrusted_certificate"); !strings.Contains(f.Cure, "ROUSE_FCM_CA") {
		t.Errorf("the cure is %q", f.Cure)
	}
	x.want(t, "endpoint_fcm_token", providers.FindingFail, "dns_failed")
	x.want(t, "clock", providers.FindingWarn, "no_time")

	_, x = r.doctor("--apns-endpoint", old.URL, "--apns-sandbox-endpoint", "https://"+plain.Listener.Addr().String(), "--apns-ca", ca,
		"--fcm-endpoint", old.URL+"/v1", "--fcm-token-endpoint", old.URL+"/token", "--fcm-ca", ca)
	x.want(t, "endpoint_apns_production", providers.FindingFail, "no_http2")
	x.want(t, "endpoint_apns_sandbox", providers.FindingFail, "not_tls")
	x.want(t, "endpoint_fcm", providers.FindingWarn, "no_http2")
	x.want(t, "endpoint_fcm_token", providers.FindingOK, "")
}

// TestDoctorFindsTheNodeOfDev: without settings, where rouse dev runs; with a key of one's own it looks at what was named.
func TestDoctorFindsTheNodeOfDev(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := filepath.Join(t.TempDir(), "dev.json")
	p := profile{URL: r.child.at.api, OpsURL: r.child.at.ops, AdminKey: r.admin, Phones: filepath.Join(r.dir, "phones")}
	if err := writeJSON(path, p); err != nil {
		t.Fatal(err)
	}
	code, x := doctorWith(r, []string{"ROUSE_PROFILE=" + path})
	if f := x.want(t, "configuration", providers.FindingOK, ""); code != exitOK || !strings.Contains(f.Cause, "rouse dev") || x.has("endpoint_fcm") {
		t.Errorf("exit %d: %+v", code, x.Findings)
	}
	x.want(t, "server", providers.FindingOK, "")
	x.want(t, "apns_credential", providers.FindingOK, "")
	r.kill()
	if code, x = doctorWith(r, []string{"ROUSE_PROFILE=" + path}); code != exitUsage {
		t.Errorf("dev is gone: exit %d", code)
	}
	x.want(t, "configuration", providers.FindingFail, "bad_setting")
}

// TestDoctorForgivesAnEndpointThatNobodyUses: an app with Google alone needs no way to Apple.
func TestDoctorForgivesAnEndpointThatNobodyUses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if _, err := answer[nothing](r.client(r.admin).DeleteApnsCredential(t.Context(), r.app.Id)); err != nil {
		t.Fatal(err)
	}
	code, x := r.doctor("--apns-endpoint", "https://does-not-exist.invalid")
	x.want(t, "endpoint_apns_production", providers.FindingWarn, "dns_failed")
	if code != exitOK {
		t.Errorf("exit %d: %+v", code, x.Findings)
	}
	mustCommand(t, r.adminEnv(), "apps", "delete", "--yes", r.app.Id)
	code, x = r.doctor("--apns-endpoint", "https://does-not-exist.invalid")
	x.want(t, "apps", providers.FindingWarn, "none")
	x.want(t, "endpoint_apns_production", providers.FindingWarn, "dns_failed")
	if code != exitOK {
		t.Errorf("without an app: exit %d: %+v", code, x.Findings)
	}
}

func TestDoctorComparesTheClock(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct {
		ahead  time.Duration
		status providers.FindingStatus
		says   string
	}{
		{time.Minute, providers.FindingWarn, "behind"},
		{-time.Hour, providers.FindingFail, "ahead of"},
		{20 * time.Second, providers.FindingOK, ""},
	} {
		google := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(c.ahead).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusNotFound)
		}))
		_, x := r.doctor("--fcm-token-endpoint", google.URL, "--fcm-ca", authorities(t, r, google))
		reason := "clock_skew"
		if c.status == providers.FindingOK {
			reason = ""
		}
		if f := x.want(t, "clock", c.status, reason); !strings.Contains(f.Cause, c.says) {
			t.Errorf("%v: %s", c.ahead, f.Cause)
		}
		google.Close()
	}
}
