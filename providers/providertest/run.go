package providertest

import (
	"context"
	"crypto/x509"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"rouse/providers"
	"rouse/providers/sim"
)

// Run runs the suite. The caller's TestMain should check for leaked goroutines:
// the suite closes all it opens.
func Run(t *testing.T, f Fixture) {
	for name, test := range map[string]func(*testing.T, Fixture){
		"accepted":                testAccepted,
		"dead token":              testDeadToken,
		"answers":                 testAnswers,
		"hang":                    testHang,
		"broken connections":      testBrokenConnections,
		"stalled handshake":       testStalledHandshake,
		"nobody listens":          testNobodyListens,
		"foreign certificate":     testForeignCertificate,
		"canceled":                testCanceled,
		"no slot":                 testNoSlot,
		"cold burst":              testColdBurst,
		"goaway in a burst":       testGoAwayInBurst,
		"close":                   testClose,
		"close finishes the push": testCloseFinishes,
		"secrets":                 testSecrets,
		"turned away":             testTurnedAway,
		"turned away, many":       testManyTurnedAway,
		"stranger":                testStranger,
		"resets":                  testResets,
		"goaways":                 testGoAways,
		"greetings":               testGreetings,
		"changing stream limit":   testStreamLimit,
		"narrowed for refusals":   testNarrowedForRefusals,
		"stalled dials":           testStalledDials,
		"expired token":           testExpiredToken,
		"too many tokens":         testTooManyTokens,
		"renewed token":           testRenewedToken,
		"refused access token":    testRefusedAccessToken,
		"bad grant":               testBadGrant,
		"hanging token endpoint":  testHangingTokenEndpoint,
		"verify":                  testVerify,
		"verify refusals":         testVerifyRefusals,
		"verify without answer":   testVerifyWithoutAnswer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, f)
		})
	}
}

func testAccepted(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	p := NewPush(f.Token(w.sim))
	out := w.push(p, patience)
	if diff := cmp.Diff(providers.Outcome{Verdict: providers.Accepted, Status: 200}, out, ignoreTook()); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
	if out.Took <= 0 {
		t.Errorf("took %v", out.Took)
	}
	got := w.sim.Pushes(p.Token)
	if len(got) != 1 {
		t.Fatalf("the phone got %d pushes, want 1", len(got))
	}
	if diff := cmp.Diff(f.Body(p), string(got[0].Body)); diff != "" {
		t.Errorf("body, byte for byte (-want +got):\n%s", diff)
	}
	if v := w.sim.Stats().Violations; len(v) > 0 {
		t.Errorf("the simulator saw violations: %q", v)
	}
}

func ignoreTook() cmp.Option { return cmpopts.IgnoreFields(providers.Outcome{}, "Took") }

// aboutSeconds forgives what a date in a header and a slow machine make of a duration.
func aboutSeconds() cmp.Option {
	return cmp.Comparer(func(a, b time.Duration) bool { return (a-b).Abs() <= 2*time.Second && (a == 0) == (b == 0) })
}

func testDeadToken(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	p := NewPush(f.Token(w.sim))
	died := time.Now().Add(-time.Hour).Truncate(time.Second)
	w.sim.KillToken(p.Token, died)
	want := f.Dead
	if !want.ProviderTime.IsZero() {
		want.ProviderTime = died
	}
	if diff := cmp.Diff(want, w.push(p, patience), ignoreTook(), cmpopts.EquateApproxTime(time.Second)); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
	w.works()
}

// testAnswers also counts: an SDK that repeats a request on its own would show here.
func testAnswers(t *testing.T, f Fixture) {
	all := f.start(t, Settings{})
	for _, answer := range f.Answers {
		t.Run(answer.Name, func(t *testing.T) {
			t.Parallel()
			w := all.fork(t)
			p := NewPush(f.Token(w.sim))
			if answer.Platform != "" {
				p.Platform = answer.Platform
			}
			w.sim.AddRule(sim.Rule{Provider: f.Provider, TokenPrefix: p.Token, Action: answer.Action})
			out := w.push(p, patience)
			if diff := cmp.Diff(answer.Want, out, ignoreTook(), aboutSeconds()); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if n := w.requests(p.Token); n != 1 {
				t.Errorf("%d requests for one push", n)
			}
			w.works()
		})
	}
}

func testHang(t *testing.T, f Fixture) {
	for fault, long := range map[string]time.Duration{sim.FaultHang: 0, sim.FaultBlackhole: time.Second} {
		w := f.start(t, Settings{})
		w.works()
		p := NewPush(f.Token(w.sim))
		w.sim.AddRule(sim.Rule{Provider: f.Provider, TokenPrefix: p.Token, Action: sim.Action{Fault: fault}})
		ctx := NewExpiring(t)
		got := make(chan providers.Outcome, 1)
		go func() { got <- w.pushIn(ctx, p) }()
		w.until("the push has arrived", func(sim.ProviderStats) bool { return w.requests(p.Token) == 1 })
		<-time.After(long) // a connection is blamed for a long silence only
		ctx.Expire()
		if out := <-got; out.Verdict != providers.Unavailable || out.Reason != "timeout" {
			t.Errorf("%s: %+v, want unavailable for timeout", fault, out)
		}
		w.works() // a connection that went dark is not trusted with another push
	}
}

func testBrokenConnections(t *testing.T, f Fixture) {
	faults := []string{sim.FaultReset, sim.FaultCloseAfter, sim.FaultRSTInternal}
	if f.Provider == sim.APNs {
		faults = append(faults, sim.FaultGoawayLower, sim.FaultGoawayZero, sim.FaultRSTRefused)
	}
	for _, fault := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			w := f.start(t, Settings{})
			for _, warm := range []bool{false, true} {
				p := NewPush(f.Token(w.sim))
				w.sim.AddRule(sim.Rule{Provider: f.Provider, TokenPrefix: p.Token, Count: 1, Action: sim.Action{Fault: fault}})
				out := w.push(p, patience)
				if out.Verdict != providers.ConnectionLost || out.Reason == "" {
					t.Errorf("warm %v: %+v, want a lost connection", warm, out)
				}
				if n := w.requests(p.Token); n != 1 {
					t.Errorf("warm %v: %d requests for one push", warm, n)
				}
				if again := w.push(p, patience); again.Verdict != providers.Accepted {
					t.Errorf("warm %v: the same push at once: %+v", warm, again)
				}
				w.works()
			}
		})
	}
	t.Run(sim.FaultGoaway, func(t *testing.T) {
		t.Parallel()
		w := f.start(t, Settings{})
		p := NewPush(f.Token(w.sim))
		w.sim.AddRule(sim.Rule{Provider: f.Provider, TokenPrefix: p.Token, Count: 1, Action: sim.Action{Fault: sim.FaultGoaway}})
		if out := w.push(p, patience); out.Verdict != providers.Accepted {
			t.Errorf("answered and sent away: %+v, want accepted", out)
		}
		w.works()
	})
}

func testStalledHandshake(t *testing.T, f Fixture) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // the kernel accepts; nobody ever answers
	w := f.start(t, Settings{})
	w.provider = w.connect(Settings{Endpoint: "https://" + l.Addr().String() + pathOf(f.Endpoint(w.sim))})
	var all sync.WaitGroup
	for range 3 { // one that dials, and others who wait for the same dial
		all.Go(func() {
			out := w.push(NewPush(f.Token(w.sim)), time.Second)
			if out.Verdict != providers.Unavailable || out.Reason != "connect_timeout" {
				t.Errorf("%+v, want unavailable for connect_timeout", out)
			}
		})
	}
	all.Wait()
}

// pathOf returns the path of an endpoint.
func pathOf(endpoint string) string {
	_, rest, _ := strings.Cut(endpoint, "://")
	_, path, found := strings.Cut(rest, "/")
	if !found {
		return ""
	}
	return "/" + path
}

func testNobodyListens(t *testing.T, f Fixture) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	w := f.start(t, Settings{})
	w.provider = w.connect(Settings{Endpoint: "https://" + l.Addr().String() + pathOf(f.Endpoint(w.sim))})
	out := w.push(NewPush(f.Token(w.sim)), patience)
	if out.Verdict != providers.Unavailable || out.Reason != "connect_failed" {
		t.Errorf("%+v, want unavailable for connect_failed", out)
	}
}

func testForeignCertificate(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	w.provider = w.connect(Settings{RootCAs: x509.NewCertPool()})
	out := w.push(NewPush(f.Token(w.sim)), patience)
	if out.Verdict != providers.Unavailable {
		t.Errorf("%+v, want unavailable", out)
	}
	if n := w.stats().Requests; n != 0 {
		t.Errorf("%d requests went to a stranger", n)
	}
}

func testCanceled(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	p := NewPush(f.Token(w.sim))
	w.sim.AddRule(sim.Rule{Provider: f.Provider, TokenPrefix: p.Token, Action: sim.Action{Fault: sim.FaultHang}})
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan providers.Outcome, 1)
	go func() { got <- w.provider.Push(ctx, p) }()
	w.until("the push is under way", func(s sim.ProviderStats) bool { return s.PeakStreams > 0 })
	cancel()
	select {
	case out := <-got:
		if out.Verdict != providers.Unavailable || out.Reason != "canceled" {
			t.Errorf("%+v, want unavailable for canceled", out)
		}
	case <-time.After(patience):
		t.Error("a canceled push did not return")
	}
	w.works()
}

func testNoSlot(t *testing.T, f Fixture) {
	w := f.start(t, Settings{InFlight: 1})
	w.works()
	slow := NewPush(f.Token(w.sim))
	w.sim.AddRule(sim.Rule{Provider: f.Provider, TokenPrefix: slow.Token, Action: sim.Action{Fault: sim.FaultHang}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan providers.Outcome, 1)
	before := w.stats().Requests
	go func() { done <- w.provider.Push(ctx, slow) }()
	w.until("the slot is taken", func(s sim.ProviderStats) bool { return s.Requests > before })
	out := w.push(NewPush(f.Token(w.sim)), 100*time.Millisecond)
	if out.Verdict != providers.Unavailable || out.Reason != "queue_timeout" {
		t.Errorf("%+v, want unavailable for queue_timeout", out)
	}
	cancel()
	<-done
	w.works()
}

func testClose(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	w.works()
	for range 2 {
		if err := w.provider.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	w.until("the connections are closed", func(s sim.ProviderStats) bool { return s.ConnectionsOpen == 0 })
	out := w.push(NewPush(f.Token(w.sim)), patience)
	if out.Verdict != providers.Unavailable || out.Reason != "closed" {
		t.Errorf("%+v, want unavailable for closed", out)
	}
}

func testCloseFinishes(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	p := NewPush(f.Token(w.sim))
	w.sim.AddRule(sim.Rule{Provider: f.Provider, TokenPrefix: p.Token, Action: sim.Action{Delay: 200 * time.Millisecond}})
	got := make(chan providers.Outcome, 1)
	go func() { got <- w.push(p, patience) }()
	w.until("the push is under way", func(s sim.ProviderStats) bool { return s.PeakStreams > 0 })
	_ = w.provider.Close()
	if out := <-got; out.Verdict != providers.Accepted {
		t.Errorf("the push under way ended as %+v", out)
	}
	w.until("the connections are closed", func(s sim.ProviderStats) bool { return s.ConnectionsOpen == 0 })
}

// testSecrets has the provider echo the token in every place it can, and looks for it.
func testSecrets(t *testing.T, f Fixture) {
	w := f.start(t, Settings{})
	for i, body := range []string{
		`{"reason":"TOKEN","error":{"status":"TOKEN","message":"TOKEN","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"TOKEN"}]}}`,
		`<html>TOKEN</html>`,
	} {
		p := NewPush(f.Token(w.sim))
		p.Notification = &providers.Text{Title: "private title", Body: "private body"}
		w.sim.AddRule(sim.Rule{Provider: f.Provider, TokenPrefix: p.Token, Action: sim.Action{
			Status: 400 + i*100, Body: strings.ReplaceAll(body, "TOKEN", p.Token),
		}})
		out := w.push(p, patience)
		logs := w.logs.String()
		for _, secret := range []string{p.Token, "private", "BEGIN", "ya29", "bearer ey"} {
			if strings.Contains(out.Reason, secret) {
				t.Errorf("the outcome repeats %q", secret)
			}
			if strings.Contains(logs, secret) {
				t.Errorf("the log repeats %q", secret)
			}
		}
	}
}
