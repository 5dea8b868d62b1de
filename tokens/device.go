// Package tokens knows who can be reached and who may ask: devices and their
// push tokens, apps, keys and the ring that seals secrets at rest. It is pure:
// it reads no clock, no disk and no network.
package tokens

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"rouse/ident"
)

// Platform is what a device runs.
type Platform string

// The platforms.
const (
	Android Platform = "android"
	IOS     Platform = "ios"
	MacOS   Platform = "macos"
	Web     Platform = "web"
	Other   Platform = "other"
)

// Provider is who carries wakes to a device.
type Provider string

// The providers. A device of NoProvider waits on its long poll.
const (
	FCM        Provider = "fcm"
	APNs       Provider = "apns"
	NoProvider Provider = "none"
)

// Environment is the half of APNs a token belongs to; empty for the others.
type Environment string

// The environments of APNs.
const (
	Production Environment = "production"
	Sandbox    Environment = "sandbox"
)

// Token is what a push provider gave the device. It prints redacted; convert
// to string only to seal it or to hand it to the provider.
type Token string

// String returns a redacted form.
func (t Token) String() string { return redact(string(t)) }

// GoString returns a redacted form.
func (t Token) GoString() string { return redact(string(t)) }

// LogValue returns a redacted form.
func (t Token) LogValue() slog.Value { return slog.StringValue(redact(string(t))) }

// MarshalText returns a redacted form: a token has no way out but the sealed column.
func (t Token) MarshalText() ([]byte, error) { return []byte(redact(string(t))), nil }

func redact(s string) string {
	if s == "" {
		return ""
	}
	return "[redacted]"
}

// Limits on what a provider calls a token.
const (
	maxAPNsToken = 200
	maxFCMToken  = 4096
)

// ParseToken checks raw as a token of provider p: for APNs an even number of
// hex digits, 16 to 200 (it goes into a URL path); for FCM 16 to 4096 printable ASCII
// characters without space. The error never repeats the token.
func ParseToken(p Provider, raw string) (Token, error) {
	switch p {
	case APNs:
		return parseAPNsToken(raw)
	case FCM:
		if len(raw) < 16 || len(raw) > maxFCMToken || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return "", fmt.Errorf("an FCM token is 16 to %d printable ASCII characters without spaces", maxFCMToken)
		}
		return Token(raw), nil
	default:
		if raw != "" {
			return "", fmt.Errorf("a device with provider %q has no token; leave it out", NoProvider)
		}
		return "", nil
	}
}

func parseAPNsToken(raw string) (Token, error) {
	hex := strings.ToLower(raw)
	bad := strings.ContainsFunc(hex, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
	if bad || len(hex) < 16 || len(hex) > maxAPNsToken || len(hex)%2 != 0 {
		return "", fmt.Errorf("an APNs token is an even number of hex digits, 16 to %d; send the token's bytes in hex", maxAPNsToken)
	}
	return Token(hex), nil
}

// TokenState says whether a device's token can be pushed to.
type TokenState string

// The states of a token.
const (
	// TokenNone is a device without a token: it polls.
	TokenNone TokenState = "none"
	// TokenActive is a token that may be pushed to.
	TokenActive TokenState = "active"
	// TokenDead is a token the provider proved gone; a new one revives.
	TokenDead TokenState = "dead"
	// TokenSuspect is a token the provider refused in a way that may be our own fault; it is tried
	// less often until it is taken, registered anew, or the app puts its credential.
	TokenSuspect TokenState = "suspect"
	// TokenSuperseded is a token that a newer registration of the same app
	// holds now; a refresh by this device takes it back.
	TokenSuperseded TokenState = "superseded"
)

// Device is one installation of an app; it owns an inbox.
type Device struct {
	ID           ident.Device
	App          ident.App
	Installation string
	Platform     Platform
	Provider     Provider
	Environment  Environment
	Token        Token
	TokenState   TokenState
	// TokenReason is the provider's word for a token that is not active.
	TokenReason string
	// Generation counts registrations of a token, an unchanged one included: a verdict on an
	// older generation must not touch a newer one.
	Generation int64
	// RegisteredAt is when the token was last registered or confirmed.
	RegisteredAt time.Time
	// Strikes counts the refusals of this generation of the token that may be the app's own mistake, StruckAt is the time
	// of the last one, or of the death. What was refused before the app last put its credential does not count.
	Strikes  int
	StruckAt time.Time
	// OtherTried is whether the other environment of APNs has refused this generation too.
	OtherTried bool
	// Demotions counts the reports that a push of high priority came demoted, DemotedAt is the last one's time.
	Demotions int
	DemotedAt time.Time
	// User is who the device is bound to; empty if nobody.
	User        string
	AppVersion  string
	Locale      string
	CreatedAt   time.Time
	LastContact time.Time
	// UnregisteredAt is zero while the device is registered.
	UnregisteredAt time.Time
}

// Registration is what a device or a backend says when it registers an
// installation, checked by CheckRegistration.
type Registration struct {
	App          ident.App
	Installation string
	Platform     Platform
	Provider     Provider
	Environment  Environment
	Token        Token
	AppVersion   string
	Locale       string
}

// Patch is a change to a device; a nil field stays as it is. A Token, even the same one, is a
// fresh registration: it starts a generation and revives a dead token.
type Patch struct {
	Token       *Token
	Environment *Environment
	AppVersion  *string
	Locale      *string
	// User is whose the device is from now on; an empty one unbinds it.
	User *string
}

// Enrol is a Registration with who asks for it.
type Enrol struct {
	Registration
	// As is the kind of the caller's key: PublishableKey, SecretKey or DeviceKey.
	As KeyKind
	// Device is the caller, if As is DeviceKey.
	Device ident.Device
	// ID is what a new device will be called.
	ID ident.Device
	// Secret is the hash of the device's key: the new device's, and, if As is
	// SecretKey, what replaces a known device's.
	Secret Hash
	// User is whose the device is from now on, as a user token proved; nil leaves that as it is.
	User *string
	// Topics are subscribed to besides those that are.
	Topics []string
	Now    time.Time
}

// Quarantine is how many strikes put a suspect token into quarantine.
const Quarantine = 2

// Quarantined reports whether the device's token was refused so often that it is tried only every 12 hours or so, until the
// device registers it anew or the app puts its credential.
func (d Device) Quarantined() bool { return d.TokenState == TokenSuspect && d.Strikes >= Quarantine }

// Other returns the other environment of APNs.
func (e Environment) Other() Environment {
	if e == Sandbox {
		return Production
	}
	return Sandbox
}

// TokenMark is what a provider's verdict makes of a token. It counts only for the generation that was pushed to.
type TokenMark struct {
	Device     ident.Device
	Generation int64
	// State is TokenActive, which clears all strikes, TokenSuspect or TokenDead. TokenSuspect takes back a death; the others
	// are for tokens that are active or suspect.
	State TokenState
	// Reason is the provider's word; empty for TokenActive.
	Reason string
	// Strike counts one more refusal.
	Strike bool
	// OtherTried notes that the other environment refused it too.
	OtherTried bool
	At         time.Time
}

const (
	// DemotionLife is how long a report of a demoted push counts: Google looks back as far.
	DemotionLife = 7 * 24 * time.Hour
	// demotedSpacing is the least time between pushes of high priority after the first report, doubled by each further one up to maxDemotedSpacing.
	demotedSpacing    = 15 * time.Minute
	maxDemotedSpacing = 4 * time.Hour
)

// HighSpacing returns the least time between two pushes of high priority to the device that show nothing of their own; 0 where no report bounds them.
func (d Device) HighSpacing(now time.Time) time.Duration {
	if d.Demotions == 0 || now.Sub(d.DemotedAt) >= DemotionLife {
		return 0
	}
	return min(demotedSpacing<<min(d.Demotions-1, 10), maxDemotedSpacing)
}
