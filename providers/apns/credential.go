package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"rouse/fault"
	"rouse/providers"
)

// secret is the sealed form of a credential: all that New needs.
type secret struct {
	TeamID         string                `json:"team_id,omitempty"`
	KeyID          string                `json:"key_id,omitempty"`
	PrivateKey     string                `json:"private_key,omitempty"`
	Certificate    string                `json:"certificate,omitempty"`
	CertificateKey string                `json:"certificate_key,omitempty"`
	Topic          string                `json:"topic"`
	Placeholder    providers.Placeholder `json:"placeholder"`
}

// public is what may be shown of a credential.
type public struct {
	TeamID               string                 `json:"team_id,omitempty"`
	KeyID                string                 `json:"key_id,omitempty"`
	CertificateExpiresAt *time.Time             `json:"certificate_expires_at,omitempty"`
	Topic                string                 `json:"topic"`
	Placeholder          *providers.Placeholder `json:"placeholder,omitempty"`
}

// Check examines an upload at the time now. public is JSON that may be shown,
// secret is JSON to be sealed and given to New, fingerprint changes when, and only when,
// the secret does. The error is a *fault.Error of kind Invalid and code
// invalid_credential that points at every wrong field, says how to put it right and
// repeats nothing of a key.
func Check(u providers.APNsUpload, now time.Time) (providers.Checked, error) {
	c := &checker{}
	out := public{Topic: u.Topic}
	switch {
	case u.Certificate != "" || u.CertificateKey != "":
		out.CertificateExpiresAt = c.certificate(u, now)
	default:
		out.TeamID, out.KeyID = u.TeamID, u.KeyID
		c.signingKey(u)
	}
	c.topic(u.Topic)
	c.placeholder(u.Placeholder)
	if c.fault != nil {
		return providers.Checked{}, c.fault
	}
	if u.Placeholder.Title != "" || u.Placeholder.Body != "" || len(u.Placeholder.Locales) > 0 {
		out.Placeholder = &u.Placeholder
	}
	sealed, err := json.Marshal(secret{TeamID: u.TeamID, KeyID: u.KeyID, PrivateKey: u.PrivateKey, Certificate: u.Certificate, CertificateKey: u.CertificateKey, Topic: u.Topic, Placeholder: u.Placeholder})
	if err != nil {
		return providers.Checked{}, fmt.Errorf("encode the APNs credential: %w", err)
	}
	shown, err := json.Marshal(out)
	if err != nil {
		return providers.Checked{}, fmt.Errorf("encode the public half of the APNs credential: %w", err)
	}
	sum := sha256.Sum256(sealed)
	checked := providers.Checked{Public: shown, Secret: sealed, Fingerprint: hex.EncodeToString(sum[:16])}
	if out.CertificateExpiresAt != nil {
		checked.ExpiresAt = *out.CertificateExpiresAt
	}
	return checked, nil
}

func openSecret(sealed []byte) (secret, error) {
	var s secret
	if json.Unmarshal(sealed, &s) != nil || s.Topic == "" {
		return secret{}, errors.New("the stored APNs credential cannot be read")
	}
	return s, nil
}

// checker gathers everything that is wrong.
type checker struct{ fault *fault.Error }

func (c *checker) wrong(pointer, format string, args ...any) {
	if c.fault == nil {
		c.fault = fault.New(fault.Invalid, "invalid_credential", "the APNs credential cannot be used; see errors for what to put right")
	}
	c.fault = c.fault.At(pointer, fmt.Sprintf(format, args...))
}

var tenCharacters = regexp.MustCompile(`^[A-Z0-9]{10}$`)

func (c *checker) signingKey(u providers.APNsUpload) {
	const swapped = "; team id and key id look alike, so check that they were not swapped"
	if !tenCharacters.MatchString(u.TeamID) {
		c.wrong("/team_id", "a team id is 10 characters of A-Z and 0-9, shown under Membership details in the Apple developer account"+swapped)
	}
	if !tenCharacters.MatchString(u.KeyID) {
		c.wrong("/key_id", "a key id is 10 characters of A-Z and 0-9, the ones in the name of the file AuthKey_XXXXXXXXXX.p8"+swapped)
	}
	if u.TeamID != "" && u.TeamID == u.KeyID {
		c.wrong("/key_id", "team id and key id are the same; the key id is the one in the name of the file AuthKey_XXXXXXXXXX.p8")
	}
	if _, problem := parseSigningKey(u.PrivateKey); problem != "" {
		c.wrong("/private_key", "%s", problem)
	}
}

// parseSigningKey reads the contents of a .p8 file; problem says what to do
// about it if it cannot be used.
func parseSigningKey(text string) (key *ecdsa.PrivateKey, problem string) {
	const cure = "; send the whole contents of the file AuthKey_XXXXXXXXXX.p8, from -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----"
	if strings.TrimSpace(text) == "" {
		return nil, "the private key is missing" + cure
	}
	block, _ := pem.Decode([]byte(text))
	switch {
	case block == nil && strings.Contains(text, `\n`):
		return nil, `the line breaks of the private key arrived as the two characters \ and n` + cure
	case block == nil:
		return nil, "the private key is not PEM" + cure
	case block.Type == "EC PRIVATE KEY":
		return nil, "the private key is in the older EC form; convert it with openssl pkcs8 -topk8 -nocrypt"
	case block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, "the private key is protected by a passphrase; remove it with openssl pkcs8"
	case block.Type != "PRIVATE KEY":
		return nil, "that PEM block is not a private key" + cure
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, "the private key is damaged" + cure
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, "the private key is of the wrong sort: Apple's push keys are EC P-256" + cure
	}
	return key, ""
}

func (c *checker) certificate(u providers.APNsUpload, now time.Time) (until *time.Time) {
	if u.TeamID != "" || u.KeyID != "" || u.PrivateKey != "" {
		c.wrong("", "send either team_id, key_id and private_key, or certificate and certificate_key, not both")
	}
	leaf := parseLeaf(u.Certificate)
	if leaf == nil {
		c.wrong("/certificate", "the certificate is not PEM that holds a certificate; export it from the keychain and convert it with openssl pkcs12 -nokeys")
	}
	if block, _ := pem.Decode([]byte(u.CertificateKey)); block == nil {
		c.wrong("/certificate_key", "the certificate's key is not PEM; convert it with openssl pkcs12 -nocerts -nodes")
		return nil
	}
	if leaf == nil {
		return nil
	}
	if _, err := tls.X509KeyPair([]byte(u.Certificate), []byte(u.CertificateKey)); err != nil {
		c.wrong("/certificate_key", "the key does not belong to the certificate, or cannot be read; export both together and leave the key without a passphrase")
	}
	if now.After(leaf.NotAfter) {
		c.wrong("/certificate", "the certificate ran out on %s; make a new one in the Apple developer account", leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	if now.Before(leaf.NotBefore) {
		c.wrong("/certificate", "the certificate is not valid before %s; check the server's clock", leaf.NotBefore.UTC().Format(time.DateOnly))
	}
	end := leaf.NotAfter.UTC()
	return &end
}

// parseLeaf returns the first certificate of the PEM, nil if there is none.
func parseLeaf(text string) *x509.Certificate {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return leaf
}

const maxTopic = 155

var bundleID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*$`)

// foreignSuffix returns the end of a topic that belongs to a push type Rouse does not send, empty if there is none.
func foreignSuffix(topic string) string {
	for _, suffix := range []string{
		".voip", ".complication", ".pushkit.fileprovider", ".location-query",
		".push-type.liveactivity", ".voip-ptt", ".push-type.controls", ".push-type.widgets",
	} {
		if strings.HasSuffix(topic, suffix) {
			return suffix
		}
	}
	return ""
}

func (c *checker) topic(topic string) {
	if !bundleID.MatchString(topic) || len(topic) > maxTopic {
		c.wrong("/topic", "the topic is the app's bundle id, such as com.example.app: letters, digits, dots and hyphens, %d at most", maxTopic)
		return
	}
	if suffix := foreignSuffix(topic); suffix != "" {
		c.wrong("/topic", "leave out the suffix %s: Rouse sends alert and background pushes, whose topic is the bare bundle id", suffix)
	}
}

const (
	maxTitle   = 200
	maxBodyLen = 1000
	maxLocales = 100
)

var localeTag = regexp.MustCompile(`^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$`)

func (c *checker) placeholder(p providers.Placeholder) {
	c.text("/placeholder", p.Text)
	if p.Title != "" && p.Body == "" {
		c.wrong("/placeholder/body", "a placeholder with a title needs a body")
	}
	if len(p.Locales) > maxLocales {
		c.wrong("/placeholder/locales", "at most %d locales", maxLocales)
		return
	}
	for _, tag := range slices.Sorted(maps.Keys(p.Locales)) {
		text := p.Locales[tag]
		if !localeTag.MatchString(tag) || len(tag) > 35 {
			c.wrong("/placeholder/locales", "a locale is a tag such as de or pt-BR")
			continue
		}
		at := "/placeholder/locales/" + tag
		c.text(at, text)
		if text.Body == "" {
			c.wrong(at+"/body", "a placeholder needs a body")
		}
	}
}

func (c *checker) text(at string, t providers.Text) {
	if len(t.Title) > maxTitle {
		c.wrong(at+"/title", "at most %d bytes", maxTitle)
	}
	if len(t.Body) > maxBodyLen {
		c.wrong(at+"/body", "at most %d bytes", maxBodyLen)
	}
}
