package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
)

func TestAppleCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/apps/" + app.id + "/credentials"
	pemKey := signingKey(t)
	body := obj{
		"team_id": "ABCDE12345", "key_id": "KEY1234567", "private_key": pemKey, "topic": "com.example.bakery",
		"placeholder": obj{"body": "News", "locales": obj{"de": obj{"body": "Neues"}}},
	}
	first := w.do(call{"PUT", path + "/apns", adminKey, body, nil}).want(200)
	if first.text("provider") != "apns" || first.text("topic") != "com.example.bakery" || first.text("fingerprint") == "" || first.text("key_id") != "KEY1234567" {
		t.Errorf("got %s", first.body)
	}
	for _, line := range strings.Split(strings.TrimSpace(pemKey), "\n")[1:3] {
		if strings.Contains(string(first.body), line) || strings.Contains(w.log.String(), line) {
			t.Error("the private key came back, or is in the log")
		}
	}
	if h := w.heard.until(t, messages.HintCredential, 0); string(h.App) != app.id || h.Provider != "apns" {
		t.Errorf("hinted %+v", h)
	}
	again := w.do(call{"PUT", path + "/apns", adminKey, body, nil}).want(200)
	if again.text("fingerprint") != first.text("fingerprint") {
		t.Error("the same credential has another fingerprint")
	}
	w.heard.until(t, messages.HintCredential, 1) // the same again still closes the circuit
	list := w.do(call{"GET", path, adminKey, nil, nil}).want(200)
	if strings.Count(string(list.body), `"provider"`) != 1 || !strings.Contains(string(list.body), "Neues") {
		t.Errorf("got %s", list.body)
	}
	w.do(call{"DELETE", path + "/apns", adminKey, nil, nil}).want(204)
	w.do(call{"DELETE", path + "/apns", adminKey, nil, nil}).refused(404, "no_credential")
	w.do(call{"DELETE", path + "/fcm", adminKey, nil, nil}).refused(404, "no_credential")
	w.do(call{"DELETE", path + "/pigeon", adminKey, nil, nil}).refused(404, "not_found")
}

// putApple gives the app a signing key of its own.
func (w *world) putApple(app tenant) {
	w.t.Helper()
	body := obj{"team_id": "ABCDE12345", "key_id": "KEY1234567", "private_key": signingKey(w.t), "topic": "com.example.bakery"}
	w.do(call{"PUT", "/v1/apps/" + app.id + "/credentials/apns", adminKey, body, nil}).want(200)
}

// TestAppleCredentialHasOneForm: which is meant must not be a guess.
func TestAppleCredentialHasOneForm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	const canary = "c4n4ryc4n4ryc4n4ry"
	p12 := base64.StdEncoding.EncodeToString([]byte(canary))
	for name, c := range map[string]struct {
		body    obj
		pointer string
	}{
		"none":                     {obj{}, "/private_key"},
		"key and certificate":      {obj{"key_id": "KEY1234567", "certificate": canary}, ""},
		"key and file":             {obj{"private_key": canary, "certificate_p12": p12}, ""},
		"certificate and file":     {obj{"certificate_key": canary, "certificate_p12": p12, "certificate_password": canary}, ""},
		"password alone":           {obj{"certificate_password": canary}, "/certificate_password"},
		"password of a key":        {obj{"team_id": "ABCDE12345", "key_id": "KEY1234567", "private_key": canary, "certificate_password": canary}, "/certificate_password"},
		"password of a PEM":        {obj{"certificate": canary, "certificate_key": canary, "certificate_password": canary}, "/certificate_password"},
		"file in base64url":        {obj{"certificate_p12": "c4n4ryc4n4ryc4n4ry-_-_", "certificate_password": canary}, "/certificate_p12"},
		"file as it is":            {obj{"certificate_p12": "\x30\u0082" + canary, "certificate_password": canary}, "/certificate_p12"},
		"file of nothing":          {obj{"certificate_p12": "\r\n"}, "/certificate_p12"},
		"something else in a file": {obj{"certificate_p12": p12, "certificate_password": canary}, "/certificate_p12"},
	} {
		t.Run(name, func(t *testing.T) {
			c.body["topic"] = "com.example.bakery"
			a := w.do(call{"PUT", "/v1/apps/" + app.id + "/credentials/apns", adminKey, c.body, nil}).refused(422, "invalid_credential").points(c.pointer)
			if strings.Contains(string(a.body), canary) || strings.Contains(w.log.String(), canary) {
				t.Errorf("the canary sings: %s", a.body)
			}
		})
	}
	for pointer, value := range map[string]any{"/certificate_p12": strings.Repeat("A", 65537), "/certificate_password": strings.Repeat("x", 1025)} {
		body := obj{"topic": "com.example.bakery", "certificate_p12": p12, pointer[1:]: value}
		w.do(call{"PUT", "/v1/apps/" + app.id + "/credentials/apns", adminKey, body, nil}).refused(422, "invalid_body").points(pointer)
	}
}

// TestAppleCertificateInAFile: what Keychain Access exports is taken as it is, and nothing of it comes out again.
func TestAppleCertificateInAFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/apps/" + app.id + "/credentials"
	const password = "c4n4ry-p4ssw0rd"
	file, key, until := appleFile(t, password)
	body := obj{"certificate_p12": base64.StdEncoding.EncodeToString(file), "certificate_password": password, "topic": "com.example.bakery", "placeholder": obj{"body": "News"}}
	a := w.do(call{"PUT", path + "/apns", adminKey, body, nil}).want(200)
	var got struct {
		Topic, Fingerprint string
		Until              time.Time `json:"certificate_expires_at"`
		TeamID             *string   `json:"team_id"`
	}
	if a.decode(&got); got.Topic != "com.example.bakery" || got.Fingerprint == "" || !got.Until.Equal(until) || got.TeamID != nil {
		t.Errorf("got %s", a.body)
	}
	body["certificate_p12"] = breakLines(body["certificate_p12"].(string)) // as the command base64 writes it
	if again := w.do(call{"PUT", path + "/apns", adminKey, body, nil}).want(200); again.text("fingerprint") != got.Fingerprint {
		t.Error("the same file has another fingerprint")
	}
	list := w.do(call{"GET", path, adminKey, nil, nil}).want(200)
	body["certificate_password"] = password + "x"
	wrong := w.do(call{"PUT", path + "/apns", adminKey, body, nil}).refused(422, "invalid_credential").points("/certificate_password")
	for name, text := range map[string]string{"answer": string(a.body), "list": string(list.body), "refusal": string(wrong.body), "log": w.log.String(), "database": w.files()} {
		for _, secret := range []string{password, key, body["certificate_p12"].(string)[:60], base64.StdEncoding.EncodeToString(file)[100:160]} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s holds a secret: %.20s", name, secret)
			}
		}
	}
	if !strings.Contains(w.files(), got.Fingerprint) {
		t.Error("the search of the database finds nothing at all")
	}
}

// appleFile is a push certificate with its key as Keychain Access exports them, a part of the key as PEM has it, and the
// certificate's end.
func appleFile(t *testing.T, password string) (file []byte, keyPart string, until time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	until = time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Second)
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Apple Push Services: com.example.bakery"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if file, err = pkcs12.Modern.Encode(key, certificate, nil, password); err != nil {
		t.Fatal(err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return file, base64.StdEncoding.EncodeToString(plain)[64:120], until
}

// breakLines writes 76 characters a line.
func breakLines(text string) string {
	var out strings.Builder
	for part := range slices.Chunk([]byte(text), 76) {
		out.Write(part)
		out.WriteByte('\n')
	}
	return out.String()
}

// files is all that the database wrote, in one.
func (w *world) files() string {
	w.t.Helper()
	names, err := filepath.Glob(filepath.Join(w.db, "*"))
	if err != nil || len(names) == 0 {
		w.t.Fatalf("no files in %s: %v", w.db, err)
	}
	var all strings.Builder
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			w.t.Fatal(err)
		}
		all.Write(content)
	}
	return all.String()
}

// TestLongestCredentialFits: the largest file and a hundred languages, every letter escaped.
func TestLongestCredentialFits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	locales := obj{}
	for i := range 100 {
		locales[fmt.Sprintf("de-%03d", i)] = json.RawMessage(`{"title":"` + strings.Repeat(`\u043f`, 100) + `","body":"` + strings.Repeat(`\u043f`, 500) + `"}`)
	}
	body, err := json.Marshal(obj{"topic": "com.example.bakery", "certificate_p12": strings.Repeat("A", 65536), "placeholder": obj{"body": "x", "locales": locales}})
	if err != nil {
		t.Fatal(err)
	}
	path := "/v1/apps/" + app.id + "/credentials/"
	a := w.do(call{"PUT", path + "apns", adminKey, string(body), nil}).refused(422, "invalid_credential")
	if problem := a.problem().Errors; len(problem) != 1 || problem[0].Pointer != "/certificate_p12" {
		t.Errorf("got %s", a.body)
	}
	for _, provider := range []string{"apns", "fcm"} {
		w.do(call{"PUT", path + provider, adminKey, `{"x":"` + strings.Repeat("x", 512<<10) + `"}`, nil}).refused(413, "body_too_large")
	}
	w.do(call{"POST", "/v1/apps", adminKey, `{"name":"` + strings.Repeat("x", 128<<10) + `"}`, nil}).refused(413, "body_too_large")
}

// TestSwappedIDsAreRecognised: both are ten letters and digits, and only what was there before tells them apart.
func TestSwappedIDsAreRecognised(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	w.putApple(app)
	swapped := obj{"team_id": "KEY1234567", "key_id": "ABCDE12345", "private_key": signingKey(t), "topic": "com.example.bakery"}
	a := w.do(call{"PUT", "/v1/apps/" + app.id + "/credentials/apns", adminKey, swapped, nil}).refused(422, "invalid_credential").points("/team_id").points("/key_id")
	if !strings.Contains(string(a.body), "swapped") {
		t.Errorf("got %s", a.body)
	}
	w.do(call{"PUT", "/v1/apps/" + other.id + "/credentials/apns", adminKey, swapped, nil}).want(200) // as far as anybody can know
	w.do(call{"PUT", "/v1/apps/" + other.id + "/credentials/fcm", adminKey, obj{"service_account": account(t)}, nil}).want(200)
	// What Apple refuses is no measure of what is right.
	w.note(app, tokens.Circuit{
		Outlet: tokens.Outlet{Provider: tokens.APNs, Environment: tokens.Production}, State: tokens.CircuitOpen,
		Cause: tokens.CauseCredential, Reason: "InvalidProviderToken", OpenedAt: time.Now(), RetryAt: time.Now().Add(time.Hour),
	})
	w.do(call{"PUT", "/v1/apps/" + app.id + "/credentials/apns", adminKey, swapped, nil}).want(200)
	swapped["team_id"], swapped["key_id"] = "KEY1234567", "OTHERKEY12"
	w.do(call{"PUT", "/v1/apps/" + app.id + "/credentials/apns", adminKey, swapped, nil}).want(200)
}

// TestVerification: the answer has all that was found, and is good if nothing failed.
func TestVerification(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/apps/" + app.id + "/credentials/"
	type verification struct {
		OK     bool                `json:"ok"`
		Checks []providers.Finding `json:"checks"`
	}
	good := providers.Finding{Check: "fcm_access_token", Status: providers.FindingOK, Cause: "Google gives an access token."}
	odd := providers.Finding{Check: "apns_sandbox", Status: providers.FindingWarn, Reason: "BadEnvironmentKeyInToken", Cause: "The key is for production.", Cure: "Nothing, if no app is in development."}
	bad := providers.Finding{Check: "fcm_send", Status: providers.FindingFail, Reason: "SERVICE_DISABLED", Cause: "The interface is switched off.", Cure: "Switch it on."}
	for _, provider := range []string{"apns", "fcm"} {
		w.do(call{"POST", path + provider + "/verify", adminKey, nil, nil}).refused(404, "no_credential")
	}
	w.putApple(app)
	w.do(call{"PUT", path + "fcm", adminKey, obj{"service_account": account(t)}, nil}).want(200)
	hints := w.heard.count(messages.HintCredential)
	for _, provider := range []string{"apns", "fcm"} {
		for _, c := range []struct {
			found []providers.Finding
			ok    bool
		}{
			{[]providers.Finding{good}, true},
			{[]providers.Finding{good, odd}, true},
			{[]providers.Finding{good, bad, odd}, false},
			{[]providers.Finding{bad, good}, false},
			{nil, false},
		} {
			w.asked.found = c.found
			var v verification
			w.do(call{"POST", path + provider + "/verify", adminKey, nil, nil}).want(200).into(&v)
			if v.OK != c.ok || !slices.Equal(v.Checks, c.found) || v.Checks == nil {
				t.Errorf("found %+v, told %+v", c.found, v)
			}
			if w.asked.left <= 0 || w.asked.left > 15*time.Second {
				t.Errorf("it might take %v", w.asked.left)
			}
		}
	}
	if w.heard.count(messages.HintCredential) != hints {
		t.Error("asking made the worker look again")
	}
	for _, id := range []string{"app_00000000000000000000000000", "nonsense"} {
		w.do(call{"POST", "/v1/apps/" + id + "/credentials/apns/verify", adminKey, nil, nil}).refused(404, "app_not_found")
	}
	w.do(call{"POST", "/v1/apps/" + w.newApp().id + "/credentials/fcm/verify", adminKey, nil, nil}).refused(404, "no_credential")
}

func TestGoogleCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/apps/" + app.id + "/credentials"
	account := account(t)
	text := obj{"title": "Bakery", "body": "News", "locales": obj{"de": obj{"body": "Neues"}}}
	a := w.do(call{"PUT", path + "/fcm", adminKey, obj{"service_account": account, "placeholder": text}, nil}).want(200)
	if a.text("project_id") != "bakery-1234" || strings.Contains(string(a.body), "evil") {
		t.Errorf("got %s", a.body)
	}
	for _, want := range []string{`"Bakery"`, `"News"`, `"Neues"`} {
		if list := w.do(call{"GET", path, adminKey, nil, nil}).want(200); !strings.Contains(string(a.body), want) || !strings.Contains(string(list.body), want) {
			t.Errorf("the placeholder's %s is not shown: %s", want, a.body)
		}
	}
	w.do(call{"PUT", path + "/fcm", adminKey, obj{"service_account": account, "placeholder": obj{"title": "no body"}}, nil}).refused(422, "invalid_credential").points("/placeholder/body")
	w.do(call{"PUT", path + "/fcm", adminKey, obj{"service_account": account, "placeholder": obj{"text": "x"}}, nil}).refused(422, "invalid_body").points("/placeholder/text")
	account["type"] = "authorized_user"
	w.do(call{"PUT", path + "/fcm", adminKey, obj{"service_account": account}, nil}).refused(422, "invalid_credential")
	w.do(call{"PUT", path + "/fcm", adminKey, obj{"service_account": "{}"}, nil}).refused(422, "invalid_body").points("/service_account")
}

// account is a service account as Google hands it out, but for its token_uri.
func account(t testing.TB) obj {
	t.Helper()
	return obj{
		"type": "service_account", "project_id": "bakery-1234", "client_email": "rouse@bakery-1234.iam.gserviceaccount.com",
		"private_key_id": "0123456789abcdef", "private_key": rsaKey(t), "token_uri": "https://evil.example/token", "universe_domain": "googleapis.com",
	}
}

func rsaKey(t testing.TB) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestBadCredentialsAreExplainedAndNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/apps/" + app.id + "/credentials/apns"
	const canary = "c4n4ryc4n4ryc4n4ry"
	for name, body := range map[string]obj{
		"not PEM":        {"team_id": "ABCDE12345", "key_id": "KEY1234567", "private_key": canary, "topic": "com.example"},
		"nothing":        {"topic": "com.example"},
		"number":         {"private_key": 1, "key_id": canary, "topic": "com.example"},
		"unknown field":  {"topic": "com.example", "privat_key": canary},
		"key as a name":  {"topic": "com.example", "rouse_sk_" + canary: 1},
		"long name":      {"topic": "com.example", strings.Repeat("x", 50) + canary: 1},
		"bad cert":       {"topic": "com.example", "certificate": canary, "certificate_key": canary},
		"long team":      {"topic": "com.example", "team_id": canary + canary},
		"bad topic type": {"topic": obj{canary: canary}},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.do(call{"PUT", path, adminKey, body, nil}).want(422)
			if strings.Contains(string(a.body), canary) || strings.Contains(w.log.String(), canary) {
				t.Errorf("the canary sings: %s", a.body)
			}
			if len(a.problem().Errors) == 0 {
				t.Errorf("nothing is pointed at: %s", a.body)
			}
		})
	}
	w.do(call{"PUT", "/v1/apps/app_00000000000000000000000000/credentials/apns", adminKey,
		obj{"team_id": "ABCDE12345", "key_id": "KEY1234567", "private_key": signingKey(t), "topic": "com.example"}, nil}).refused(404, "app_not_found")
}
