package tokens

import (
	"time"

	"rouse/ident"
)

// Limits of people and topics.
const (
	// MaxUserTopics is how many topics a user is subscribed to.
	MaxUserTopics = 100
	// MaxDeviceTopics is how many topics a device is subscribed to itself.
	MaxDeviceTopics = 200
	// MaxIdentityKeys is how many an app has.
	MaxIdentityKeys = 20
	// MaxUserTokenLife is the longest life of a user token.
	MaxUserTokenLife = time.Hour
)

// UserForm says what an app's id for a user looks like; see CheckUser.
const UserForm = "1 to 256 bytes of UTF-8 without control characters"

// User is what a person of an app has.
type User struct {
	ID      string
	Devices []Device
	// Topics are those of the user, not those of single devices.
	Topics []string
}

// Erasure is how much of a person was erased.
type Erasure struct {
	Devices int
	// Deliveries counts messages in inboxes, pending or over.
	Deliveries int
	// Messages counts records of sends to several devices.
	Messages      int
	Subscriptions int
}

// Topic is an audience.
type Topic struct {
	Name        string
	Subscribers int
	CreatedAt   time.Time
}

// Algorithm is how a user token is signed.
type Algorithm string

// The algorithms.
const (
	EdDSA Algorithm = "EdDSA"
	ES256 Algorithm = "ES256"
	RS256 Algorithm = "RS256"
	HS256 Algorithm = "HS256"
)

// IdentityKey is what an app's user tokens are checked with.
type IdentityKey struct {
	App       ident.App
	Kid       string
	Algorithm Algorithm
	// Fingerprint changes when, and only when, the material does.
	Fingerprint string
	// Material is a public key in PEM, or the bytes of a secret. It is sealed at rest.
	Material  []byte
	CreatedAt time.Time
}

// DeviceQuery asks for an app's registered devices in the order of their ids. Empty fields do not narrow it.
type DeviceQuery struct {
	App        ident.App
	After      ident.Device
	User       string
	Topic      string
	Platform   Platform
	Provider   Provider
	TokenState TokenState
	// Limit is how many devices there are in a page at most.
	Limit int
}

// DeviceList is one page. Next is where to go on, whether or not Devices has any.
type DeviceList struct {
	Devices []Standing
	Next    ident.Device
	More    bool
}

// Standing is a device as its backend sees it.
type Standing struct {
	Device
	// Pending counts what waits in its inbox.
	Pending int
	// Reachable says that a push would be sent to it; else Code and Detail say why not: no_provider, no_token, token_dead, token_suspect,
	// token_superseded, no_credentials, provider_failing, provider_paused, silent_device.
	Reachable    bool
	Code, Detail string
}
