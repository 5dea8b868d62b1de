package messages

import (
	"fmt"
	"time"
)

// Sleeper is what decides why a delivery brought no wake that a provider accepted.
type Sleeper struct {
	State State
	Class Class
	// Provider, TokenState and TokenReason are the device's, in the words of package tokens.
	Provider    string
	TokenState  string
	TokenReason string
	// Quarantined is whether a suspect token was refused so often that it is hardly tried any more.
	Quarantined bool
	// HasCredential is whether the app has a credential for that provider.
	HasCredential bool
	// Pause is what holds pushes to the device back; without a Cause, nothing does.
	Pause Pause
	// Failed is the last push, if the provider did not take it; without a Verdict, there is none.
	Failed FailedPush
	// RegisteredAt is when the device's token was last registered.
	RegisteredAt time.Time
	// Seen and Woken are the newest places handed to the device and covered by an accepted wake.
	Seen  Seq
	Woken Seq
	// LastContact is when the device last spoke to us.
	LastContact time.Time
	Now         time.Time
}

// Pause is an open circuit on the way to a device.
type Pause struct {
	// Cause is in the words of package tokens: credential, mass_death or throttled. Reason is the provider's word.
	Cause  string
	Reason string
	// Until is when it is tried next.
	Until time.Time
}

// FailedPush is a push that the provider did not take, in the words of package providers.
type FailedPush struct {
	At      time.Time
	Verdict string
	Reason  string
	// Earlier is whether it stood for earlier messages of the device alone. It may hold back later ones all the same.
	Earlier bool
}

// WhyNotWoken names the one reason, the most lasting first. Its codes are those of NotWoken.
func WhyNotWoken(s Sleeper) NotWoken {
	switch {
	case s.State.Final():
		return NotWoken{"final", fmt.Sprintf("it was %s before a wake was sent", s.State)}
	case s.State == Fetched:
		return NotWoken{"polling", "the device fetched it by itself"}
	case s.Provider == "" || s.Provider == "none":
		return NotWoken{"no_provider", "the device has no push provider; it gets the message when it polls"}
	}
	if why, bad := badToken(s); bad {
		return why
	}
	switch {
	case !s.HasCredential:
		return NotWoken{"no_credentials", "the app has no credentials for " + s.Provider}
	case s.Pause.Cause == "credential":
		return NotWoken{"provider_failing", fmt.Sprintf("%s refuses the app's credentials: %s; %s, or at once when the app puts its credentials again",
			s.Provider, s.Pause.Reason, s.again())}
	case s.Pause.Cause == "mass_death":
		return NotWoken{"provider_paused", fmt.Sprintf("%s refused too many of the app's tokens at once to be believed (%s): its pushes pause; %s, or at once "+
			"when the app puts the credentials that fit its tokens", s.Provider, s.Pause.Reason, s.again())}
	case s.Class == NoWake:
		return NotWoken{"rides_along", "it wakes nobody by itself; it is handed out when the device next fetches"}
	case s.Woken > s.Seen:
		return NotWoken{"wake_outstanding", "an earlier wake was sent; the device has not answered it yet"}
	case s.Now.Sub(s.LastContact) >= SilentAfter:
		return NotWoken{"silent_device", "the device has not been heard of for 7 days"}
	}
	if s.Pause.Cause != "" {
		return NotWoken{"provider_paused", fmt.Sprintf("%s asks the app to slow down (%s): its pushes pause; %s", s.Provider, s.Pause.Reason, s.again())}
	}
	return NotWoken{"wake_due", due(s)}
}

// WhyUnreachable says why no push would be sent to a device if a message came now that wakes; unreachable is false if one would. Of s it
// takes what is the device's. Its codes are those of NotWoken that last, and no_token.
func WhyUnreachable(s Sleeper) (why NotWoken, unreachable bool) {
	if s.TokenState == "none" && s.Provider != "" && s.Provider != "none" {
		return NotWoken{"no_token", "the device has registered no token for " + s.Provider + "; it gets messages when it polls"}, true
	}
	s.State, s.Class, s.Seen, s.Woken = Queued, HighWake, 0, 0
	why = WhyNotWoken(s)
	if why.Code == "wake_due" {
		return NotWoken{}, false
	}
	return why, true
}

// intervals is how the ladder calls, in a newcomer's words.
const intervals = "at growing intervals, until the device has not been heard of for 7 days"

// due says why a wake that nothing stands in the way of has not gone through yet.
func due(s Sleeper) string {
	f := s.Failed
	switch {
	case f.Verdict == "" || f.At.Before(s.RegisteredAt):
		return "a wake is due: at once, or when a pause that a burst or the provider asked for this device is over"
	case f.Verdict == "token_dead":
		return s.notBelieved(f.Reason) + fmt.Sprintf("; the last push went out at %s, and it is tried again when a newer message comes or the device registers its token, and %s",
			f.at(), intervals)
	case f.Verdict == "rejected" && f.Earlier:
		return fmt.Sprintf("%s did not take the last push (%s), which was for an earlier message, at %s; for this one a wake is due at once", s.Provider, f.because(), f.at())
	case f.Verdict == "rejected":
		return fmt.Sprintf("%s did not take the last push (%s), at %s; it is tried again when a newer message comes, and %s", s.Provider, f.because(), f.at(), intervals)
	}
	return fmt.Sprintf("the last push to the device through %s failed (%s), at %s; it is tried again for all that waits, %s", s.Provider, f.because(), f.at(), intervals)
}

// notBelieved says that the provider's word of a token's death is no proof of it.
func (s Sleeper) notBelieved(reason string) string {
	said := s.Provider + " says that the token is gone" + inBrackets(reason) + ", which is not taken as proof"
	if s.Provider == "apns" && s.TokenState == "active" {
		return said + ": most often, Apple's word is older than the token's registration"
	}
	return said
}

func (f FailedPush) because() string {
	if f.Reason == "" {
		return f.Verdict
	}
	return f.Reason + ", " + f.Verdict
}

func (f FailedPush) at() string { return f.At.UTC().Format(time.RFC3339) }

func inBrackets(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// again says when the pause is tried.
func (s Sleeper) again() string {
	if s.Pause.Until.After(s.Now) {
		return "the next push goes out at " + s.Pause.Until.UTC().Format(time.RFC3339)
	}
	return "one push at a time is tried now"
}

func badToken(s Sleeper) (NotWoken, bool) {
	because := inBrackets(s.TokenReason)
	switch s.TokenState {
	case "active":
		return NotWoken{}, false
	case "dead":
		return NotWoken{"token_dead", s.Provider + " says that the token is gone" + because + "; the device must register a new one"}, true
	case "suspect":
		refused := s.Provider + " refused the token" + because
		if s.Failed.Verdict == "token_dead" {
			refused = s.notBelieved(s.TokenReason)
		}
		return NotWoken{"token_suspect", refused + suspectUntil(s)}, true
	case "superseded":
		return NotWoken{"token_superseded", "a newer registration holds the token"}, true
	}
	return NotWoken{"no_provider", "the device has registered no token; it gets the message when it polls"}, true
}

// suspectUntil says what becomes of a suspect token.
func suspectUntil(s Sleeper) string {
	if !s.Quarantined {
		return "; it is tried once more, later"
	}
	return "; it was refused more than once and is in quarantine, tried once or twice a day, until the device registers a token, the same or another, or the app puts its credentials again"
}
