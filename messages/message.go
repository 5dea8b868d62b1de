// Package messages knows what travels: a message, its urgency, its life, its
// place in an inbox, and what became of it. It is pure: it reads no clock, no
// disk and no network.
package messages

import (
	"crypto/sha256"
	"time"

	"rouse/fault"
	"rouse/ident"
)

// Seq is a place in the store's one order of deliveries. It only grows; 0 is before everything.
type Seq int64

// Limits of a message.
const (
	// MaxData is the largest data, in bytes of JSON.
	MaxData = 64 << 10
	// MaxDepth is how many arrays and objects may lie in each other in data: what JSON parsers on phones can still read.
	MaxDepth = 100
	// MaxTTL is the longest life, 30 days.
	MaxTTL = 2592000 * time.Second
	// DefaultTTL is the life of a message that names none, 7 days.
	DefaultTTL = 604800 * time.Second
	// MaxCollapseKey is in bytes.
	MaxCollapseKey = 64
	// MaxCorrelationID is in bytes.
	MaxCorrelationID = 128
	// MaxUser is the longest user id, in bytes.
	MaxUser = 256
	// MaxTopic is the longest name of a topic, in bytes.
	MaxTopic = 128
	// MaxDelay is how far ahead a send may be scheduled, 30 days.
	MaxDelay = 2592000 * time.Second
	// MaxBatch is how many messages one batch holds.
	MaxBatch = 500
	// MaxIdempotencyKey is in bytes.
	MaxIdempotencyKey = 255
)

// Target is to whom: exactly one field is set.
type Target struct {
	Device ident.Device
	User   string
	Topic  string
	// Broadcast is everyone.
	Broadcast bool
}

// Fans reports whether the target is reached page by page, after the send was accepted.
func (t Target) Fans() bool { return t.Topic != "" || t.Broadcast }

// names counts the fields that are set.
func (t Target) names() (n int) {
	for _, set := range []bool{t.Device != "", t.User != "", t.Topic != "", t.Broadcast} {
		if set {
			n++
		}
	}
	return n
}

// Notification is text its owner chose to show in the push itself.
type Notification struct {
	Title string `json:"title,omitempty"`
	Body  string `json:"body,omitempty"`
}

// Idempotency ties a send to the caller's Idempotency-Key.
type Idempotency struct {
	// Key is the caller's; empty for none.
	Key string
	// Request is the hash of what was asked: the same key with another one is refused.
	Request [sha256.Size]byte
}

// Send is a message on its way in, checked by New.
type Send struct {
	ID  ident.Message
	App ident.App
	To  Target
	// Data is one JSON value, byte for byte as it came.
	Data    []byte
	TTL     time.Duration
	Urgency Urgency
	// CollapseKey, if set, replaces the pending delivery of the same key.
	CollapseKey   string
	Notification  *Notification
	CorrelationID string
	CreatedAt     time.Time
	// SendAt is when to send it, zero for now. Its life counts from there.
	SendAt      time.Time
	Idempotency Idempotency
	// Present reports whether a device is polling right now; it decides what becomes of TTL 0. It must
	// be quick and safe for concurrent use; nil means nobody is.
	Present func(ident.Device) bool
}

// ExpiresAt is the end of the message's life.
func (s Send) ExpiresAt() time.Time {
	if s.SendAt.IsZero() {
		return s.CreatedAt.Add(s.TTL)
	}
	return s.SendAt.Add(s.TTL)
}

// Later reports whether the send is stored for later: scheduled, or for an audience that is reached page by page.
func (s Send) Later() bool { return !s.SendAt.IsZero() || s.To.Fans() }

// New checks s and gives it an id. A SendAt that has passed is dropped: it is now. Errors are fault.Invalid with a pointer for
// each wrong field.
func New(s Send) (Send, error) {
	var e *fault.Error
	bad := func(pointer, detail string) {
		if e == nil {
			e = fault.New(fault.Invalid, "invalid_message", "the message is not acceptable; see errors")
		}
		e = e.At(pointer, detail)
	}
	if !s.SendAt.After(s.CreatedAt) {
		s.SendAt = time.Time{}
	}
	s.check(bad)
	if e != nil {
		return Send{}, e
	}
	if len(s.Data) > MaxData {
		return Send{}, fault.New(fault.TooLarge, "data_too_large", "data is %d bytes; the limit is %d: send a reference instead", len(s.Data), MaxData)
	}
	s.ID = ident.NewMessage()
	return s, nil
}

// check calls bad for each field that is wrong, with a pointer to it.
func (s Send) check(bad func(pointer, detail string)) {
	if s.To.names() != 1 {
		bad("/to", "name exactly one of device_id, user_id, topic and broadcast")
	}
	if s.To.Topic != "" && CheckTopic(s.To.Topic) != nil {
		bad("/to/topic", TopicForm)
	}
	if s.SendAt.Sub(s.CreatedAt) > MaxDelay {
		bad("/send_at", "at most 30 days ahead")
	}
	if s.TTL == 0 && s.Later() {
		bad("/ttl", "0 reaches a device that is polling right now, so it goes with no topic, broadcast or send_at")
	}
	if len(s.To.User) > MaxUser {
		bad("/to/user_id", "at most 256 bytes")
	}
	if len(s.Data) == 0 {
		bad("/data", "is required; any JSON value")
	}
	if deeper(s.Data, MaxDepth) {
		bad("/data", "at most 100 arrays and objects in each other")
	}
	if s.TTL < 0 || s.TTL > MaxTTL {
		bad("/ttl", "0 to 2592000 seconds")
	}
	if len(s.CollapseKey) > MaxCollapseKey {
		bad("/collapse_key", "at most 64 bytes")
	}
	if len(s.CorrelationID) > MaxCorrelationID {
		bad("/correlation_id", "at most 128 bytes")
	}
}

// deeper reports whether JSON holds more than most arrays and objects in each other.
func deeper(data []byte, most int) bool {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++ // whatever follows is not the end of the string
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > most {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// Status says in one word what accepting a message came to.
type Status string

// The statuses of an accepted message.
const (
	// Accepted has at least one recipient.
	Accepted Status = "accepted"
	// NoRecipients went to a user without devices.
	NoRecipients Status = "no_recipients"
	// Scheduled waits for its time.
	Scheduled Status = "scheduled"
	// FanningOut is being stored for its audience, page by page.
	FanningOut Status = "fanning_out"
	// CanceledStatus was taken back by its sender.
	CanceledStatus Status = "canceled"
)

// Receipt is the answer to a send. Everything in it is durable.
type Receipt struct {
	ID         ident.Message
	Status     Status
	Recipients int
	CreatedAt  time.Time
	ExpiresAt  time.Time
	// SendAt is when it was scheduled for, zero if it was not.
	SendAt time.Time
	// Replayed is true when an earlier request with the same Idempotency-Key was answered again.
	Replayed bool
	// Pending is where the message now lies, one entry a device: what to hint. Empty on a replay.
	Pending []Pending
}

// Pending says that a device has something new.
type Pending struct {
	Device ident.Device
	Seq    Seq
	Class  Class
}
