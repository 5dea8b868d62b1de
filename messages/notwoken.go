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
	// Quarantined is whether a suspect token was refused so often that it is left alone.
	Quarantined bool
	// HasCredential is whether the app has a credential for that provider.
	HasCredential bool
	// Pause is what holds pushes to the device back; without a Cause, nothing does.
	Pause Pause
	// Verdict and Reason are what came of the last push for it, in the words of package providers; empty for none.
	Verdict string
	Reason  string
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

// due says why a wake that nothing stands in the way of has not gone through yet.
func due(s Sleeper) string {
	because := s.Verdict
	if s.Reason != "" {
		because = s.Reason + ", " + s.Verdict
	}
	switch s.Verdict {
	case "":
		return "a wake is due: at once, or when a pause that a burst or the provider asked for this device is over"
	case "rejected":
		return fmt.Sprintf("%s did not take the last push (%s); a newer message or the next step of the ladder tries again", s.Provider, because)
	}
	return fmt.Sprintf("the last push through %s failed (%s); it is tried again after a pause that grows with each failure, and in the end by the ladder",
		s.Provider, because)
}

// again says when the pause is tried.
func (s Sleeper) again() string {
	if s.Pause.Until.After(s.Now) {
		return "the next push goes out at " + s.Pause.Until.UTC().Format(time.RFC3339)
	}
	return "one push at a time is tried now"
}

func badToken(s Sleeper) (NotWoken, bool) {
	because := ""
	if s.TokenReason != "" {
		because = " (" + s.TokenReason + ")"
	}
	switch s.TokenState {
	case "active":
		return NotWoken{}, false
	case "dead":
		return NotWoken{"token_dead", s.Provider + " says that the token is gone" + because + "; the device must register a new one"}, true
	case "suspect":
		return NotWoken{"token_suspect", s.Provider + " refused the token" + because + suspectUntil(s)}, true
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
	return " more than once; it is in quarantine until the device registers a token, the same or another, or the app puts its credentials again"
}
