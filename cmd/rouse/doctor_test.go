package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"rouse/config"
	"rouse/providers"
	"rouse/tokens"
)

const healthy = `ok    configuration            Every setting is right.
ok    database                 DIR/rouse.db can be read.
ok    permissions              The files are this user's to write and nobody else's to read.
ok    schema                   Schema N is what this program wants.
ok    integrity                No page of the database is damaged.
ok    wal_size                 The database has SIZE, its log SIZE.
ok    master_keys              Every master key that sealed here opens ("k1").
ok    disk_space               SIZE are left on the disk of DIR.
ok    server                   A server runs and is ready.
ok    listen                   The API answers at 127.0.0.1:PORT.
ok    endpoint_apns_production Apple's production environment at 127.0.0.1:PORT can be reached.
ok    endpoint_apns_sandbox    Apple's sandbox at 127.0.0.1:PORT can be reached.
ok    endpoint_fcm             Google's FCM at 127.0.0.1:PORT can be reached.
ok    endpoint_fcm_token       Google's OAuth at 127.0.0.1:PORT can be reached.
ok    clock                    The clock of this machine is within 30s of that of 127.0.0.1:PORT.

APP (TestDoctorOfAHealthyNode)
ok    apns_credential          The credential opens, and it has no end.
ok    fcm_credential           The credential opens, and it has no end.
ok    circuits                 No way to the app's phones is held back.
`

// TestDoctorOfAHealthyNode looks at a node that runs: all is well, nothing is changed, and the node does not notice.
func TestDoctorOfAHealthyNode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.enrol("phone", "fcm")
	before := r.folder()
	var out, log bytes.Buffer
	if code := run(t.Context(), []string{"doctor"}, r.doctorEnv(), strings.NewReader(""), &out, &log); code != exitOK || log.Len() > 0 {
		t.Errorf("exit %d\n%s", code, log.String())
	}
	r.noSecret(out.String())
	text := strings.ReplaceAll(out.String(), r.dir, "DIR")
	for pattern, name := range map[string]string{`127\.0\.0\.1:\d+`: "127.0.0.1:PORT", `app_\w+`: "APP", `[0-9.]+ [GMK]iB`: "SIZE", `Schema \d+`: "Schema N"} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, name)
	}
	if !strings.HasPrefix(text, healthy) {
		t.Errorf("it says\n%s\nwant\n%s", text, healthy)
	}
	if !regexp.MustCompile(`\n0 failed, 0 to look at, \d+ fine\.\n$`).MatchString(text) {
		t.Errorf("it ends otherwise:\n%s", text)
	}
	code, x := r.doctor()
	if code != exitOK || count(x.Findings, providers.FindingWarn) > 0 {
		t.Errorf("exit %d, %+v", code, x.Findings)
	}
	for _, check := range []string{"apns_production", "apns_sandbox", "fcm_access_token", "fcm_send"} {
		x.want(t, check, providers.FindingOK, "")
	}
	if after := r.folder(); after != before {
		t.Errorf("files before: %s\nafter: %s", before, after)
	}
	if len(r.sim.Pushes(p.token)) > 0 {
		t.Error("somebody was woken")
	}
	r.mustSend(p.device, `1`)
	r.awaitPush(p, 0)
	if code, took := r.terminate(); code != exitOK {
		t.Errorf("the server stops with %d after %v", code, took)
	}
}

// TestDoctorOfANodeThatIsDown: stopped in order and killed, both can be looked at and are started afterwards as if nobody had.
func TestDoctorOfANodeThatIsDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.enrol("phone", "none")
	id := r.mustSend(p.device, `"kept"`)
	r.kill()
	for _, how := range []string{"killed", "stopped"} {
		before := r.folder()
		code, x := r.doctor()
		if code != exitOK {
			t.Errorf("%s: exit %d: %+v", how, code, x.Findings)
		}
		x.want(t, "server", providers.FindingWarn, "not_running")
		for _, check := range []string{"database", "integrity", "schema", "master_keys", "listen", "ops_listen", "apns_credential"} {
			x.want(t, check, providers.FindingOK, "")
		}
		if after := r.folder(); after != before {
			t.Errorf("%s: files before: %s\nafter: %s", how, before, after)
		}
		r.start()
		if how == "killed" {
			if code, _ := r.terminate(); code != exitOK {
				t.Errorf("exit %d", code)
			}
		}
	}
	r.again(p)
	compareIDs(t, 0, p.device, []string{id}, r.drain(p))
}

func TestDoctorTellsAddressesThatAreTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.kill()
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	code, x := r.doctor("--offline", "--listen", taken.Addr().String(), "--ops-listen", "192.0.2.1:9090")
	if code != exitFailed {
		t.Errorf("exit %d", code)
	}
	f := x.want(t, "listen", providers.FindingFail, "address_in_use")
	if !strings.Contains(f.Cure, "ROUSE_LISTEN") {
		t.Errorf("the cure is %q", f.Cure)
	}
	x.want(t, "ops_listen", providers.FindingFail, "address_not_here")
}

// TestDoctorTellsAServerInTrouble: one that hangs, one that cannot write, one that is somewhere else.
func TestDoctorTellsAServerInTrouble(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	process := r.child.cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, x := r.doctor("--offline")
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	f := x.want(t, "server", providers.FindingFail, "silent")
	if !strings.Contains(f.Cause, fmt.Sprintf("process %d", process.Pid)) {
		t.Errorf("which process is not told: %s", f.Cause)
	}
	_, x = r.doctor("--offline", "--ops-listen", "127.0.0.1:0")
	x.want(t, "server", providers.FindingWarn, "unknown_address")
	_, x = r.doctor("--offline", "--listen", "127.0.0.1:1")
	x.want(t, "listen", providers.FindingFail, "silent")
	other := newRig(t)
	_, x = other.doctor("--offline", "--ops-listen", strings.TrimPrefix(r.child.at.ops, "http://"))
	x.want(t, "server", providers.FindingOK, "") // both have a server, and which answers cannot be told
	other.kill()
	_, x = other.doctor("--offline", "--ops-listen", strings.TrimPrefix(r.child.at.ops, "http://"))
	x.want(t, "server", providers.FindingWarn, "other_database")
	_, x = other.doctor("--offline", "--db", "sqlite:"+filepath.Join(other.dir, "absent.db"), "--ops-listen", strings.TrimPrefix(r.child.at.ops, "http://"))
	x.want(t, "server", providers.FindingWarn, "other_database")
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	_, x = r.doctor("--offline", "--ops-listen", stranger.Listener.Addr().String())
	x.want(t, "server", providers.FindingFail, "not_rouse")
}

// TestDoctorTellsWhatKeysAndSchemaLack: what serve would refuse to start with.
func TestDoctorTellsWhatKeysAndSchemaLack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if code, _ := r.terminate(); code != exitOK {
		t.Fatal("the server does not stop")
	}
	path := filepath.Join(r.dir, "rouse.db")
	keys := config.KeyFile(path)
	content, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	r.secret(strings.TrimSpace(string(content)), strings.TrimPrefix(strings.TrimSpace(string(content)), "k1:"))

	other := tokens.NewRingKey("k1")
	r.secret(other, strings.TrimPrefix(other, "k1:"))
	code, x := doctorWith(r, append(r.doctorEnv(), "ROUSE_MASTER_KEYS="+other), "--offline")
	if code != exitFailed {
		t.Errorf("exit %d with another key", code)
	}
	if f := x.want(t, "master_keys", providers.FindingFail, "key_missing"); !strings.Contains(f.Cause, `"k1"`) {
		t.Errorf("which key is not told: %s", f.Cause)
	}
	if f := x.want(t, "credentials", providers.FindingFail, "sealed"); !strings.Contains(f.Cause, "2 credentials of 1 app ") || !strings.Contains(f.Cure, "master_keys") || x.has("apns_credential") || x.has("fcm_credential") {
		t.Errorf("one key is at fault, and it says: %+v", x.Findings)
	}

	if err := os.Chmod(keys, 0o644); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "master_keys", providers.FindingFail, "key_file_open")
	if err := os.Rename(keys, keys+".away"); err != nil {
		t.Fatal(err)
	}
	before := r.folder()
	_, x = r.doctor("--offline")
	x.want(t, "master_keys", providers.FindingFail, "key_file_missing")
	if after := r.folder(); after != before {
		t.Errorf("files before: %s\nafter: %s", before, after)
	}
	if err := os.WriteFile(keys, []byte("k1:garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "master_keys", providers.FindingFail, "keys_unreadable")
	if err := os.Rename(keys+".away", keys); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(keys, 0o600); err != nil {
		t.Fatal(err)
	}

	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "permissions", providers.FindingWarn, "open_to_others")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "permissions", providers.FindingWarn, "folder_open")
	if err := os.Chmod(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}

	if os.Geteuid() == 0 { // nobody else may give files away
		if err := os.Chown(keys, 65532, -1); err != nil {
			t.Fatal(err)
		}
		_, x = r.doctor("--offline")
		x.want(t, "permissions", providers.FindingWarn, "owners_differ")
		if err := os.Chown(keys, 0, -1); err != nil {
			t.Fatal(err)
		}
	}

	r.inDatabase("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
	code, x = r.doctor("--offline")
	if code != exitFailed {
		t.Errorf("exit %d with a newer schema", code)
	}
	x.want(t, "schema", providers.FindingFail, "newer")
	if x.has("apns_credential") {
		t.Error("tables of another program were read")
	}
	r.inDatabase("DELETE FROM goose_db_version WHERE version_id >= (SELECT MAX(version_id) FROM goose_db_version WHERE version_id < 9999)")
	code, x = r.doctor("--offline")
	if code != exitOK {
		t.Errorf("exit %d with an older schema", code)
	}
	x.want(t, "schema", providers.FindingWarn, "older")
}

func TestDoctorTellsADatabaseThatIsNone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.kill()
	dir := t.TempDir()
	code, x := r.doctor("--offline", "--db", "sqlite:"+filepath.Join(dir, "sub", "rouse.db"))
	if code != exitOK {
		t.Errorf("exit %d", code)
	}
	x.want(t, "database", providers.FindingWarn, "absent")
	x.want(t, "master_keys", providers.FindingOK, "")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("it made %v, %v", entries, err)
	}
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("no database\n", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline", "--db", "sqlite:"+text)
	x.want(t, "database", providers.FindingFail, "unusable")
	// What a killed server left, with a log that is longer than it would ever be.
	if err := os.Truncate(filepath.Join(r.dir, "rouse.db-wal"), longLog+1); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "wal_size", providers.FindingWarn, "long_log")
	x.want(t, "integrity", providers.FindingOK, "")
	if err := os.Remove(filepath.Join(r.dir, "rouse.db-shm")); err != nil {
		t.Fatal(err)
	}
	_, x = r.doctor("--offline")
	x.want(t, "database", providers.FindingWarn, "needs_repair")
	r.start()
	if code, _ := r.terminate(); code != exitOK {
		t.Fatalf("exit %d", code)
	}
	r.overwrite("devices_app")
	_, x = r.doctor("--offline")
	x.want(t, "integrity", providers.FindingFail, "damaged")
	r.overwrite("sqlite_schema")
	_, x = r.doctor("--offline")
	x.want(t, "database", providers.FindingFail, "damaged")
}

func TestDoctorTellsTheMistakesInTheSettings(t *testing.T) {
	t.Parallel()
	var out, log bytes.Buffer
	env := []string{"ROUSE_ADMIN_KEY=canary-short", "ROUSE_DB=postgres://rouse:canary-password@db", "ROUSE_BUS=nats:canary", "ROUSE_GRACE=soon"}
	if code := run(t.Context(), []string{"doctor", "--json"}, env, strings.NewReader(""), &out, &log); code != exitUsage {
		t.Errorf("exit %d", code)
	}
	var x examined
	if err := json.Unmarshal(out.Bytes(), &x); err != nil {
		t.Fatal(err)
	}
	if len(x.Findings) != 5 || x.OK {
		t.Errorf("%+v", x)
	}
	for _, setting := range []string{"ROUSE_ADMIN_KEY", "ROUSE_DB", "ROUSE_BUS", "ROUSE_MASTER_KEYS", "ROUSE_GRACE"} {
		if !strings.Contains(out.String(), setting) {
			t.Errorf("nothing about %s", setting)
		}
	}
	if strings.Contains(out.String()+log.String(), "canary") {
		t.Errorf("a secret is in\n%s%s", out.String(), log.String())
	}
}

func TestDoctorMeasuresTheRoomLeft(t *testing.T) {
	t.Parallel()
	for free, want := range map[uint64]providers.FindingStatus{
		full - 1: providers.FindingFail, full: providers.FindingWarn, crowded - 1: providers.FindingWarn, crowded: providers.FindingOK, 1 << 63: providers.FindingOK,
	} {
		if f := roomFor("/", free); f.Status != want {
			t.Errorf("%d bytes: %+v", free, f)
		}
	}
}

// TestDoctorsReasonsAreTold: each check and reason in the code has its row in the page.
func TestDoctorsReasonsAreTold(t *testing.T) {
	t.Parallel()
	page := readPage(t, filepath.Join("docs", "doctor.md"))
	calls := regexp.MustCompile(`(?:broken|doubtful)\((?:"([a-z_]+)"|[^,"]+), (?:"([a-z_0-9]+)"|[^,"]+)`)
	n := 0
	for _, file := range []string{"doctor.go", "doctor_apps.go", "doctor_database.go", "doctor_endpoints.go", "doctor_postgres.go", "doctor_server.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range calls.FindAllStringSubmatch(string(source), -1) {
			for _, word := range call[1:] {
				if word != "" && !strings.Contains(page, "`"+word+"`") {
					t.Errorf("docs/doctor.md says nothing about %s", word)
				}
				n++
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d checks and reasons were found in the code", n)
	}
}
