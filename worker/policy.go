package worker

import (
	"time"

	"rouse/providers"
	"rouse/tokens"
)

// attempt is all that the policy looks at: what came back, and for what.
type attempt struct {
	outcome  providers.Outcome
	provider tokens.Provider
	// failures counts failed attempts of this wake before this one.
	failures int
	// pauses counts the pauses of this outlet in a row before this one.
	pauses int
	// registered is when the token was last registered, read before the push.
	registered time.Time
	suspect    bool
}

// decision is what follows from an attempt. Exactly one of the first four is
// set: done, retry, refuse, block.
type decision struct {
	// done: the provider took it.
	done bool
	// retry: the same device again after this time.
	retry time.Duration
	// refuse: not again for this message; the ladder or a newer message may.
	refuse bool
	// block: not again until a token or a credential comes.
	block bool

	// token is what becomes of the token; empty keeps it as it is.
	token tokens.TokenState
	// pause stops the whole outlet for so long; the token is not at fault.
	pause time.Duration
	// failing is set when the app's credential is at fault.
	failing bool
}

// probes is the schedule on which a paused outlet is tried with one push.
var probes = [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}

const (
	atOnce         = time.Nanosecond
	fcmFirstRetry  = 10 * time.Second
	apnsFirstRetry = 5 * time.Second
	maxRetry       = 15 * time.Minute
	throttled      = 60 * time.Second
	// maxRetryAfter is as long as we let a provider's clock put us off.
	maxRetryAfter = time.Hour
)

// decide says what follows from an attempt. It is pure; jitter is 0 <= jitter < 1.
// It is the only place where a token can be lost, and it asks for proof: a token
// dies only on the provider's word about this registration of it.
func decide(a attempt, jitter float64) decision {
	o := a.outcome
	switch o.Verdict {
	case providers.Accepted:
		d := decision{done: true}
		if a.suspect {
			d.token = tokens.TokenActive
		}
		return d
	case providers.TokenDead:
		if !o.ProviderTime.IsZero() && !o.ProviderTime.After(a.registered) {
			// The provider speaks of an earlier life of the same token.
			return decision{retry: backoff(a, jitter)}
		}
		return decision{block: true, token: tokens.TokenDead}
	case providers.TokenSuspect:
		// Wrong environment, topic or project are mistakes of the app far more often than dead
		// phones: the token stays, and only the ladder tries it again.
		return decision{refuse: true, token: tokens.TokenSuspect}
	case providers.CredentialBad:
		wait := probes[min(a.pauses, len(probes)-1)]
		return decision{retry: wait, pause: wait, failing: true}
	case providers.AppThrottled:
		wait := spread(min(orElse(o.RetryAfter, throttled), maxRetryAfter), jitter)
		return decision{retry: wait, pause: wait}
	case providers.DeviceThrottled:
		return decision{retry: spread(min(orElse(o.RetryAfter, throttled<<min(a.failures, 4)), maxRetryAfter), jitter)}
	case providers.ConnectionLost:
		if a.failures == 0 {
			return decision{retry: atOnce}
		}
		return decision{retry: backoff(a, jitter)}
	case providers.Unavailable:
		return decision{retry: backoff(a, jitter)}
	default:
		return decision{refuse: true}
	}
}

// backoff is the provider's own wish, or doubling from the provider's first step.
func backoff(a attempt, jitter float64) time.Duration {
	if a.outcome.RetryAfter > 0 {
		return spread(min(a.outcome.RetryAfter, maxRetryAfter), jitter)
	}
	first := apnsFirstRetry
	if a.provider == tokens.FCM {
		first = fcmFirstRetry
	}
	return spread(min(first<<min(a.failures, 10), maxRetry), jitter)
}

// spread adds up to a fifth, so that devices which failed together do not come back together.
func spread(d time.Duration, jitter float64) time.Duration {
	return d + time.Duration(jitter*float64(d)/5)
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
