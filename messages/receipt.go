package messages

import (
	"time"

	"rouse/ident"
)

// ReportKind is what a user did with a message.
type ReportKind string

// The kinds. Each is kept once for each delivery, beside its state.
const (
	Displayed ReportKind = "displayed"
	Opened    ReportKind = "opened"
	Dismissed ReportKind = "dismissed"
)

// Report is a device's word on what its user did.
type Report struct {
	Message ident.Message
	Kind    ReportKind
	// At is when, by the device's clock; zero, as a time that lies ahead, is now.
	At time.Time
}
