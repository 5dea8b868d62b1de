package fcm_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rouse/providers"
	"rouse/providers/fcm"
	"rouse/providers/providertest"
	"rouse/providers/sim"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const project = "example-project"

func TestConformance(t *testing.T) {
	t.Parallel()
	providertest.Run(t, providertest.Fixture{
		Provider:         sim.FCM,
		New:              newProvider,
		Endpoint:         (*sim.Sim).FCMURL,
		Token:            func(s *sim.Sim) string { return s.NewFCMToken(project) },
		Body:             alertBody,
		Dead:             providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404},
		BurstConnections: 3, // two that carry pushes, one that fetched the access token
		Fetches:          true,
		Stranger:         stranger,
		Strange:          providers.Outcome{Verdict: providers.CredentialBad, Reason: "invalid_grant"},
		Refusals:         refusals(),
		Answers:          answers(),
	})
}

// answers has a row for every row of Google's table, and for what is not in it.
func answers() []providertest.Answer {
	var all []providertest.Answer
	row := func(name string, action sim.Action, want providers.Outcome) {
		all = append(all, providertest.Answer{Name: name, Action: action, Want: want})
	}
	said := func(status int, v providers.Verdict, reason string, action sim.Action) {
		row(fmt.Sprintf("%d %s %s", status, action.Reason, reason), action, providers.Outcome{Verdict: v, Reason: reason, Status: status})
	}
	said(404, providers.TokenDead, "UNREGISTERED", sim.Action{Reason: "UNREGISTERED"})
	said(404, providers.Unavailable, "NOT_FOUND", sim.Action{Reason: "NOT_FOUND"})
	said(400, providers.Rejected, "INVALID_ARGUMENT", sim.Action{Reason: "INVALID_ARGUMENT"})
	said(403, providers.TokenSuspect, "SENDER_ID_MISMATCH", sim.Action{Reason: "SENDER_ID_MISMATCH"})
	said(403, providers.CredentialBad, "SERVICE_DISABLED", sim.Action{Reason: "PERMISSION_DENIED"})
	said(403, providers.CredentialBad, "PERMISSION_DENIED", sim.Action{Status: 403})
	said(401, providers.ConnectionLost, "UNAUTHENTICATED", sim.Action{Reason: "UNAUTHENTICATED"}) // a first time
	said(429, providers.AppThrottled, "QUOTA_EXCEEDED", sim.Action{Reason: "QUOTA_EXCEEDED"})
	said(429, providers.AppThrottled, "RESOURCE_EXHAUSTED", sim.Action{Reason: "RATE_LIMIT_EXCEEDED"})
	said(429, providers.DeviceThrottled, "QUOTA_EXCEEDED", sim.Action{Reason: "QUOTA_EXCEEDED_DEVICE"})
	said(500, providers.Unavailable, "INTERNAL", sim.Action{Reason: "INTERNAL"})
	said(503, providers.Unavailable, "UNAVAILABLE", sim.Action{Reason: "UNAVAILABLE"})
	said(504, providers.Unavailable, "DEADLINE_EXCEEDED", sim.Action{Status: 504})

	// The project's key for Apple, or none for browsers: the devices it is for wait, and nobody else.
	for platform, v := range map[string]providers.Verdict{
		"ios": providers.CredentialBad, "macos": providers.CredentialBad, "web": providers.CredentialBad, "android": providers.Unavailable, "other": providers.Unavailable,
	} {
		all = append(all, providertest.Answer{
			Name: "THIRD_PARTY_AUTH_ERROR for " + platform, Platform: platform, Action: sim.Action{Reason: "THIRD_PARTY_AUTH_ERROR"},
			Want: providers.Outcome{Verdict: v, Reason: "THIRD_PARTY_AUTH_ERROR", Status: 401},
		})
	}

	// How long to wait, in seconds and as a date.
	wait := func(v providers.Verdict, reason string, status int, after time.Duration) providers.Outcome {
		return providers.Outcome{Verdict: v, Reason: reason, Status: status, RetryAfter: after}
	}
	row("device quota", sim.Action{Reason: "QUOTA_EXCEEDED_DEVICE", RetryAfter: "17"}, wait(providers.DeviceThrottled, "QUOTA_EXCEEDED", 429, 17*time.Second))
	row("project quota", sim.Action{Reason: "QUOTA_EXCEEDED", RetryAfter: "17"}, wait(providers.AppThrottled, "QUOTA_EXCEEDED", 429, 17*time.Second))
	row("503 for 1 s", sim.Action{Reason: "UNAVAILABLE", RetryAfter: "1"}, wait(providers.Unavailable, "UNAVAILABLE", 503, time.Second))
	row("503 for 121 s", sim.Action{Reason: "UNAVAILABLE", RetryAfter: "121"}, wait(providers.Unavailable, "UNAVAILABLE", 503, 121*time.Second))
	row("503 until a date", sim.Action{Reason: "UNAVAILABLE", RetryAfterDate: 30 * time.Second}, wait(providers.Unavailable, "UNAVAILABLE", 503, 30*time.Second))

	// A code nobody knows goes by its status and never against the token.
	for status, v := range map[int]providers.Verdict{
		400: providers.Rejected, 403: providers.CredentialBad, 404: providers.Unavailable, 409: providers.Rejected, 410: providers.Rejected,
		429: providers.AppThrottled, 500: providers.Unavailable, 502: providers.Unavailable, 503: providers.Unavailable,
	} {
		row(fmt.Sprintf("%d of an unknown sort", status), sim.Action{Status: status, Reason: "SOMETHING_NEW"}, providers.Outcome{Verdict: v, Reason: "SOMETHING_NEW", Status: status})
	}
	// What is not Google's JSON comes from somewhere in front of FCM.
	for status, v := range map[int]providers.Verdict{
		400: providers.Unavailable, 401: providers.ConnectionLost, 403: providers.Unavailable, 404: providers.Unavailable, 429: providers.AppThrottled,
		500: providers.Unavailable, 502: providers.Unavailable, 503: providers.Unavailable,
	} {
		bare := providers.Outcome{Verdict: v, Reason: fmt.Sprintf("http_%d", status), Status: status}
		row(fmt.Sprintf("%d html", status), sim.Action{Status: status, Body: "<html>x</html>"}, bare)
		row(fmt.Sprintf("%d half a body", status), sim.Action{Status: status, Body: `{"error":{"details":[{"errorCode":"UNREGISTERED"}`}, bare)
	}
	bad := providers.Outcome{Verdict: providers.Unavailable, Reason: "bad_answer", Status: 200}
	row("200 html", sim.Action{Status: 200, Body: "<html>fine</html>"}, bad)
	row("200 without a name", sim.Action{Status: 200, Body: "{}"}, bad)
	row("200 half a body", sim.Action{Status: 200, Body: `{"name":"proj`}, bad)
	row("302", sim.Action{Status: 302, Body: "<html>there</html>", Location: "https://127.0.0.1:1/"}, providers.Outcome{Verdict: providers.Unavailable, Reason: "http_302", Status: 302})
	row("404 broken off", sim.Action{Reason: "UNREGISTERED", Fault: sim.FaultTruncate}, providers.Outcome{Verdict: providers.ConnectionLost, Reason: "stream_reset", Status: 404})
	row("slow body", sim.Action{Status: 500, Body: `{"error":{"status":"INTERNAL"}}`, Fault: sim.FaultSlowBody, Delay: time.Millisecond}, providers.Outcome{Verdict: providers.Unavailable, Reason: "INTERNAL", Status: 500})
	return all
}

func refusals() []providertest.Refusal {
	var all []providertest.Refusal
	finds := func(provider, check string, status providers.FindingStatus, reason string, action sim.Action) {
		all = append(all, providertest.Refusal{
			Name: strings.TrimSpace(check + " " + reason), Provider: provider, Action: action,
			Want: providers.Finding{Check: check, Status: status, Reason: reason},
		})
	}
	const access, send = "fcm_access_token", "fcm_send"
	finds(sim.Token, access, providers.FindingFail, "invalid_grant", sim.Action{Reason: "invalid_grant"})
	finds(sim.Token, access, providers.FindingFail, "unauthorized_client", sim.Action{Reason: "unauthorized_client"})
	finds(sim.Token, access, providers.FindingFail, "token_endpoint_unavailable", sim.Action{Status: 503, Body: "<html>busy</html>"})
	finds(sim.FCM, send, providers.FindingFail, "UNAUTHENTICATED", sim.Action{Reason: "UNAUTHENTICATED"})
	finds(sim.FCM, send, providers.FindingFail, "SERVICE_DISABLED", sim.Action{Reason: "PERMISSION_DENIED"})
	finds(sim.FCM, send, providers.FindingFail, "PERMISSION_DENIED", sim.Action{Status: 403})
	finds(sim.FCM, send, providers.FindingFail, "NOT_FOUND", sim.Action{Reason: "NOT_FOUND"})
	finds(sim.FCM, send, providers.FindingFail, "http_404", sim.Action{Status: 404, Body: "<html>lost</html>"})
	finds(sim.FCM, send, providers.FindingFail, "http_403", sim.Action{Status: 403, Body: "<html>no</html>"})
	finds(sim.FCM, send, providers.FindingFail, "bad_answer", sim.Action{Status: 200, Body: "<html>fine</html>"})
	finds(sim.FCM, send, providers.FindingFail, "INTERNAL", sim.Action{Reason: "INTERNAL"})
	finds(sim.FCM, send, providers.FindingFail, "UNAVAILABLE", sim.Action{Reason: "UNAVAILABLE", RetryAfter: "3"})
	finds(sim.FCM, send, providers.FindingFail, "connection_reset", sim.Action{Fault: sim.FaultReset})
	finds(sim.FCM, send, providers.FindingWarn, "QUOTA_EXCEEDED", sim.Action{Reason: "QUOTA_EXCEEDED"})
	finds(sim.FCM, send, providers.FindingWarn, "RESOURCE_EXHAUSTED", sim.Action{Reason: "RATE_LIMIT_EXCEEDED"})
	finds(sim.FCM, send, providers.FindingWarn, "INVALID_ARGUMENT", sim.Action{Reason: "INVALID_ARGUMENT"})
	for _, reason := range []string{"UNREGISTERED", "SENDER_ID_MISMATCH"} {
		finds(sim.FCM, send, providers.FindingOK, "", sim.Action{Reason: reason})
	}
	return all
}

func newProvider(t *testing.T, s *sim.Sim, o providertest.Settings) providers.Provider {
	t.Helper()
	return open(t, s, newSecret(t, s), o)
}

// stranger makes a provider with a service account of another simulator.
func stranger(t *testing.T, s *sim.Sim, o providertest.Settings) providers.Provider {
	t.Helper()
	other, err := sim.Start(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	return open(t, s, newSecret(t, other), o)
}

func open(t *testing.T, s *sim.Sim, secret []byte, o providertest.Settings) providers.Provider {
	t.Helper()
	endpoint := s.FCMURL()
	if o.Endpoint != "" {
		endpoint = o.Endpoint
	}
	c, err := fcm.New(secret, fcm.Options{
		Endpoint: endpoint, TokenEndpoint: s.FCMTokenURL(), RootCAs: o.RootCAs, Timeout: o.Timeout, InFlight: o.InFlight, Log: o.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// secrets keeps what newSecret made for each simulator.
var secrets sync.Map

// newSecret uploads, once for each simulator, a service account that s knows.
func newSecret(t *testing.T, s *sim.Sim) []byte {
	t.Helper()
	if made, ok := secrets.Load(s); ok {
		return made.([]byte)
	}
	checked, err := fcm.Check(providers.FCMUpload{ServiceAccount: s.NewServiceAccount(project)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secrets.Store(s, checked.Secret)
	t.Cleanup(func() { secrets.Delete(s) })
	return checked.Secret
}

func alertBody(p providers.Push) string {
	return fmt.Sprintf(`{"message":{"data":{"head":%q,"rouse":"1"},"android":{"ttl":"3599s","priority":"high"},"token":%q}}`, p.Head, p.Token)
}
