package messages

import (
	"time"

	"rouse/ident"
)

// Reasons of a webhook that is disabled.
const (
	WebhookFailing = "failing" // it took nothing for WebhookPatience
	WebhookManual  = "manual"
)

const (
	// WebhookPatience is how long a webhook may take nothing before it is disabled, 5 days.
	WebhookPatience = 5 * 24 * time.Hour
	// EventPatience is how long one event is offered to a webhook that takes others, 3 days.
	EventPatience = 3 * 24 * time.Hour
	// MaxPost is the longest body of a webhook, in bytes.
	MaxPost = 20 << 10
	// MaxWebhooks is how many an app has.
	MaxWebhooks = 20
)

// Webhook is a place that an app's events are posted to.
type Webhook struct {
	ID          ident.Webhook
	App         ident.App
	URL         string
	Events      EventFilter
	Description string
	CreatedAt   time.Time
	// DisabledAt is zero while it is enabled, DisabledReason one of the reasons above.
	DisabledAt     time.Time
	DisabledReason string
	// Place is that of the last event that was taken or set apart; Term grows when the place is moved by hand.
	Place Seq
	Term  int64
	// FailingSince is since when it takes nothing, zero while it does, Attempts how many were made since, NextAt when the next one is.
	FailingSince  time.Time
	Attempts      int
	NextAt        time.Time
	LastSuccessAt time.Time
	// LastError is of the last attempt that failed: a status, or what went wrong. It repeats nothing the receiver wrote.
	LastError string
	// Retrying counts the single events that wait to be posted again.
	Retrying int
}

// WebhookPatch is a change to a webhook; a nil field stays as it is.
type WebhookPatch struct {
	URL         *string
	Events      *EventFilter
	Description *string
	Enabled     *bool
}

// WebhookTested is what came of a test.
type WebhookTested struct {
	OK bool
	// Status is the receiver's, 0 if it did not answer.
	Status int
	// Error is what went wrong.
	Error string
	Took  time.Duration
}
