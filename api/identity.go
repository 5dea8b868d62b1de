package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/tokens"
)

// Bounds of a key for RS256, in bits: below, it can be broken; above, a check takes too long.
const (
	minRSA = 2048
	maxRSA = 8192
)

// minSecret is the shortest secret for HS256, in bytes.
const minSecret = 32

// ListIdentityKeys lists what an app's user tokens are checked with.
func (n nouns) ListIdentityKeys(ctx context.Context, r contract.ListIdentityKeysRequestObject) (contract.ListIdentityKeysResponseObject, error) {
	app, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	if _, err := n.deps.Apps.App(ctx, app); err != nil {
		return nil, err
	}
	list, err := n.deps.IdentityKeys.IdentityKeys(ctx, app)
	if err != nil {
		return nil, err
	}
	answer := contract.ListIdentityKeys200JSONResponse{IdentityKeys: make([]contract.IdentityKey, 0, len(list))}
	for _, k := range list {
		answer.IdentityKeys = append(answer.IdentityKeys, wireIdentityKey(k))
	}
	return answer, nil
}

// PutIdentityKey stores one, or puts another in its place.
func (n nouns) PutIdentityKey(ctx context.Context, r contract.PutIdentityKeyRequestObject) (contract.PutIdentityKeyResponseObject, error) {
	app, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	if !isKid(r.Kid) {
		return nil, invalidIdentityKey("the kid is 1 to 64 characters of A-Z, a-z, 0-9 and . _ -, other than . and ..")
	}
	key, err := identityKeyOf(*r.Body)
	if err != nil {
		return nil, err
	}
	key.App, key.Kid, key.CreatedAt = app, r.Kid, stamp(time.Now())
	// After the commit, and after an error too, for it may be stored.
	defer n.identities.forget()
	if err := n.deps.IdentityKeys.PutIdentityKey(ctx, key); err != nil {
		return nil, err
	}
	return contract.PutIdentityKey200JSONResponse(wireIdentityKey(key)), nil
}

// DeleteIdentityKey takes one away.
func (n nouns) DeleteIdentityKey(ctx context.Context, r contract.DeleteIdentityKeyRequestObject) (contract.DeleteIdentityKeyResponseObject, error) {
	app, err := appID(r.AppId)
	if err != nil {
		return nil, err
	}
	if !isKid(r.Kid) {
		return nil, fault.New(fault.NotFound, "identity_key_not_found", "the app has no identity key of this kid")
	}
	defer n.identities.forget()
	if err := n.deps.IdentityKeys.DeleteIdentityKey(ctx, app, r.Kid); err != nil {
		return nil, err
	}
	return contract.DeleteIdentityKey204Response{}, nil
}

func wireIdentityKey(k tokens.IdentityKey) contract.IdentityKey {
	return contract.IdentityKey{Kid: k.Kid, Algorithm: string(k.Algorithm), Fingerprint: k.Fingerprint, CreatedAt: stamp(k.CreatedAt)}
}

func isKid(s string) bool {
	const most = 64
	odd := func(r rune) bool {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return false
		}
		return true
	}
	return s != "" && s != "." && s != ".." && len(s) <= most && !strings.ContainsFunc(s, odd)
}

func invalidIdentityKey(detail string) *fault.Error {
	return fault.New(fault.Invalid, "invalid_identity_key", "%s", detail)
}

// identityKeyOf reads the body: its algorithm, material and fingerprint.
func identityKeyOf(b contract.IdentityKeyPut) (tokens.IdentityKey, error) {
	key := tokens.IdentityKey{Algorithm: tokens.Algorithm(b.Algorithm)}
	refuse := func(pointer, detail string) (tokens.IdentityKey, error) {
		return tokens.IdentityKey{}, invalidIdentityKey("the key cannot be used; see errors").At(pointer, detail)
	}
	given, pointer, other := b.PublicKey, "/public_key", b.Secret
	if key.Algorithm == tokens.HS256 {
		given, pointer, other = b.Secret, "/secret", b.PublicKey
	}
	switch {
	case given == nil:
		return refuse(pointer, "is what "+string(key.Algorithm)+" needs")
	case other != nil:
		return refuse("", "give public_key or secret, not both: "+string(key.Algorithm)+" takes "+pointer[1:])
	}
	key.Material = []byte(*given)
	if key.Algorithm != tokens.HS256 {
		var err error
		if key.Material, err = canonical(*given); err != nil {
			return refuse(pointer, err.Error())
		}
	}
	if _, err := keyOf(key); err != nil {
		return refuse(pointer, err.Error())
	}
	sum := sha256.Sum256(append([]byte("rouse identity key "+string(key.Algorithm)+"\n"), key.Material...))
	key.Fingerprint = hex.EncodeToString(sum[:16])
	return key, nil
}

// canonical is the one spelling of a public key in PEM. The error says what was sent instead of one, and repeats nothing of it.
func canonical(text string) ([]byte, error) {
	if strings.Contains(text, "PRIVATE KEY") {
		return nil, errors.New("this is a private key, which nobody but your backend may have: make a new one, since this one has travelled, and send its public half (openssl pkey -pubout)")
	}
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return nil, errors.New("must be a public key in PEM, beginning with -----BEGIN PUBLIC KEY-----, with its line breaks")
	case block.Type == "CERTIFICATE":
		return nil, errors.New("this is a certificate; send its public key (openssl x509 -pubkey -noout)")
	case block.Type == "RSA PUBLIC KEY":
		return nil, errors.New("this is an older form; send it as PUBLIC KEY (openssl rsa -RSAPublicKey_in -pubout)")
	case block.Type != "PUBLIC KEY":
		return nil, errors.New("must be PEM of the type PUBLIC KEY")
	case strings.TrimSpace(string(rest)) != "":
		return nil, errors.New("must be one public key and nothing behind it")
	}
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}), nil
}

// keyOf makes what golang-jwt checks the key's algorithm with. The error says what to fix and repeats nothing of the key.
func keyOf(k tokens.IdentityKey) (any, error) {
	if k.Algorithm == tokens.HS256 {
		switch {
		case len(k.Material) < minSecret:
			return nil, fmt.Errorf("must have at least %d bytes, and be random", minSecret)
		case strings.Contains(string(k.Material), "-----BEGIN"):
			return nil, errors.New("this is a key in PEM; HS256 takes a shared secret of random bytes, or choose the algorithm of the key and send public_key")
		}
		return k.Material, nil
	}
	block, _ := pem.Decode(k.Material)
	if block == nil {
		return nil, errors.New("is not PEM")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("is PEM, but what it holds is no public key")
	}
	return fitting(k.Algorithm, public)
}

// fitting returns the key if it is of the kind that the algorithm wants.
func fitting(algorithm tokens.Algorithm, public any) (any, error) {
	switch key := public.(type) {
	case ed25519.PublicKey:
		if algorithm == tokens.EdDSA {
			return key, nil
		}
	case *ecdsa.PublicKey:
		if algorithm == tokens.ES256 && key.Curve == elliptic.P256() {
			return key, nil
		}
	case *rsa.PublicKey:
		if algorithm != tokens.RS256 {
			break
		}
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA || key.E < 3 {
			return nil, fmt.Errorf("an RSA key must have %d to %d bits, and an exponent of 3 or more", minRSA, maxRSA)
		}
		return key, nil
	}
	want := map[tokens.Algorithm]string{tokens.EdDSA: "an Ed25519 key", tokens.ES256: "an EC key on the curve P-256", tokens.RS256: "an RSA key"}
	return nil, fmt.Errorf("%s takes %s; this one is of another kind", algorithm, want[algorithm])
}
