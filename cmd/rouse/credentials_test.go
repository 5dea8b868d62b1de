package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rouse/client"
	"rouse/providers/sim"
)

// adminEnv is the environment of somebody who administers the rig's server.
func (r *rig) adminEnv(more ...string) []string {
	return append([]string{"ROUSE_URL=" + r.child.at.api, "ROUSE_ADMIN_KEY=" + r.admin, "ROUSE_SECRET_KEY=" + r.app.SecretKey}, more...)
}

// file writes a file of the test's own.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestMistakesWithAppleCredentials are told before anything is sent.
func TestMistakesWithAppleCredentials(t *testing.T) {
	t.Parallel()
	const key, team = "ABCDEF1234", "TEAM567890"
	named, plain := file(t, "AuthKey_"+key+".p8", []byte("secret words")), file(t, "key.p8", []byte("secret words"))
	for name, c := range map[string]struct {
		words []string
		want  string
	}{
		"nothing":                 {nil, "say with what"},
		"ids alone":               {[]string{"--key-id", key, "--team-id", team}, "say with what"},
		"no team":                 {[]string{"--key", named}, "--team-id is needed"},
		"no key id anywhere":      {[]string{"--key", plain, "--team-id", team}, "--key-id is needed"},
		"swapped":                 {[]string{"--key", named, "--team-id", key, "--key-id", team}, "swapped: by the name of the file, " + key + " is the key's id; say --key-id " + key + " --team-id " + team},
		"key id as team":          {[]string{"--key", named, "--team-id", key}, "--team-id is the key's id"},
		"key id as both":          {[]string{"--key", named, "--team-id", key, "--key-id", key}, "--team-id is the key's id"},
		"key and certificate":     {[]string{"--key", named, "--team-id", team, "--certificate", plain, "--certificate-key", plain}, "--key"},
		"key and file":            {[]string{"--key", named, "--team-id", team, "--p12", plain}, "--key"},
		"certificate without key": {[]string{"--certificate", plain}, "--certificate-key"},
		"certificate's key alone": {[]string{"--certificate-key", plain}, "--certificate"},
		"certificate with a team": {[]string{"--certificate", plain, "--certificate-key", plain, "--team-id", team}, "a certificate has neither"},
		"file with a key id":      {[]string{"--p12", plain, "--key-id", key}, "a certificate has neither"},
		"file that is not there":  {[]string{"--p12", plain + ".p12"}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			env := []string{"ROUSE_URL=http://127.0.0.1:1", "ROUSE_ADMIN_KEY=admin"}
			words := append([]string{"credentials", "put", "apns", "app_1", "--topic", "com.example.bakery"}, c.words...)
			code, out := command(t, env, words...)
			if code != exitUsage || !strings.Contains(out, c.want) || strings.Contains(out, "secret words") {
				t.Errorf("exit %d\n%s", code, out)
			}
		})
	}
}

// TestCredentialsOfAnApp: the key's id comes from the file, under the older name of the flag too, and the server's word on a swap comes through.
func TestCredentialsOfAnApp(t *testing.T) {
	t.Parallel()
	onEngines(t, testCredentialsOfAnApp)
}

func testCredentialsOfAnApp(t *testing.T, on engine) {
	r := newRigOn(t, on)
	env := r.adminEnv()
	const team, key = "BAKERY0001", "BAKERKEY01"
	path := file(t, "AuthKey_"+key+".p8", []byte(r.sim.NewAPNsKey(team, key, demoTopic)))
	for _, flag := range []string{"--key", "--key-file"} {
		var put client.Credential
		out := mustCommand(t, env, "credentials", "put", "apns", r.app.Id, flag, path, "--team-id", team, "--topic", demoTopic, "--placeholder", "Fresh bread", "-o", "json")
		if err := json.Unmarshal([]byte(out), &put); err != nil || *put.KeyId != key || *put.TeamId != team || *put.Placeholder.Body != "Fresh bread" {
			t.Errorf("%v in\n%s", err, out)
		}
	}
	plain := file(t, "key.p8", []byte(r.sim.NewAPNsKey(team, key, demoTopic)))
	code, out := command(t, env, "credentials", "put", "apns", r.app.Id, "--key", plain, "--team-id", key, "--key-id", team, "--topic", demoTopic)
	if code != exitFailed || !strings.Contains(out, "swapped") {
		t.Errorf("swapped ids: exit %d\n%s", code, out)
	}
	account := file(t, "account.json", r.sim.NewServiceAccount(demoProject))
	out = mustCommand(t, env, "credentials", "put", "fcm", r.app.Id, "--service-account", account, "--placeholder", "Fresh bread", "-o", "json")
	var put client.Credential
	if err := json.Unmarshal([]byte(out), &put); err != nil || put.Placeholder == nil || *put.Placeholder.Body != "Fresh bread" {
		t.Errorf("%v in\n%s", err, out)
	}
	out = mustCommand(t, env, "credentials", "list", r.app.Id)
	if strings.Count(out, "has no end") != 2 || strings.Count(out, "works, as far as is known") != 2 {
		t.Errorf("credentials list said:\n%s", out)
	}
}

// TestCertificateFileAndItsPassword: the password comes from the environment, and is nowhere afterwards; Apple takes what was in
// the file, and a phone is woken with it.
func TestCertificateFileAndItsPassword(t *testing.T) {
	t.Parallel()
	onEngines(t, testCertificateFileAndItsPassword)
}

func testCertificateFileAndItsPassword(t *testing.T, on engine) {
	r := newRigOn(t, on)
	const password = "c4n4ry-p4ssw0rd"
	r.secret(password)
	made := r.sim.NewAPNsIdentity(sim.APNsCertificate{Topic: demoTopic, Environment: "sandbox", Password: password})
	put := []string{"credentials", "put", "apns", r.app.Id, "--p12", file(t, "push.p12", made.P12), "--topic", demoTopic}
	out := mustCommand(t, r.adminEnv("ROUSE_P12_PASSWORD="+password), put...)
	list := mustCommand(t, r.adminEnv(), "credentials", "list", r.app.Id)
	for _, text := range []string{out, list} {
		if !strings.Contains(text, "expires "+at(endOf(t, made.CertificatePEM))+", sandbox only") || strings.Contains(text, password) {
			t.Errorf("it says:\n%s", text)
		}
	}
	out = mustCommand(t, r.adminEnv(), "credentials", "verify", r.app.Id, "apns")
	if !strings.Contains(out, "ok    apns_sandbox") || !strings.Contains(out, "warn  apns_production") {
		t.Errorf("verify says:\n%s", out)
	}
	for _, wrong := range []string{"", password + "x"} {
		code, out := command(t, r.adminEnv("ROUSE_P12_PASSWORD="+wrong), put...)
		if code != exitFailed || !strings.Contains(out, "\n  /certificate_password ") || strings.Contains(out, password) || strings.Contains(out, "ROUSE_P12_PASSWORD") != (wrong == "") {
			t.Errorf("a wrong password: exit %d\n%s", code, out)
		}
	}
	help := mustCommand(t, r.adminEnv("ROUSE_P12_PASSWORD="+password), "credentials", "put", "apns", "--help")
	if strings.Contains(help, password) || !strings.Contains(help, "$ROUSE_P12_PASSWORD") {
		t.Errorf("the help says:\n%s", help)
	}
}

// endOf is when a certificate ends.
func endOf(t *testing.T, text string) time.Time {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf.NotAfter
}

// TestCertificateWakesAPhone: from two PEM files to the push.
func TestCertificateWakesAPhone(t *testing.T) {
	t.Parallel()
	onEngines(t, testCertificateWakesAPhone)
}

func testCertificateWakesAPhone(t *testing.T, on engine) {
	r := newRigOn(t, on)
	certificate, key := r.sim.NewAPNsCertificate(demoTopic)
	mustCommand(t, r.adminEnv(), "credentials", "put", "apns", r.app.Id, "--topic", demoTopic,
		"--certificate", file(t, "certificate.pem", []byte(certificate)), "--certificate-key", file(t, "key.pem", []byte(key)))
	p := r.enrol("phone", "apns")
	r.mustSend(p.device, `1`)
	if push := r.awaitPush(p, 0); push.Headers["apns-topic"] != demoTopic {
		t.Errorf("the push has the headers %v", push.Headers)
	}
	for _, x := range r.sim.Log() {
		if x.Headers["authorization"] != "" && x.Provider == sim.APNs {
			t.Error("a provider token was sent beside the certificate")
		}
	}
}

// TestVerifyTellsGoodFromBad by words, by JSON and by the exit code.
func TestVerifyTellsGoodFromBad(t *testing.T) {
	t.Parallel()
	onEngines(t, testVerifyTellsGoodFromBad)
}

func testVerifyTellsGoodFromBad(t *testing.T, on engine) {
	r := newRigOn(t, on)
	env := r.adminEnv()
	for _, provider := range []string{"apns", "fcm"} {
		out := mustCommand(t, env, "credentials", "verify", r.app.Id, provider)
		if !strings.Contains(out, "ok  "+provider+"_") || strings.Contains(out, "fail") {
			t.Errorf("a good one of %s:\n%s", provider, out)
		}
	}
	r.sim.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Reason: "InvalidProviderToken"}})
	r.sim.AddRule(sim.Rule{Provider: "token", Action: sim.Action{Reason: "invalid_grant"}})
	// Another key, so that no access token of before is at hand.
	account := file(t, "account.json", r.sim.NewServiceAccount(demoProject))
	mustCommand(t, env, "credentials", "put", "fcm", r.app.Id, "--service-account", account)
	for provider, reason := range map[string]string{"apns": "InvalidProviderToken", "fcm": "invalid_grant"} {
		code, out := command(t, env, "credentials", "verify", r.app.Id, provider)
		if code != exitFailed || !strings.Contains(out, "fail") || !strings.Contains(out, "("+reason+")") || !strings.Contains(out, "rouse: pushes cannot be sent with the "+provider+" credential") {
			t.Errorf("a bad one of %s: exit %d\n%s", provider, code, out)
		}
		code, out = command(t, env, "credentials", "verify", r.app.Id, provider, "-o", "json")
		var v client.CredentialVerification
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&v); err != nil || v.Ok || len(v.Checks) == 0 || code != exitFailed {
			t.Errorf("in JSON: exit %d, %v\n%s", code, err, out)
		}
	}
	mustCommand(t, env, "credentials", "delete", r.app.Id, "apns")
	if code, out := command(t, env, "credentials", "verify", r.app.Id, "apns"); code != exitFailed || !strings.Contains(out, "no_credential") {
		t.Errorf("none at all: exit %d\n%s", code, out)
	}
	if code, _ := command(t, env, "credentials", "verify", r.app.Id, "pigeon"); code != exitUsage {
		t.Errorf("of a pigeon: exit %d", code)
	}
}

// TestVerifyTellsTroubleFromARefusal: what nobody could be asked about may be good.
func TestVerifyTellsTroubleFromARefusal(t *testing.T) {
	t.Parallel()
	const path = "/v1/apps/app_1/credentials/apns/verify"
	check := func(reason string) string {
		return `{"check":"apns_production","status":"fail","reason":"` + reason + `","cause":"Something (` + reason + `).","cure":"Try again."}`
	}
	const unknown, bad = "Apple could not be asked about the apns credential of app_1", "pushes cannot be sent with the apns credential of app_1"
	for want, lists := range map[string][]string{
		unknown: {check("connect_failed"), check("http_503"), check("ServiceUnavailable") + "," + check("timeout")},
		bad:     {check("InvalidProviderToken"), check("http_404"), check("timeout") + "," + check("ids_swapped")},
	} {
		for _, checks := range lists {
			env := canned(t, map[string][]string{path: {`{"ok":false,"checks":[` + checks + `]}`}})
			code, out := command(t, env, "credentials", "verify", "app_1", "apns")
			if code != exitFailed || !strings.Contains(out, want) || strings.Count(out, "(") != strings.Count(checks, "(") {
				t.Errorf("%s: exit %d\n%s", checks, code, out)
			}
		}
	}
}

// TestAppByItsName: exactly, and only where one app alone has it.
func TestAppByItsName(t *testing.T) {
	t.Parallel()
	env := canned(t, map[string][]string{
		"/v1/apps":                   {`{"apps":[{"id":"app_1","name":"Bakery"},{"id":"app_2","name":"Twin"},{"id":"app_3","name":"Twin"}],"more":false}`},
		"/v1/apps/app_1/credentials": {`{"credentials":[]}`},
	})
	if out := mustCommand(t, env, "credentials", "list", "Bakery"); !strings.Contains(out, "no credentials") {
		t.Errorf("got\n%s", out)
	}
	for which, want := range map[string]string{"bakery": `no app with the id or the name "bakery"`, "Twin": "2 apps are named"} {
		if code, out := command(t, env, "credentials", "list", which); code == exitOK || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d\n%s", which, code, out)
		}
	}
}
