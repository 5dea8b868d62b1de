package apns_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rouse/providers"
	"rouse/providers/apns"
	"rouse/providers/providertest"
	"rouse/providers/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	team  = "TEAM000001"
	key   = "KEY0000001"
	topic = "com.example.app"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	providertest.Run(t, providertest.Fixture{
		Provider:         sim.APNs,
		New:              newProvider,
		Endpoint:         (*sim.Sim).APNsURL,
		Token:            func(s *sim.Sim) string { return s.NewAPNsToken(topic, false) },
		Body:             alertBody,
		Dead:             providers.Outcome{Verdict: providers.TokenDead, Reason: "Unregistered", Status: 410, ProviderTime: time.Now()},
		BurstConnections: 1,
		Answers: []providertest.Answer{
			{Name: "suspect", Action: sim.Action{Reason: "BadDeviceToken"}, Want: providers.Outcome{Verdict: providers.TokenSuspect, Reason: "BadDeviceToken", Status: 400}},
			{Name: "other topic", Action: sim.Action{Reason: "DeviceTokenNotForTopic"}, Want: providers.Outcome{Verdict: providers.TokenSuspect, Reason: "DeviceTokenNotForTopic", Status: 400}},
			{Name: "credential", Action: sim.Action{Reason: "InvalidProviderToken"}, Want: providers.Outcome{Verdict: providers.CredentialBad, Reason: "InvalidProviderToken", Status: 403}},
			{Name: "throttled", Action: sim.Action{Reason: "TooManyRequests", RetryAfter: "17"}, Want: providers.Outcome{Verdict: providers.DeviceThrottled, Reason: "TooManyRequests", Status: 429, RetryAfter: 17 * time.Second}},
			{Name: "token updates", Action: sim.Action{Reason: "TooManyProviderTokenUpdates"}, Want: providers.Outcome{Verdict: providers.AppThrottled, Reason: "TooManyProviderTokenUpdates", Status: 429, RetryAfter: 10 * time.Minute}},
			{Name: "500", Action: sim.Action{Reason: "InternalServerError"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "InternalServerError", Status: 500}},
			{Name: "503", Action: sim.Action{Reason: "ServiceUnavailable", RetryAfter: "3"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "ServiceUnavailable", Status: 503, RetryAfter: 3 * time.Second}},
			{Name: "503 empty", Action: sim.Action{Status: 503}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "http_503", Status: 503}},
			{Name: "503 html", Action: sim.Action{Status: 503, Body: "<html>busy</html>"}, Want: providers.Outcome{Verdict: providers.Unavailable, Reason: "http_503", Status: 503}},
			{Name: "shutdown", Action: sim.Action{Reason: "Shutdown"}, Want: providers.Outcome{Verdict: providers.ConnectionLost, Reason: "Shutdown", Status: 503}},
			{Name: "404 html", Action: sim.Action{Status: 404, Body: "<html>lost</html>"}, Want: providers.Outcome{Verdict: providers.Rejected, Reason: "http_404", Status: 404}},
			{Name: "slow body", Action: sim.Action{Reason: "BadTopic", Fault: sim.FaultSlowBody, Delay: time.Millisecond}, Want: providers.Outcome{Verdict: providers.CredentialBad, Reason: "BadTopic", Status: 400}},
		},
	})
}

func newProvider(t *testing.T, s *sim.Sim, o providertest.Settings) providers.Provider {
	t.Helper()
	endpoint := s.APNsURL()
	if o.Endpoint != "" {
		endpoint = o.Endpoint
	}
	c, err := apns.New(newSecret(t, s), false, apns.Options{Endpoint: endpoint, RootCAs: o.RootCAs, Timeout: o.Timeout, InFlight: o.InFlight, Log: o.Log})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newSecret uploads a signing key that s knows.
func newSecret(t *testing.T, s *sim.Sim) []byte {
	t.Helper()
	checked, err := apns.Check(providers.APNsUpload{
		TeamID: team, KeyID: key, PrivateKey: s.NewAPNsKey(team, key), Topic: topic,
		Placeholder: providers.Placeholder{Text: providers.Text{Title: "Example", Body: "Something is new"}},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return checked.Secret
}

func alertBody(p providers.Push) string {
	return fmt.Sprintf(`{"aps":{"alert":{"title":"Example","body":"Something is new"},"mutable-content":1,"sound":"default"},"rouse":"1","head":%q}`, p.Head)
}
