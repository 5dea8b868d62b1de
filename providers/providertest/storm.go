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
			out := w.push(NewPush(f.Token(w.sim)), patience)
			if diff := cmp.Diff(away.Want, out, ignoreTook()); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			remove()
			w.works()
		})
	}
}

// testManyTurnedAway: a burst that is turned away for the credential must not become a burst of connections.
func testManyTurnedAway(t *testing.T, f Fixture) {
	if len(f.TurnedAway) == 0 {
		t.Skip("it turns no connection away")
	}
	away := f.TurnedAway[0]
	w := f.start(t, Settings{})
	remove := w.sim.AddRule(sim.Rule{Provider: f.Provider, Action: away.Action})
	w.allRefused(away.Want)
	remove()
	w.works()
}

// testStranger: a burst with a credential that the provider does not know is refused after a few requests, because
// providers hold it against everybody at the same address.
func testStranger(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	other := *w
	other.provider = f.Stranger(t, w.sim, w.settings(Settings{}))
	t.Cleanup(func() { _ = other.provider.Close() })
	other.allRefused(f.Strange)
	w.works()
}

// allRefused pushes a burst and wants the same of all, at the price of a few requests.
func (w *world) allRefused(want providers.Outcome) {
	w.t.Helper()
	for i, out := range w.pushAll(w.newTokens(burst)) {
		if out.Verdict != want.Verdict || out.Reason != want.Reason {
			w.t.Fatalf("push %d: %+v, want %+v", i, out, want)
		}
	}
	const handful = 10
	if s := w.stats(); s.ConnectionsOpened > handful || s.Requests > handful {
		w.t.Errorf("%d requests on %d connections for %d pushes, want %d at most", s.Requests, s.ConnectionsOpened, burst, handful)
	}
	if n := w.sim.Stats().Token.Requests; n > 1 {
		w.t.Errorf("%d calls of the token endpoint", n)
	}
}

// testResets gives single requests up with each code; the others on the connection go on. After a PROTOCOL_ERROR nothing
// new goes out on it, so those who were about to may have to begin again.
func testResets(t *testing.T, f Fixture) {
	resets := map[string]providers.Outcome{
		sim.FaultRSTInternal: {Verdict: providers.ConnectionLost, Reason: "stream_reset"},
	}
	if f.Provider == sim.APNs {
		resets[sim.FaultRSTRefused] = providers.Outcome{Verdict: providers.ConnectionLost, Reason: "stream_refused"}
		resets[sim.FaultRSTProtocol] = providers.Outcome{Verdict: providers.ConnectionLost, Reason: "stream_reset"}
		resets[sim.FaultRSTCancel] = providers.Outcome{Verdict: providers.ConnectionLost, Reason: "stream_reset"}
		resets[sim.FaultRSTCalm] = providers.Outcome{Verdict: providers.Unavailable, Reason: "enhance_your_calm"}
	}
	for fault, want := range resets {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			w := f.start(t, Settings{})
			w.works()
			var all sync.WaitGroup
			for i, token := range w.newTokens(few) {
				if i%10 == 0 {
					w.sim.AddRule(sim.Rule{Provider: f.Provider, TokenPrefix: token, Count: 1, Action: sim.Action{Fault: fault}})
				}
				all.Go(func() {
					out := w.push(NewPush(token), patience)
					for fault == sim.FaultRSTProtocol && out.Verdict == providers.ConnectionLost && w.requests(token) == 0 {
						out = w.push(NewPush(token), patience)
					}
					if i%10 != 0 && out.Verdict != providers.Accepted {
						t.Errorf("a neighbour: %+v", out)
					}
					if i%10 == 0 {
						if diff := cmp.Diff(want, out, ignoreTook()); diff != "" {
							t.Errorf("outcome (-want +got):\n%s", diff)
						}
					}
					if n := w.requests(token); n != 1 {
						t.Errorf("%d requests for one push", n)
					}
				})
			}
			all.Wait()
			w.works()
		})
	}
}

// testGoAways ends connections in a burst with error codes and debug data, open and closed: what was lost says so and goes once more.
func testGoAways(t *testing.T, f Fixture) {
	if f.Provider != sim.APNs {
		t.Skip("the fake Google's server says GOAWAY in one way alone")
	}
	for _, action := range []sim.Action{
		{Fault: sim.FaultGoaway, Code: "ENHANCE_YOUR_CALM", Debug: "exceeded_max_concurrent_streams"},
		{Fault: sim.FaultGoaway, Code: "INTERNAL_ERROR", Then: sim.ThenClose},
		{Fault: sim.FaultGoaway, Then: sim.ThenStay},
		{Fault: sim.FaultGoawayLower, Code: "PROTOCOL_ERROR", Debug: `{"reason":"Shutdown"}`},
		{Fault: sim.FaultGoawayLower, Then: sim.ThenStay},
		{Fault: sim.FaultGoawayZero, Code: "NO_ERROR", Debug: "not JSON"},
		{Fault: sim.FaultGoawayZero, Then: sim.ThenStay},
	} {
		t.Run(action.Fault+" "+action.Code+" "+action.Then, func(t *testing.T) {
			t.Parallel()
			w := f.start(t, Settings{})
			w.works()
			w.sim.AddRule(sim.Rule{Provider: f.Provider, Nth: 30, Action: action})
			w.pushTwice(few)
			w.works()
			if n := w.stats().ConnectionsOpened; n > 3 {
				t.Errorf("%d connections, want few", n)
			}
		})
	}
}

// testGreetings are troubles before the first request.
func testGreetings(t *testing.T, f Fixture) {
	nth := 1
	if f.Fetches {
		nth = 2 // the first one fetches the access token
	}
	unavailable := func(reason string) providers.Outcome {
		return providers.Outcome{Verdict: providers.Unavailable, Reason: reason}
	}
	accepted := providers.Outcome{Verdict: providers.Accepted, Status: 200}
	greetings := []Answer{
		{Name: "refused", Action: sim.Action{Fault: sim.FaultRefuse}, Want: unavailable("connect_failed")},
		{Name: "stalled", Action: sim.Action{Fault: sim.FaultTLSStall}, Want: unavailable("connect_timeout")},
		{Name: "slow", Action: sim.Action{Fault: sim.FaultTLSStall, Delay: 100 * time.Millisecond}, Want: accepted},
		{Name: "foreign certificate", Action: sim.Action{Fault: sim.FaultWrongCertificate}, Want: unavailable("untrusted_certificate")},
		{Name: "expired certificate", Action: sim.Action{Fault: sim.FaultWrongCertificate, Reason: "expired"}, Want: unavailable("untrusted_certificate")},
		{Name: "another's certificate", Action: sim.Action{Fault: sim.FaultWrongCertificate, Reason: "name"}, Want: unavailable("untrusted_certificate")},
	}
	if f.Provider == sim.APNs {
		greetings = append(greetings,
			Answer{Name: "no HTTP/2", Action: sim.Action{Fault: sim.FaultHTTP1Only}, Want: unavailable("connect_failed")},
			Answer{Name: "late settings", Action: sim.Action{Fault: sim.FaultLateSettings, Delay: 100 * time.Millisecond}, Want: accepted},
			Answer{Name: "tiny window", Action: sim.Action{Fault: sim.FaultTinyWindow}, Want: accepted})
	} else {
		greetings = append(greetings, Answer{Name: "no HTTP/2", Action: sim.Action{Fault: sim.FaultHTTP1Only}, Want: accepted})
	}
	for _, greeting := range greetings {
		t.Run(greeting.Name, func(t *testing.T) {
			t.Parallel()
			limit := patience
			if greeting.Action.Fault == sim.FaultTLSStall {
				limit = brief
			}
			w := f.start(t, Settings{Timeout: limit})
			remove := w.sim.AddRule(sim.Rule{Provider: f.Provider, Connection: nth, Action: greeting.Action})
			out := w.push(NewPush(f.Token(w.sim)), limit)
			if diff := cmp.Diff(greeting.Want, out, ignoreTook()); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			remove()
			if greeting.Action.Fault == sim.FaultTLSStall {
				w.push(NewPush(f.Token(w.sim)), limit) // it may have met the end of the same dial
			}
			w.works()
		})
	}
}

// testStreamLimit: the server takes one request at a time, and then a thousand again, under full load.
func testStreamLimit(t *testing.T, f Fixture) {
	if !f.Narrows {
		t.Skip("its stream limit stays")
	}
	w := f.start(t, Settings{})
	w.works()
	for nth, streams := range map[int]int{30: 1, 60: 10, 120: 1, 150: 1000} {
		w.sim.AddRule(sim.Rule{Provider: f.Provider, Nth: nth, Action: sim.Action{Streams: streams}})
	}
	w.pushTwice(burst)
	if n := w.stats().ConnectionsOpened; n > 2 {
		t.Errorf("%d connections: the narrowed one is no reason for another", n)
	}
	w.works()
}

// testNarrowedForRefusals: the provider narrows a connection for every refusal, and widens it with the next success.
func testNarrowedForRefusals(t *testing.T, f Fixture) {
	if !f.Narrows {
		t.Skip("its stream limit stays")
	}
	w := f.start(t, Settings{})
	settings := w.sim.Settings()
	settings.Throttle4xx = true
	if err := w.sim.Adjust(settings); err != nil {
		t.Fatal(err)
	}
	tokens := w.newTokens(burst)
	for i, token := range tokens {
		if i%20 == 0 {
			w.sim.AddRule(sim.Rule{Provider: f.Provider, TokenPrefix: token, Action: sim.Action{Status: 400, Reason: "BadDeviceToken"}})
		}
	}
	for i, out := range w.pushAll(tokens) {
		want := providers.Accepted
		if i%20 == 0 {
			want = providers.TokenSuspect
		}
		if out.Verdict != want && out.Verdict != providers.ConnectionLost {
			t.Errorf("push %d: %+v, want %s", i, out, want)
		}
	}
	if n := w.stats().ConnectionsOpened; n > 2 {
		t.Errorf("%d connections", n)
	}
	w.works()
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
		Endpoint: "https://" + g.listener.Addr().String() + pathOf(f.Endpoint(w.sim)), InFlight: narrow, Timeout: 3 * time.Second,
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
	// The dial that hangs ends with the provider's time-out; all slots are free for what comes then.
	w.provider.Push(t.Context(), NewPush(f.Token(w.sim)))
	for i, out := range w.pushAll(w.newTokens(4 * narrow)) {
		if out.Verdict != providers.Accepted {
			t.Errorf("push %d through the open gate: %+v", i, out)
		}
	}
}
