package main

import (
	"net/http"
	"time"

	"rouse/providers/sim"
)

// trouble is something that goes wrong at Apple or Google for a moment.
type trouble struct {
	provider string
	// share is how much of the requests it hits, 0 for all; count bounds how many.
	share float64
	count int
	does  sim.Action
	// lasts is about how long; 0 is usualTrouble.
	lasts time.Duration
	// spoils says that Rouse may rest for minutes after it: somebody has to put the credential again.
	spoils bool
	// revokes makes Google forget the access tokens first, so that new ones are asked for.
	revokes bool
}

const htmlPage = "<!DOCTYPE html><title>Error</title><p>Something in between."

// longAgo is in another life of a token.
var longAgo = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// appleTroubles is all that Apple does.
func appleTroubles() []trouble {
	soon := httpSoon()
	return ofProvider(sim.APNs, []trouble{
		{share: 0.3, does: sim.Action{Delay: 100 * time.Millisecond}},
		{share: 0.05, does: sim.Action{Delay: 2 * time.Second}},
		{share: 0.2, does: sim.Action{Reason: "InternalServerError"}},
		{share: 0.2, does: sim.Action{Reason: "ServiceUnavailable", RetryAfter: "1"}},
		{share: 0.2, does: sim.Action{Reason: "ServiceUnavailable", RetryAfter: soon}},
		{share: 0.2, does: sim.Action{Status: http.StatusServiceUnavailable}},
		{share: 0.2, does: sim.Action{Status: http.StatusBadGateway, Body: htmlPage}},
		{share: 0.1, does: sim.Action{Reason: "Shutdown"}},
		{share: 0.05, does: sim.Action{Reason: "TooManyRequests"}},
		{share: 0.05, does: sim.Action{Reason: "TooManyRequests", RetryAfter: "2"}},
		{count: 1, does: sim.Action{Reason: "TooManyProviderTokenUpdates"}, spoils: true},
		{count: 3, does: sim.Action{Reason: "ExpiredProviderToken"}, spoils: true},
		{count: 3, does: sim.Action{Reason: "UnrelatedKeyIdInToken"}, spoils: true},
		{does: sim.Action{Reason: "InvalidProviderToken"}, spoils: true},
		{does: sim.Action{Reason: "Forbidden"}, spoils: true},
		{does: sim.Action{Reason: "BadEnvironmentKeyInToken"}, spoils: true},
		{does: sim.Action{Reason: "InvalidProviderToken", Fault: sim.FaultGoawayZero}, spoils: true},
		{share: 0.5, does: sim.Action{Reason: "BadDeviceToken"}, spoils: true},
		{does: sim.Action{Reason: "BadDeviceToken"}, lasts: 500 * time.Millisecond, spoils: true},
		{share: 0.1, does: sim.Action{Reason: "BadDeviceToken"}},
		{share: 0.1, does: sim.Action{Reason: "DeviceTokenNotForTopic"}},
		{share: 0.2, does: sim.Action{Reason: "Unregistered", Timestamp: longAgo}},
		{share: 0.2, does: sim.Action{Reason: "ExpiredToken", Timestamp: longAgo}},
		{share: 0.1, does: sim.Action{Status: http.StatusBadRequest, Reason: "BrandNewReason"}},
		{share: 0.1, does: sim.Action{Reason: "PayloadTooLarge"}},
		{share: 0.05, does: sim.Action{Fault: sim.FaultHang}},
		{count: 3, does: sim.Action{Fault: sim.FaultReset}},
		{share: 0.1, does: sim.Action{Fault: sim.FaultGoaway}},
		{share: 0.1, does: sim.Action{Fault: sim.FaultGoawayLower}},
		{count: 3, does: sim.Action{Fault: sim.FaultGoawayZero}},
		{share: 0.1, does: sim.Action{Fault: sim.FaultRSTRefused}},
		{share: 0.1, does: sim.Action{Fault: sim.FaultRSTInternal}},
		{count: 1, does: sim.Action{Fault: sim.FaultBlackhole}},
		{share: 0.1, does: sim.Action{Fault: sim.FaultCloseAfter}},
		{share: 0.2, does: sim.Action{Reason: "InternalServerError", Fault: sim.FaultSlowBody}},
	})
}

// googleTroubles is all that Google does.
func googleTroubles() []trouble {
	soon := httpSoon()
	return append(ofProvider(sim.FCM, []trouble{
		{share: 0.3, does: sim.Action{Delay: 100 * time.Millisecond}},
		{share: 0.05, does: sim.Action{Delay: 2 * time.Second}},
		{share: 0.2, does: sim.Action{Reason: "INTERNAL"}},
		{share: 0.2, does: sim.Action{Status: http.StatusBadGateway, Body: htmlPage}},
		{share: 0.2, does: sim.Action{Reason: "UNAVAILABLE", RetryAfter: "1"}},
		{share: 0.2, does: sim.Action{Reason: "UNAVAILABLE", RetryAfter: soon}},
		{share: 0.02, does: sim.Action{Reason: "QUOTA_EXCEEDED", RetryAfter: "1"}},
		{share: 0.02, does: sim.Action{Reason: "RATE_LIMIT_EXCEEDED", RetryAfter: "1"}},
		{count: 1, does: sim.Action{Reason: "QUOTA_EXCEEDED"}, spoils: true},
		{share: 0.1, does: sim.Action{Reason: "QUOTA_EXCEEDED_DEVICE", RetryAfter: "2"}},
		{share: 0.1, does: sim.Action{Reason: "QUOTA_EXCEEDED_DEVICE"}},
		{share: 0.2, does: sim.Action{Status: http.StatusNotFound, Body: htmlPage}},
		{share: 0.2, does: sim.Action{Reason: "NOT_FOUND"}},
		{share: 0.2, does: sim.Action{Status: http.StatusOK, Body: htmlPage}},
		{share: 0.2, does: sim.Action{Status: http.StatusOK, Body: `{}`}},
		{share: 0.2, does: sim.Action{Status: http.StatusOK, Body: `{"name":"proj`}},
		{share: 0.1, does: sim.Action{Reason: "UNAUTHENTICATED"}, spoils: true},
		{does: sim.Action{Reason: "UNAUTHENTICATED"}, lasts: 500 * time.Millisecond, spoils: true},
		{share: 0.1, does: sim.Action{Reason: "THIRD_PARTY_AUTH_ERROR"}, spoils: true},
		{does: sim.Action{Reason: "PERMISSION_DENIED"}, spoils: true},
		{share: 0.5, does: sim.Action{Reason: "SENDER_ID_MISMATCH"}, spoils: true},
		{share: 0.1, does: sim.Action{Reason: "SENDER_ID_MISMATCH"}},
		{share: 0.1, does: sim.Action{Reason: "INVALID_ARGUMENT"}},
		{share: 0.1, does: sim.Action{Status: http.StatusFound, Body: htmlPage}},
		{share: 0.05, does: sim.Action{Fault: sim.FaultHang}},
		{count: 3, does: sim.Action{Fault: sim.FaultReset}},
		{share: 0.1, does: sim.Action{Fault: sim.FaultGoaway}},
		{share: 0.1, does: sim.Action{Fault: sim.FaultRSTInternal}},
		{count: 1, does: sim.Action{Fault: sim.FaultBlackhole}},
		{share: 0.1, does: sim.Action{Fault: sim.FaultCloseAfter}},
		{share: 0.2, does: sim.Action{Fault: sim.FaultSlowBody}},
	}), ofProvider(sim.Token, []trouble{
		{does: sim.Action{}, revokes: true},
		{does: sim.Action{Delay: time.Second}, revokes: true},
		{does: sim.Action{Status: http.StatusInternalServerError}, revokes: true, spoils: true},
		{does: sim.Action{Status: http.StatusServiceUnavailable, Body: htmlPage}, revokes: true, spoils: true},
		{does: sim.Action{Reason: "invalid_grant"}, revokes: true, spoils: true},
		{count: 2, does: sim.Action{Fault: sim.FaultHang}, revokes: true, spoils: true},
		{count: 2, does: sim.Action{Fault: sim.FaultReset}, revokes: true},
	})...)
}

// ofProvider says whose the troubles are.
func ofProvider(provider string, all []trouble) []trouble {
	for i := range all {
		all[i].provider = provider
	}
	return all
}

// httpSoon is a date for Retry-After that is here at once.
func httpSoon() string { return time.Now().Add(2 * time.Second).UTC().Format(http.TimeFormat) }
