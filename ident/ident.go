// Package ident makes and checks the names things go by: every id is a short
// prefix and a time-ordered UUIDv7 in 26 lower-case base32 characters, so that
// ids sort by age as text and an id of one kind is never taken for another.
package ident

import (
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The kinds of id. Each is a string on the wire and in the database.
type (
	// App names a tenant: "app_" and 26 characters.
	App string
	// Device names one installation: "dev_" and 26 characters.
	Device string
	// Message names one send: "msg_" and 26 characters.
	Message string
	// Key names an API key: "key_" and 26 characters.
	Key string
	// Event names something that happened: "evt_" and 26 characters.
	Event string
	// Webhook names a place that events are posted to: "whk_" and 26 characters.
	Webhook string
)

// Prefixes of the ids, in the order of the types above.
const (
	AppPrefix     = "app_"
	DevicePrefix  = "dev_"
	MessagePrefix = "msg_"
	KeyPrefix     = "key_"
	EventPrefix   = "evt_"
	WebhookPrefix = "whk_"
	// Width is the number of characters after the prefix.
	Width = 26
)

// The extended-hex alphabet keeps the order of the bytes it encodes.
var encoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// NewApp makes an id for a new app.
func NewApp() App { return App(AppPrefix + mint()) }

// NewDevice makes an id for a new device.
func NewDevice() Device { return Device(DevicePrefix + mint()) }

// NewMessage makes an id for a new message.
func NewMessage() Message { return Message(MessagePrefix + mint()) }

// MessageAt returns the lowest id of a message made at t: ids that were made before sort below it.
func MessageAt(t time.Time) Message {
	var id uuid.UUID
	ms := max(0, t.UnixMilli())
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return Message(MessagePrefix + encoding.EncodeToString(id[:]))
}

// NewKey makes an id for a new key.
func NewKey() Key { return Key(KeyPrefix + mint()) }

// NewEvent makes an id for a new event.
func NewEvent() Event { return Event(EventPrefix + mint()) }

// NewWebhook makes an id for a new webhook.
func NewWebhook() Webhook { return Webhook(WebhookPrefix + mint()) }

// mint returns the 26 characters of a fresh UUIDv7. It panics only where the
// operating system cannot supply randomness, in which case nothing is safe.
func mint() string {
	id := uuid.Must(uuid.NewV7())
	return encoding.EncodeToString(id[:])
}

// ParseApp checks s. The error names what an app id looks like.
func ParseApp(s string) (App, error) { return parse[App](s, AppPrefix, "an app id") }

// ParseDevice checks s. The error names what a device id looks like.
func ParseDevice(s string) (Device, error) { return parse[Device](s, DevicePrefix, "a device id") }

// ParseMessage checks s. The error names what a message id looks like.
func ParseMessage(s string) (Message, error) { return parse[Message](s, MessagePrefix, "a message id") }

// ParseKey checks s. The error names what a key id looks like.
func ParseKey(s string) (Key, error) { return parse[Key](s, KeyPrefix, "a key id") }

// ParseEvent checks s. The error names what an event id looks like.
func ParseEvent(s string) (Event, error) { return parse[Event](s, EventPrefix, "an event id") }

// ParseWebhook checks s. The error names what a webhook id looks like.
func ParseWebhook(s string) (Webhook, error) {
	return parse[Webhook](s, WebhookPrefix, "a webhook id")
}

func parse[T ~string](s, prefix, what string) (T, error) {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok || !IsSuffix(rest) {
		return "", fmt.Errorf("%s is %q followed by %d characters of 0-9 and a-v", what, prefix, Width)
	}
	return T(s), nil
}

// Time is when the event's id was made, by the clock of who made it. The error is that of ParseEvent.
func (e Event) Time() (time.Time, error) {
	if _, err := ParseEvent(string(e)); err != nil {
		return time.Time{}, err
	}
	raw, err := encoding.DecodeString(string(e[len(EventPrefix):]))
	if err != nil {
		return time.Time{}, fmt.Errorf("an event id: %w", err)
	}
	var ms int64
	for _, b := range raw[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).UTC(), nil
}

// IsSuffix reports whether s could be what follows the prefix of an id.
func IsSuffix(s string) bool {
	if len(s) != Width {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'v') {
			return false
		}
	}
	return true
}
