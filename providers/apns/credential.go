package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
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
	TeamID               string     `json:"team_id,omitempty"`
	KeyID                string     `json:"key_id,omitempty"`
	CertificateExpiresAt *time.Time `json:"certificate_expires_at,omitempty"`
	// CertificateEnvironment is production or sandbox if the certificate is made for that one alone.
	CertificateEnvironment string                 `json:"certificate_environment,omitempty"`
	Topic                  string                 `json:"topic"`
	Placeholder            *providers.Placeholder `json:"placeholder,omitempty"`
}

// Check examines an upload at the time now: a signing key, a certificate as PEM, or one as a .p12 file, which is stored as
// PEM without its password. Public is JSON that may be shown, Secret is JSON to be sealed and given to New. The error
// is a *fault.Error of kind Invalid and code invalid_credential that points at every wrong field, says how to put it right
// and repeats nothing of a key or password.
func Check(u providers.APNsUpload, now time.Time) (providers.Checked, error) {
	c := &checker{}
	out, sealed := public{Topic: u.Topic}, secret{Topic: u.Topic, Placeholder: u.Placeholder}
	var until time.Time
	switch {
	case many(u):
		c.wrong("", "send one of three: team_id, key_id and private_key; certificate and certificate_key; certificate_p12")
	case u.Certificate != "" || u.CertificateKey != "" || len(u.P12) > 0:
		if p, ok := c.pair(u); ok {
			sealed.Certificate, sealed.CertificateKey = p.certificate, p.key
			until = out.ofCertificate(c.certificate(p, u.Topic, now))
		}
	default:
		out.TeamID, out.KeyID = u.TeamID, u.KeyID
		sealed.TeamID, sealed.KeyID, sealed.PrivateKey = u.TeamID, u.KeyID, u.PrivateKey
		c.signingKey(u)
	}
	c.topic(u.Topic)
	u.Placeholder.Check(func(pointer, detail string) { c.wrong(pointer, "%s", detail) })
	if c.fault != nil {
		return providers.Checked{}, c.fault
	}
	if !u.Placeholder.Empty() {
		out.Placeholder = &u.Placeholder
	}
	return seal(out, sealed, until)
}

// seal writes both halves down.
func seal(out public, s secret, until time.Time) (providers.Checked, error) {
	sealed, err := json.Marshal(s)
	if err != nil {
		return providers.Checked{}, fmt.Errorf("encode the APNs credential: %w", err)
	}
	shown, err := json.Marshal(out)
	if err != nil {
		return providers.Checked{}, fmt.Errorf("encode the public half of the APNs credential: %w", err)
	}
	sum := sha256.Sum256(sealed)
	return providers.Checked{Public: shown, Secret: sealed, Fingerprint: hex.EncodeToString(sum[:16]), ExpiresAt: until}, nil
}

// ofCertificate shows what a certificate says of itself, and returns its end.
func (p *public) ofCertificate(leaf *x509.Certificate) (until time.Time) {
	if leaf == nil {
		return time.Time{}
	}
	until = leaf.NotAfter.UTC()
	p.CertificateExpiresAt, p.CertificateEnvironment = &until, onlyIn(leaf)
	return until
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
		c.fault = providers.InvalidCredential("APNs")
	}
	c.fault = c.fault.At(pointer, fmt.Sprintf(format, args...))
}

var tenCharacters = regexp.MustCompile(`^[A-Z0-9]{10}$`)

func (c *checker) signingKey(u providers.APNsUpload) {
	const alike = "; team id and key id look alike, so check that they were not swapped"
	if !tenCharacters.MatchString(u.TeamID) {
		c.wrong("/team_id", "a team id is 10 characters of A-Z and 0-9, shown under Membership details in the Apple developer account"+alike)
	}
	if !tenCharacters.MatchString(u.KeyID) {
		c.wrong("/key_id", "a key id is 10 characters of A-Z and 0-9, the ones in the name of the file AuthKey_XXXXXXXXXX.p8"+alike)
	}
	switch {
	case u.TeamID != "" && u.TeamID == u.KeyID:
		c.wrong("/key_id", "team id and key id are the same; the key id is the one in the name of the file AuthKey_XXXXXXXXXX.p8")
	case u.KeyID != "" && u.KeyID == u.ReplacedTeamID:
		c.swapped(u)
	}
	if _, problem := parseSigningKey(u.PrivateKey); problem != "" {
		c.wrong("/private_key", "%s", problem)
	}
}

// swapped says that the two ids changed places: teams stay where keys change, so the team id of the credential before gives
// the mistake away, with the same key or a new one. Only a stored credential that was itself the wrong way round looks
// the same; the cure for that is in the sentence.
func (c *checker) swapped(u providers.APNsUpload) {
	cure := "; exchange them"
	if u.TeamID == u.ReplacedKeyID {
		cure += ", or, if it is the stored ones that are the wrong way round, delete that credential first"
	}
	c.wrong("/team_id", "team id and key id are swapped%s", cure)
	c.wrong("/key_id", "team id and key id are swapped: this is the team id of the credential it would replace%s", cure)
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
