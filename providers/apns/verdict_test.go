package apns

import (
	"testing"
	"time"

	"rouse/providers"
)

// TestVerdict has a row for every row of Apple's table, and for what is not in it.
func TestVerdict(t *testing.T) {
	t.Parallel()
	const once, again = false, true
	for _, tt := range []struct {
		status int
		reason string
		again  bool
		want   providers.Verdict
	}{
		{200, "", once, providers.Accepted},
		{400, "BadCollapseId", once, providers.Rejected},
		{400, "BadExpirationDate", once, providers.Rejected},
		{400, "BadMessageId", once, providers.Rejected},
		{400, "BadPriority", once, providers.Rejected},
		{400, "InvalidPushType", once, providers.Rejected},
		{400, "DuplicateHeaders", once, providers.Rejected},
		{400, "PayloadEmpty", once, providers.Rejected},
		{400, "MissingDeviceToken", once, providers.Rejected},
		{400, "BadDeviceToken", once, providers.TokenSuspect},
		{400, "DeviceTokenNotForTopic", once, providers.TokenSuspect},
		{400, "BadTopic", once, providers.CredentialBad},
		{400, "MissingTopic", once, providers.CredentialBad},
		{400, "TopicDisallowed", once, providers.CredentialBad},
		{400, "IdleTimeout", once, providers.ConnectionLost},
		{403, "BadCertificate", once, providers.CredentialBad},
		{403, "BadCertificateEnvironment", once, providers.CredentialBad},
		{403, "Forbidden", once, providers.CredentialBad},
		{403, "MissingProviderToken", once, providers.CredentialBad},
		{403, "InvalidProviderToken", once, providers.CredentialBad},
		{403, "ExpiredProviderToken", once, providers.ConnectionLost},
		{403, "ExpiredProviderToken", again, providers.CredentialBad},
		{403, "UnrelatedKeyIdInToken", once, providers.ConnectionLost},
		{403, "UnrelatedKeyIdInToken", again, providers.CredentialBad},
		{403, "BadEnvironmentKeyIdInToken", once, providers.CredentialBad},
		{403, "BadEnvironmentKeyInToken", once, providers.CredentialBad},
		{404, "BadPath", once, providers.Rejected},
		{405, "MethodNotAllowed", once, providers.Rejected},
		{410, "Unregistered", once, providers.TokenDead},
		{410, "ExpiredToken", once, providers.TokenDead},
		{413, "PayloadTooLarge", once, providers.Rejected},
		{429, "TooManyProviderTokenUpdates", once, providers.AppThrottled},
		{429, "TooManyRequests", once, providers.DeviceThrottled},
		{500, "InternalServerError", once, providers.Unavailable},
		{503, "ServiceUnavailable", once, providers.Unavailable},
		{503, "Shutdown", once, providers.ConnectionLost},
		// Reasons nobody knows, or none: by status, and never against the token.
		{400, "SomethingNew", once, providers.Rejected},
		{403, "SomethingNew", once, providers.CredentialBad},
		{410, "SomethingNew", once, providers.Rejected},
		{410, "", once, providers.Rejected},
		{418, "", once, providers.Rejected},
		{429, "", once, providers.DeviceThrottled},
		{500, "SomethingNew", once, providers.Unavailable},
		{502, "", once, providers.Unavailable},
		{301, "", once, providers.Unavailable},
		{204, "", once, providers.Unavailable},
		// A known reason with a status it does not come with proves nothing either.
		{400, "Unregistered", once, providers.Rejected},
		{500, "BadDeviceToken", once, providers.Unavailable},
	} {
		if got := verdict(tt.status, tt.reason, tt.again); got != tt.want {
			t.Errorf("%d %q again %v: %q, want %q", tt.status, tt.reason, tt.again, got, tt.want)
		}
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1700000000123)
	for _, tt := range []struct {
		body string
		want spoken
	}{
		{`{"reason":"BadTopic"}`, spoken{reason: "BadTopic"}},
		{`{"reason":"Unregistered","timestamp":1700000000123}`, spoken{reason: "Unregistered", at: at}},
		{`{"reason":"Unregistered","timestamp":"1700000000123"}`, spoken{reason: "Unregistered", at: at}},
		{`{"reason":"Unregistered","timestamp":null}`, spoken{reason: "Unregistered"}},
		{`{"reason":"Unregistered","timestamp":-1}`, spoken{reason: "Unregistered"}},
		{`{"reason":"a token: 0011aabb"}`, spoken{}},
		{`{"reason":"0011223344556677"}`, spoken{}},
		{`<html>`, spoken{}},
		{``, spoken{}},
		{`{"reason":"Bad`, spoken{}},
	} {
		if got := listen([]byte(tt.body)); got.reason != tt.want.reason || !got.at.Equal(tt.want.at) {
			t.Errorf("%s: %+v, want %+v", tt.body, got, tt.want)
		}
	}
}

func TestExpiration(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000000, 0)
	for at, want := range map[time.Time]string{
		now.Add(time.Hour):  "1700003600",
		now:                 "0",
		now.Add(-time.Hour): "0",
		{}:                  "0",
	} {
		if got := providers.APNsExpiration(at, now); got != want {
			t.Errorf("%v: %q, want %q", at, got, want)
		}
	}
}
