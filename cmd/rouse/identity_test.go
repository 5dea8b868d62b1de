package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"

	"rouse/client"
)

// keyFiles writes a private key, and its public half, in PEM.
func keyFiles(t *testing.T, key crypto.Signer) (private, public string) {
	t.Helper()
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	open, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "private.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})),
		file(t, "public.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: open}))
}

func must[T any](t *testing.T) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestUserTokensByCommand: what user-token signs with each kind of key logs a user in on a phone, until the key is taken away.
func TestUserTokensByCommand(t *testing.T) {
	t.Parallel()
	onEngines(t, testUserTokensByCommand)
}

func testUserTokensByCommand(t *testing.T, on engine) {
	r := newRigOn(t, on)
	env, app := r.adminEnv(), r.app.Id
	phone := r.enrol("phone", "none")
	says(t, mustCommand(t, env, "identity-keys", "list", app), "no identity keys")
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "a-secret-of-the-backend-that-nobody-else-has"
	r.secret(secret)
	shared := file(t, "secret", []byte(secret+"\n"))
	type form struct{ put, sign []string }
	forms := map[string]form{"HS256": {[]string{"--secret-file", shared}, []string{"--secret-file", shared}}}
	for name, key := range map[string]crypto.Signer{
		"EdDSA": ed,
		"ES256": must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		"RS256": must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048)),
	} {
		private, public := keyFiles(t, key)
		forms[name] = form{[]string{"--public-key", public}, []string{"--private-key", private}}
	}
	for name, f := range forms {
		out := mustCommand(t, env, append([]string{"identity-keys", "put", app, name}, f.put...)...)
		if says(t, out, name+"  "+name+"  "); strings.Contains(out, secret) {
			t.Errorf("the secret was printed:\n%s", out)
		}
		token := firstLine(mustCommand(t, nil, append([]string{"user-token", "ann-" + name, "--app", app, "--kid", name}, f.sign...)...))
		if _, err := answer[nothing](phone.api.BindOwnUser(t.Context(), client.UserToken{UserToken: token})); err != nil {
			t.Errorf("a token of %s: %v", name, err)
		}
		says(t, mustCommand(t, env, "users", "show", "ann-"+name), phone.device)
	}
	var keys []client.IdentityKey
	if bothWays(t, env, &keys, "identity-keys", "list", app); len(keys) != 4 {
		t.Errorf("the keys are %+v", keys)
	}
	mustCommand(t, env, "identity-keys", "delete", app, "HS256")
	token := firstLine(mustCommand(t, nil, "user-token", "ann", "--app", app, "--kid", "HS256", "--secret-file", shared))
	if _, err := answer[nothing](phone.api.BindOwnUser(t.Context(), client.UserToken{UserToken: token})); !hasStatus(err, http.StatusUnprocessableEntity) {
		t.Errorf("a token of a key that is gone: %v", err)
	}
	refuses(t, env, exitFailed, "identity_key_not_found", "identity-keys", "delete", app, "HS256")
	testModesByCommand(t, r, env)
}

// testModesByCommand: settings of apps and keys that a command makes are those that it shows.
func testModesByCommand(t *testing.T, r *rig, env []string) {
	t.Helper()
	var app client.App
	says(t, bothWays(t, env, &app, "apps", "show", r.app.Id), "inbox overflow  reject\n", "registration    open\n", "broadcast rate  2000 devices", "event types     *\n", "rate limit      off\n")
	out := mustCommand(t, env, "apps", "set", r.app.Id, "--name", "Bakery", "--inbox-overflow", "drop_oldest", "--registration", "token", "--broadcast-rate", "500",
		"--event-types", "message.acked,device.registered", "--rate-limit", "1000:5000")
	says(t, out, "Bakery", "drop_oldest", "token", "500 devices", "message.acked,device.registered", "1000:5000")
	says(t, mustCommand(t, env, "apps", "set", "Bakery", "--event-types", "none", "--rate-limit", "off"), "event types     none\n", "rate limit      off\n", "registration    token\n")
	mustCommand(t, env, "apps", "set", "Bakery", "--event-types", "all", "--registration", "open")
	refuses(t, env, exitUsage, "--rate-limit", "apps", "set", "Bakery", "--rate-limit", "many")
	refuses(t, env, exitUsage, "say what to change", "apps", "set", "Bakery")
	refuses(t, env, exitFailed, "--registration: must be open, token or server (422 invalid_body)", "apps", "set", "Bakery", "--registration", "closed")

	var made, next client.KeyCreated
	_, doc, _ := commandIn(t, env, "", "keys", "create", "Bakery", "--scopes", "topics,read", "--rate-limit", "5", "--name", "feed", "-o", "json")
	unmarshalOne(t, doc, &made)
	_, doc, _ = commandIn(t, env, "", "keys", "rotate", "Bakery", made.Id, "--overlap", "0s", "-o", "json")
	unmarshalOne(t, doc, &next)
	r.secret(made.Key, next.Key)
	theirs := []string{"ROUSE_URL=" + r.child.at.api}
	mustCommand(t, append(theirs, "ROUSE_SECRET_KEY="+next.Key), "topics", "list")
	refuses(t, append(theirs, "ROUSE_SECRET_KEY="+next.Key), exitFailed, "missing_scope", "devices", "list")
	refuses(t, append(theirs, "ROUSE_SECRET_KEY="+made.Key), exitFailed, "expired_key", "topics", "list")
	var keys []client.Key
	says(t, bothWays(t, env, &keys, "keys", "list", r.app.Id), "feed", "topics,read", "5:10", "LAST USED")
	mustCommand(t, env, "keys", "delete", r.app.Id, made.Id)
}

// TestKeysThatSignNothing are refused before anything is sent.
func TestKeysThatSignNothing(t *testing.T) {
	t.Parallel()
	p384, public384 := keyFiles(t, must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)))
	private, public := keyFiles(t, must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
	garbage, empty := file(t, "garbage", []byte("secret words\n")), file(t, "empty", nil)
	put, sign := []string{"identity-keys", "put", "app_1", "k"}, []string{"user-token", "ann", "--app", "app_1", "--kid", "k"}
	for want, words := range map[string][]string{
		"say with what: --public-key":  put,
		"that is a private key":        append(put, "--public-key", private),
		"no key in PEM":                append(put, "--public-key", garbage),
		"is empty":                     append(put, "--secret-file", empty),
		"of another kind":              append(put, "--public-key", public384),
		"say with what: --private-key": sign,
		"kind":                         append(sign, "--private-key", p384),
		"that is no private key":       append(sign, "--private-key", public),
		"--expires-in":                 append(sign, "--private-key", private, "--expires-in", "2h"),
	} {
		code, out := command(t, []string{"ROUSE_URL=http://127.0.0.1:1", "ROUSE_ADMIN_KEY=a"}, words...)
		if code != exitUsage || !strings.Contains(out, want) || strings.Contains(out, "secret words") {
			t.Errorf("%v: exit %d, want %q\n%s", words, code, want, out)
		}
	}
}
