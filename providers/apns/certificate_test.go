package apns

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/fault"
	"rouse/providers"
)

// p12Now lies in the validity of the files in testdata, which OpenSSL 3 made.
var p12Now = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)

func p12(t *testing.T, name, password string) providers.APNsUpload {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", name+".p12"))
	if err != nil {
		t.Fatal(err)
	}
	return providers.APNsUpload{P12: file, P12Password: password, Topic: "com.example.app"}
}

// TestP12 opens what OpenSSL 3 writes (AES-256, PBES2), what the keychain and OpenSSL 1 do (RC2, 3DES), and an empty password.
func TestP12(t *testing.T) {
	t.Parallel()
	for name, password := range map[string]string{"openssl3": "correct", "keychain": "correct", "nopassword": ""} {
		checked, err := Check(p12(t, name, password), p12Now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := `{"certificate_expires_at":"2126-10-30T02:26:42Z","topic":"com.example.app"}`; string(checked.Public) != want {
			t.Errorf("%s: public %s, want %s", name, checked.Public, want)
		}
		if checked.ExpiresAt.Year() != 2126 || strings.Contains(string(checked.Secret), "correct") {
			t.Errorf("%s: ends %v; the password is stored: %v", name, checked.ExpiresAt, strings.Contains(string(checked.Secret), "correct"))
		}
		var s secret
		if err := json.Unmarshal(checked.Secret, &s); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(s.Certificate, "BEGIN CERTIFICATE"); name == "openssl3" && n != 2 {
			t.Errorf("%d certificates, want the intermediate too", n)
		}
		c, err := New(checked.Secret, false, Options{})
		if err != nil {
			t.Fatalf("%s: New: %v", name, err)
		}
		_ = c.Close()
		// The same as PEM is the same credential.
		again, err := Check(providers.APNsUpload{Certificate: s.Certificate, CertificateKey: s.CertificateKey, Topic: "com.example.app"}, p12Now)
		if err != nil || again.Fingerprint != checked.Fingerprint {
			t.Errorf("%s: as PEM: %v, fingerprint %s, want %s", name, err, again.Fingerprint, checked.Fingerprint)
		}
	}
}

func TestP12Refused(t *testing.T) {
	t.Parallel()
	with := func(name, password string, change func(*providers.APNsUpload)) providers.APNsUpload {
		u := p12(t, name, password)
		change(&u)
		return u
	}
	for name, tt := range map[string]struct {
		upload         providers.APNsUpload
		pointers, says string
	}{
		"wrong password":       {p12(t, "openssl3", "secret-canary"), "/certificate_password", "does not open"},
		"no password":          {p12(t, "keychain", ""), "/certificate_password", "does not open"},
		"a password too many":  {p12(t, "nopassword", "secret-canary"), "/certificate_password", "does not open"},
		"strange password":     {p12(t, "keychain", "\U0001F600"), "/certificate_password", "does not open"},
		"no key":               {p12(t, "nokey", "correct"), "/certificate_p12", "no private key"},
		"no certificate":       {p12(t, "nocert", "correct"), "/certificate_p12", "no certificate"},
		"unknown cipher":       {p12(t, "camellia", "correct"), "/certificate_p12", "convert it"},
		"no file of that sort": {with("openssl3", "", func(u *providers.APNsUpload) { u.P12 = []byte("-----BEGIN CERTIFICATE-----") }), "/certificate_p12", "not a .p12"},
		"cut short":            {with("openssl3", "correct", func(u *providers.APNsUpload) { u.P12 = u.P12[:100] }), "/certificate_p12", "not a .p12"},
		"other app":            {with("openssl3", "correct", func(u *providers.APNsUpload) { u.Topic = "com.example.other" }), "/topic", "for com.example.app;"},
		"with a signing key":   {with("openssl3", "correct", func(u *providers.APNsUpload) { u.KeyID = "KEY0000001" }), "", "one of three"},
		"with a certificate":   {with("openssl3", "correct", func(u *providers.APNsUpload) { u.Certificate = "x" }), "", "one of three"},
		"bad topic as well":    {with("openssl3", "wrong", func(u *providers.APNsUpload) { u.Topic = "com example" }), "/certificate_password /topic", "bundle id"},
	} {
		checked, err := Check(tt.upload, p12Now)
		pointers, said := problems(t, err)
		if pointers != tt.pointers || !strings.Contains(said, tt.says) || checked.Secret != nil {
			t.Errorf("%s: points at %q (want %q) and says %q (want %q in it)", name, pointers, tt.pointers, said, tt.says)
		}
		if strings.Contains(said+err.Error(), "canary") {
			t.Errorf("%s: the error repeats the password", name)
		}
	}
}

// problems returns what a refusal points at and says.
func problems(t *testing.T, err error) (pointers, said string) {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.Invalid || f.Code != "invalid_credential" {
		t.Errorf("%v is no refusal of a credential", err)
		return "", ""
	}
	var at, details []string
	for _, field := range f.Fields {
		at, details = append(at, field.Pointer), append(details, field.Detail)
	}
	return strings.Join(at, " "), strings.Join(details, "; ")
}

// pushCertificate makes a certificate as Apple does: the bundle id as UID, and marks for the environments.
func pushCertificate(t *testing.T, uid string, marks ...asn1.ObjectIdentifier) providers.APNsUpload {
	t.Helper()
	private := newKey(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		Subject: pkix.Name{CommonName: "Apple Push Services", ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidUserID, Value: uid}}},
	}
	for _, mark := range marks {
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: mark, Value: asn1.NullBytes})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return providers.APNsUpload{Certificate: text, CertificateKey: pkcs8(t, private), Topic: "com.example.app"}
}

func TestCertificateSubject(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ uid, pointers, says string }{
		{"com.example.app", "", ""},
		{"com.example.other", "/topic", "for com.example.other;"},
		{"com.example.app.voip", "/certificate", ".voip alone"},
		{"<script>", "/topic", "for another app;"},
	} {
		_, err := Check(pushCertificate(t, tt.uid, oidDevelopment, oidProduction), now)
		if tt.pointers == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.uid, err)
			}
			continue
		}
		if pointers, said := problems(t, err); pointers != tt.pointers || !strings.Contains(said, tt.says) {
			t.Errorf("%s: points at %q and says %q, want %q and %q", tt.uid, pointers, said, tt.pointers, tt.says)
		}
	}
}

// TestKeyBeforeCertificate: openssl writes the key first if asked for both in one file.
// A signature with such a key would keep a processor busy for minutes, at each connection.
func TestCertificateWithALongKey(t *testing.T) {
	t.Parallel()
	signer := newKey(t, elliptic.P256())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	long := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(3), maxKeyBits), E: 65537}
	long.N.SetBit(long.N, 0, 1)
	der, err := x509.CreateCertificate(rand.Reader, template, template, long, signer)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	_, err = Check(providers.APNsUpload{Certificate: text, CertificateKey: pkcs8(t, signer), Topic: "com.example.app"}, now)
	if pointers, says := problems(t, err); pointers != "/certificate" || !strings.Contains(says, "too long") {
		t.Errorf("points at %q and says %q", pointers, says)
	}
}

func TestKeyBeforeCertificate(t *testing.T) {
	t.Parallel()
	u := pushCertificate(t, "com.example.app")
	u.Certificate = u.CertificateKey + u.Certificate
	if _, err := Check(u, now); err != nil {
		t.Error(err)
	}
}

func TestCertificateOfOneEnvironment(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		marks []asn1.ObjectIdentifier
		want  string
	}{
		"both":        {[]asn1.ObjectIdentifier{oidDevelopment, oidProduction}, ""},
		"neither":     {nil, ""},
		"development": {[]asn1.ObjectIdentifier{oidDevelopment}, "sandbox"},
		"production":  {[]asn1.ObjectIdentifier{oidProduction}, "production"},
	} {
		checked, err := Check(pushCertificate(t, "com.example.app", tt.marks...), now)
		if err != nil {
			t.Fatal(err)
		}
		var shown public
		if err := json.Unmarshal(checked.Public, &shown); err != nil || shown.CertificateEnvironment != tt.want {
			t.Errorf("%s: %q, want %q (%v)", name, shown.CertificateEnvironment, tt.want, err)
		}
	}
}

// TestSwappedIDs: nothing in the two ids tells which is which, but the credential before them does.
func TestSwappedIDs(t *testing.T) {
	t.Parallel()
	u := upload(t)
	for _, tt := range []struct {
		team, key string
		swapped   bool
	}{
		{u.KeyID, u.TeamID, true},
		{u.KeyID, "KEY0000009", true}, // the team stays, the key is new, and both are in the wrong place
		{u.TeamID, u.KeyID, false},
		{u.TeamID, "KEY0000009", false},
		{"KEY0000009", u.TeamID, false}, // the stored ones were swapped, and the new ones are not
		{"", "", false},
	} {
		u.ReplacedTeamID, u.ReplacedKeyID = tt.team, tt.key
		_, err := Check(u, now)
		if !tt.swapped {
			if err != nil {
				t.Errorf("after %s %s: %v", tt.team, tt.key, err)
			}
			continue
		}
		if pointers, said := problems(t, err); pointers != "/team_id /key_id" || strings.Count(said, "swapped") != 2 {
			t.Errorf("after %s %s: points at %q and says %q", tt.team, tt.key, pointers, said)
		}
	}
}
