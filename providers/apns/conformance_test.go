package apns_test

import (
	"fmt"
	"strings"
	"sync"
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
		Narrows:          true,
		Signs: &providertest.Signing{
			Expire:  func(p providers.Provider) { p.(*apns.Client).Expire() },
			Age:     func(p providers.Provider, by time.Duration) { p.(*apns.Client).Age(by) },
			Expired: providers.Outcome{Verdict: providers.ConnectionLost, Reason: "ExpiredProviderToken", Status: 403},
			TooMany: providertest.Answer{
				Action: sim.Action{Reason: "TooManyProviderTokenUpdates"},
				Want:   providers.Outcome{Verdict: providers.AppThrottled, Reason: "TooManyProviderTokenUpdates", Status: 429, RetryAfter: 10 * time.Minute},
			},
		},
		TurnedAway: []providertest.Answer{
			turnedAway("BadCertificateEnvironment"), turnedAway("InvalidProviderToken"), turnedAway("BadEnvironmentKeyInToken"), turnedAway("Forbidden"),
			{Name: "no reason", Action: sim.Action{Fault: sim.FaultGoawayZero}, Want: providers.Outcome{Verdict: providers.ConnectionLost, Reason: "goaway"}},
			{Name: "shutdown", Action: sim.Action{Fault: sim.FaultGoawayZero, Reason: "Shutdown"}, Want: providers.Outcome{Verdict: providers.ConnectionLost, Reason: "goaway"}},
		},
		Refusals: refusals(),
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

// turnedAway ends every connection for the credential and says so in the GOAWAY alone.
func turnedAway(reason string) providertest.Answer {
	return providertest.Answer{
		Name: reason, Action: sim.Action{Fault: sim.FaultGoawayZero, Reason: reason},
		Want: providers.Outcome{Verdict: providers.CredentialBad, Reason: reason},
	}
}

func refusals() []providertest.Refusal {
	var all []providertest.Refusal
	finds := func(status providers.FindingStatus, reason string, action sim.Action) {
		all = append(all, providertest.Refusal{
			Name: strings.TrimSpace(reason + " " + action.Fault), Provider: sim.APNs, Action: action,
			Want: providers.Finding{Check: "apns_production", Status: status, Reason: reason},
		})
	}
	for _, reason := range []string{
		"InvalidProviderToken", "ExpiredProviderToken", "UnrelatedKeyIdInToken", "MissingProviderToken", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken",
		"BadCertificate", "BadCertificateEnvironment", "Forbidden", "BadTopic", "TopicDisallowed", "MissingTopic", "InternalServerError", "ServiceUnavailable", "Shutdown",
	} {
		finds(providers.FindingFail, reason, sim.Action{Reason: reason})
	}
	for _, reason := range []string{"TooManyProviderTokenUpdates", "TooManyRequests", "BadMessageId"} {
		finds(providers.FindingWarn, reason, sim.Action{Reason: reason})
	}
	finds(providers.FindingOK, "", sim.Action{Reason: "DeviceTokenNotForTopic"})
	finds(providers.FindingFail, "BadCertificateEnvironment", sim.Action{Fault: sim.FaultGoawayZero, Reason: "BadCertificateEnvironment"})
	finds(providers.FindingFail, "http_404", sim.Action{Status: 404, Body: "<html>lost</html>"})
	finds(providers.FindingFail, "http_502", sim.Action{Status: 502, Body: "<html>busy</html>"})
	finds(providers.FindingFail, "connection_reset", sim.Action{Fault: sim.FaultReset})
	return all
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

// secrets keeps what newSecret made for each simulator.
var secrets sync.Map

// newSecret uploads, once for each simulator, a signing key that s knows.
func newSecret(t *testing.T, s *sim.Sim) []byte {
	t.Helper()
	if made, ok := secrets.Load(s); ok {
		return made.([]byte)
	}
	checked, err := apns.Check(providers.APNsUpload{
		TeamID: team, KeyID: key, PrivateKey: s.NewAPNsKey(team, key), Topic: topic,
		Placeholder: providers.Placeholder{Text: providers.Text{Title: "Example", Body: "Something is new"}},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secrets.Store(s, checked.Secret)
	t.Cleanup(func() { secrets.Delete(s) })
	return checked.Secret
}

func alertBody(p providers.Push) string {
	return fmt.Sprintf(`{"aps":{"alert":{"title":"Example","body":"Something is new"},"mutable-content":1,"sound":"default"},"rouse":"1","head":%q}`, p.Head)
}
