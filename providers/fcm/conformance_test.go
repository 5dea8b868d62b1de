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
		Refusals:         refusals(),
		Answers: []providertest.Answer{
			{Name: "apns key of the project, for Apple", Platform: "ios", Action: sim.Action{Reason: "THIRD_PARTY_AUTH_ERROR"}, Want: providers.Outcome{Verdict: providers.CredentialBad, Reason: "THIRD_PARTY_AUTH_ERROR", Status: 401}},
			{Name: "apns key of the project, for a browser", Platform: "web", Action: sim.Action{Reason: "THIRD_PARTY_AUTH_ERROR"}, Want: providers.Outcome{Verdict: providers.CredentialBad, Reason: "THIRD_PARTY_AUTH_ERROR", Status: 401}},
			{Name: "other project", Action: sim.Action{Reason: "SENDER_ID_MISMATCH"}, Want: providers.Outcome{Verdict: providers.TokenSuspect, Reason: "SENDER_ID_MISMATCH", Status: 403}},
			{Name: "service disabled", Action: sim.Action{Reason: "PERMISSION_DENIED"}, Want: providers.Outcome{Verdict: providers.CredentialBad, Reason: "SERVICE_DISABLED", Status: 403}},
			{Name: "apns key of the project, for another", Action: sim.Action{Reason: "THIRD_PARTY_AUTH_ERROR"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "THIRD_PARTY_AUTH_ERROR", Status: 401}},
			{Name: "device quota", Action: sim.Action{Reason: "QUOTA_EXCEEDED_DEVICE", RetryAfter: "17"}, Want: providers.Outcome{Verdict: providers.DeviceThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: 17 * time.Second}},
			{Name: "project quota", Action: sim.Action{Reason: "QUOTA_EXCEEDED", RetryAfter: "17"}, Want: providers.Outcome{Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: 17 * time.Second}},
			{Name: "rate limit without details", Action: sim.Action{Reason: "RATE_LIMIT_EXCEEDED"}, Want: providers.Outcome{Verdict: providers.AppThrottled, Reason: "RESOURCE_EXHAUSTED", Status: 429}},
			{Name: "500", Action: sim.Action{Reason: "INTERNAL"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "INTERNAL", Status: 500}},
			{Name: "503", Action: sim.Action{Reason: "UNAVAILABLE"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "UNAVAILABLE", Status: 503}},
			{Name: "503 retry after", Action: sim.Action{Reason: "UNAVAILABLE", RetryAfter: "3"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "UNAVAILABLE", Status: 503, RetryAfter: 3 * time.Second}},
			{Name: "502 html", Action: sim.Action{Status: 502, Body: "<html>busy</html>"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "http_502", Status: 502}},
			{Name: "404 html", Action: sim.Action{Status: 404, Body: "<html>lost</html>"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "http_404", Status: 404}},
			{Name: "404 without code", Action: sim.Action{Reason: "NOT_FOUND"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "NOT_FOUND", Status: 404}},
			{Name: "200 html", Action: sim.Action{Status: 200, Body: "<html>fine</html>"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "bad_answer", Status: 200}},
			{Name: "302", Action: sim.Action{Status: 302, Body: "<html>there</html>"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "http_302", Status: 302}},
			{Name: "slow body", Action: sim.Action{Status: 500, Body: `{"error":{"status":"INTERNAL"}}`, Fault: sim.FaultSlowBody, Delay: time.Millisecond}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "INTERNAL", Status: 500}},
		},
	})
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
	endpoint := s.FCMURL()
	if o.Endpoint != "" {
		endpoint = o.Endpoint
	}
	c, err := fcm.New(newSecret(t, s), fcm.Options{
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
