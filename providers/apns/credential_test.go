package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"rouse/providers"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func pkcs8(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func newKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func upload(t *testing.T) providers.APNsUpload {
	t.Helper()
	return providers.APNsUpload{
		TeamID: "TEAM000001", KeyID: "KEY0000001", PrivateKey: pkcs8(t, newKey(t, elliptic.P256())), Topic: "com.example.app",
	}
}

// certificate makes a pair valid for an hour around the given time.
func certificate(t *testing.T, at time.Time) (cert, key string) {
	t.Helper()
	private := newKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Apple Push Services: com.example.app"},
		NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), pkcs8(t, private)
}

func TestCheckKey(t *testing.T) {
	t.Parallel()
	u := upload(t)
	u.Placeholder = providers.Placeholder{Text: providers.Text{Body: "Hi"}}
	checked, err := Check(u, now)
	if err != nil {
		t.Fatal(err)
	}
	public, sealed := checked.Public, checked.Secret
	if want := `{"team_id":"TEAM000001","key_id":"KEY0000001","topic":"com.example.app","placeholder":{"body":"Hi"}}`; string(public) != want {
		t.Errorf("public %s, want %s", public, want)
	}
	if c, err := New(sealed, true, Options{}); err != nil {
		t.Errorf("New: %v", err)
	} else if c.sdk.Host != SandboxEndpoint || c.sdk.Token.Bearer == "" {
		t.Errorf("host %q, bearer set %v", c.sdk.Host, c.sdk.Token.Bearer != "")
	}
	later, _ := Check(u, now.Add(time.Hour))
	u.Placeholder.Body = "Ho"
	other, _ := Check(u, now)
	print1, print2, print3 := checked.Fingerprint, later.Fingerprint, other.Fingerprint
	if print1 != print2 || print1 == print3 || print1 == "" {
		t.Errorf("fingerprints %q %q %q: the first two are one secret, the third another", print1, print2, print3)
	}
}

func TestCheckCertificate(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, now)
	checked, err := Check(providers.APNsUpload{Certificate: cert, CertificateKey: key, Topic: "com.example.app"}, now)
	if err != nil {
		t.Fatal(err)
	}
	public, sealed := checked.Public, checked.Secret
	if want := `{"certificate_expires_at":"2026-01-02T04:04:05Z","topic":"com.example.app"}`; string(public) != want {
		t.Errorf("public %s, want %s", public, want)
	}
	c, err := New(sealed, false, Options{})
	if err != nil || c.sdk.Token != nil || c.sdk.Host != ProductionEndpoint {
		t.Errorf("New: %v", err)
	}
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec := newKey(t, elliptic.P256())
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	cert, certKey := certificate(t, now)
	oldCert, oldKey := certificate(t, now.AddDate(-1, 0, 0))
	soonCert, soonKey := certificate(t, now.AddDate(1, 0, 0))
	for name, tt := range map[string]struct {
		change   func(*providers.APNsUpload)
		pointers string
		says     string
	}{
		"nothing":          {func(u *providers.APNsUpload) { *u = providers.APNsUpload{} }, "/team_id /key_id /private_key /topic", "missing"},
		"short team":       {func(u *providers.APNsUpload) { u.TeamID = "TEAM" }, "/team_id", "swapped"},
		"lower-case key":   {func(u *providers.APNsUpload) { u.KeyID = "key0000001" }, "/key_id", "swapped"},
		"same id twice":    {func(u *providers.APNsUpload) { u.KeyID = u.TeamID }, "/key_id", "the same"},
		"not PEM":          {func(u *providers.APNsUpload) { u.PrivateKey = "MIGTAgEAMBMG" }, "/private_key", "not PEM"},
		"escaped newlines": {func(u *providers.APNsUpload) { u.PrivateKey = strings.ReplaceAll(u.PrivateKey, "\n", `\n`) }, "/private_key", "line breaks"},
		"SEC1": {func(u *providers.APNsUpload) {
			u.PrivateKey = string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
		}, "/private_key", "openssl"},
		"encrypted": {func(u *providers.APNsUpload) {
			u.PrivateKey = string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: sec1}))
		}, "/private_key", "passphrase"},
		"a certificate": {func(u *providers.APNsUpload) { u.PrivateKey = cert }, "/private_key", "not a private key"},
		"damaged": {func(u *providers.APNsUpload) {
			u.PrivateKey = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))
		}, "/private_key", "damaged"},
		"RSA":            {func(u *providers.APNsUpload) { u.PrivateKey = pkcs8(t, rsaKey) }, "/private_key", "P-256"},
		"P-384":          {func(u *providers.APNsUpload) { u.PrivateKey = pkcs8(t, newKey(t, elliptic.P384())) }, "/private_key", "P-256"},
		"no topic":       {func(u *providers.APNsUpload) { u.Topic = "" }, "/topic", "bundle id"},
		"spaces":         {func(u *providers.APNsUpload) { u.Topic = "com example" }, "/topic", "bundle id"},
		"header":         {func(u *providers.APNsUpload) { u.Topic = "com.example\r\nx: y" }, "/topic", "bundle id"},
		"voip":           {func(u *providers.APNsUpload) { u.Topic = "com.example.app.voip" }, "/topic", "leave out"},
		"long title":     {func(u *providers.APNsUpload) { u.Placeholder.Title = strings.Repeat("x", 999) }, "/placeholder/title /placeholder/body", "bytes"},
		"empty locale":   {func(u *providers.APNsUpload) { u.Placeholder.Locales = map[string]providers.Text{"de": {}} }, "/placeholder/locales/de/body", "needs a body"},
		"strange locale": {func(u *providers.APNsUpload) { u.Placeholder.Locales = map[string]providers.Text{"d/e": {Body: "x"}} }, "/placeholder/locales", "tag"},
		"both":           {func(u *providers.APNsUpload) { u.Certificate, u.CertificateKey = cert, certKey }, "", "one of three"},
		"half a pair":    {onlyCertificate(cert, ""), "/certificate_key", "not PEM"},
		"other half":     {onlyCertificate("", certKey), "/certificate", "not PEM"},
		"mismatch":       {onlyCertificate(cert, oldKey), "/certificate_key", "belong"},
		"expired":        {onlyCertificate(oldCert, oldKey), "/certificate", "ran out"},
		"too early":      {onlyCertificate(soonCert, soonKey), "/certificate", "clock"},
	} {
		u := upload(t)
		tt.change(&u)
		checked, err := Check(u, now)
		pointers, said := problems(t, err)
		if pointers != tt.pointers || !strings.Contains(said, tt.says) || checked.Secret != nil {
			t.Errorf("%s: points at %q (want %q) and says %q (want %q in it)", name, pointers, tt.pointers, said, tt.says)
		}
		if secret := u.PrivateKey; len(secret) > 60 && strings.Contains(err.Error()+said, secret[30:50]) {
			t.Errorf("%s: the error repeats the key", name)
		}
	}
}

func onlyCertificate(cert, key string) func(*providers.APNsUpload) {
	return func(u *providers.APNsUpload) {
		*u = providers.APNsUpload{Certificate: cert, CertificateKey: key, Topic: u.Topic}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	checked, err := Check(upload(t), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range []string{"api.push.apple.com", "http://127.0.0.1:1", "https://host/path", "https://user@host", "https://host?x=1", "ftp://host", "https://"} {
		if _, err := New(checked.Secret, false, Options{Endpoint: endpoint}); err == nil {
			t.Errorf("endpoint %q was taken", endpoint)
		}
	}
	for _, bad := range []string{``, `{}`, `null`, `{"topic":"a"}`, `{"topic":"a","certificate":"x","certificate_key":"y"}`} {
		if _, err := New([]byte(bad), false, Options{}); err == nil {
			t.Errorf("secret %q was taken", bad)
		}
	}
}

// FuzzCheck looks for an upload that panics, and for one that is taken and then does not work.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"team_id":"TEAM000001","key_id":"KEY0000001","private_key":"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----","topic":"a"}`))
	f.Add([]byte(`{"certificate":"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----","certificate_key":"x","topic":"a"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var u providers.APNsUpload
		if json.Unmarshal(body, &u) != nil {
			return
		}
		if checked, err := Check(u, now); err == nil {
			if _, err := New(checked.Secret, false, Options{}); err != nil {
				t.Error(err)
			}
		}
	})
}
