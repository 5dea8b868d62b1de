package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rouse/client"
	"rouse/internal/testkit"
	"rouse/providers/sim"
	"rouse/tokens"
)

// several is some nodes of this process, each started by run, on one PostgreSQL and one bus. Its rig knows the simulator and the
// app, and takes the first node for its server.
type several struct {
	*rig
	nodes []*near
}

// near is a node in this process.
type near struct {
	*running
	at addresses
}

// onBuses runs the test on each bus that several nodes can share.
func onBuses(t *testing.T, test func(t *testing.T, bus string)) {
	t.Helper()
	for _, bus := range []string{"postgres", "nats"} {
		t.Run(bus, func(t *testing.T) {
			t.Parallel()
			if bus == "nats" {
				bus = newNATSProcess(t).url()
			}
			test(t, bus)
		})
	}
}

// newSeveral starts n nodes, each of which is home to its share of devices when it returns, and makes an app with both credentials.
func newSeveral(t *testing.T, n int, bus string, flags ...string) *several {
	t.Helper()
	s, err := sim.Start(context.Background(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // after what follows, which may skip
	v := &several{rig: &rig{t: t, sim: s, dir: t.TempDir(), flags: flags, admin: mintAdminKey()}}
	v.db = []string{"ROUSE_DB=" + withPassword(t, testkit.MigratedPostgres(t)), "ROUSE_MASTER_KEYS=" + tokens.NewRingKey("k1"), "ROUSE_BUS=" + bus}
	v.secret(v.admin, dbPassword)
	v.writeCA()
	t.Cleanup(func() {
		for _, node := range v.nodes {
			node.stop()
		}
		v.checkLogs()
	})
	for range n {
		v.nodes = append(v.nodes, v.begin())
	}
	v.child = &child{at: v.nodes[0].at}
	v.makeApp()
	v.awaitHomes(n)
	return v
}

// begin starts one more node.
func (v *several) begin() *near {
	v.t.Helper()
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--log-level", "info"}, v.flags...)
	node := &near{running: startCommand(v.t, v.env(), args...)}
	v.mu.Lock()
	v.logs = append(v.logs, node.out)
	v.mu.Unlock()
	told := node.out.await(v.t, servingLine, node.ended)
	node.at = addresses{api: told[1], ops: told[2]}
	return node
}

// awaitHomes returns once every node knows of n that are home.
func (v *several) awaitHomes(n int) {
	v.t.Helper()
	for _, node := range v.nodes {
		node.awaitMetric(v.t, "rouse_nodes_alive", float64(n))
		node.awaitMetric(v.t, "rouse_node_home", 1)
	}
}

// awaitMetric returns once the node counts so many.
func (n *near) awaitMetric(t *testing.T, name string, want float64) {
	t.Helper()
	eventually(t, patient, func() (bool, string) {
		got, err := metric(t.Context(), n.at.ops, name)
		if err != nil {
			return false, err.Error()
		}
		return got == want, fmt.Sprintf("%s is %v, want %v", name, got, want)
	})
}

// eventually returns once ask says yes, and fails with what it said last after the limit.
func eventually(t *testing.T, limit time.Duration, ask func() (yes bool, but string)) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		yes, but := ask()
		if yes {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", limit, but)
		}
	}
}

// as is a client of the node.
func (n *near) as(t *testing.T, key string) *client.Client {
	t.Helper()
	c, err := newClient(n.at.api, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// moved is the phone, calling another node.
func (n *near) moved(t *testing.T, p *testPhone) *testPhone {
	t.Helper()
	now, err := knownPhone(n.at.api, p.device, p.secret)
	if err != nil {
		t.Fatal(err)
	}
	return &testPhone{phone: now, token: p.token}
}

// balancer is what stands before several nodes, as simple as one can be: it asks them whether they are ready, spreads calls over those
// that are, and takes another when one cannot be reached.
type balancer struct {
	next atomic.Int64

	mu    sync.Mutex
	nodes []*near // guarded by mu: all there are
	ready []*near // guarded by mu: those that get calls
}

// healthEvery is how often a balancer asks.
const healthEvery = 250 * time.Millisecond

// startBalancer returns a balancer and where it listens.
func startBalancer(t *testing.T, nodes []*near) (*balancer, string) {
	t.Helper()
	b := &balancer{}
	b.to(nodes)
	b.look(t.Context())
	own := &http.Transport{MaxIdleConnsPerHost: 256}
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:      func(*httputil.ProxyRequest) {}, // RoundTrip does it
		Transport:    roundTripper(func(r *http.Request) (*http.Response, error) { return b.roundTrip(own, r) }),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(healthEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				b.look(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		looking.Wait()
		front.CloseClientConnections()
		front.Close()
		own.CloseIdleConnections()
	})
	return b, front.URL
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// roundTrip calls the next node, and the one after that if there was no connection to be had and nothing was sent.
func (b *balancer) roundTrip(own *http.Transport, r *http.Request) (res *http.Response, err error) {
	for range 2 {
		at, wrong := b.pick()
		if wrong != nil {
			return nil, wrong
		}
		r.URL.Scheme, r.URL.Host = "http", at
		res, err = own.RoundTrip(r)
		if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || r.ContentLength != 0 {
			break
		}
	}
	return res, err
}

func (b *balancer) pick() (host string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ready) == 0 {
		return "", errors.New("no node is ready")
	}
	return strings.TrimPrefix(b.ready[int(b.next.Add(1))%len(b.ready)].at.api, "http://"), nil
}

// to says which nodes there are.
func (b *balancer) to(nodes []*near) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes = slices.Clone(nodes)
}

// look asks every node.
func (b *balancer) look(ctx context.Context) {
	b.mu.Lock()
	nodes := b.nodes
	b.mu.Unlock()
	var ready []*near
	for _, n := range nodes {
		if status, text := ask(ctx, n.at.ops+"/readyz"); status == http.StatusOK && strings.HasPrefix(text, "ok") {
			ready = append(ready, n)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = ready
}
