package worker

import (
	"testing"
	"time"

	"rouse/providers"
	"rouse/tokens"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	registered := time.Unix(2_000_000, 0)
	at := func(v providers.Verdict) attempt {
		return attempt{outcome: providers.Outcome{Verdict: v, Reason: "r"}, provider: tokens.APNs, registered: registered}
	}
	with := func(a attempt, change func(*attempt)) attempt { change(&a); return a }
	for name, c := range map[string]struct {
		in   attempt
		want decision
	}{
		"accepted":                       {at(providers.Accepted), decision{done: true}},
		"accepted by a suspect":          {with(at(providers.Accepted), func(a *attempt) { a.suspect = true }), decision{done: true, token: tokens.TokenActive}},
		"dead, without a time":           {at(providers.TokenDead), decision{block: true, token: tokens.TokenDead}},
		"dead since later than our word": {with(at(providers.TokenDead), func(a *attempt) { a.outcome.ProviderTime = registered.Add(time.Second) }), decision{block: true, token: tokens.TokenDead}},
		"dead before it was registered":  {with(at(providers.TokenDead), func(a *attempt) { a.outcome.ProviderTime = registered.Add(-time.Second) }), decision{retry: 5 * time.Second}},
		"dead at that very moment":       {with(at(providers.TokenDead), func(a *attempt) { a.outcome.ProviderTime = registered }), decision{retry: 5 * time.Second}},
		"suspect":                        {at(providers.TokenSuspect), decision{refuse: true, token: tokens.TokenSuspect}},
		"bad credential":                 {at(providers.CredentialBad), decision{retry: time.Minute, pause: time.Minute, failing: true}},
		"bad credential, again":          {with(at(providers.CredentialBad), func(a *attempt) { a.pauses = 2 }), decision{retry: 15 * time.Minute, pause: 15 * time.Minute, failing: true}},
		"bad credential, for ever":       {with(at(providers.CredentialBad), func(a *attempt) { a.pauses = 99 }), decision{retry: time.Hour, pause: time.Hour, failing: true}},
		"app throttled":                  {at(providers.AppThrottled), decision{retry: time.Minute, pause: time.Minute}},
		"app throttled, told how long":   {with(at(providers.AppThrottled), func(a *attempt) { a.outcome.RetryAfter = 7 * time.Second }), decision{retry: 7 * time.Second, pause: 7 * time.Second}},
		"device throttled":               {at(providers.DeviceThrottled), decision{retry: time.Minute}},
		"device throttled, again":        {with(at(providers.DeviceThrottled), func(a *attempt) { a.failures = 1 }), decision{retry: 2 * time.Minute}},
		"connection lost":                {at(providers.ConnectionLost), decision{retry: atOnce}},
		"connection lost, again":         {with(at(providers.ConnectionLost), func(a *attempt) { a.failures = 1 }), decision{retry: 10 * time.Second}},
		"unavailable, Apple":             {at(providers.Unavailable), decision{retry: 5 * time.Second}},
		"unavailable, Google":            {with(at(providers.Unavailable), func(a *attempt) { a.provider = tokens.FCM }), decision{retry: 10 * time.Second}},
		"unavailable, for long":          {with(at(providers.Unavailable), func(a *attempt) { a.failures = 50 }), decision{retry: 15 * time.Minute}},
		"unavailable, told how long":     {with(at(providers.Unavailable), func(a *attempt) { a.outcome.RetryAfter = 121 * time.Second }), decision{retry: 121 * time.Second}},
		"unavailable, told nonsense":     {with(at(providers.Unavailable), func(a *attempt) { a.outcome.RetryAfter = 1000 * time.Hour }), decision{retry: time.Hour}},
		"our request was wrong":          {at(providers.Rejected), decision{refuse: true}},
		"a verdict nobody knows":         {at("sunny"), decision{refuse: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := decide(c.in, 0); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// Whatever comes back, only one verdict may cost a token, and every decision says what is next.
func TestOnlyProofCostsAToken(t *testing.T) {
	t.Parallel()
	for _, v := range []providers.Verdict{
		providers.Accepted, providers.TokenDead, providers.TokenSuspect, providers.Rejected, providers.CredentialBad,
		providers.DeviceThrottled, providers.AppThrottled, providers.Unavailable, providers.ConnectionLost, "", "new",
	} {
		for failures := range 20 {
			d := decide(attempt{outcome: providers.Outcome{Verdict: v}, provider: tokens.FCM, failures: failures}, 0.999)
			if d.token == tokens.TokenDead && v != providers.TokenDead {
				t.Errorf("%q costs the token", v)
			}
			said := 0
			for _, b := range []bool{d.done, d.refuse, d.block, d.retry > 0} {
				if b {
					said++
				}
			}
			if said != 1 {
				t.Errorf("%q after %d failures decides %d things: %+v", v, failures, said, d)
			}
		}
	}
}

func TestJitterSpreadsUpwardsByAFifthAtMost(t *testing.T) {
	t.Parallel()
	a := attempt{outcome: providers.Outcome{Verdict: providers.Unavailable, RetryAfter: 100 * time.Second}}
	if low, high := decide(a, 0).retry, decide(a, 0.9999).retry; low != 100*time.Second || high <= 119*time.Second || high > 120*time.Second {
		t.Errorf("retries spread from %s to %s, want 100 s to just under 120 s: never before what the provider asked", low, high)
	}
}
