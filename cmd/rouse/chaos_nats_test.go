package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// natsVariable is set in the process that is to be a NATS server: the address it listens at, 127.0.0.1:-1 for any port.
const natsVariable = "ROUSE_TEST_NATS"

// natsProcess is a NATS server in a process of its own, which is this program again.
type natsProcess struct {
	t       *testing.T
	port    string // -1 until the first start
	child   *child
	keepers []io.Closer
}

var natsLine = regexp.MustCompile(`nats serves at port (\d+)`)

// newNATSProcess starts a server that ends with the test.
func newNATSProcess(t *testing.T) *natsProcess {
	t.Helper()
	p := &natsProcess{t: t, port: "-1"}
	p.start()
	t.Cleanup(func() {
		p.kill()
		for _, k := range p.keepers {
			_ = k.Close()
		}
	})
	return p
}

// url is the same after every start.
func (p *natsProcess) url() string { return "nats://127.0.0.1:" + p.port }

// start returns once the server takes connections.
func (p *natsProcess) start() {
	p.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestNATSProcess$")
	cmd.Env = append(os.Environ(), natsVariable+"="+p.port, "TMPDIR="+p.t.TempDir()) // what is killed tidies up nothing
	keeper, err := cmd.StdinPipe()                                                   // the server ends with it, and so with this process
	if err != nil {
		p.t.Fatal(err)
	}
	p.keepers = append(p.keepers, keeper)
	p.child = startChild(p.t, cmd)
	p.port = p.child.log.await(p.t, natsLine, p.child.exited)[1]
}

// kill is kill -9.
func (p *natsProcess) kill() { p.child.kill() }

// TestNATSProcess is the server, in a process that was started to be one; elsewhere it is nothing.
func TestNATSProcess(t *testing.T) {
	t.Parallel()
	given, isServer := os.LookupEnv(natsVariable)
	if !isServer {
		return
	}
	var port int
	if _, err := fmt.Sscan(given, &port); err != nil {
		t.Fatalf("%s: %v", natsVariable, err)
	}
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patient) {
		t.Fatal("NATS does not start")
	}
	fmt.Fprintf(os.Stdout, "nats serves at port %s\n", regexp.MustCompile(`\d+$`).FindString(s.ClientURL()))
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	s.WaitForShutdown()
}
