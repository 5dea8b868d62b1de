package bench_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"rouse/client"
	"rouse/ident"
	"rouse/providers/sim"
	"rouse/tokens"
)

// shared is one `rouse serve` in a process of its own that several apps use, and the simulator in this one.
type shared struct {
	sim      *sim.Sim
	url, ops string
	admin    *client.ClientWithResponses
	http     *http.Client
	team     int // the last team made up
}

// buildServer makes the program and returns where it is.
func buildServer(ctx context.Context, b *testing.B) (string, error) {
	binary := filepath.Join(b.TempDir(), "rouse")
	if out, err := exec.CommandContext(ctx, "go", "build", "-tags", "disable_grpc_modules", "-o", binary, "rouse/cmd/rouse").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the server: %w\n%s", err, out)
	}
	return binary, nil
}

// startShared starts a server; the benchmark's end stops it.
func startShared(ctx context.Context, b *testing.B, binary string) (*shared, error) {
	dir := b.TempDir()
	fake, err := sim.Start(context.WithoutCancel(ctx), sim.Options{})
	if err != nil {
		return nil, err
	}
	b.Cleanup(func() { _ = fake.Close() })
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, fake.CAPEM(), 0o600); err != nil {
		return nil, err
	}
	api, ops, err := freePorts()
	if err != nil {
		return nil, err
	}
	key := string(tokens.MintKey(tokens.AdminKey, string(ident.NewKey())[len(ident.KeyPrefix):]))
	cmd := exec.Command(binary, "serve", "--listen", api, "--ops-listen", ops, "--db", "sqlite:"+filepath.Join(dir, "rouse.db"), "--log-level", "error")
	cmd.Env = []string{"ROUSE_ADMIN_KEY=" + key,
		"ROUSE_APNS_ENDPOINT=" + fake.APNsURL(), "ROUSE_APNS_SANDBOX_ENDPOINT=" + fake.APNsSandboxURL(), "ROUSE_APNS_CA=" + ca,
		"ROUSE_FCM_ENDPOINT=" + fake.FCMURL(), "ROUSE_FCM_TOKEN_ENDPOINT=" + fake.FCMTokenURL(), "ROUSE_FCM_CA=" + ca}
	cmd.Stderr = b.Output()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	transport := &http.Transport{MaxIdleConns: 2000, MaxIdleConnsPerHost: 2000}
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		transport.CloseIdleConnections()
	})
	s := &shared{sim: fake, url: "http://" + api, ops: "http://" + ops, http: &http.Client{Transport: transport}}
	if s.admin, err = s.client(key); err != nil {
		return nil, err
	}
	return s, s.ready(ctx)
}

// freePorts returns two addresses nobody listens on at the moment.
func freePorts() (api, ops string, err error) {
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	second, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", errors.Join(err, first.Close())
	}
	return first.Addr().String(), second.Addr().String(), errors.Join(first.Close(), second.Close())
}

func (s *shared) client(key string) (*client.ClientWithResponses, error) {
	return client.NewClientWithResponses(s.url, client.WithHTTPClient(s.http), client.WithKey(key))
}

// ready waits until the server takes calls.
func (s *shared) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if _, err := s.vitals(ctx); err == nil {
			return nil
		}
		if err := pass(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("the server did not become ready: %w", err)
		}
	}
}

// vital is how the server's process is.
type vital struct {
	// resident is its memory, heap what was alive at the last collection, both in bytes.
	resident, heap float64
	goroutines     int
	// inFlight is how many pushes are under way.
	inFlight float64
}

func (s *shared) vitals(ctx context.Context) (v vital, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.ops+"/metrics", http.NoBody)
	if err != nil {
		return v, err
	}
	res, err := s.http.Do(req)
	if err != nil {
		return v, err
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, text, _ := strings.Cut(lines.Text(), " ")
		value, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil:
		case name == "process_resident_memory_bytes":
			v.resident = value
		case name == "go_memstats_next_gc_bytes":
			v.heap = value / 2 // the collector starts when the heap has doubled
		case strings.HasPrefix(name, "rouse_pushes_in_flight{"):
			v.inFlight += value
		case name == "go_goroutines":
			v.goroutines = int(value)
		}
	}
	return v, lines.Err()
}

// tenant is one app with its devices, half behind each provider.
type tenant struct {
	shared  *shared
	id      string
	topic   string // at Apple
	project string // at Google
	api     *client.ClientWithResponses
	devices []*tenantDevice
	next    atomic.Int64
}

// tenantDevice is one phone of an app.
type tenantDevice struct {
	id, token string
	api       *client.ClientWithResponses
	heard     int
	busy      sync.Mutex // held while a wake of it is measured
}

// newTenant makes an app with credentials and n devices. Tokens begin with prefix; with none they are known to the simulator.
func (s *shared) newTenant(ctx context.Context, name string, n int, prefix string) (*tenant, error) {
	made, err := s.admin.CreateAppWithResponse(ctx, client.AppCreate{Name: name})
	if err != nil || made.JSON201 == nil {
		return nil, failed("making an app", err, made)
	}
	t := &tenant{shared: s, id: made.JSON201.Id, topic: "com.example." + name, project: "project-" + name}
	if t.api, err = s.client(made.JSON201.SecretKey); err != nil {
		return nil, err
	}
	if err := t.putCredentials(ctx); err != nil {
		return nil, err
	}
	t.devices = make([]*tenantDevice, n)
	return t, inParallel(ctx, n, func(ctx context.Context, i int) (err error) {
		d := &tenantDevice{token: prefix + randomHex(24)}
		if prefix == "" {
			d.token = t.newToken(i)
		}
		t.devices[i] = d
		return t.register(ctx, d, i)
	})
}

// newToken is a token the simulator knows, of Apple for an even device and of Google for an odd one.
func (t *tenant) newToken(i int) string {
	if i%2 == 0 {
		return t.shared.sim.NewAPNsToken(t.topic, false)
	}
	return t.shared.sim.NewFCMToken(t.project)
}

// prove wakes one phone behind each provider: a credential that nobody has seen work gets one push at a time.
func (t *tenant) prove(ctx context.Context) error {
	for i := len(t.devices); i < len(t.devices)+2; i++ {
		d := &tenantDevice{token: t.newToken(i)}
		if err := t.register(ctx, d, i); err != nil {
			return err
		}
		if _, err := t.wake(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (t *tenant) putCredentials(ctx context.Context) error {
	s := t.shared
	s.team++
	team, key := fmt.Sprintf("ISOTEAM%03d", s.team), fmt.Sprintf("ISOKEY%04d", s.team)
	pem := s.sim.NewAPNsKey(team, key, t.topic)
	apns, err := s.admin.PutApnsCredentialWithResponse(ctx, t.id, client.ApnsCredentialPut{TeamId: &team, KeyId: &key, PrivateKey: &pem, Topic: t.topic})
	if err != nil || apns.JSON200 == nil {
		return failed("putting Apple's credential", err, apns)
	}
	fcm, err := s.admin.PutFcmCredentialWithResponse(ctx, t.id, client.FcmCredentialPut{ServiceAccount: s.sim.NewServiceAccount(t.project)})
	if err != nil || fcm.JSON200 == nil {
		return failed("putting Google's credential", err, fcm)
	}
	return nil
}

func (t *tenant) register(ctx context.Context, d *tenantDevice, i int) error {
	body := client.DeviceRegistration{InstallationId: fmt.Sprintf("phone-%d", i), Platform: "ios", Provider: "apns", Token: &d.token}
	if i%2 == 1 {
		body.Platform, body.Provider = "android", "fcm"
	}
	got, err := t.api.RegisterDeviceWithResponse(ctx, body)
	if err != nil || got.JSON201 == nil || got.JSON201.Secret == nil {
		return failed("registering a device", err, got)
	}
	d.id = got.JSON201.Id
	d.api, err = t.shared.client(*got.JSON201.Secret)
	return err
}

// remove deletes the app with all it has.
func (t *tenant) remove(ctx context.Context) error {
	got, err := t.shared.admin.DeleteAppWithResponse(ctx, t.id)
	if err != nil || got.StatusCode() != http.StatusNoContent {
		return failed("deleting an app", err, got)
	}
	return nil
}

// answered is any of the generated client's answers.
type answered interface{ Status() string }

// failed tells why a call did not give what was asked for.
func failed(what string, err error, a answered) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: the server answered %s", what, a.Status())
}

// inParallel does n things, some at a time.
func inParallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	const atATime = 32
	group, inner := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range atATime {
		group.Go(func() error {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := do(inner, int(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, by its contract
	return hex.EncodeToString(b)
}
