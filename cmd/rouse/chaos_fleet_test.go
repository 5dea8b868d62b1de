package main

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rouse/internal/testkit"
	"rouse/providers/sim"
	"rouse/tokens"
)

// fleet is several nodes, each in a process of its own, on one PostgreSQL and one bus.
type fleet struct {
	t       *testing.T
	rig     *rig // what a crowd asks for: the simulator, the app and its keys
	cluster *testkit.Cluster
	nats    *natsProcess // nil: hints travel through PostgreSQL
	nodes   []*machine
}

// fleetSize is how many nodes a fleet has.
const fleetSize = 3

// newFleet starts PostgreSQL, the bus ("postgres" or "nats") and the nodes, and makes an app with credentials.
func newFleet(t *testing.T, bus string) *fleet {
	t.Helper()
	return newFleetOf(t, bus, fleetSize)
}

// newFleetOf is newFleet with so many nodes.
func newFleetOf(t *testing.T, bus string, size int) *fleet {
	t.Helper()
	f := &fleet{t: t, cluster: testkit.NewCluster(t)}
	if bus == "nats" {
		f.nats = newNATSProcess(t)
	}
	s, err := sim.Start(context.Background(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // after what follows, which may skip
	f.rig = &rig{t: t, sim: s, dir: t.TempDir(), admin: mintAdminKey()}
	f.rig.writeCA()
	t.Cleanup(func() {
		for _, m := range f.nodes {
			m.child.kill()
		}
		f.rig.checkLogs()
	})
	master := tokens.NewRingKey("fleet")
	f.rig.secret(f.rig.admin, dbPassword, master[strings.Index(master, ":")+1:])
	f.rig.db = []string{"ROUSE_MASTER_KEYS=" + master, "ROUSE_BUS=postgres", "ROUSE_LOG_LEVEL=info", "ROUSE_WEBHOOK_ALLOW=127.0.0.0/8"} // each node has a DSN of its own
	if f.nats != nil {
		f.rig.db = append(f.rig.db, "ROUSE_BUS="+f.nats.url())
	}
	f.startAll(size)
	f.rig.makeApp()
	return f
}

// startAll starts the nodes, one after the other: the first brings the schema up to date.
func (f *fleet) startAll(size int) {
	f.t.Helper()
	for _, name := range []string{"a", "b", "c"}[:size] {
		m := &machine{fleet: f, name: name, link: newLink(f.t, filepath.Join(f.cluster.Folder(), ".s.PGSQL.5432"))}
		m.start()
		f.nodes = append(f.nodes, m)
	}
	f.rig.child = f.nodes[0].child
}

// machine is one node of a fleet, through all its lives.
type machine struct {
	fleet *fleet
	name  string
	link  *link // between it and PostgreSQL
	// skewed is how far its clock is ahead, from its next start on.
	skewed time.Duration
	child  *child                 // its present or last life
	host   atomic.Pointer[string] // where clients find it, or found it

	mu     sync.Mutex
	frozen []span
}

// span is from when to when something lasted; while it lasts, to is far away.
type span struct{ from, to time.Time }

func (s span) overlaps(from, to time.Time) bool { return s.from.Before(to) && from.Before(s.to) }

// dsn leads through the machine's link.
func (m *machine) dsn() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("rouse", dbPassword), Host: m.link.addr(), Path: "/postgres", RawQuery: "sslmode=disable"}
	return u.String()
}

// start begins a new life and returns once the node serves.
func (m *machine) start() {
	m.fleet.t.Helper()
	build := binary
	env := append(slices.Concat(os.Environ(), m.fleet.rig.env()), "ROUSE_DB="+m.dsn())
	if m.skewed != 0 {
		build = skewedBinary
		env = append(env, skewEnv(m.skewed))
	}
	path, err := build()
	if err != nil {
		m.fleet.t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	cmd.Env = env
	c := startChild(m.fleet.t, cmd)
	m.fleet.rig.mu.Lock()
	m.child, m.fleet.rig.logs = c, append(m.fleet.rig.logs, c.log)
	m.fleet.rig.mu.Unlock()
	told := c.log.await(m.fleet.t, servingLine, c.exited)
	c.at = addresses{api: told[1], ops: told[2]}
	at, err := url.Parse(c.at.api)
	if err != nil {
		m.fleet.t.Fatal(err)
	}
	m.host.Store(&at.Host)
}

// kill is kill -9.
func (m *machine) kill() { m.child.kill() }

// freeze stops the process as it is; thaw lets it go on.
func (m *machine) freeze() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = append(m.frozen, span{time.Now(), time.Now().Add(24 * time.Hour)})
	m.signal(syscall.SIGSTOP)
}

func (m *machine) thaw() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.signal(syscall.SIGCONT)
	m.frozen[len(m.frozen)-1].to = time.Now()
}

// wasFrozen reports when, if at all, the machine stood still between two moments.
func (m *machine) wasFrozen(from, to time.Time) (until time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range slices.Backward(m.frozen) {
		if s.overlaps(from, to) {
			return s.to, true
		}
	}
	return time.Time{}, false
}

func (m *machine) signal(s syscall.Signal) {
	m.fleet.t.Helper()
	if err := m.child.cmd.Process.Signal(s); err != nil {
		m.fleet.t.Errorf("node %s: %v: %v", m.name, s, err)
	}
}

// stopLimit is what an ordered stop may take.
const stopLimit = 15 * time.Second

// terminate asks the node to stop, and fails if it does not exit 0 in time.
func (m *machine) terminate() {
	m.fleet.t.Helper()
	begun := time.Now()
	m.signal(syscall.SIGTERM)
	select {
	case <-m.child.exited:
	case <-time.After(patient):
		m.fleet.t.Errorf("node %s does not stop", m.name)
		m.kill()
	}
	if code, took := m.child.cmd.ProcessState.ExitCode(), time.Since(begun); code != exitOK || took > stopLimit {
		m.fleet.t.Errorf("node %s: exit %d after %v; want 0 within %v", m.name, code, took.Round(time.Millisecond), stopLimit)
	}
}

// startChild starts a process and keeps what it writes.
func startChild(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	c := &child{cmd: cmd, log: newTranscript(), exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = c.log, c.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.exited)
		_ = cmd.Wait()
	}()
	return c
}

// kill ends the process as a power cut would; it may be gone already.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.exited
}
