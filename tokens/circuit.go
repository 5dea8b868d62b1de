package tokens

import (
	"time"

	"rouse/ident"
)

// Onward is who else carries a push behind the provider, for devices that Google reaches through somebody else; empty for none.
type Onward string

// The onward carriers of FCM.
const (
	// OnwardApple carries pushes of FCM to Apple's devices with the key in the Firebase project.
	OnwardApple Onward = "apple"
	// OnwardWeb carries them to browsers.
	OnwardWeb Onward = "web"
)

// Outlet is one way to phones: queues, limits and circuits are kept for each.
type Outlet struct {
	App         ident.App
	Provider    Provider
	Environment Environment
	Onward      Onward
}

// OutletOf returns the way to a device.
func OutletOf(d Device) Outlet {
	o := Outlet{App: d.App, Provider: d.Provider, Environment: d.Environment}
	if d.Provider != FCM {
		return o
	}
	switch d.Platform {
	case IOS, MacOS:
		o.Onward = OnwardApple
	case Web:
		o.Onward = OnwardWeb
	case Android, Other:
	}
	return o
}

// CircuitState is how far a circuit is open.
type CircuitState string

// The states.
const (
	// CircuitClosed: pushes flow.
	CircuitClosed CircuitState = "closed"
	// CircuitOpen: nothing is sent before RetryAt, and one push at a time from then on.
	CircuitOpen CircuitState = "open"
	// CircuitWatching: pushes flow again after a mass death, and no token is given up yet.
	CircuitWatching CircuitState = "watching"
)

// CircuitCause is why a circuit is not closed.
type CircuitCause string

// The causes.
const (
	// CauseCredential: the provider refuses the app's credential or configuration.
	CauseCredential CircuitCause = "credential"
	// CauseThrottled: the provider asks the app to slow down.
	CauseThrottled CircuitCause = "throttled"
	// CauseMassDeath: too many tokens were refused at once to be believed. Its outlet has neither environment nor
	// onward carrier: it concerns the app's whole provider.
	CauseMassDeath CircuitCause = "mass_death"
)

// Circuit is the state of an outlet that is not as it should be.
type Circuit struct {
	Outlet
	State CircuitState
	Cause CircuitCause
	// Reason is the provider's word.
	Reason string
	// OpenedAt is when it opened, RetryAt when an open one is tried next.
	OpenedAt time.Time
	RetryAt  time.Time
	// Pauses counts the pauses in a row.
	Pauses int
}
