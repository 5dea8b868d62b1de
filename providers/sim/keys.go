package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Environments of APNs.
const (
	Production = "production"
	Sandbox    = "sandbox"
)

// NewAPNsKey makes a signing key, registers its public half under the key id and
// returns the private half as PEM, in the form of Apple's .p8 files. Without
// topics it is good for every topic. A key id registered before is replaced.
func (s *Sim) NewAPNsKey(teamID, keyID string, topics ...string) (privateKeyPEM string) {
	return s.newAPNsKey(teamID, keyID, "", topics)
}

// NewAPNsKeyIn is NewAPNsKey for a key that works in one environment alone,
// Production or Sandbox.
func (s *Sim) NewAPNsKeyIn(environment, teamID, keyID string, topics ...string) (privateKeyPEM string) {
	return s.newAPNsKey(teamID, keyID, environment, topics)
}

func (s *Sim) newAPNsKey(teamID, keyID, environment string, topics []string) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("sim: " + err.Error()) // only where the system has no randomness
	}
	s.keys.add(&apnsKey{team: teamID, id: keyID, environment: environment, topics: topics, public: &key.PublicKey})
	return privatePEM(key)
}

// RevokeAPNsKey makes a key unknown: every provider token signed with it is invalid
// from now on. It reports whether the key was known.
func (s *Sim) RevokeAPNsKey(keyID string) bool { return s.keys.remove(keyID) }

// privatePEM writes a private key as PKCS #8.
func privatePEM(key any) string {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic("sim: " + err.Error()) // the key was made here; it can be written
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// apnsKey is the public half of a signing key and what it is good for.
type apnsKey struct {
	team, id    string
	environment string // empty for both
	topics      []string
	public      *ecdsa.PublicKey
}

// keyBook holds the APNs keys by key id, and remembers which JWTs it has verified:
// a client sends the same one thousands of times.
type keyBook struct {
	mu       sync.Mutex
	keys     map[string]*apnsKey
	verified map[string]provenJWT
}

type provenJWT struct {
	key    *apnsKey
	issued time.Time
}

// verifiedLimit bounds the memory of verified JWTs.
const verifiedLimit = 1024

var errBadJWT = errors.New("bad provider token")

func newKeyBook() *keyBook {
	return &keyBook{keys: map[string]*apnsKey{}, verified: map[string]provenJWT{}}
}

func (b *keyBook) add(k *apnsKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys[k.id] = k
	clear(b.verified)
}

func (b *keyBook) remove(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, known := b.keys[id]
	delete(b.keys, id)
	clear(b.verified)
	return known
}

func (b *keyBook) get(id string) *apnsKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys[id]
}

// verify checks algorithm, key id, signature, issuer and the presence of iat, but
// no times: what those mean depends on the connection.
func (b *keyBook) verify(token string) (provenJWT, error) {
	b.mu.Lock()
	known, ok := b.verified[token]
	b.mu.Unlock()
	if ok {
		return known, nil
	}
	var claims jwt.RegisteredClaims
	var key *apnsKey
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithoutClaimsValidation())
	_, err := parser.ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		if key = b.get(kid); key == nil {
			return nil, errBadJWT
		}
		return key.public, nil
	})
	if err != nil || claims.Issuer != key.team || claims.IssuedAt == nil {
		return provenJWT{}, errBadJWT
	}
	proven := provenJWT{key: key, issued: claims.IssuedAt.Time}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.verified) >= verifiedLimit {
		clear(b.verified)
	}
	if b.keys[key.id] == key {
		b.verified[token] = proven
	}
	return proven, nil
}
