package tokens

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// Ring seals what must not lie in the database in clear. The first key seals,
// all of them open, so that keys can be rotated. It is safe for concurrent use.
type Ring struct {
	first string
	byID  map[string]cipher.AEAD
}

const ringKeyBytes = 32

// ParseRing reads "id:base64 of 32 bytes", comma separated; the first seals.
// Errors say which entry is wrong by its position and never repeat a key.
func ParseRing(s string) (*Ring, error) {
	r := &Ring{byID: map[string]cipher.AEAD{}}
	for i, entry := range strings.Split(s, ",") {
		id, b64, ok := strings.Cut(strings.TrimSpace(entry), ":")
		if !ok || id == "" || len(id) > 32 {
			return nil, fmt.Errorf("master key %d is not of the form id:base64 with an id of 1 to 32 characters", i+1)
		}
		raw, err := base64.StdEncoding.DecodeString(b64)
		if err != nil || len(raw) != ringKeyBytes {
			return nil, fmt.Errorf("master key %d (%s) is not the base64 of %d bytes", i+1, id, ringKeyBytes)
		}
		if _, twice := r.byID[id]; twice {
			return nil, fmt.Errorf("master key %d repeats the id %s", i+1, id)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, fmt.Errorf("master key %d (%s): %w", i+1, id, err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("master key %d (%s): %w", i+1, id, err)
		}
		r.byID[id] = aead
		if r.first == "" {
			r.first = id
		}
	}
	return r, nil
}

// NewRingKey returns a fresh entry for ParseRing under the given id.
func NewRingKey(id string) string {
	raw := make([]byte, ringKeyBytes)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the process instead
	return id + ":" + base64.StdEncoding.EncodeToString(raw)
}

// Seal encrypts plain for the place named where, which must be given again to
// open it: a sealed value moved to another row does not open.
func (r *Ring) Seal(where string, plain []byte) []byte {
	aead := r.byID[r.first]
	out := make([]byte, 0, 1+len(r.first)+aead.NonceSize()+len(plain)+aead.Overhead())
	out = append(out, byte(len(r.first)))
	out = append(out, r.first...)
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	out = append(out, nonce...)
	return aead.Seal(out, nonce, plain, []byte(where))
}

// Sealer is the id of the key that seals.
func (r *Ring) Sealer() string { return r.first }

// ErrSealed means a sealed value does not open: wrong master key, or moved, or damaged.
var ErrSealed = errors.New("sealed value does not open: is the master key that sealed it in ROUSE_MASTER_KEYS?")

// Open decrypts what Seal made for the same place. The one error is ErrSealed.
func (r *Ring) Open(where string, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 {
		return nil, ErrSealed
	}
	n := int(sealed[0])
	if len(sealed) < 1+n {
		return nil, ErrSealed
	}
	aead, ok := r.byID[string(sealed[1:1+n])]
	rest := sealed[1+n:]
	if !ok || len(rest) < aead.NonceSize() {
		return nil, ErrSealed
	}
	plain, err := aead.Open(nil, rest[:aead.NonceSize()], rest[aead.NonceSize():], []byte(where))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

// LogValue keeps the keys out of logs.
func (r *Ring) LogValue() slog.Value { return slog.StringValue("[redacted]") }
