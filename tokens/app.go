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
	CreatedAt     time.Time
}

// AppPatch is a change to an app; a nil field stays as it is.
type AppPatch struct {
	Name          *string
	InboxOverflow *Overflow
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
