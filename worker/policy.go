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
	// pauses counts the pauses of this circuit in a row before this one.
	pauses int
	// lost counts the answers in a row, this one included, that say that there is nothing where we sent it.
	lost int
	// registered is when the token was last registered, read before the push.
	registered time.Time
	suspect    bool
	// elsewhere: it was tried in the other environment of APNs, because its own had refused it.
	elsewhere bool
	// otherTried: the other environment has refused this registration of it before; otherShut: it cannot be asked now.
	otherTried, otherShut bool
	// tripped: too many tokens are refused at once to be believed.
	tripped bool
	now     time.Time
}

// decision is what follows from an attempt. Exactly one of the first five is
// set: done, retry, refuse, block, elsewhere.
type decision struct {
	// done: the provider took it.
	done bool
	// retry: the same device again after this time.
	retry time.Duration
	// refuse: not again for this message; the ladder or a newer message may.
	refuse bool
	// block: not again until a token or a credential comes.
	block bool
	// elsewhere: the same token at once in the other environment.
	elsewhere bool

	// token is what becomes of the token; empty keeps it as it is.
	token tokens.TokenState
	// strike counts one more refusal against a suspect token; otherTried notes that the other environment refused it too.
	strike, otherTried bool
	// move: the token belongs into the other environment.
	move bool
	// pause stops more than this device for so long; the token is not at fault.
	pause time.Duration
	// cause is why it pauses; wide pauses the app's whole provider.
	cause tokens.CircuitCause
	wide  bool
	// works: the provider took the credential, whatever it said of the token.
	works bool
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
	// maxFailures ends the attempts at one wake, after about an hour of them: from then on the ladder calls.
	maxFailures = 10
	// maxLost is how many answers in a row may say that there is nothing at the other end before that is the app's trouble: a
	// project that does not exist is answered like an outage.
	maxLost = 5
	// clockSlack is how far in the future a provider's word may lie.
	clockSlack = 10 * time.Minute
)

// decide says what follows from an attempt. It is pure; jitter is 0 <= jitter < 1.
// It is the only place where a token can be lost, and it asks for proof: a token
// dies only on the provider's word about this registration of it.
func decide(a attempt, jitter float64) decision {
	if a.elsewhere {
		return decideElsewhere(a, jitter)
	}
	o := a.outcome
	switch o.Verdict {
	case providers.Accepted:
		d := decision{done: true, works: true}
		if a.suspect {
			d.token = tokens.TokenActive
		}
		return d
	case providers.TokenDead:
		return decideDeath(a, jitter)
	case providers.TokenSuspect:
		if a.mayBeElsewhere() && !a.tripped {
			return decision{elsewhere: true, works: true}
		}
		return distrust(a)
	case providers.CredentialBad:
		return a.credentialBad()
	case providers.AppThrottled:
		return a.slowDown(jitter)
	case providers.DeviceThrottled:
		return decision{works: true, retry: spread(min(orElse(o.RetryAfter, throttled<<min(a.failures, 4)), maxRetryAfter), jitter)}
	case providers.ConnectionLost:
		if a.failures == 0 {
			return decision{retry: atOnce}
		}
		return again(a, jitter)
	case providers.Unavailable:
		if a.lost >= maxLost {
			return a.credentialBad()
		}
		return again(a, jitter)
	default:
		return decision{refuse: true}
	}
}

// decideDeath asks for proof that this registration of the token is dead. Apple says since when; Google does not, and
// means the token as it was when the push began.
func decideDeath(a attempt, jitter float64) decision {
	at := a.outcome.ProviderTime
	switch {
	case a.earlierLife() && a.failures == 0:
		return decision{works: true, retry: backoff(a, jitter)}
	case a.earlierLife():
		return decision{works: true, refuse: true}
	case a.tripped, at.IsZero() && a.provider == tokens.APNs, at.After(a.now.Add(clockSlack)):
		return distrust(a)
	}
	return decision{block: true, works: true, token: tokens.TokenDead}
}

// decideElsewhere settles where a token belongs that its own environment refused.
func decideElsewhere(a attempt, jitter float64) decision {
	switch a.outcome.Verdict {
	case providers.Accepted:
		return decision{done: true, works: true, move: true}
	case providers.AppThrottled:
		return a.slowDown(jitter)
	case providers.Unavailable, providers.ConnectionLost, providers.DeviceThrottled:
		if a.failures < maxFailures {
			return again(a, jitter)
		}
		d := distrust(a)
		d.works = false
		return d
	case providers.TokenDead, providers.TokenSuspect:
		d := distrust(a)
		d.otherTried = true
		return d
	default:
		d := distrust(a)
		d.works, d.otherTried = false, true
		return d
	}
}

// distrust makes a token a suspect, with a strike. Wrong environment, topic or project are mistakes of the app far more often
// than dead phones: the token stays, and only the ladder tries it again. In a wave of refusals it is not even counted.
func distrust(a attempt) decision {
	return decision{refuse: true, works: true, token: tokens.TokenSuspect, strike: !a.tripped}
}

func (a attempt) credentialBad() decision {
	wait := probes[min(a.pauses, len(probes)-1)]
	return decision{retry: wait, pause: wait, cause: tokens.CauseCredential}
}

// slowDown pauses as the provider wishes. Google counts by project; Apple by connection and team, and each environment
// has its own.
func (a attempt) slowDown(jitter float64) decision {
	wait := spread(min(orElse(a.outcome.RetryAfter, throttled), maxRetryAfter), jitter)
	return decision{retry: wait, pause: wait, cause: tokens.CauseThrottled, wide: a.provider == tokens.FCM}
}

// earlierLife reports whether the provider speaks of an earlier life of the same token.
func (a attempt) earlierLife() bool {
	return !a.outcome.ProviderTime.IsZero() && !a.outcome.ProviderTime.After(a.registered)
}

// mayBeElsewhere reports whether the other environment of APNs may know the token: a development build that says it
// is none is the most frequent reason for this answer.
func (a attempt) mayBeElsewhere() bool {
	return a.provider == tokens.APNs && a.outcome.Reason == "BadDeviceToken" && !a.otherTried && !a.otherShut && !a.elsewhere
}

// again tries the wake again after a while, until it is up to the ladder.
func again(a attempt, jitter float64) decision {
	if a.failures >= maxFailures {
		return decision{refuse: true}
	}
	return decision{retry: backoff(a, jitter)}
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

// jitterShare is the part of a wait that jitter adds at most: one in so many.
const jitterShare = 5

// spread adds up to a fifth, so that devices which failed together do not come back together.
func spread(d time.Duration, jitter float64) time.Duration {
	return d + time.Duration(jitter*float64(d)/jitterShare)
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// sample is what an answer says of a token.
type sample uint8

const (
	noSample sample = iota
	goodSample
	badSample
)

// sampleOf reads an attempt for the breaker. A token that is asked for elsewhere first is counted by what is said there.
func sampleOf(a attempt) sample {
	switch a.outcome.Verdict {
	case providers.Accepted:
		return goodSample
	case providers.TokenDead:
		if !a.earlierLife() {
			return badSample
		}
	case providers.TokenSuspect:
		if !a.mayBeElsewhere() || a.tripped { // in a wave nothing is tried elsewhere
			return badSample
		}
	case providers.CredentialBad, providers.Rejected:
		if a.elsewhere {
			return badSample
		}
	}
	return noSample
}
