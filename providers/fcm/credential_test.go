package fcm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"rouse/fault"
	"rouse/providers"
)

// rsaKey is one key for all tests: making one is slow.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func account(t testing.TB) map[string]any {
	t.Helper()
	return map[string]any{
		"type": "service_account", "project_id": "example-project", "private_key_id": "0123abcd", "private_key": pkcs8(t, rsaKey()),
		"client_email": "push@example-project.iam.gserviceaccount.com", "token_uri": "http://169.254.169.254/evil", "auth_uri": "x",
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fileOf(t testing.TB, file map[string]any) providers.FCMUpload {
	t.Helper()
	return providers.FCMUpload{ServiceAccount: encode(t, file)}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	a := account(t)
	checked, err := Check(fileOf(t, a), now)
	if err != nil {
		t.Fatal(err)
	}
	public, sealed := checked.Public, checked.Secret
	if want := `{"project_id":"example-project","client_email":"push@example-project.iam.gserviceaccount.com"}`; string(public) != want {
		t.Errorf("public %s, want %s", public, want)
	}
	if bytes.Contains(sealed, []byte("169.254")) || bytes.Contains(sealed, []byte("uri")) {
		t.Error("an address of the tenant's choice is in the secret")
	}
	c, err := New(sealed, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	a["token_uri"] = "elsewhere"
	later, _ := Check(fileOf(t, a), now.Add(time.Hour))
	a["private_key_id"] = "4567"
	other, _ := Check(fileOf(t, a), now)
	print1, print2, print3 := checked.Fingerprint, later.Fingerprint, other.Fingerprint
	if print1 != print2 || print1 == print3 || print1 == "" {
		t.Errorf("fingerprints %q %q %q: the first two are one secret, the third another", print1, print2, print3)
	}
	a["private_key"] = block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey()))
	if _, err := Check(fileOf(t, a), now); err != nil {
		t.Errorf("PKCS #1: %v", err)
	}
}

// longKey is an RSA key of so many bits, in a moment: its factors are no primes, which nobody looks at.
func longKey(t testing.TB, bits int) string {
	t.Helper()
	e, one := big.NewInt(65537), big.NewInt(1)
	for {
		var factor [2]*big.Int
		for i := range factor {
			bytes := make([]byte, bits/16)
			_, _ = rand.Read(bytes)
			factor[i] = new(big.Int).SetBytes(bytes)
			factor[i].SetBit(factor[i], bits/2-1, 1).SetBit(factor[i], bits/2-2, 1).SetBit(factor[i], 0, 1)
		}
		p, q := factor[0], factor[1]
		p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
		d, inverse := new(big.Int).ModInverse(e, new(big.Int).Mul(p1, q1)), new(big.Int).ModInverse(q, p)
		if d == nil || inverse == nil {
			continue
		}
		der, err := asn1.Marshal(struct {
			Version                   int
			N, E, D, P, Q, Dp, Dq, Qi *big.Int
		}{0, new(big.Int).Mul(p, q), e, d, p, q, new(big.Int).Mod(d, p1), new(big.Int).Mod(d, q1), inverse})
		if err != nil {
			t.Fatal(err)
		}
		return block("RSA PRIVATE KEY", der)
	}
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change   func(map[string]any)
		pointers string
		says     string
	}{
		"external account": {func(a map[string]any) { a["type"] = "external_account" }, "/service_account/type", "service_account"},
		"user":             {func(a map[string]any) { a["type"] = "authorized_user" }, "/service_account/type", "service_account"},
		"no type":          {func(a map[string]any) { delete(a, "type") }, "/service_account/type", "service_account"},
		"wrong file":       {func(a map[string]any) { clear(a); a["project_info"] = map[string]string{} }, "/service_account", "google-services.json"},
		"number":           {func(a map[string]any) { a["project_id"] = 5 }, "/service_account", "every value"},
		"only a type": {func(a map[string]any) { clear(a); a["type"] = "service_account" },
			"/service_account/project_id /service_account/client_email /service_account/private_key_id /service_account/private_key", "missing"},
		"path in the project": {func(a map[string]any) { a["project_id"] = "../x" }, "/service_account/project_id", "project id"},
		"no address":          {func(a map[string]any) { a["client_email"] = "push" }, "/service_account/client_email", "address"},
		"key id":              {func(a map[string]any) { a["private_key_id"] = "a b" }, "/service_account/private_key_id", "key id"},
		"not PEM":             {func(a map[string]any) { a["private_key"] = "MIIEvQ" }, "/service_account/private_key", "not PEM"},
		"escaped twice": {func(a map[string]any) { a["private_key"] = strings.ReplaceAll(a["private_key"].(string), "\n", `\n`) },
			"/service_account/private_key", "escaped twice"},
		"damaged":    {func(a map[string]any) { a["private_key"] = block("PRIVATE KEY", []byte("x")) }, "/service_account/private_key", "damaged"},
		"EC":         {func(a map[string]any) { a["private_key"] = pkcs8(t, ec) }, "/service_account/private_key", "RSA"},
		"a long key": {func(a map[string]any) { a["private_key"] = longKey(t, maxKeyBits+64) }, "/service_account/private_key", "too long"},
		"a long text": {func(a map[string]any) { a["private_key"] = block("PRIVATE KEY", make([]byte, maxKeyText)) },
			"/service_account/private_key", "too long"},
	} {
		a := account(t)
		tt.change(a)
		checked, err := Check(fileOf(t, a), now)
		var f *fault.Error
		if !errors.As(err, &f) || f.Kind != fault.Invalid || f.Code != "invalid_credential" || checked.Secret != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var pointers, details []string
		for _, field := range f.Fields {
			pointers, details = append(pointers, field.Pointer), append(details, field.Detail)
		}
		said := strings.Join(details, "; ")
		if got := strings.Join(pointers, " "); got != tt.pointers || !strings.Contains(said, tt.says) {
			t.Errorf("%s: points at %q (want %q) and says %q (want %q in it)", name, got, tt.pointers, said, tt.says)
		}
		if key, _ := a["private_key"].(string); len(key) > 60 && strings.Contains(f.Error()+said, key[30:50]) {
			t.Errorf("%s: the error repeats the key", name)
		}
	}
	for _, body := range []string{``, `[]`, `"x"`, `{`, `null`} {
		if _, err := Check(providers.FCMUpload{ServiceAccount: []byte(body)}, now); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	checked, err := Check(fileOf(t, account(t)), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Endpoint: "fcm.googleapis.com"}, {TokenEndpoint: "oauth2.googleapis.com"}, {Endpoint: "https://u@h/v1"}} {
		if _, err := New(checked.Secret, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	for _, bad := range []string{``, `{}`, `{"project_id":"p","private_key":"x"}`} {
		if _, err := New([]byte(bad), Options{}); err == nil {
			t.Errorf("secret %q was taken", bad)
		}
	}
}

// FuzzCheck looks for a file that panics, and for one that is taken and then does not work.
func FuzzCheck(f *testing.F) {
	f.Add(encode(f, account(f)))
	f.Add([]byte(`{"type":"service_account","project_id":"p","client_email":"a@b","private_key_id":"1","private_key":"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"}`))
	f.Add([]byte(`{"project_info":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		checked, err := Check(providers.FCMUpload{ServiceAccount: body}, now)
		if err != nil {
			return
		}
		c, err := New(checked.Secret, Options{})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	})
}
