package api

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

const tokenApp = ident.App("app_0123456789abcdefghijklmnop")

// signer signs user tokens with one key.
type signer struct {
	method jwt.SigningMethod
	key    any
	// public is what is uploaded, PEM or a secret.
	public string
}

// signers is a signer for each algorithm, by kid, made once: RSA keys take long.
var signers = sync.OnceValue(func() map[string]signer {
	public, ed := must2(ed25519.GenerateKey(rand.Reader))
	ec, rs := must1(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must1(rsa.GenerateKey(rand.Reader, 2048))
	secret := "a-secret-of-at-least-32-characters"
	return map[string]signer{
		"ed": {jwt.SigningMethodEdDSA, ed, spki(public)},
		"ec": {jwt.SigningMethodES256, ec, spki(&ec.PublicKey)},
		"rs": {jwt.SigningMethodRS256, rs, spki(&rs.PublicKey)},
		"hs": {jwt.SigningMethodHS256, []byte(secret), secret},
	}
})

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func must2[T, U any](v T, w U, err error) (T, U) {
	if err != nil {
		panic(err)
	}
	return v, w
}

func spki(public any) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must1(x509.MarshalPKIXPublicKey(public))}))
}

// uploaded is the signers' keys as the API keeps them.
func uploaded(t testing.TB) identities {
	t.Helper()
	keys := identities{}
	for kid, s := range signers() {
		key, err := identityKeyOf(s.upload())
		if err != nil {
			t.Fatal(err)
		}
		made, err := keyOf(key)
		if err != nil {
			t.Fatal(err)
		}
		keys[kid] = identity{algorithm: key.Algorithm, key: made}
	}
	return keys
}

func (s signer) upload() contract.IdentityKeyPut {
	put := contract.IdentityKeyPut{Algorithm: contract.IdentityKeyPutAlgorithm(s.method.Alg())}
	if s.method == jwt.SigningMethodHS256 {
		put.Secret = &s.public
	} else {
		put.PublicKey = &s.public
	}
	return put
}

type parts = map[string]any

// sign makes a token whose header says what the parts say besides typ; its alg is the method's unless they name one.
func sign(t testing.TB, method jwt.SigningMethod, key any, header, claims parts) string {
	t.Helper()
	all := parts{"typ": "JWT", "alg": method.Alg()}
	maps.Copy(all, header)
	token, err := (&jwt.Token{Header: all, Claims: jwt.MapClaims(claims), Method: method}).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

var tokenNow = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// in is a time from tokenNow as claims have it.
func in(d time.Duration) int64 { return tokenNow.Add(d).Unix() }

func good(change parts) parts {
	claims := parts{"aud": string(tokenApp), "sub": "anna", "exp": in(10 * time.Minute)}
	for name, value := range change {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	return claims
}

func TestUserTokensOfEveryAlgorithm(t *testing.T) {
	t.Parallel()
	keys := uploaded(t)
	for kid, s := range signers() {
		for name, claims := range map[string]parts{
			"plain":          good(nil),
			"several aud":    good(parts{"aud": []string{"somebody", string(tokenApp)}}),
			"all times":      good(parts{"nbf": in(-time.Minute), "iat": in(0)}),
			"an hour":        good(parts{"exp": in(time.Hour)}),
			"clocks differ":  good(parts{"exp": in(time.Hour + 30*time.Second), "nbf": in(30 * time.Second), "iat": in(30 * time.Second)}),
			"just over":      good(parts{"exp": in(-30 * time.Second)}),
			"with fractions": good(parts{"exp": float64(in(0)) + 0.5}),
			"more claims":    good(parts{"SUB": "bob", "Aud": "app_x", "name": "Anna", "roles": []string{"x"}}),
		} {
			user, err := keys.check(tokenApp, sign(t, s.method, s.key, parts{"kid": kid}, claims), tokenNow)
			if err != nil || user != "anna" {
				t.Errorf("%s, %s: %q, %v", kid, name, user, err)
			}
		}
		odd := good(parts{"sub": "Ünal/ö 50% \U0001F600"})
		if user, err := keys.check(tokenApp, sign(t, s.method, s.key, parts{"kid": kid}, odd), tokenNow); user != odd["sub"] {
			t.Errorf("%s: %q, %v", kid, user, err)
		}
	}
}

// TestBadClaims names the part that is wrong, and no other.
func TestBadClaims(t *testing.T) {
	t.Parallel()
	keys, s := uploaded(t), signers()["ed"]
	for name, c := range map[string]struct {
		change parts
		part   string
	}{
		"no aud":             {parts{"aud": nil}, "aud"},
		"another app":        {parts{"aud": "app_1123456789abcdefghijklmnop"}, "aud"},
		"longer":             {parts{"aud": string(tokenApp) + "x"}, "aud"},
		"in capitals":        {parts{"aud": strings.ToUpper(string(tokenApp))}, "aud"},
		"aud a number":       {parts{"aud": 1}, "aud"},
		"aud of others":      {parts{"aud": []string{"a", "b"}}, "aud"},
		"aud mixed":          {parts{"aud": []any{string(tokenApp), 1}}, "aud"},
		"aud empty":          {parts{"aud": []string{}}, "aud"},
		"no sub":             {parts{"sub": nil}, "sub"},
		"only SUB":           {parts{"sub": nil, "SUB": "anna"}, "sub"},
		"empty sub":          {parts{"sub": ""}, "sub"},
		"sub a number":       {parts{"sub": 7}, "sub"},
		"long sub":           {parts{"sub": strings.Repeat("x", 257)}, "sub"},
		"NUL":                {parts{"sub": "an\x00na"}, "sub"},
		"line break":         {parts{"sub": "anna\n"}, "sub"},
		"C1":                 {parts{"sub": "anna\u009b"}, "sub"},
		"turned":             {parts{"sub": "\u202eanna"}, "sub"},
		"not UTF-8":          {parts{"sub": "anna\ufffd"}, "sub"},
		"no exp":             {parts{"exp": nil}, "exp"},
		"exp zero":           {parts{"exp": 0}, "exp"},
		"exp text":           {parts{"exp": "soon"}, "exp"},
		"exp number as text": {parts{"exp": "1893553445"}, "exp"},
		"exp past":           {parts{"exp": in(-61 * time.Second)}, "exp"},
		"exp in 1970":        {parts{"exp": -1}, "exp"},
		"exp far":            {parts{"exp": in(time.Hour + 62*time.Second)}, "exp"},
		"exp in ms":          {parts{"exp": in(time.Minute) * 1000}, "exp"},
		"exp endless":        {parts{"exp": 1e300}, "exp"},
		"nbf ahead":          {parts{"nbf": in(62 * time.Second)}, "nbf"},
		"nbf text":           {parts{"nbf": "now"}, "nbf"},
		"nbf beyond times":   {parts{"nbf": 1e300}, "nbf"},
		"nbf near their end": {parts{"nbf": 9223372036854774784}, "nbf"},
		"iat before 1970":    {parts{"iat": -1}, "iat"},
		"iat ahead":          {parts{"iat": in(62 * time.Second)}, "iat"},
		"iat an object":      {parts{"iat": parts{}}, "iat"},
	} {
		t.Run(name, func(t *testing.T) {
			refusedFor(t, keys, sign(t, s.method, s.key, parts{"kid": "ed"}, good(c.change)), c.part)
		})
	}
	// All at once, so that nobody has to try eight times.
	_, err := keys.check(tokenApp, sign(t, s.method, s.key, parts{"kid": "ed"}, parts{}), tokenNow)
	if n := len(fault.From(err).Fields); n != 3 {
		t.Errorf("%d complaints: %v", n, err)
	}
}

// refusedFor holds a refusal to name that part alone, and to repeat nothing of the token.
func refusedFor(t *testing.T, keys identities, token, part string) {
	t.Helper()
	user, err := keys.check(tokenApp, token, tokenNow)
	e := fault.From(err)
	if err == nil || user != "" || e.Kind != fault.Invalid || e.Code != "invalid_user_token" || len(e.Fields) != 1 {
		t.Fatalf("got %q, %v %+v", user, err, e)
	}
	if f := e.Fields[0]; f.Pointer != "/user_token" || !strings.HasPrefix(f.Detail, part) {
		t.Errorf("points at %q: %q; want %s", f.Pointer, f.Detail, part)
	}
	for _, part := range strings.Split(token, ".") {
		if plain, _ := base64.RawURLEncoding.DecodeString(part); part != "" && strings.Contains(e.Error(), part) || len(plain) > 0 && strings.Contains(e.Error(), string(plain)) {
			t.Errorf("the token is repeated: %v", e)
		}
	}
}

// TestTheKeyDecidesTheAlgorithm: what the token says of it must never choose how it is checked.
func TestTheKeyDecidesTheAlgorithm(t *testing.T) {
	t.Parallel()
	keys, all := uploaded(t), signers()
	claims := good(nil)
	hmac := func(secret string, method jwt.SigningMethod, header parts) string {
		return sign(t, method, []byte(secret), header, claims)
	}
	for name, c := range map[string]struct{ token, part string }{
		"none":            {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, parts{"kid": "ed"}, claims), "alg"},
		"none for a hash": {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, parts{"kid": "hs"}, claims), "alg"},
		"None":            {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, parts{"kid": "hs", "alg": "None"}, claims), "alg"},
		// The public key is no secret: whoever knows it must not be able to sign with it.
		"RSA as a secret":       {hmac(all["rs"].public, jwt.SigningMethodHS256, parts{"kid": "rs"}), "alg"},
		"RSA trimmed":           {hmac(strings.TrimSpace(all["rs"].public), jwt.SigningMethodHS256, parts{"kid": "rs"}), "alg"},
		"RSA, called RS256":     {hmac(all["rs"].public, jwt.SigningMethodHS256, parts{"kid": "rs", "alg": "RS256"}), "signature"},
		"EC as a secret":        {hmac(all["ec"].public, jwt.SigningMethodHS256, parts{"kid": "ec"}), "alg"},
		"Ed25519 as a secret":   {hmac(all["ed"].public, jwt.SigningMethodHS256, parts{"kid": "ed"}), "alg"},
		"no secret":             {hmac("", jwt.SigningMethodHS256, parts{"kid": "hs"}), "signature"},
		"a longer hash":         {hmac(all["hs"].public, jwt.SigningMethodHS512, parts{"kid": "hs"}), "alg"},
		"a hash of RSA":         {hmac(all["hs"].public, jwt.SigningMethodHS256, parts{"kid": "rs"}), "alg"},
		"RS512":                 {sign(t, jwt.SigningMethodRS512, all["rs"].key, parts{"kid": "rs"}, claims), "alg"},
		"PS256":                 {sign(t, jwt.SigningMethodPS256, all["rs"].key, parts{"kid": "rs"}, claims), "alg"},
		"EdDSA of the EC key":   {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, parts{"kid": "ec"}, claims), "alg"},
		"called by another kid": {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, parts{"kid": "rs", "alg": "RS256"}, claims), "signature"},
		"an invented one":       {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, parts{"kid": "ed", "alg": "XX"}, claims), "alg"},
		"no alg":                {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, parts{"kid": "ed", "alg": nil}, claims), "alg"},
		"alg a list":            {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, parts{"kid": "ed", "alg": []string{"EdDSA"}}, claims), "alg"},
		"crit":                  {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, parts{"kid": "ed", "crit": []string{"b64"}, "b64": false}, claims), "crit"},
		"no kid":                {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, nil, claims), "kid"},
		"kid a number":          {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, parts{"kid": 1}, claims), "kid"},
		"kid a list":            {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, parts{"kid": []string{"ed"}}, claims), "kid"},
		"an unknown kid":        {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, parts{"kid": "../../ed"}, claims), "kid"},
		"its own key":           {sign(t, jwt.SigningMethodEdDSA, all["ed"].key, parts{"jwk": parts{"kty": "OKP"}, "jku": "https://example.com"}, claims), "kid"},
	} {
		t.Run(name, func(t *testing.T) { refusedFor(t, keys, c.token, c.part) })
	}
}

// TestBrokenTokens are no tokens, or were changed on the way.
func TestBrokenTokens(t *testing.T) {
	t.Parallel()
	keys, s := uploaded(t), signers()["ed"]
	token := sign(t, s.method, s.key, parts{"kid": "ed"}, good(nil))
	three := strings.Split(token, ".")
	other := strings.Split(sign(t, s.method, s.key, parts{"kid": "ed"}, good(parts{"sub": "bob"})), ".")
	text := base64.RawURLEncoding.EncodeToString
	_, stranger := must2(ed25519.GenerateKey(rand.Reader))
	for name, c := range map[string]struct{ token, part string }{
		"another's body":      {three[0] + "." + other[1] + "." + three[2], "signature"},
		"another's signature": {three[0] + "." + three[1] + "." + other[2], "signature"},
		"another's key":       {sign(t, s.method, stranger, parts{"kid": "ed"}, good(nil)), "signature"},
		"no signature":        {three[0] + "." + three[1] + ".", "signature"},
		"short signature":     {three[0] + "." + three[1] + "." + three[2][:40], "signature"},
		"two parts":           {three[0] + "." + three[1], "it is not"},
		"four parts":          {token + ".x", "it is not"},
		"five parts":          {token + ".x.y", "it is not"},
		"dots":                {"..", "it is not"},
		"space":               {" " + token, "it is not"},
		"padded":              {three[0] + "." + three[1] + "." + three[2] + "==", "it is not"},
		"line break":          {three[0] + ".\n" + three[1] + "." + three[2], "signature"},
		"a header of null":    {text([]byte("null")) + "." + three[1] + "." + three[2], "alg"},
		"a header of text":    {text([]byte(`"x"`)) + "." + three[1] + "." + three[2], "it is not"},
		"claims of a list":    {three[0] + "." + text([]byte("[]")) + "." + three[2], "it is not"},
		"claims twice":        {three[0] + "." + text([]byte(`{}{}`)) + "." + three[2], "it is not"},
		"deep claims":         {three[0] + "." + text([]byte(strings.Repeat("[", 5000))) + "." + three[2], "it is not"},
		"huge":                {three[0] + "." + strings.Repeat("A", maxUserToken) + "." + three[2], "it is over"},
		"words":               {"Bearer xyz", "it is not"},
	} {
		t.Run(name, func(t *testing.T) { refusedFor(t, keys, c.token, c.part) })
	}
	// Bits that decide nothing must be as they were: one token has one spelling.
	last := three[2][len(three[2])-1]
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
		if byte(c) == last {
			continue
		}
		if user, err := keys.check(tokenApp, token[:len(token)-1]+string(c), tokenNow); err == nil {
			t.Fatalf("another spelling of the signature counts: %q", user)
		}
	}
}

func FuzzUserToken(f *testing.F) {
	keys := uploaded(f)
	for kid, s := range signers() {
		f.Add(sign(f, s.method, s.key, parts{"kid": kid}, good(nil)))
	}
	f.Add("eyJhbGciOiJub25lIiwia2lkIjoiZWQifQ.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		user, err := keys.check(tokenApp, token, tokenNow)
		if err == nil && user != "anna" {
			t.Errorf("%q without a signature of ours", user)
		}
		if e := fault.From(err); err != nil && (e.Code != "invalid_user_token" || len(e.Fields) == 0) {
			t.Errorf("%v", err)
		}
	})
}

func TestIdentityKeysAreLookedAt(t *testing.T) {
	t.Parallel()
	all := signers()
	p384 := must1(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must1(x509.MarshalPKCS8PrivateKey(p384))}))
	rsaKey := all["rs"].key.(*rsa.PrivateKey)
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)}))
	weak := rsa.PublicKey{N: new(big.Int).Rsh(rsaKey.N, 1024), E: 3}
	for name, c := range map[string]struct {
		algorithm      string
		public, secret string
		pointer, says  string
	}{
		"no key":           {"EdDSA", "", "", "/public_key", "needs"},
		"no secret":        {"HS256", "", "", "/secret", "needs"},
		"a key for a hash": {"HS256", all["rs"].public, "", "/secret", "needs"},
		"a secret for RSA": {"RS256", "", all["hs"].public, "/public_key", "needs"},
		"both":             {"RS256", all["rs"].public, all["hs"].public, "", "not both"},
		"both for a hash":  {"HS256", all["rs"].public, all["hs"].public, "", "not both"},
		"a short secret":   {"HS256", "", "short", "/secret", "32 bytes"},
		"PEM for a secret": {"HS256", "", all["rs"].public, "/secret", "shared secret"},
		"private":          {"ES256", private, "", "/public_key", "private key"},
		"private behind":   {"EdDSA", all["ed"].public + private, "", "/public_key", "private key"},
		"certificate":      {"RS256", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", "/public_key", "certificate"},
		"PKCS 1":           {"RS256", pkcs1, "", "/public_key", "older form"},
		"another PEM":      {"RS256", "-----BEGIN X-----\nAAAA\n-----END X-----\n", "", "/public_key", "PUBLIC KEY"},
		"two":              {"EdDSA", all["ed"].public + all["ed"].public, "", "/public_key", "nothing behind"},
		"words":            {"EdDSA", "ssh-ed25519 AAAA", "", "/public_key", "BEGIN PUBLIC KEY"},
		"one line":         {"EdDSA", strings.ReplaceAll(all["ed"].public, "\n", " "), "", "/public_key", "line breaks"},
		"garbage":          {"EdDSA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "", "/public_key", "no public key"},
		"another curve":    {"ES256", spki(&p384.PublicKey), "", "/public_key", "P-256"},
		"EC for Ed25519":   {"EdDSA", all["ec"].public, "", "/public_key", "Ed25519"},
		"Ed25519 for EC":   {"ES256", all["ed"].public, "", "/public_key", "P-256"},
		"EC for RSA":       {"RS256", all["ec"].public, "", "/public_key", "an RSA key"},
		"RSA for EC":       {"ES256", all["rs"].public, "", "/public_key", "P-256"},
		"a weak RSA key":   {"RS256", spki(&weak), "", "/public_key", "2048"},
	} {
		t.Run(name, func(t *testing.T) {
			put := contract.IdentityKeyPut{Algorithm: contract.IdentityKeyPutAlgorithm(c.algorithm), PublicKey: some(c.public), Secret: some(c.secret)}
			_, err := identityKeyOf(put)
			e := fault.From(err)
			if err == nil || e.Code != "invalid_identity_key" || len(e.Fields) != 1 || e.Fields[0].Pointer != c.pointer || !strings.Contains(e.Fields[0].Detail, c.says) {
				t.Errorf("got %v %+v", err, e)
			}
		})
	}
}

func TestFingerprintsOfIdentityKeys(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for kid, s := range signers() {
		key, err := identityKeyOf(s.upload())
		if err != nil {
			t.Fatal(err)
		}
		if other, twice := seen[key.Fingerprint]; twice || len(key.Fingerprint) != 32 || strings.Contains(s.public, key.Fingerprint) {
			t.Errorf("%s: %q, as %q", kid, key.Fingerprint, other)
		}
		seen[key.Fingerprint] = kid
		if s.method == jwt.SigningMethodHS256 {
			continue
		}
		s.public = "\n" + strings.ReplaceAll(s.public, "\n", "\r\n") + "\n\n" // the same key in another spelling
		again, err := identityKeyOf(s.upload())
		if err != nil || again.Fingerprint != key.Fingerprint {
			t.Errorf("%s: %q, then %q, %v", kid, key.Fingerprint, again.Fingerprint, err)
		}
	}
}

func TestLookupOfIdentityKeysFails(t *testing.T) {
	t.Parallel()
	if _, err := keyOf(tokens.IdentityKey{Algorithm: tokens.EdDSA, Material: []byte("x")}); err == nil {
		t.Error("what is stored is not looked at")
	}
	var own *fault.Error
	if err := refusedToken(errors.New("x")); !errors.As(err, &own) {
		t.Error("an unknown error gets through")
	}
}
