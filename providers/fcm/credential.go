package fcm

import (
	"crypto/rsa"
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

// secret is the sealed form of a service account: all that New needs, and no
// address. Where requests go is the operator's choice, not the tenant's.
type secret struct {
	ProjectID    string `json:"project_id"`
	ClientEmail  string `json:"client_email"`
	PrivateKeyID string `json:"private_key_id"`
	PrivateKey   string `json:"private_key"`
	// Placeholder is left out if there is none, so that the fingerprint of a key alone stays what it was.
	Placeholder *providers.Placeholder `json:"placeholder,omitempty"`
}

// public is what may be shown of it.
type public struct {
	ProjectID   string                 `json:"project_id"`
	ClientEmail string                 `json:"client_email"`
	Placeholder *providers.Placeholder `json:"placeholder,omitempty"`
}

// upload is the file as Google hands it out, and enough of other files to tell
// which one was sent instead. Everything else in it is ignored, token_uri above all.
type upload struct {
	ProjectID    string          `json:"project_id"`
	ClientEmail  string          `json:"client_email"`
	PrivateKeyID string          `json:"private_key_id"`
	PrivateKey   string          `json:"private_key"`
	Type         string          `json:"type"`
	ProjectInfo  json.RawMessage `json:"project_info"`
}

// Check examines the JSON key file of a service account. The time is not
// looked at: such keys carry no end. public is JSON that may be shown, secret is JSON to be sealed and
// given to New, fingerprint changes when, and only when, the secret does. The error is
// a *fault.Error of kind Invalid and code invalid_credential that points at every wrong
// field below /service_account and /placeholder, says how to put it right and repeats nothing of a key.
func Check(up providers.FCMUpload, _ time.Time) (providers.Checked, error) {
	var u upload
	if json.Unmarshal(up.ServiceAccount, &u) != nil {
		return providers.Checked{}, invalid().At("/service_account", "send the JSON key file of a service account as an object, with every value as Google wrote it")
	}
	if problem := u.check(up.Placeholder); problem != nil {
		return providers.Checked{}, problem
	}
	var placeholder *providers.Placeholder
	if !up.Placeholder.Empty() {
		placeholder = &up.Placeholder
	}
	sealed, err := json.Marshal(secret{
		ProjectID: u.ProjectID, ClientEmail: u.ClientEmail, PrivateKeyID: u.PrivateKeyID, PrivateKey: u.PrivateKey, Placeholder: placeholder,
	})
	if err != nil {
		return providers.Checked{}, fmt.Errorf("encode the FCM credential: %w", err)
	}
	shown, err := json.Marshal(public{ProjectID: u.ProjectID, ClientEmail: u.ClientEmail, Placeholder: placeholder})
	if err != nil {
		return providers.Checked{}, fmt.Errorf("encode the public half of the FCM credential: %w", err)
	}
	sum := sha256.Sum256(sealed)
	return providers.Checked{Public: shown, Secret: sealed, Fingerprint: hex.EncodeToString(sum[:16])}, nil
}

func openSecret(sealed []byte) (secret, error) {
	var s secret
	if json.Unmarshal(sealed, &s) != nil || s.ProjectID == "" || parseKey(s.PrivateKey) != "" {
		return secret{}, errors.New("the stored FCM credential cannot be used")
	}
	return s, nil
}

func invalid() *fault.Error { return providers.InvalidCredential("FCM") }

var (
	projectID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.:-]{1,62}$`)
	email     = regexp.MustCompile(`^[^\s@]{1,128}@[^\s@]{1,190}$`)
	keyID     = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)
)

const where = "; make the file under Project settings, Service accounts, Generate new private key in the Firebase console"

// check returns nil, or a fault with a pointer to all that is wrong.
func (u upload) check(placeholder providers.Placeholder) error {
	switch {
	case u.Type == "service_account":
	case len(u.ProjectInfo) > 0:
		return invalid().At("/service_account", "that is the app's google-services.json, which holds no key"+where)
	default:
		return invalid().At("/service_account/type", `only keys of the type "service_account" are taken`+where)
	}
	var problem *fault.Error
	at := func(pointer, detail string) {
		if problem == nil {
			problem = invalid()
		}
		problem = problem.At(pointer, detail)
	}
	wrong := func(field, detail string) { at("/service_account/"+field, detail) }
	if !projectID.MatchString(u.ProjectID) {
		wrong("project_id", "the project id is missing or no project id"+where)
	}
	if !email.MatchString(u.ClientEmail) {
		wrong("client_email", "the service account's e-mail address is missing or no address"+where)
	}
	if !keyID.MatchString(u.PrivateKeyID) {
		wrong("private_key_id", "the key's id is missing or no key id"+where)
	}
	if detail := parseKey(u.PrivateKey); detail != "" {
		wrong("private_key", detail)
	}
	placeholder.Check(at)
	if problem == nil {
		return nil
	}
	return problem
}

// A signature takes time with the third power of a key's length, and nothing can stop it half way: one of 64,000 bits
// would keep a processor busy for minutes.
const (
	maxKeyBits = 8192
	// maxKeyText is how long such a key is as PEM at most, in bytes, with room for strange line breaks.
	maxKeyText = 16 << 10
)

// parseKey says what is wrong with a private key; empty if nothing is.
func parseKey(text string) (problem string) {
	const cure = "; send the file as Google wrote it" + where
	if strings.TrimSpace(text) == "" {
		return "the private key is missing" + where
	}
	const tooLong = "the private key is too long to sign with: Google's have 2048 bits"
	if len(text) > maxKeyText {
		return tooLong + cure // reading it alone would take seconds
	}
	block, _ := pem.Decode([]byte(text))
	switch {
	case block == nil && strings.Contains(text, `\n`):
		return `the line breaks of the private key were escaped twice: it holds the two characters \ and n` + cure
	case block == nil:
		return "the private key is not PEM" + cure
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if err != nil {
		return "the private key is damaged" + cure
	}
	private, ok := key.(*rsa.PrivateKey)
	switch {
	case !ok:
		return "the private key is of the wrong sort: Google's are RSA" + cure
	case private.N.BitLen() > maxKeyBits:
		return tooLong + cure
	}
	return ""
}
