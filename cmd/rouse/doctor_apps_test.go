package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/ident"
	"rouse/providers"
	"rouse/providers/sim"
	"rouse/store"
	"rouse/tokens"
)

// TestDoctorTellsWhatTheProvidersSay: keys that they do not take any more.
func TestDoctorTellsWhatTheProvidersSay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.sim.NewAPNsKey(demoTeam, demoKeyID, demoTopic) // takes the place of the one that is stored
	r.sim.AddRule(sim.Rule{Provider: sim.Token, Action: sim.Action{Status: http.StatusBadRequest, Reason: "invalid_grant"}})
	code, x := r.doctor()
	if code != exitFailed {
		t.Errorf("exit %d: %+v", code, x.Findings)
	}
	f := x.want(t, "apns_production", providers.FindingFail, "InvalidProviderToken")
	if f.App != r.app.Id || f.AppName != t.Name() {
		t.Errorf("whose it is: %q (%q)", f.App, f.AppName)
	}
	if f := x.get(t, "fcm_access_token"); f.Status != providers.FindingFail {
		t.Errorf("%+v", f)
	}
	// The server finds out, too, and both say the same.
	r.mustSend(r.enrol("phone", "apns").device, `1`)
	r.awaitMetric(`rouse_circuit_open{app="`+r.app.Id+`",cause="credential",environment="production",onward="",provider="apns"}`, 1)
	r.awaitCircuit()
	_, x = r.doctor()
	x.want(t, "apns_production_circuit", providers.FindingFail, "InvalidProviderToken")
	x.want(t, "apns_production", providers.FindingFail, "InvalidProviderToken")
	_, x = r.doctor("--offline")
	if x.has("apns_production") || x.has("fcm_access_token") || x.has("endpoint_fcm") || x.has("clock") {
		t.Errorf("it asked somebody: %+v", x.Findings)
	}
}

// TestDoctorLooksAtOneApp by id and by name.
func TestDoctorLooksAtOneApp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	mustCommand(t, []string{"ROUSE_URL=" + r.child.at.api, "ROUSE_ADMIN_KEY=" + r.admin}, "apps", "create", "bare")
	_, x := r.doctor("--offline")
	if f := x.want(t, "credentials", providers.FindingWarn, "no_credentials"); f.AppName != "bare" {
		t.Errorf("%+v", f)
	}
	for _, which := range []string{r.app.Id, t.Name()} {
		_, x = r.doctor("--offline", "--app", which)
		if x.has("credentials") || x.get(t, "apns_credential").App != r.app.Id {
			t.Errorf("--app %s: %+v", which, x.Findings)
		}
	}
	code, x := r.doctor("--offline", "--app", "nobody")
	if code != exitFailed {
		t.Errorf("exit %d", code)
	}
	x.want(t, "apps", providers.FindingFail, "app_not_found")
}

// TestDoctorTellsOfExpiryAndCircuits has the store hold what the worker and the years would.
func TestDoctorTellsOfExpiryAndCircuits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.enrol("one", "apns")
	r.enrol("another", "apns")
	r.enrol("third", "fcm")
	r.kill()
	app, now := ident.App(r.app.Id), time.Now()
	put := func(end time.Time) {
		r.inStore(func(s *store.Store) {
			c, err := s.Credential(t.Context(), app, tokens.APNs)
			if err != nil {
				t.Fatal(err)
			}
			c.ExpiresAt, c.UpdatedAt = end, now
			if err := s.PutCredential(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		})
	}
	put(now.Add(-time.Hour))
	code, x := r.doctor("--offline")
	if code != exitFailed {
		t.Errorf("exit %d", code)
	}
	x.want(t, "apns_credential", providers.FindingFail, "expired")
	put(now.Add(10*24*time.Hour + time.Hour))
	_, x = r.doctor("--offline")
	if f := x.want(t, "apns_credential", providers.FindingWarn, "expires_soon"); !strings.Contains(f.Cause, "in 10 days") {
		t.Errorf("%s", f.Cause)
	}
	put(now.Add(60 * 24 * time.Hour))
	_, x = r.doctor("--offline")
	x.want(t, "apns_credential", providers.FindingOK, "")

	r.inStore(func(s *store.Store) {
		for _, c := range []tokens.Circuit{
			{Outlet: tokens.Outlet{App: app, Provider: tokens.APNs, Environment: tokens.Production}, State: tokens.CircuitOpen, Cause: tokens.CauseCredential, Reason: "InvalidProviderToken"},
			{Outlet: tokens.Outlet{App: app, Provider: tokens.FCM, Onward: tokens.OnwardApple}, State: tokens.CircuitOpen, Cause: tokens.CauseCredential, Reason: "THIRD_PARTY_AUTH_ERROR"},
			{Outlet: tokens.Outlet{App: app, Provider: tokens.FCM}, State: tokens.CircuitOpen, Cause: tokens.CauseThrottled, Reason: "QUOTA_EXCEEDED"},
			{Outlet: tokens.Outlet{App: app, Provider: tokens.APNs, Environment: tokens.Sandbox}, State: tokens.CircuitOpen, Cause: tokens.CauseThrottled, Reason: "TooManyProviderTokenUpdates"},
			{Outlet: tokens.Outlet{App: app, Provider: tokens.APNs}, State: tokens.CircuitOpen, Cause: tokens.CauseMassDeath, Reason: "BadDeviceToken"},
		} {
			c.OpenedAt, c.RetryAt, c.Pauses = now, now.Add(5*time.Minute), 2
			if err := s.NoteCircuit(t.Context(), c, now); err != nil {
				t.Fatal(err)
			}
		}
	})
	_, x = r.doctor("--offline")
	f := x.want(t, "apns_production_circuit", providers.FindingFail, "InvalidProviderToken")
	if until := at(now.Add(5 * time.Minute)); !strings.Contains(f.Cause, until) || !strings.Contains(f.Cure, "rouse credentials put apns") {
		t.Errorf("until when and what cures it is not told: %s %s", f.Cause, f.Cure)
	}
	if f := x.want(t, "fcm_apple_circuit", providers.FindingFail, "THIRD_PARTY_AUTH_ERROR"); !strings.Contains(f.Cure, "Firebase") {
		t.Errorf("the cure is %q", f.Cure)
	}
	x.want(t, "fcm_circuit", providers.FindingWarn, "QUOTA_EXCEEDED")
	if f := x.want(t, "apns_sandbox_circuit", providers.FindingWarn, "TooManyProviderTokenUpdates"); !strings.Contains(f.Cure, "who else signs") {
		t.Errorf("the cure is %q: fewer messages do not help", f.Cure)
	}
	if f := x.want(t, "apns_circuit", providers.FindingFail, "BadDeviceToken"); !strings.Contains(f.Cause, "Of the 2 devices registered there, 2 have a good token") {
		t.Errorf("the numbers are not told: %s", f.Cause)
	}
	if x.has("circuits") {
		t.Error("all circuits are said to be closed")
	}
}

func TestUntil(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 22, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]string{
		time.Hour: "today", 3 * time.Hour: "tomorrow", 30 * time.Hour: "in 1 day", 48 * time.Hour: "in 2 days",
	} {
		if got := until(now.Add(left), now); got != want {
			t.Errorf("in %v: %s, want %s", left, got, want)
		}
	}
}

// TestDoctorTellsOfAnAppThatNothingCanRegisterWith: it wants user tokens, and nobody can check one.
func TestDoctorTellsOfAnAppThatNothingCanRegisterWith(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	admin := []string{"ROUSE_URL=" + r.child.at.api, "ROUSE_ADMIN_KEY=" + r.admin}
	mustCommand(t, admin, "apps", "set", r.app.Id, "--registration", "token")
	code, x := r.doctor("--offline")
	if f := x.want(t, "identity_keys", providers.FindingFail, "none"); code != exitFailed || f.App != r.app.Id {
		t.Errorf("exit %d, of %q", code, f.App)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("s3cret, ", 5)), 0o600); err != nil {
		t.Fatal(err)
	}
	mustCommand(t, admin, "identity-keys", "put", r.app.Id, "main", "--secret-file", secret)
	if _, x = r.doctor("--offline"); x.has("identity_keys") {
		t.Errorf("with a key: %+v", x.get(t, "identity_keys"))
	}
}
