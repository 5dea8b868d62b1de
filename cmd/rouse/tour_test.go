package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestDemoWorks(t *testing.T) {
	t.Parallel()
	out := mustCommand(t, nil, "demo")
	for _, want := range []string{"iPhone (APNs)", "Android (FCM)", "box (long poll)", "Android, 100 messages", "after a restart", "All of it worked"} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing about %q in:\n%s", want, out)
		}
	}
}

// world is rouse dev in this process, with the environment of its terminals.
type devWorld struct {
	t    *testing.T
	dir  string
	env  []string
	args []string
	dev  *running
}

func newDevWorld(t *testing.T, flags ...string) *devWorld {
	t.Helper()
	dir := t.TempDir()
	w := &devWorld{
		t: t, dir: dir, env: []string{"ROUSE_PROFILE=" + filepath.Join(dir, "profile.json")},
		args: []string{"dev", "--dir", filepath.Join(dir, "state"), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--sim-listen", "127.0.0.1:0"},
	}
	w.args = append(w.args, flags...)
	w.start()
	return w
}

func (w *devWorld) start() {
	w.t.Helper()
	w.dev = startCommand(w.t, w.env, w.args...)
	w.dev.says(w.t, `Ctrl-C stops`)
}

// app is the app that dev told of.
func (w *devWorld) app() string { return w.dev.says(w.t, `app +(app_\S+)`)[1] }

func TestThreeTerminals(t *testing.T) {
	t.Parallel()
	w := newDevWorld(t)
	phone := startCommand(t, w.env, "device")
	phone.says(t, `registered as (dev_\S+), provider fcm`)
	phone.says(t, `asleep; Ctrl-C`)

	sent := mustCommand(t, w.env, "send", "hello, phone")
	id := strings.Fields(sent)[0]
	phone.says(t, `woken: high push, \d+ bytes`)
	phone.says(t, id+`  \{"text":"hello, phone"\}  \(accepted -> push .* ms, push -> fetched .* ms, attempt 1\)`)
	phone.says(t, `1 fetched and acked`)

	told := mustCommand(t, w.env, "trace", id)
	for _, want := range []string{"accepted", "wake_sent", "by fcm, accepted", "fetched", "acked"} {
		if !strings.Contains(told, want) {
			t.Errorf("no %q in the trace:\n%s", want, told)
		}
	}
	var parsed traced
	if err := json.Unmarshal([]byte(mustCommand(t, w.env, "trace", "-o", "json", id)), &parsed); err != nil || parsed.Message.Id != id || len(parsed.Deliveries) != 1 {
		t.Errorf("the trace in JSON: %v, %+v", err, parsed)
	}
	if code := phone.stop(); code != exitOK {
		t.Errorf("Ctrl-C on the phone: exit %d", code)
	}
	if code := w.dev.stop(); code != exitOK {
		t.Errorf("Ctrl-C on dev: exit %d\n%s", code, w.dev.out)
	}
}

func TestEveryKindOfPhoneOfOneUser(t *testing.T) {
	t.Parallel()
	w := newDevWorld(t)
	iphone := startCommand(t, w.env, "device", "--provider", "apns", "--user", "ann")
	box := startCommand(t, w.env, "device", "--provider", "none", "--user", "ann")
	android := startCommand(t, w.env, "device", "--provider", "fcm", "--user", "ann")
	for _, phone := range []*running{iphone, android} {
		phone.says(t, `asleep; Ctrl-C`)
	}
	box.says(t, `waiting on its long poll`)
	out := mustCommand(t, w.env, "send", "--user", "ann", "--urgency", "high", `{"n":1}`)
	if !strings.Contains(out, "3 recipients") {
		t.Errorf("send said:\n%s", out)
	}
	id := strings.Fields(out)[0]
	for _, phone := range []*running{iphone, box, android} {
		phone.says(t, id+`  \{"n":1\}`)
	}
}

// TestPhonesJoinTopicsAndReport: a phone subscribes itself, and what it says its user did is in the trace and told to the backend.
func TestPhonesJoinTopicsAndReport(t *testing.T) {
	t.Parallel()
	w := newDevWorld(t)
	tail := startCommand(t, w.env, "tail", "--types", "message.opened,message.dismissed")
	tail.says(t, `following; Ctrl-C`)
	android := startCommand(t, w.env, "device", "--topic", "news,sport", "--user", "ann", "--report", "opened")
	box := startCommand(t, w.env, "device", "--provider", "none", "--topic", "news", "--report", "dismissed")
	android.says(t, `(?s)belongs to user ann.*subscribed to news.*subscribed to sport.*asleep`)
	box.says(t, `(?s)subscribed to news.*waiting on its long poll`)
	says(t, mustCommand(t, w.env, "topics", "list"), "news   2 ", "sport  1 ")
	out := mustCommand(t, w.env, "send", "--topic", "news", "hello, readers")
	id := strings.Fields(out)[0]
	says(t, out, id+"  fanning_out  page by page\n")
	for _, phone := range []*running{android, box} {
		phone.says(t, id+`  \{"text":"hello, readers"\}`)
		phone.says(t, `reported `+id)
	}
	tail.says(t, `message.opened +`+id)
	tail.says(t, `message.dismissed +`+id)
	var told string
	eventually(t, patient, func() (bool, string) {
		told = mustCommand(t, w.env, "trace", id)
		return strings.Contains(told, "2 acked, 1 opened, 1 dismissed"), "the trace does not tell of both:\n" + told
	})
	if strings.Count(told, "  opened ")+strings.Count(told, "  dismissed ") != 2 {
		t.Errorf("the timelines tell of no report:\n%s", told)
	}
	refuses(t, w.env, exitFailed, "invalid_topic", "device", "--name", "other", "--topic", "no topic")
	refuses(t, w.env, exitUsage, "--report", "device", "--report", "eaten")
}

// TestDevRemembers stops everything, sends nothing meanwhile, and finds app, keys and phone again; what
// was sent to a phone that was off is there when it comes back.
func TestDevRemembers(t *testing.T) {
	t.Parallel()
	onEngines(t, testDevRemembers)
}

func testDevRemembers(t *testing.T, on engine) {
	dsn := strings.TrimPrefix(on.env(t, t.TempDir())[0], "ROUSE_DB=")
	w := newDevWorld(t, "--db", dsn)
	app := w.app()
	if code, out := command(t, w.env, "doctor", "--json"); code != exitOK || !strings.Contains(out, "rouse dev") || strings.Contains(out, dbPassword) {
		t.Errorf("doctor beside dev: exit %d\n%s", code, out)
	}
	phone := startCommand(t, w.env, "device")
	device := phone.says(t, `registered as (dev_\S+),`)[1]
	phone.says(t, `asleep`)
	phone.stop()
	id := strings.Fields(mustCommand(t, w.env, "send", "while you were off"))[0]
	if code := w.dev.stop(); code != exitOK {
		t.Fatalf("Ctrl-C on dev: exit %d", code)
	}

	w.start()
	if again := w.app(); again != app {
		t.Errorf("the app was %s and is %s", app, again)
	}
	phone = startCommand(t, w.env, "device")
	if back := phone.says(t, `back as (dev_\S+),`)[1]; back != device {
		t.Errorf("the phone was %s and is %s", device, back)
	}
	phone.says(t, id+`  \{"text":"while you were off"\}`)
	woken := strings.Fields(mustCommand(t, w.env, "send", "and now"))[0]
	phone.says(t, `woken: `)
	phone.says(t, woken+`  \{"text":"and now"\}`)
}

func TestProfileIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	w := newDevWorld(t)
	for _, path := range []string{filepath.Join(w.dir, "profile.json"), filepath.Join(w.dir, "state", "dev.json"), filepath.Join(w.dir, "state", "rouse.db.keys")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", filepath.Base(path), info.Mode().Perm())
		}
	}
	// A key of the profile is not for another server.
	code, out := command(t, w.env, "apps", "list", "--url", "http://127.0.0.1:1")
	if code != exitUsage || !strings.Contains(out, "a key for") {
		t.Errorf("apps list elsewhere: exit %d\n%s", code, out)
	}
}

func TestAppsKeysAndCredentials(t *testing.T) {
	t.Parallel()
	w := newDevWorld(t)
	made := mustCommand(t, w.env, "apps", "create", "Bakery")
	app := regexp.MustCompile(`app_\S+`).FindString(made)
	if !strings.Contains(made, "rouse_sk_") || !strings.Contains(made, "rouse_pk_") {
		t.Fatalf("apps create said:\n%s", made)
	}
	mustCommand(t, w.env, "apps", "rename", app, "Patisserie")
	if out := mustCommand(t, w.env, "apps", "list"); !strings.Contains(out, "Patisserie") || !strings.Contains(out, demoName) {
		t.Errorf("apps list said:\n%s", out)
	}
	key := mustCommand(t, w.env, "keys", "create", app, "--name", "sender", "--scopes", "send", "--expires-in", "1h")
	keyID := regexp.MustCompile(`key_\S+`).FindString(key)
	if out := mustCommand(t, w.env, "keys", "list", app); !strings.Contains(out, keyID) || !strings.Contains(out, "sender") || strings.Contains(out, "rouse_sk_") {
		t.Errorf("keys list said:\n%s", out)
	}
	mustCommand(t, w.env, "keys", "revoke", app, keyID)
	if out := mustCommand(t, w.env, "keys", "list", app); strings.Contains(out, keyID) {
		t.Errorf("the revoked key is still there:\n%s", out)
	}
	w.credentials(app)
	if code, _ := command(t, w.env, "apps", "delete", app); code != exitUsage {
		t.Errorf("apps delete without --yes: exit %d", code)
	}
	mustCommand(t, w.env, "apps", "delete", app, "--yes")
	if code, out := command(t, w.env, "apps", "show", app); code != exitFailed || !strings.Contains(out, "app_not_found") {
		t.Errorf("apps show of a deleted one: exit %d\n%s", code, out)
	}
}

// credentials puts, lists and deletes both kinds through the command.
func (w *devWorld) credentials(app string) {
	w.t.Helper()
	r := newRadio(w.dev.says(w.t, `simulator +(\S+)`)[1])
	var key struct {
		PrivateKey string `json:"private_key"`
	}
	if err := r.call(w.t.Context(), "POST", "/control/apns/keys", map[string]string{"team_id": demoTeam, "key_id": demoKeyID}, &key); err != nil {
		w.t.Fatal(err)
	}
	var account json.RawMessage
	if err := r.call(w.t.Context(), "POST", "/control/fcm/accounts", map[string]string{"project": "bakery"}, &account); err != nil {
		w.t.Fatal(err)
	}
	p8, file := filepath.Join(w.dir, "key.p8"), filepath.Join(w.dir, "account.json")
	for path, content := range map[string][]byte{p8: []byte(key.PrivateKey), file: account} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	apns := mustCommand(w.t, w.env, "credentials", "put", "apns", app, "--key-file", p8, "--key-id", demoKeyID, "--team-id", demoTeam, "--topic", "com.example.bakery")
	fcm := mustCommand(w.t, w.env, "credentials", "put", "fcm", app, "--service-account", file)
	list := mustCommand(w.t, w.env, "credentials", "list", app)
	for _, out := range []string{apns, fcm, list} {
		if strings.Contains(out, "PRIVATE KEY") {
			w.t.Errorf("a secret was printed:\n%s", out)
		}
	}
	if !strings.Contains(list, "com.example.bakery") || !strings.Contains(list, "project bakery") {
		w.t.Errorf("credentials list said:\n%s", list)
	}
	mustCommand(w.t, w.env, "credentials", "delete", app, "fcm")
	if list := mustCommand(w.t, w.env, "credentials", "list", app); strings.Contains(list, "project bakery") {
		w.t.Errorf("the deleted credential is still there:\n%s", list)
	}
}

// TestServeAgainstTheSimulatorAlone follows what rouse sim prints.
func TestServeAgainstTheSimulatorAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startCommand(t, nil, "sim", "--control-listen", "127.0.0.1:0", "--ca-file", filepath.Join(dir, "ca.pem"))
	control := s.says(t, `Control API: (\S+)`)[1]
	env := []string{"ROUSE_ADMIN_KEY=" + mintAdminKey(), "ROUSE_DB=sqlite:" + filepath.Join(dir, "rouse.db"), "ROUSE_LISTEN=127.0.0.1:0", "ROUSE_OPS_LISTEN=127.0.0.1:0"}
	for _, name := range []string{"APNS_ENDPOINT", "APNS_SANDBOX_ENDPOINT", "APNS_CA", "FCM_ENDPOINT", "FCM_TOKEN_ENDPOINT", "FCM_CA"} {
		env = append(env, s.says(t, `ROUSE_`+name+`=\S+`)[0])
	}
	server := startCommand(t, env, "serve")
	server.says(t, servingLine.String())
	if token, err := newRadio(control).token(t.Context(), "fcm", profile{Project: demoProject}); err != nil || token == "" {
		t.Errorf("the simulator gives no token: %v", err)
	}
	if code := server.stop(); code != exitOK {
		t.Errorf("serve: exit %d\n%s", code, server.out)
	}
	if code := s.stop(); code != exitOK {
		t.Errorf("sim: exit %d\n%s", code, s.out)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "rouse.db")
	env := []string{"ROUSE_DB=sqlite:" + path}
	if code, out := command(t, env, "migrate", "status"); code != exitFailed || !strings.Contains(out, "no database at "+path) {
		t.Errorf("status of no database: exit %d\n%s", code, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("looking made %v, %v", left, err)
	}
	if code, out := command(t, []string{"ROUSE_DB=sqlite:" + dir}, "migrate", "status"); code != exitFailed || !strings.Contains(out, "folder") {
		t.Errorf("status of a folder: exit %d\n%s", code, out)
	}
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	master := firstLine(mustCommand(t, nil, "keys", "generate", "master"))
	if code, out := command(t, []string{"ROUSE_DB=sqlite:" + empty, "ROUSE_MASTER_KEYS=" + master}, "migrate", "status"); code != exitFailed || !strings.Contains(out, "schema 0") {
		t.Errorf("status of an empty database: exit %d\n%s", code, out)
	}
	mustCommand(t, env, "migrate", "up")
	mustCommand(t, env, "migrate", "up")
	mustCommand(t, env, "migrate", "status")
}

// TestNoDatabaseInMemory: it is refused as a setting, before a key file is written for it.
func TestNoDatabaseInMemory(t *testing.T) {
	t.Parallel()
	env := []string{"ROUSE_DB=sqlite::memory:", "ROUSE_ADMIN_KEY=" + mintAdminKey(), "ROUSE_LISTEN=127.0.0.1:0", "ROUSE_OPS_LISTEN=127.0.0.1:0"}
	for _, words := range [][]string{{"serve"}, {"migrate", "up"}, {"migrate", "status"}} {
		if code, out := command(t, env, words...); code != exitUsage || !strings.Contains(out, "ROUSE_DB") {
			t.Errorf("%v: exit %d\n%s", words, code, out)
		}
	}
	if _, err := os.Stat(":memory:.keys"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key file was written for it: %v", err)
	}
}

func TestVersionAndGeneratedKeys(t *testing.T) {
	t.Parallel()
	if out := mustCommand(t, nil, "version"); !strings.HasPrefix(out, "rouse ") {
		t.Errorf("version said %q", out)
	}
	admin := firstLine(mustCommand(t, nil, "keys", "generate", "admin"))
	master := firstLine(mustCommand(t, nil, "keys", "generate", "master"))
	_, out := command(t, []string{"ROUSE_ADMIN_KEY=" + admin, "ROUSE_MASTER_KEYS=" + master, "ROUSE_BUS=carrier pigeon"}, "serve")
	if strings.Contains(out, "ADMIN_KEY") || strings.Contains(out, "MASTER_KEYS") || !strings.Contains(out, "ROUSE_BUS") {
		t.Errorf("serve does not take the keys that were generated for it:\n%s", out)
	}
}

func TestMistakesAreToldTogether(t *testing.T) {
	t.Parallel()
	env := []string{
		"ROUSE_LISTEN=here", "ROUSE_DB=postgres://rouse:hunter2@db", "ROUSE_BUS=nats://rouse:hunter2@", "ROUSE_DB_CONNS=1", "ROUSE_ADMIN_KEY=too-short-a-key",
		"ROUSE_MASTER_KEYS=k1:aGVsbG8gd29ybGQ=", "ROUSE_APNS_ENDPOINT=http://plain",
	}
	code, out := command(t, env, "serve", "--log-level", "loud")
	if code != exitUsage {
		t.Errorf("exit %d, want %d", code, exitUsage)
	}
	for _, want := range []string{"ROUSE_LISTEN", "ROUSE_DB", "ROUSE_BUS", "ROUSE_ADMIN_KEY", "ROUSE_MASTER_KEYS", "ROUSE_APNS_ENDPOINT", "ROUSE_LOG_LEVEL", "ROUSE_DB_CONNS", "names no database"} {
		if !strings.Contains(out, want) {
			t.Errorf("nothing about %s in:\n%s", want, out)
		}
	}
	for _, secret := range []string{"hunter2", "too-short-a-key", "aGVsbG8gd29ybGQ"} {
		if strings.Contains(out, secret) {
			t.Errorf("the secret %s was printed:\n%s", secret, out)
		}
	}
	if code, out := command(t, nil, "serve", "--no-such-flag"); code != exitUsage || !strings.Contains(out, "no-such-flag") {
		t.Errorf("an unknown flag: exit %d\n%s", code, out)
	}
	if code, _ := command(t, nil, "--help"); code != exitOK {
		t.Errorf("--help: exit %d", code)
	}
}
