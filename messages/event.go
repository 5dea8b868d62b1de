package messages

import (
	"strings"
	"time"

	"rouse/ident"
)

// EventType says what happened. New ones may come.
type EventType string

// The types. Data is JSON. Of messages {message_id, device_id, correlation_id?, reason?, replaced_by?}, of what users did {message_id,
// device_id, correlation_id?, at}; of devices {device_id, installation_id, provider, reason?}; of circuits {provider, environment?, onward?,
// cause, reason, retry_at?}; of CredentialFailing {provider, environment?, onward?, reason}; of CredentialExpiring {provider, expires_at,
// days}; of webhooks {webhook_id, reason?}. None names a user.
const (
	MessageAcked       EventType = "message.acked"
	MessageExpired     EventType = "message.expired"
	MessageDropped     EventType = "message.dropped"
	MessageReplaced    EventType = "message.replaced"
	MessageCanceled    EventType = "message.canceled"
	MessageDisplayed   EventType = "message.displayed"
	MessageOpened      EventType = "message.opened"
	MessageDismissed   EventType = "message.dismissed"
	DeviceRegistered   EventType = "device.registered"
	DeviceTokenDead    EventType = "device.token_dead"
	DeviceUnregistered EventType = "device.unregistered"
	CircuitOpened      EventType = "circuit.opened"
	CircuitClosed      EventType = "circuit.closed"
	CredentialFailing  EventType = "credential.failing"
	CredentialExpiring EventType = "credential.expiring"
	WebhookDisabled    EventType = "webhook.disabled"
	// WebhookTest is posted by hand and never stored.
	WebhookTest EventType = "webhook.test"
)

// EventTypes lists all that are stored.
func EventTypes() []EventType {
	return []EventType{MessageAcked, MessageExpired, MessageDropped, MessageReplaced, MessageCanceled, MessageDisplayed, MessageOpened,
		MessageDismissed, DeviceRegistered, DeviceTokenDead, DeviceUnregistered, CircuitOpened, CircuitClosed, CredentialFailing,
		CredentialExpiring, WebhookDisabled}
}

// Event is something an app's backend should know. It is written in the commit of the change it tells of.
type Event struct {
	ID ident.Event
	// Seq is its place in the order of the app's events: it only grows, and is never given twice.
	Seq  Seq
	App  ident.App
	Type EventType
	At   time.Time
	// Device is whom it speaks of, empty for none: the order of a device's events is kept.
	Device ident.Device
	// Data is JSON.
	Data []byte
}

// EventFilter chooses types: by name, "message.*" for a family, "*" for all. An empty one chooses nothing.
type EventFilter []string

// Takes reports whether the filter chooses t.
func (f EventFilter) Takes(t EventType) bool {
	for _, word := range f {
		family, whole := strings.CutSuffix(word, "*")
		if word == string(t) || whole && strings.HasPrefix(string(t), family) {
			return true
		}
	}
	return false
}

// IsEventWord reports whether word may stand in a filter: the name of a type, "message.*" and the like, or "*".
func IsEventWord(word string) bool {
	for _, t := range EventTypes() {
		family, _, _ := strings.Cut(string(t), ".")
		if word == string(t) || word == family+".*" {
			return true
		}
	}
	return word == "*"
}

// EventQuery asks for an app's events.
type EventQuery struct {
	App ident.App
	// After is the place behind which to read; 0 is the beginning.
	After Seq
	// Limit is how many events there are in a page at most.
	Limit int
	// Types chooses; nil is all.
	Types EventFilter
}

// EventPage is a page of events, oldest first.
type EventPage struct {
	Events []Event
	// Next is where to read on: nothing the query chose lies before it but what is in the page.
	Next Seq
	// More says that there may be some behind Next.
	More bool
}
