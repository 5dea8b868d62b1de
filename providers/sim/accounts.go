package sim

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// serviceAccount is the file Google's console hands out.
type serviceAccount struct {
	Type           string `json:"type"`
	ProjectID      string `json:"project_id"`
	PrivateKeyID   string `json:"private_key_id"`
	PrivateKey     string `json:"private_key"`
	ClientEmail    string `json:"client_email"`
	ClientID       string `json:"client_id"`
	AuthURI        string `json:"auth_uri"`
	TokenURI       string `json:"token_uri"`
	CertURL        string `json:"auth_provider_x509_cert_url"`
	ClientCertURL  string `json:"client_x509_cert_url"`
	UniverseDomain string `json:"universe_domain"`
}

// NewServiceAccount makes a service account of the project, registers it and
// returns its JSON file with a fresh 2048-bit RSA key. The project exists from
// now on. A project may have several accounts.
func (s *Sim) NewServiceAccount(project string) (file []byte) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic("sim: " + err.Error()) // only where the system has no randomness
	}
	a := &account{
		project: project, public: &key.PublicKey, keyID: hex.EncodeToString(randomBytes(20)),
		email: fmt.Sprintf("push-%s@%s.iam.gserviceaccount.com", hex.EncodeToString(randomBytes(3)), project),
	}
	s.accounts.add(a)
	base := "https://" + reach(s.fcm)
	file, err = json.MarshalIndent(serviceAccount{
		Type: "service_account", ProjectID: project, PrivateKeyID: a.keyID, PrivateKey: privatePEM(key),
		ClientEmail: a.email, ClientID: fmt.Sprintf("1%020d", time.Now().UnixNano()),
		AuthURI: base + "/auth", TokenURI: s.FCMTokenURL(), CertURL: base + "/certs", ClientCertURL: base + "/certs/" + a.email,
		UniverseDomain: "googleapis.com",
	}, "", "  ")
	if err != nil {
		panic("sim: " + err.Error()) // a struct of strings can be written
	}
	return file
}

// NewAccessToken hands out an access token of the project, which exists from now on:
// for whoever has no assertion to trade for one.
func (s *Sim) NewAccessToken(project string) string {
	return s.accounts.open(project, time.Now(), s.settings.Load().AccessTokenLife)
}

// RevokeAccessTokens makes every access token handed out so far invalid: FCM
// answers 401 UNAUTHENTICATED until the client has fetched a new one.
func (s *Sim) RevokeAccessTokens() { s.accounts.revoke() }

// RevokeServiceAccount makes an account unknown: the token endpoint answers
// invalid_grant from now on. Access tokens handed out before stay good. It reports
// whether the account was known.
func (s *Sim) RevokeServiceAccount(email string) bool { return s.accounts.remove(email) }

// account is the public half of a service account.
type account struct {
	project, email, keyID string
	public                *rsa.PublicKey
}

// grant is an access token handed out.
type grant struct {
	project string
	expires time.Time
}

// accountBook holds the service accounts by e-mail address, the projects they
// belong to, and the access tokens handed out.
type accountBook struct {
	mu       sync.Mutex
	accounts map[string]*account
	projects map[string]bool
	grants   map[string]grant
}

func newAccountBook() *accountBook {
	return &accountBook{accounts: map[string]*account{}, projects: map[string]bool{}, grants: map[string]grant{}}
}

func (b *accountBook) add(a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts[a.email] = a
	b.projects[a.project] = true
}

func (b *accountBook) remove(email string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, known := b.accounts[email]
	delete(b.accounts, email)
	return known
}

func (b *accountBook) get(email string) *account {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.accounts[email]
}

func (b *accountBook) exists(project string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.projects[project]
}

// open makes the project exist, and an access token of it.
func (b *accountBook) open(project string, now time.Time, life time.Duration) string {
	b.mu.Lock()
	b.projects[project] = true
	b.mu.Unlock()
	return b.issue(project, now, life)
}

// issue makes an access token; those that have expired are forgotten on the way.
func (b *accountBook) issue(project string, now time.Time, life time.Duration) string {
	token := "ya29.fake-" + hex.EncodeToString(randomBytes(16))
	b.mu.Lock()
	defer b.mu.Unlock()
	for old, g := range b.grants {
		if !now.Before(g.expires) {
			delete(b.grants, old)
		}
	}
	b.grants[token] = grant{project: project, expires: now.Add(life)}
	return token
}

// spend returns the project of a live access token.
func (b *accountBook) spend(token string, now time.Time) (project string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g, ok := b.grants[token]
	return g.project, ok && now.Before(g.expires)
}

func (b *accountBook) revoke() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.grants)
}
