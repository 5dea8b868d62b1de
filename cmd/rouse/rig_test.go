package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rouse/client"
	"rouse/internal/testkit"
	"rouse/providers/sim"
	"rouse/tokens"
)

// patient bounds every wait of these tests for something that must come.
const patient = 30 * time.Second

// scratch is a folder for what all tests share; TestMain makes and removes it.
var scratch string

// binary is the program as a stranger builds it, built once for all tests that need it.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "rouse")
	out, err := exec.Command("go", "build", "-tags", "disable_grpc_modules", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// engine is a kind of database. env is the settings of a node on a fresh one, in the folder if it is a file.
type engine struct {
	name string
	env  func(t *testing.T, dir string) []string
}

var (
	onSQLite = engine{"SQLite", func(_ *testing.T, dir string) []string {
		return []string{"ROUSE_DB=sqlite:" + filepath.Join(dir, "rouse.db")}
	}}
	onPostgres = engine{"PostgreSQL", func(t *testing.T, _ string) []string {
		return []string{"ROUSE_DB=" + withPassword(t, testkit.Postgres(t)), "ROUSE_MASTER_KEYS=" + tokens.NewRingKey("k1")}
	}}
)

// dbPassword is in the DSN of every test on PostgreSQL, which asks nobody for it; it must be in nothing that is written.
const dbPassword = "canary-of-the-database"

func withPassword(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), dbPassword)
	return u.String()
}

// onEngines runs the test on each engine.
func onEngines(t *testing.T, test func(t *testing.T, on engine)) {
	t.Helper()
	for _, on := range []engine{onSQLite, onPostgres} {
		t.Run(on.name, func(t *testing.T) {
			t.Parallel()
			test(t, on)
		})
	}
}

// rig is a server in a process of its own, over a database of its own, and the
// simulator in this one, which outlives it. Nothing a server logs may hold a secret.
type rig struct {
	t     *testing.T
	sim   *sim.Sim
	dir   string
	db    []string // the settings that name the database
	flags []string
	admin string
	app   client.AppCreated
	child *child

	mu      sync.Mutex
	secrets []string
	logs    []*transcript
}

// newRig starts a server on SQLite with the flags, and makes an app with both credentials in it.
func newRig(t *testing.T, flags ...string) *rig {
	t.Helper()
	return newRigOn(t, onSQLite, flags...)
}

// newRigOn is newRig on an engine.
func newRigOn(t *testing.T, on engine, flags ...string) *rig {
	t.Helper()
	s, err := sim.Start(context.Background(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // after what follows, which may skip
	r := &rig{t: t, sim: s, dir: t.TempDir(), flags: flags, admin: mintAdminKey()}
	r.db = on.env(t, r.dir)
	r.secret(r.admin, dbPassword)
	r.writeCA()
	t.Cleanup(func() {
		r.kill()
		r.checkLogs()
	})
	r.start()
	r.makeApp()
	return r
}

// writeCA puts whom to trust at the simulator where the settings say.
func (r *rig) writeCA() {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, "ca.pem"), r.sim.CAPEM(), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// makeApp makes the app, with both credentials.
func (r *rig) makeApp() {
	r.t.Helper()
	admin := r.client(r.admin)
	var err error
	if r.app, err = answer[client.AppCreated](admin.CreateApp(r.t.Context(), client.AppCreate{Name: r.t.Name()})); err != nil {
		r.t.Fatal(err)
	}
	r.secret(r.app.SecretKey, r.app.PublishableKey)
	if err := putDemoCredentials(r.t.Context(), admin, r.sim, r.app.Id); err != nil {
		r.t.Fatal(err)
	}
}

// secret notes what must not be in any log.
func (r *rig) secret(s ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets = append(r.secrets, s...)
}

func (r *rig) checkLogs() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, log := range r.logs {
		text := log.String()
		for _, secret := range append(r.secrets, "BEGIN PRIVATE KEY", "ya29.", secretWords) {
			if strings.Contains(text, secret) {
				r.t.Errorf("a secret (%.14s...) is in the server's log", secret)
			}
		}
		if r.t.Failed() {
			r.t.Logf("server log, last lines:\n%s", lastLines(text, 25))
		}
	}
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// child is one run of the server.
type child struct {
	cmd    *exec.Cmd
	log    *transcript
	at     addresses
	exited chan struct{} // closed once the process is gone
}

var servingLine = regexp.MustCompile(`msg=serving .*api=(\S+) ops=(\S+)`)

// start runs a server and returns once it serves.
func (r *rig) start() {
	r.t.Helper()
	path, err := binary()
	if err != nil {
		r.t.Fatal(err)
	}
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--log-level", "debug"}, r.flags...)
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), r.env()...)
	c := startChild(r.t, cmd)
	r.mu.Lock()
	r.child, r.logs = c, append(r.logs, c.log)
	r.mu.Unlock()
	m := c.log.await(r.t, servingLine, c.exited)
	c.at = addresses{api: m[1], ops: m[2]}
}

// env is the settings of a server on the rig's database that pushes to its simulator.
func (r *rig) env() []string {
	ca := filepath.Join(r.dir, "ca.pem")
	return append([]string{
		"ROUSE_ADMIN_KEY=" + r.admin,
		"ROUSE_APNS_ENDPOINT=" + r.sim.APNsURL(), "ROUSE_APNS_SANDBOX_ENDPOINT=" + r.sim.APNsSandboxURL(), "ROUSE_APNS_CA=" + ca,
		"ROUSE_FCM_ENDPOINT=" + r.sim.FCMURL(), "ROUSE_FCM_TOKEN_ENDPOINT=" + r.sim.FCMTokenURL(), "ROUSE_FCM_CA=" + ca,
	}, r.db...)
}

// kill ends the server as a power cut would; it may be gone already, or never have come.
func (r *rig) kill() {
	if r.child != nil {
		r.child.kill()
	}
}

// terminate asks the server to stop, and returns how it exited and how long that took.
func (r *rig) terminate() (code int, took time.Duration) {
	r.t.Helper()
	begun := time.Now()
	if err := r.child.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-r.child.exited:
	case <-time.After(patient):
		r.t.Fatal("the server does not stop")
	}
	return r.child.cmd.ProcessState.ExitCode(), time.Since(begun)
}

// client calls the server that runs now.
func (r *rig) client(key string) *client.Client {
	r.t.Helper()
	c, err := newClient(r.child.at.api, key)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) backend() *client.Client { return r.client(r.app.SecretKey) }

// testPhone is a phone and the token that the simulator knows it by.
type testPhone struct {
	*phone
	token string
}

// enrol registers a new phone of the provider.
func (r *rig) enrol(name, provider string) *testPhone {
	r.t.Helper()
	p := &testPhone{}
	switch provider {
	case "apns":
		p.token = r.sim.NewAPNsToken(demoTopic, false)
	case "fcm":
		p.token = r.sim.NewFCMToken(demoProject)
	}
	var err error
	p.phone, err = enrol(r.t.Context(), enrolment{url: r.child.at.api, publishableKey: r.app.PublishableKey, installation: name, provider: provider, token: p.token})
	if err != nil {
		r.t.Fatal(err)
	}
	r.secret(p.secret)
	if p.token != "" {
		r.secret(p.token)
	}
	return p
}

// again is the phone, calling the server that runs now.
func (r *rig) again(p *testPhone) {
	r.t.Helper()
	now, err := knownPhone(r.child.at.api, p.device, p.secret)
	if err != nil {
		r.t.Fatal(err)
	}
	p.phone = now
}

// send posts one message and returns its id.
func (r *rig) send(ctx context.Context, backend *client.Client, device, data string) (string, error) {
	return r.sendUnder(ctx, backend, nil, device, data)
}

// sendUnder is send under an Idempotency-Key; nil is none.
func (r *rig) sendUnder(ctx context.Context, backend *client.Client, key *string, device, data string) (string, error) {
	m, err := answer[client.MessageAccepted](backend.SendMessage(ctx, &client.SendMessageParams{IdempotencyKey: key}, client.MessageSend{
		To: client.Recipient{DeviceId: &device}, Data: []byte(data),
	}))
	return m.Id, err
}

func (r *rig) mustSend(device, data string) string {
	r.t.Helper()
	return r.mustSendBy(r.backend(), device, data)
}

// mustSendBy is mustSend through a client. As backends do, it sends once more what a busy machine had no time for, under the same key.
func (r *rig) mustSendBy(backend *client.Client, device, data string) (id string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patient)
	defer cancel()
	key := rand.Text()
	err := insist(ctx, func() (err error) {
		id, err = r.sendUnder(ctx, backend, &key, device, data)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// heard is the number of the last push that reached the phone.
func (r *rig) heard(p *testPhone) int {
	pushes := r.sim.Pushes(p.token)
	if len(pushes) == 0 {
		return 0
	}
	return pushes[len(pushes)-1].N
}

// awaitPush returns the first push after the one of that number.
func (r *rig) awaitPush(p *testPhone, after int) sim.Delivered {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patient)
	defer cancel()
	push, err := r.sim.NextPush(ctx, p.token, after)
	if err != nil {
		r.t.Fatalf("no push reached the phone: %v", err)
	}
	return push
}

// noPush fails if a push after the one of that number comes within d.
func (r *rig) noPush(p *testPhone, after int, d time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), d)
	defer cancel()
	if push, err := r.sim.NextPush(ctx, p.token, after); !errors.Is(err, context.DeadlineExceeded) {
		r.t.Errorf("a push came that nobody needs: %s (%v)", push.Body, err)
	}
}

// awaitMetric returns once the server counts at least so many.
func (r *rig) awaitMetric(name string, least float64) {
	r.t.Helper()
	eventually(r.t, patient, func() (bool, string) {
		n, err := metric(r.t.Context(), r.child.at.ops, name)
		if err != nil {
			r.t.Fatal(err)
		}
		return n >= least, fmt.Sprintf("%s is %v, want %v", name, n, least)
	})
}

// drain reads and acks all that waits for the phone and returns the ids in the order they came.
func (r *rig) drain(p *testPhone) []string {
	r.t.Helper()
	var ids []string
	if _, err := p.empty(r.t.Context(), func(m fetched) { ids = append(ids, m.Id) }); err != nil {
		r.t.Fatalf("emptying the inbox of %s: %v", p.device, err)
	}
	return ids
}

// get asks the operations listener and returns status and body.
func (r *rig) get(path string) string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.child.at.ops+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", res.StatusCode, body)
}
