package tokens

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"log/slog"
	"slices"
	"strings"
	"time"

	"rouse/ident"
)

// KeyKind is what a key may do; it is the first part of the key itself.
type KeyKind string

// The kinds of key and the prefix of each.
const (
	// AdminKey is the instance's administrator.
	AdminKey KeyKind = "rouse_adm_"
	// SecretKey is an app's backend.
	SecretKey KeyKind = "rouse_sk_"
	// PublishableKey ships in the app: it registers devices, nothing else.
	PublishableKey KeyKind = "rouse_pk_"
	// DeviceKey is one device.
	DeviceKey KeyKind = "rouse_dev_"
)

// Secret is a key in clear. It prints redacted and is shown to its owner once.
type Secret string

// String returns the kind of the key and nothing of its secret.
func (s Secret) String() string { return s.redacted() }

// GoString returns the kind of the key and nothing of its secret.
func (s Secret) GoString() string { return s.redacted() }

// LogValue returns the kind of the key and nothing of its secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.redacted()) }

func (s Secret) redacted() string {
	for _, kind := range []KeyKind{AdminKey, SecretKey, PublishableKey, DeviceKey} {
		if strings.HasPrefix(string(s), string(kind)) {
			return string(kind) + "[redacted]"
		}
	}
	return redact(string(s))
}

// Hash is the SHA-256 of a whole key, the only form that is stored.
type Hash [sha256.Size]byte

// Equal compares in constant time.
func (h Hash) Equal(other Hash) bool { return subtle.ConstantTimeCompare(h[:], other[:]) == 1 }

// HashOf returns the hash of any key, the administrator's own words included.
func HashOf(s Secret) Hash { return sha256.Sum256([]byte(s)) }

var keyEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

const (
	randomBytes = 20 // 160 bits
	randomChars = 32 // 20 bytes in base32
	sumChars    = 7  // a CRC32 in base32
	keyChars    = ident.Width + randomChars + sumChars
)

// MintKey makes a key of the kind. id is the 26 characters it is looked up by:
// those of a key's own id, or, for a DeviceKey, of the device.
func MintKey(kind KeyKind, id string) Secret {
	random := make([]byte, randomBytes)
	_, _ = rand.Read(random) // never fails: crypto/rand ends the process instead
	body := string(kind) + id + keyEncoding.EncodeToString(random)
	return Secret(body + sum(body))
}

// ErrBadKey is what ParseKey returns for anything that was never a key of ours.
var ErrBadKey = errors.New("that is not a Rouse key: it may be cut short or misspelt")

// ParsedKey is a key whose spelling was checked; only the database knows whether it is good.
type ParsedKey struct {
	Kind KeyKind
	// ID is the 26 characters to look it up by.
	ID   string
	Hash Hash
}

// ParseKey checks prefix, alphabet, length and checksum, so that a typo costs no look-up.
// The one error is ErrBadKey.
func ParseKey(raw string) (ParsedKey, error) {
	for _, kind := range []KeyKind{AdminKey, SecretKey, PublishableKey, DeviceKey} {
		rest, ok := strings.CutPrefix(raw, string(kind))
		if !ok {
			continue
		}
		if len(rest) != keyChars || !ident.IsSuffix(rest[:ident.Width]) {
			return ParsedKey{}, ErrBadKey
		}
		body, check := raw[:len(raw)-sumChars], raw[len(raw)-sumChars:]
		if sum(body) != check {
			return ParsedKey{}, ErrBadKey
		}
		return ParsedKey{Kind: kind, ID: rest[:ident.Width], Hash: HashOf(Secret(raw))}, nil
	}
	return ParsedKey{}, ErrBadKey
}

func sum(body string) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], crc32.ChecksumIEEE([]byte(body)))
	return keyEncoding.EncodeToString(b[:])
}

// Scope is one thing a secret key may do.
type Scope string

// The scopes. A secret key without any has all.
const (
	ScopeSend     Scope = "send"
	ScopeDevices  Scope = "devices"
	ScopeTopics   Scope = "topics"
	ScopeWebhooks Scope = "webhooks"
	ScopeRead     Scope = "read"
)

// AllScopes is what a secret key has when its maker names none.
func AllScopes() []Scope {
	return []Scope{ScopeSend, ScopeDevices, ScopeTopics, ScopeWebhooks, ScopeRead}
}

// Key is the stored side of a secret or publishable key.
type Key struct {
	ID     ident.Key
	App    ident.App
	Kind   KeyKind
	Name   string
	Scopes []Scope
	Hash   Hash
	// ExpiresAt is zero for a key without an end.
	ExpiresAt time.Time
	CreatedAt time.Time
	// LastUsedAt is to within a minute or so; zero if it never was.
	LastUsedAt time.Time
	Rate       RateLimit
}

// Allows reports whether the key has the scope.
func (k Key) Allows(s Scope) bool { return slices.Contains(k.Scopes, s) }

// Live reports whether the key has not expired at now.
func (k Key) Live(now time.Time) bool { return k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt) }
