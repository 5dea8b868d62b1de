package messages

import (
	"log/slog"
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

// Redelivery says what is posted again: one event, or, with an empty one, all since a time, as far back as there are any.
type Redelivery struct {
	Event ident.Event
	Since time.Time
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

// WebhookTurn says of an enabled webhook whether there may be anything to post.
type WebhookTurn struct {
	ID   ident.Webhook
	App  ident.App
	Term int64
	// Newest is the place up to which the app has events.
	Newest Seq
}

// WebhookDesk is what it takes to post to a webhook. Whoever takes one ends the term of who had it before.
type WebhookDesk struct {
	Webhook
	Secrets WebhookSecrets
	// Retries are in the order of their places.
	Retries []WebhookRetry
}

// WebhookSecrets are what posts are signed with, raw.
type WebhookSecrets struct {
	Current []byte
	// Previous signs as well until PreviousUntil.
	Previous      []byte
	PreviousUntil time.Time
}

// At are those that sign at a time, the current one first.
func (s WebhookSecrets) At(now time.Time) [][]byte {
	if len(s.Previous) > 0 && now.Before(s.PreviousUntil) {
		return [][]byte{s.Current, s.Previous}
	}
	return [][]byte{s.Current}
}

// String says nothing.
func (WebhookSecrets) String() string { return "[redacted]" }

// LogValue says nothing.
func (s WebhookSecrets) LogValue() slog.Value { return slog.StringValue(s.String()) }

// GoString says nothing.
func (WebhookSecrets) GoString() string { return "[redacted]" }

// WebhookRetry is an event that waits to be posted by itself, behind those of its device that came before.
type WebhookRetry struct {
	Place  Seq
	Device ident.Device
	// Attempts were made since FirstAt; none while it waited behind another.
	Attempts  int
	FirstAt   time.Time
	NextAt    time.Time
	LastError string
}

// WebhookNote is what came of posting. It counts as a whole or, once the webhook has another term or is disabled, not at all.
type WebhookNote struct {
	ID   ident.Webhook
	App  ident.App
	Term int64
	// Place does not go back.
	Place Seq
	// Apart are events that wait by themselves from now on, Again those that did and go on, Done those that need not any more.
	Apart, Again []WebhookRetry
	Done         []Seq
	// FailingSince, Attempts, NextAt and LastError are as in Webhook. An empty LastError leaves the one that is there.
	FailingSince time.Time
	Attempts     int
	NextAt       time.Time
	LastError    string
	// SucceededAt is when something was taken last, zero if nothing was since the last note.
	SucceededAt time.Time
	// Disable is the reason if it is to be disabled.
	Disable string
	Now     time.Time
}
