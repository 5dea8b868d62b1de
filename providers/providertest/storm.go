package providertest

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/providers"
	"rouse/providers/sim"
)

// testTurnedAway is a provider that ends every connection before it answers, and says why only as it goes: one push has to
// find out within its deadline, and many must not become as many connections.
func testTurnedAway(t *testing.T, f Fixture) {
	for _, away := range f.TurnedAway {
		t.Run(away.Name, func(t *testing.T) {
			t.Parallel()
			w := f.start(t, Settings{})
			remove := w.sim.AddRule(sim.Rule{Provider: f.Provider, Action: away.Action})
			out := w.push(NewPush(f.Token(w.sim)), prompt)
			if diff := cmp.Diff(away.Want, out, ignoreTook()); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			remove()
			w.works()
		})
	}
}

// gate is a way to the simulator that stays shut for a while: what connects before it opens is never answered.
type gate struct {
	listener net.Listener
	open     atomic.Bool
	owned    sync.WaitGroup // every goroutine of the gate

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

func newGate(t *testing.T, to string) *gate {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l}
	g.owned.Go(func() { g.accept(to) })
	t.Cleanup(g.close)
	return g
}

func (g *gate) accept(to string) {
	for {
		in, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.keep(in)
		if !g.open.Load() {
			continue
		}
		out, err := net.Dial("tcp", to) //nolint:noctx // loopback, and closed with the gate
		if err != nil {
			_ = in.Close()
			continue
		}
		g.keep(out)
		g.owned.Go(func() { forward(in, out) })
		g.owned.Go(func() { forward(out, in) })
	}
}

// forward copies until either side ends, and ends both.
func forward(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	_ = to.Close()
	_ = from.Close()
}

func (g *gate) keep(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns = append(g.conns, c)
}

func (g *gate) close() {
	_ = g.listener.Close()
	g.mu.Lock()
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.mu.Unlock()
	g.owned.Wait()
}

// testStalledDials: pushes that wait for a handshake come back with their deadlines, and their slots with them.
func testStalledDials(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	_, host, _ := strings.Cut(f.Endpoint(w.sim), "://")
	host, _, _ = strings.Cut(host, "/")
	g := newGate(t, host)
	w.provider = w.connect(Settings{
		Endpoint: "https://" + g.listener.Addr().String() + pathOf(f.Endpoint(w.sim)), InFlight: narrow, Timeout: time.Second,
	})
	var all sync.WaitGroup
	for _, token := range w.newTokens(4 * narrow) {
		all.Go(func() {
			if out := w.push(NewPush(token), 300*time.Millisecond); out.Verdict != providers.Unavailable {
				t.Errorf("through a shut gate: %+v", out)
			}
		})
	}
	all.Wait()
	g.open.Store(true)
	// The dial that hangs ends within a second; all slots are free for what comes then.
	w.provider.Push(t.Context(), NewPush(f.Token(w.sim)))
	for i, out := range w.pushAll(w.newTokens(4 * narrow)) {
		if out.Verdict != providers.Accepted || out.Took > prompt {
			t.Errorf("push %d through the open gate: %+v", i, out)
		}
	}
}
