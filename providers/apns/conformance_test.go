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
	f := fixture()
	f.New, f.Answers, f.Refusals = newProvider, answers(), refusals()
	f.Stranger = stranger
	f.Strange = providers.Outcome{Verdict: providers.CredentialBad, Reason: "InvalidProviderToken"}
	f.Signs = &providertest.Signing{
		Expire:  func(p providers.Provider) { p.(*apns.Client).Expire() },
		Age:     func(p providers.Provider, by time.Duration) { p.(*apns.Client).Age(by) },
		Expired: providers.Outcome{Verdict: providers.ConnectionLost, Reason: "ExpiredProviderToken", Status: 403},
		TooMany: providertest.Answer{
			Action: sim.Action{Reason: "TooManyProviderTokenUpdates"},
			Want:   providers.Outcome{Verdict: providers.AppThrottled, Reason: "TooManyProviderTokenUpdates", Status: 429, RetryAfter: 10 * time.Minute},
		},
	}
	providertest.Run(t, f)
}

// TestConformanceWithCertificate keeps the same promises with a client certificate, over real handshakes.
func TestConformanceWithCertificate(t *testing.T) {
	t.Parallel()
	f := fixture()
	f.New = certified
	f.Stranger = forger
	f.Strange = providers.Outcome{Verdict: providers.CredentialBad, Reason: "BadCertificate"}
	providertest.Run(t, f)
}

func fixture() providertest.Fixture {
	return providertest.Fixture{
		Provider:         sim.APNs,
		Endpoint:         (*sim.Sim).APNsURL,
		Token:            func(s *sim.Sim) string { return s.NewAPNsToken(topic, false) },
		Body:             alertBody,
		Dead:             providers.Outcome{Verdict: providers.TokenDead, Reason: "Unregistered", Status: 410, ProviderTime: time.Now()},
		BurstConnections: 1,
		Narrows:          true,
		TurnedAway: []providertest.Answer{
			turnedAway("BadCertificateEnvironment"), turnedAway("InvalidProviderToken"), turnedAway("BadEnvironmentKeyInToken"), turnedAway("Forbidden"),
			{Name: "no reason", Action: sim.Action{Fault: sim.FaultGoawayZero}, Want: providers.Outcome{Verdict: providers.ConnectionLost, Reason: "goaway"}},
			{Name: "shutdown", Action: sim.Action{Fault: sim.FaultGoawayZero, Reason: "Shutdown"}, Want: providers.Outcome{Verdict: providers.ConnectionLost, Reason: "goaway"}},
		},
	}
}

// answers has a row for every row of Apple's table, and for what is not in it.
func answers() []providertest.Answer {
	var all []providertest.Answer
	row := func(name string, action sim.Action, want providers.Outcome) {
		all = append(all, providertest.Answer{Name: name, Action: action, Want: want})
	}
	said := func(status int, v providers.Verdict, reasons ...string) {
		for _, reason := range reasons {
			row(reason, sim.Action{Reason: reason}, providers.Outcome{Verdict: v, Reason: reason, Status: status})
		}
	}
	said(400, providers.Rejected, "BadCollapseId", "BadExpirationDate", "BadMessageId", "BadPriority", "InvalidPushType", "DuplicateHeaders", "PayloadEmpty", "MissingDeviceToken")
	said(400, providers.TokenSuspect, "BadDeviceToken", "DeviceTokenNotForTopic")
	said(400, providers.CredentialBad, "BadTopic", "MissingTopic", "TopicDisallowed")
	said(400, providers.ConnectionLost, "IdleTimeout")
	said(403, providers.CredentialBad, "BadCertificate", "BadCertificateEnvironment", "Forbidden", "MissingProviderToken", "InvalidProviderToken", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken")
	said(403, providers.ConnectionLost, "ExpiredProviderToken", "UnrelatedKeyIdInToken") // a first time
	said(404, providers.Rejected, "BadPath")
	said(405, providers.Rejected, "MethodNotAllowed")
	said(410, providers.TokenDead, "Unregistered", "ExpiredToken")
	said(413, providers.Rejected, "PayloadTooLarge")
	said(429, providers.DeviceThrottled, "TooManyRequests")
	said(500, providers.Unavailable, "InternalServerError")
	said(503, providers.Unavailable, "ServiceUnavailable")
	said(503, providers.ConnectionLost, "Shutdown")
	row("token updates", sim.Action{Reason: "TooManyProviderTokenUpdates"}, providers.Outcome{Verdict: providers.AppThrottled, Reason: "TooManyProviderTokenUpdates", Status: 429, RetryAfter: 10 * time.Minute})

	// The timestamp of a 410, as it comes.
	past, future := time.Date(2020, 1, 2, 3, 4, 5, 6e6, time.UTC), time.Date(2100, 1, 2, 3, 4, 5, 6e6, time.UTC)
	for _, at := range []time.Time{past, future} {
		dead := providers.Outcome{Verdict: providers.TokenDead, Reason: "Unregistered", Status: 410, ProviderTime: at}
		row("410 of "+at.Format(time.DateOnly), sim.Action{Reason: "Unregistered", Timestamp: at}, dead)
		row("410 in a string of "+at.Format(time.DateOnly), sim.Action{Reason: "Unregistered", Timestamp: at, TimestampText: true}, dead)
	}

	// How long to wait, in seconds and as a date.
	row("retry after", sim.Action{Reason: "TooManyRequests", RetryAfter: "17"}, providers.Outcome{Verdict: providers.DeviceThrottled, Reason: "TooManyRequests", Status: 429, RetryAfter: 17 * time.Second})
	row("retry after a date", sim.Action{Reason: "ServiceUnavailable", RetryAfterDate: 30 * time.Second}, providers.Outcome{Verdict: providers.Unavailable, Reason: "ServiceUnavailable", Status: 503, RetryAfter: 30 * time.Second})

	// A word nobody knows, or none, goes by its status and never against the token.
	for status, v := range map[int]providers.Verdict{
		400: providers.Rejected, 403: providers.CredentialBad, 404: providers.Rejected, 410: providers.Rejected, 418: providers.Rejected, 429: providers.DeviceThrottled,
		500: providers.Unavailable, 502: providers.Unavailable, 503: providers.Unavailable, 302: providers.Unavailable,
	} {
		bare := providers.Outcome{Verdict: v, Reason: fmt.Sprintf("http_%d", status), Status: status}
		row(fmt.Sprintf("%d of an unknown sort", status), sim.Action{Status: status, Reason: "SomethingNew"}, providers.Outcome{Verdict: v, Reason: "SomethingNew", Status: status})
		row(fmt.Sprintf("%d html", status), sim.Action{Status: status, Body: "<html>x</html>"}, bare)
		row(fmt.Sprintf("%d empty", status), sim.Action{Status: status}, bare)
		row(fmt.Sprintf("%d half a body", status), sim.Action{Status: status, Body: `{"reason":"Unregis`}, bare)
	}
	row("broken off", sim.Action{Reason: "Unregistered", Fault: sim.FaultTruncate}, providers.Outcome{Verdict: providers.ConnectionLost, Reason: "stream_reset", Status: 410})
	row("200 broken off", sim.Action{Status: 200, Body: "whatever this is", Fault: sim.FaultTruncate}, providers.Outcome{Verdict: providers.Accepted, Status: 200})
	row("slow body", sim.Action{Reason: "BadTopic", Fault: sim.FaultSlowBody, Delay: time.Millisecond}, providers.Outcome{Verdict: providers.CredentialBad, Reason: "BadTopic", Status: 400})
	return all
}

// certified makes a provider with a client certificate that s knows.
func certified(t *testing.T, s *sim.Sim, o providertest.Settings) providers.Provider {
	t.Helper()
	return withCertificate(t, s, o, sim.APNsCertificate{Topic: topic, Password: "of the file"})
}

// forger makes one with a certificate that somebody else signed.
func forger(t *testing.T, s *sim.Sim, o providertest.Settings) providers.Provider {
	t.Helper()
	return withCertificate(t, s, o, sim.APNsCertificate{Topic: topic, Password: "of the file", Unknown: true})
}

func withCertificate(t *testing.T, s *sim.Sim, o providertest.Settings, c sim.APNsCertificate) providers.Provider {
	t.Helper()
	return open(t, s, check(t, providers.APNsUpload{P12: s.NewAPNsIdentity(c).P12, P12Password: c.Password, Topic: topic, Placeholder: placeholder()}), o)
}

// stranger makes a provider whose key s knows under another id.
func stranger(t *testing.T, s *sim.Sim, o providertest.Settings) providers.Provider {
	t.Helper()
	const id = "KEY0000002"
	return open(t, s, check(t, providers.APNsUpload{TeamID: team, KeyID: "KEY0000003", PrivateKey: s.NewAPNsKey(team, id), Topic: topic}), o)
}

// check uploads.
func check(t *testing.T, u providers.APNsUpload) []byte {
	t.Helper()
	checked, err := apns.Check(u, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return checked.Secret
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
	return open(t, s, newSecret(t, s), o)
}

func open(t *testing.T, s *sim.Sim, secret []byte, o providertest.Settings) providers.Provider {
	t.Helper()
	endpoint := s.APNsURL()
	if o.Endpoint != "" {
		endpoint = o.Endpoint
	}
	c, err := apns.New(secret, false, apns.Options{Endpoint: endpoint, RootCAs: o.RootCAs, Timeout: o.Timeout, InFlight: o.InFlight, Log: o.Log})
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
	made := check(t, providers.APNsUpload{TeamID: team, KeyID: key, PrivateKey: s.NewAPNsKey(team, key), Topic: topic, Placeholder: placeholder()})
	secrets.Store(s, made)
	t.Cleanup(func() { secrets.Delete(s) })
	return made
}

func placeholder() providers.Placeholder {
	return providers.Placeholder{Text: providers.Text{Title: "Example", Body: "Something is new"}}
}

func alertBody(p providers.Push) string {
	return fmt.Sprintf(`{"aps":{"alert":{"title":"Example","body":"Something is new"},"mutable-content":1,"sound":"default"},"rouse":"1","head":%q}`, p.Head)
}
