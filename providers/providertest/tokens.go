package providertest

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/providers"
	"rouse/providers/sim"
)

// few is enough pushes at once to fill a connection several times over where it takes narrow at a time.
const (
	few    = 100
	narrow = 5
)

// newTokens registers n devices.
func (w *world) newTokens(n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = w.Token(w.sim)
	}
	return tokens
}

// pushTwice pushes to all at once, and at once again to those whose connection was lost: all must be accepted then.
func (w *world) pushTwice(n int) {
	w.t.Helper()
	tokens := w.newTokens(n)
	var lost []string
	for i, out := range w.pushAll(tokens) {
		switch out.Verdict {
		case providers.Accepted:
		case providers.ConnectionLost:
			lost = append(lost, tokens[i])
		default:
			w.t.Fatalf("push %d: %+v", i, out)
		}
	}
	for _, out := range w.pushAll(lost) {
		if out.Verdict != providers.Accepted {
			w.t.Errorf("once more: %+v", out)
		}
	}
}

// testExpiredToken: the connection is replaced, and exactly one new token signed, however many pushes wait with the old.
func testExpiredToken(t *testing.T, f Fixture) {
	if f.Signs == nil {
		t.Skip("it is shown no token of ours")
	}
	w := f.start(t, Settings{InFlight: narrow})
	f.Signs.Expire(w.provider)
	if diff := cmp.Diff(f.Signs.Expired, w.push(NewPush(f.Token(w.sim)), patience), ignoreTook()); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
	w.works()
	w.provider = w.connect(Settings{InFlight: narrow})
	w.sim.Reset()
	f.Signs.Expire(w.provider)
	w.pushTwice(few)
	if s := w.stats(); s.DistinctJWTs != 2 || s.ConnectionsOpened != 2 {
		t.Errorf("%d tokens on %d connections, want one new token on one new connection", s.DistinctJWTs, s.ConnectionsOpened)
	}
}

// testTooManyTokens: no new token, and the old one goes on over a new connection.
func testTooManyTokens(t *testing.T, f Fixture) {
	if f.Signs == nil {
		t.Skip("it is shown no token of ours")
	}
	w := f.start(t, Settings{})
	w.works()
	f.Signs.Age(w.provider, 30*time.Minute)
	w.sim.AddRule(sim.Rule{Provider: f.Provider, Count: 1, Action: f.Signs.TooMany.Action})
	out := w.push(NewPush(f.Token(w.sim)), patience)
	if diff := cmp.Diff(f.Signs.TooMany.Want, out, ignoreTook()); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
	w.works()
	if s := w.stats(); s.DistinctJWTs != 1 || s.ConnectionsOpened != 2 {
		t.Errorf("%d tokens on %d connections, want the same token on a second connection", s.DistinctJWTs, s.ConnectionsOpened)
	}
}

// testRenewedToken: a token that is renewed in the middle of a burst never changes on a connection.
func testRenewedToken(t *testing.T, f Fixture) {
	if f.Signs == nil {
		t.Skip("it is shown no token of ours")
	}
	w := f.start(t, Settings{InFlight: narrow})
	w.works()
	w.sim.AddRule(sim.Rule{Provider: f.Provider, Action: sim.Action{Delay: time.Millisecond}})
	var all sync.WaitGroup
	all.Go(func() { w.pushTwice(few) })
	w.until("some pushes are through", func(s sim.ProviderStats) bool { return s.Requests > narrow })
	f.Signs.Age(w.provider, 51*time.Minute)
	w.pushTwice(few)
	all.Wait()
	if s := w.stats(); s.DistinctJWTs != 2 || s.ConnectionsOpened != 2 || s.Rejected != 0 {
		t.Errorf("%d tokens on %d connections, %d refusals; want a second token on a second connection and none", s.DistinctJWTs, s.ConnectionsOpened, s.Rejected)
	}
}

// testRefusedAccessToken: one fetch heals all pushes that failed with the revoked token.
func testRefusedAccessToken(t *testing.T, f Fixture) {
	if !f.Fetches {
		t.Skip("it fetches no access token")
	}
	w := f.start(t, Settings{})
	w.works()
	w.sim.RevokeAccessTokens()
	w.pushTwice(few)
	if n := w.sim.Stats().Token.Requests; n != 2 {
		t.Errorf("%d calls of the token endpoint, want 2", n)
	}
}

// testBadGrant: one call tells all who wait, and none follows at once.
func testBadGrant(t *testing.T, f Fixture) {
	if !f.Fetches {
		t.Skip("it fetches no access token")
	}
	w := f.start(t, Settings{})
	w.sim.AddRule(sim.Rule{Provider: sim.Token, Action: sim.Action{Reason: "invalid_grant"}})
	for range 2 {
		for i, out := range w.pushAll(w.newTokens(few)) {
			if out.Verdict != providers.CredentialBad || out.Reason != "invalid_grant" {
				t.Fatalf("push %d: %+v", i, out)
			}
		}
	}
	if n := w.sim.Stats().Token.Requests; n != 1 {
		t.Errorf("%d calls of the token endpoint, want 1", n)
	}
}

// testHangingTokenEndpoint: those who need the token give up in time, and another app feels nothing.
func testHangingTokenEndpoint(t *testing.T, f Fixture) {
	if !f.Fetches {
		t.Skip("it fetches no access token")
	}
	w := f.start(t, Settings{})
	other := *w
	other.provider = w.connect(Settings{})
	w.sim.AddRule(sim.Rule{Provider: sim.Token, Count: 1, Action: sim.Action{Fault: sim.FaultHang}})
	const limit = 500 * time.Millisecond
	var all sync.WaitGroup
	for _, token := range w.newTokens(few) {
		all.Go(func() {
			if out := w.push(NewPush(token), limit); out.Verdict != providers.Unavailable || out.Reason != "token_timeout" {
				t.Errorf("%+v, want unavailable for token_timeout", out)
			}
		})
	}
	defer all.Wait()
	w.untilToken("the token endpoint hangs", 1)
	for i, out := range other.pushAll(other.newTokens(few)) {
		if out.Verdict != providers.Accepted {
			t.Errorf("push %d of another app: %+v", i, out)
		}
	}
}

// untilToken waits until the token endpoint has been called n times.
func (w *world) untilToken(what string, n int) {
	w.t.Helper()
	w.until(what, func(sim.ProviderStats) bool { return w.sim.Stats().Token.Requests >= n })
}
