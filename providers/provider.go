// Package providers says what it means to wake a phone through somebody else:
// one Push, one attempt, one Outcome. What follows from an outcome is decided
// elsewhere; a provider never retries and never forgets a token.
package providers

import (
	"context"
	"strconv"
	"strings"
	"time"

	"rouse/fault"
	"rouse/ident"
)

// Kind is the sort of push.
type Kind uint8

// The kinds.
const (
	// Alert shows at least the placeholder and lets the app run at once: APNs
	// alert with mutable-content, priority 10; FCM HIGH.
	Alert Kind = iota + 1
	// Background shows nothing and may be delayed: APNs background, priority 5; FCM NORMAL.
	Background
)

// Text is what a person may see.
type Text struct {
	Title string `json:"title,omitempty"`
	Body  string `json:"body"`
}

// Placeholder is the app's own text for a wake that must show something. It is
// the same for every message, so it says nothing of any.
type Placeholder struct {
	Text
	// Locales overrides by BCP 47 tag, such as "de" or "pt-BR".
	Locales map[string]Text `json:"locales,omitempty"`
}

// DefaultPlaceholder is shown where the app gave none.
const DefaultPlaceholder = "You have a new message"

// For returns the text for a locale: the exact tag, then its language, then the
// app's own, then DefaultPlaceholder.
func (p Placeholder) For(locale string) Text {
	tag := strings.ReplaceAll(locale, "_", "-")
	language, _, _ := strings.Cut(tag, "-")
	for _, want := range []string{tag, language} {
		for have, text := range p.Locales {
			if want != "" && strings.EqualFold(have, want) {
				return text
			}
		}
	}
	if p.Body == "" {
		return Text{Title: p.Title, Body: DefaultPlaceholder}
	}
	return p.Text
}

// Push is one wake of one device. Nothing in it comes from a message but a
// Notification its owner asked to show.
type Push struct {
	// ID is a canonical UUID; a repeated attempt of the same wake keeps it.
	ID     string
	Device ident.Device
	// Token is in clear. It must not reach a log.
	Token string
	// Platform is android, ios, macos, web or other: FCM needs it for devices behind Apple.
	Platform string
	// Locale chooses the placeholder; may be empty.
	Locale string
	Kind   Kind
	// Head is the cursor of the newest pending message.
	Head string
	// CollapseID lets a repeated alert replace its predecessor on the screen: <= 64 bytes, may be empty.
	CollapseID string
	// Repeat marks a wake that was sent before: it makes no sound.
	Repeat bool
	// Notification replaces the placeholder; nil for none.
	Notification *Text
	// ExpiresAt is when the provider may forget the push.
	ExpiresAt time.Time
}

// APNsExpiration is the apns-expiration header for a push that Apple may forget at a time; 0 asks for one try and no storing.
func APNsExpiration(at, now time.Time) string {
	if !at.After(now) {
		return "0"
	}
	return strconv.FormatInt(at.Unix(), 10)
}

// Verdict is what an answer means for token, app and message.
type Verdict string

// The verdicts.
const (
	// Accepted: the provider took it.
	Accepted Verdict = "accepted"
	// TokenDead: the provider says that the token is gone; ProviderTime may say since when.
	TokenDead Verdict = "token_dead"
	// TokenSuspect: the provider refuses the token in a way that may be our mistake (wrong environment, topic or project).
	TokenSuspect Verdict = "token_suspect"
	// Rejected: our request was wrong; repeating it cannot help.
	Rejected Verdict = "rejected"
	// CredentialBad: the app's credential or configuration is wrong; the token is as good as before.
	CredentialBad Verdict = "credential_bad"
	// DeviceThrottled: too many for this device.
	DeviceThrottled Verdict = "device_throttled"
	// AppThrottled: too many for this app's account.
	AppThrottled Verdict = "app_throttled"
	// Unavailable: trouble on their side, or a time-out; try later.
	Unavailable Verdict = "unavailable"
	// ConnectionLost: the connection went away under the request; try at once on a new one.
	ConnectionLost Verdict = "connection_lost"
)

// Outcome is the result of one attempt.
type Outcome struct {
	Verdict Verdict
	// Reason is stable: the provider's own word (Unregistered, UNREGISTERED, ...) or ours
	// (timeout, connection_reset, goaway, ...). It holds no token and no text of a message.
	Reason string
	// Status is the HTTP status, 0 if none arrived.
	Status int
	// RetryAfter is what the provider asked for, or what its rules ask for where its answer
	// names no time; 0 if neither.
	RetryAfter time.Duration
	// ProviderTime is the timestamp of an APNs 410, zero otherwise.
	ProviderTime time.Time
	// Took is the duration of the attempt.
	Took time.Duration
}

// Provider sends pushes for one app's credential in one environment. It is safe
// for concurrent use. Every method returns within its context plus a second.
type Provider interface {
	// Push makes one attempt.
	Push(ctx context.Context, p Push) Outcome
	// Verify asks the provider whether it takes the credential, and wakes nobody. It returns at least one finding.
	Verify(ctx context.Context) []Finding
	// Close lets the connections go once what is in flight is done.
	Close() error
}

// FindingStatus is how a check went.
type FindingStatus string

// The statuses.
const (
	// FindingOK: as it should be.
	FindingOK FindingStatus = "ok"
	// FindingWarn: it works, or may work, and somebody should look.
	FindingWarn FindingStatus = "warn"
	// FindingFail: it does not work.
	FindingFail FindingStatus = "fail"
)

// Finding is what one check found: a sentence of cause and one of cure, for people. Neither holds a secret.
type Finding struct {
	// Check names what was looked at, stable: apns_production, fcm_access_token, ...
	Check  string        `json:"check"`
	Status FindingStatus `json:"status"`
	// Reason is the provider's word, or ours as in Outcome; empty if all is well.
	Reason string `json:"reason,omitempty"`
	Cause  string `json:"cause"`
	// Cure is empty if there is nothing to do.
	Cure string `json:"cure,omitempty"`
}

// InvalidCredential is the refusal of an upload for whom, APNs or FCM; the caller points at what is wrong.
func InvalidCredential(whom string) *fault.Error {
	return fault.New(fault.Invalid, "invalid_credential", "the %s credential cannot be used; see errors for what to put right", whom)
}

// Checked is an upload that can be used.
type Checked struct {
	// Public is JSON that may be shown, Secret is JSON to be sealed.
	Public, Secret []byte
	// Fingerprint changes when, and only when, the secret does.
	Fingerprint string
	// ExpiresAt is when the provider stops taking it; zero for never.
	ExpiresAt time.Time
}

// APNsUpload is what an app gives us to speak to Apple: a signing key, or a certificate.
type APNsUpload struct {
	TeamID     string
	KeyID      string
	PrivateKey string
	// Certificate and CertificateKey are PEM.
	Certificate    string
	CertificateKey string
	// P12 is certificate and key in one file (PKCS #12), P12Password opens it.
	P12         []byte
	P12Password string
	Topic       string
	Placeholder Placeholder
	// ReplacedTeamID and ReplacedKeyID are of the credential it takes the place of, empty if there is none: they
	// show when the two ids changed places.
	ReplacedTeamID, ReplacedKeyID string
}

// FCMUpload is what an app gives us to speak to Google.
type FCMUpload struct {
	// ServiceAccount is the JSON key file.
	ServiceAccount []byte
	// Placeholder is shown by Apple's devices behind FCM.
	Placeholder Placeholder
}
