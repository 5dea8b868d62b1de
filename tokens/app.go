package tokens

import (
	"time"

	"rouse/ident"
)

// Overflow says what a full inbox does with one more message.
type Overflow string

// The choices.
const (
	// OverflowReject answers the sender 429 inbox_full.
	OverflowReject Overflow = "reject"
	// OverflowDropOldest makes room and leaves a gap record.
	OverflowDropOldest Overflow = "drop_oldest"
)

// App is a tenant.
type App struct {
	ID            ident.App
	Name          string
	InboxOverflow Overflow
	// Registration is who registers devices; empty is RegistrationOpen.
	Registration RegistrationMode
	// BroadcastRate is how many devices a second the app's fan-outs reach, all together; 0 is DefaultBroadcastRate.
	BroadcastRate int
	// EventTypes is which events are stored. nil is all, an empty one none.
	EventTypes []string
	Rate       RateLimit
	CreatedAt  time.Time
}

// DefaultBroadcastRate is in devices a second.
const DefaultBroadcastRate = 2000

// RegistrationMode says who registers an app's devices. A device's own key always updates its device.
type RegistrationMode string

// The modes.
const (
	// RegistrationOpen: whoever holds the publishable key.
	RegistrationOpen RegistrationMode = "open"
	// RegistrationToken: the publishable key, with a user token.
	RegistrationToken RegistrationMode = "token"
	// RegistrationServer: backends alone.
	RegistrationServer RegistrationMode = "server"
)

// RateLimit is how many calls are taken. The zero value is no limit.
type RateLimit struct {
	PerSecond float64
	// Burst is how many at once.
	Burst int
}

// AppPatch is a change to an app; a nil field stays as it is.
type AppPatch struct {
	Name          *string
	InboxOverflow *Overflow
	Registration  *RegistrationMode
	BroadcastRate *int
	EventTypes    *[]string
	Rate          *RateLimit
}

// Credential is what an app gave us to speak to a provider with. Secret is
// opaque here: the provider's room wrote it, the store seals it.
type Credential struct {
	App      ident.App
	Provider Provider
	// Fingerprint changes when, and only when, the secret does.
	Fingerprint string
	// Public is JSON that may be shown: team, key id, topic, project.
	Public []byte
	// Secret is JSON that may not. It never leaves the process in clear.
	Secret    []byte
	UpdatedAt time.Time
	// ExpiresAt is when the provider stops taking it; zero for never.
	ExpiresAt time.Time
	// Failing is the provider's reason while it refuses the credential, the oldest such circuit's; empty while it works.
	Failing      string
	FailingSince time.Time
}
