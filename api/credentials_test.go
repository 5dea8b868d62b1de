package api_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"rouse/messages"
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

func TestGoogleCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	path := "/v1/apps/" + app.id + "/credentials"
	account := obj{
		"type": "service_account", "project_id": "bakery-1234", "client_email": "rouse@bakery-1234.iam.gserviceaccount.com",
		"private_key_id": "0123456789abcdef", "private_key": rsaKey(t), "token_uri": "https://evil.example/token", "universe_domain": "googleapis.com",
	}
	a := w.do(call{"PUT", path + "/fcm", adminKey, obj{"service_account": account}, nil}).want(200)
	if a.text("project_id") != "bakery-1234" || strings.Contains(string(a.body), "evil") {
		t.Errorf("got %s", a.body)
	}
	account["type"] = "authorized_user"
	w.do(call{"PUT", path + "/fcm", adminKey, obj{"service_account": account}, nil}).refused(422, "invalid_credential")
	w.do(call{"PUT", path + "/fcm", adminKey, obj{"service_account": "{}"}, nil}).refused(422, "invalid_body").points("/service_account")
}

func rsaKey(t *testing.T) string {
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
