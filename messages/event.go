package messages

import (
	"time"

	"rouse/ident"
)

// EventType says what happened. New ones may come.
type EventType string

// The types. Data is JSON: of the first two {provider, environment?, onward?, cause, reason, retry_at?}, of CredentialFailing
// {provider, environment?, onward?, reason}, of CredentialExpiring {provider, expires_at, days}.
const (
	CircuitOpened      EventType = "circuit.opened"
	CircuitClosed      EventType = "circuit.closed"
	CredentialFailing  EventType = "credential.failing"
	CredentialExpiring EventType = "credential.expiring"
)

// Event is something an app's backend should know. It is written in the commit of the change it tells of.
type Event struct {
	ID ident.Event
	// Seq is its place in the order of the app's events.
	Seq  Seq
	App  ident.App
	Type EventType
	At   time.Time
	// Data is JSON.
	Data []byte
}
