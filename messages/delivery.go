package messages

import (
	"time"

	"rouse/ident"
)

// State is where one message stands in one inbox.
type State string

// The states. Queued, Woken and Fetched are pending; the others are final.
const (
	Queued   State = "queued"
	Woken    State = "woken"
	Fetched  State = "fetched"
	Acked    State = "acked"
	Expired  State = "expired"
	Replaced State = "replaced"
	Canceled State = "canceled"
	Dropped  State = "dropped"
)

// States lists all states, pending ones first.
func States() []State {
	return []State{Queued, Woken, Fetched, Acked, Expired, Replaced, Canceled, Dropped}
}

// Final reports whether nothing more will happen.
func (s State) Final() bool { return s != Queued && s != Woken && s != Fetched }

// Counters is how many deliveries of a message stand in each state. Of a message with many recipients whatever is pending may count as
// Queued; the store says from how many on.
type Counters map[State]int

// Summary is a message as its sender sees it.
type Summary struct {
	ID            ident.Message
	Status        Status
	To            Target
	Urgency       Urgency
	CollapseKey   string
	CorrelationID string
	Recipients    int
	CreatedAt     time.Time
	ExpiresAt     time.Time
	Counters      Counters
	// SendAt is when it was scheduled for, zero if it was not.
	SendAt time.Time
	// Reports counts what devices reported.
	Reports map[ReportKind]int
}

// ListQuery asks for an app's messages, newest first. Empty fields do not narrow it.
type ListQuery struct {
	App ident.App
	// Before is where the page before ended: only older ones are returned.
	Before        ident.Message
	To            Target
	CorrelationID string
	Status        Status
	// From is inclusive, Until is not.
	From, Until time.Time
	// Limit is how many messages there are in a page at most.
	Limit int
}

// MessageList is one page. Next is where to go on, whether or not Messages has any.
type MessageList struct {
	Messages []Summary
	Next     ident.Message
	More     bool
}

// Verdict is what became of one send of a batch.
type Verdict struct {
	Receipt Receipt
	Err     error
}

// Moment is one line of a delivery's timeline.
type Moment struct {
	At time.Time
	// Event is one of accepted, wake_sent, wake_failed, fetched, acked, expired, replaced, canceled, dropped, displayed, opened, dismissed.
	Event string
	// Provider, Verdict, Reason and Took are set on the two wake events.
	Provider string
	Verdict  string
	Reason   string
	Took     time.Duration
}

// NotWoken says why no wake was sent for a delivery.
type NotWoken struct {
	// Code is stable: no_provider, token_dead, token_suspect, token_superseded, no_credentials, provider_failing,
	// provider_paused, rides_along, polling, wake_outstanding, wake_due, silent_device, final.
	Code   string
	Detail string
}

// Delivery is one message in one device's inbox, as its sender sees it.
type Delivery struct {
	Device   ident.Device
	State    State
	Timeline []Moment
	// NotWoken is nil once a wake was accepted by the provider.
	NotWoken *NotWoken
}

// Item is one message as its device sees it.
type Item struct {
	ID          ident.Message
	Seq         Seq
	Data        []byte
	Urgency     Urgency
	CollapseKey string
	CreatedAt   time.Time
	ExpiresAt   time.Time
	// Attempt counts the times it was handed out, this one included; 1 is the first.
	Attempt int
}

// Gap says that un-acked messages were lost between two places, both included, until the device acks past To.
type Gap struct {
	From  Seq
	To    Seq
	Count int
	// Reason is ttl, quota, or mixed.
	Reason string
}

// Query asks for a page of an inbox.
type Query struct {
	Device ident.Device
	// After is the place to read on from; nil is everything un-acked.
	After *Seq
	// Limit is 1 to 100.
	Limit int
	Now   time.Time
}

// MaxPageBytes bounds the data in one page; the first message always fits.
const MaxPageBytes = 1 << 20

// Page is what a device reads. An empty one still has a place.
type Page struct {
	Items []Item
	// Last is the place of the last item, or where the reader already was.
	Last Seq
	// Seen is nonzero when everything up to here has been handed out or is no longer pending, and the store did not
	// know that yet.
	Seen Seq
	More bool
	Gap  *Gap
}
