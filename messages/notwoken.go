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
	// HasCredential and Failing tell of the app's credential for that provider; Failing is the provider's reason.
	HasCredential bool
	Failing       string
	// Seen and Woken are the newest places handed to the device and covered by an accepted wake.
	Seen  Seq
	Woken Seq
	// LastContact is when the device last spoke to us.
	LastContact time.Time
	Now         time.Time
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
	case s.Failing != "":
		return NotWoken{"provider_failing", fmt.Sprintf("%s refuses the app's credentials: %s", s.Provider, s.Failing)}
	case s.Class == NoWake:
		return NotWoken{"rides_along", "it wakes nobody by itself; it is handed out when the device next fetches"}
	case s.Woken > s.Seen:
		return NotWoken{"wake_outstanding", "an earlier wake was sent; the device has not answered it yet"}
	case s.Now.Sub(s.LastContact) >= SilentAfter:
		return NotWoken{"silent_device", "the device has not been heard of for 7 days"}
	}
	return NotWoken{"wake_due", "a wake is due: at once, or when a pause that a burst or the provider asked for is over"}
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
		return NotWoken{"token_suspect", s.Provider + " refused the token" + because}, true
	case "superseded":
		return NotWoken{"token_superseded", "a newer registration holds the token"}, true
	}
	return NotWoken{"no_provider", "the device has registered no token; it gets the message when it polls"}, true
}
