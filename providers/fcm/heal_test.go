package fcm_test

import (
	"context"
	"crypto/x509"
	"strings"
	"sync"
	"testing"
	"time"

	"rouse/providers"
	"rouse/providers/fcm"
	"rouse/providers/providertest"
	"rouse/providers/sim"
)

// rig is a client beside the simulator.
type rig struct {
	t   *testing.T
	sim *sim.Sim
	*fcm.Client
}

func newRig(t *testing.T, change func(*sim.Sim, *fcm.Options)) rig {
	t.Helper()
	s, err := sim.Start(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	o := fcm.Options{Endpoint: s.FCMURL(), TokenEndpoint: s.FCMTokenURL(), RootCAs: roots}
	change(s, &o)
	c, err := fcm.New(newSecret(t, s), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return rig{t, s, c}
}

func (r rig) wake(limit time.Duration) providers.Outcome {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	return r.Push(ctx, providertest.NewPush(r.sim.NewFCMToken(project)))
}

func (r rig) want(out providers.Outcome, verdict providers.Verdict, reason string) {
	r.t.Helper()
	if out.Verdict != verdict || out.Reason != reason {
		r.t.Errorf("%+v, want %s %q", out, verdict, reason)
	}
}

const patience = 10 * time.Second

func plain(*sim.Sim, *fcm.Options) {}

func TestRevokedAccessTokenHealsOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.want(r.wake(patience), providers.Accepted, "")
	r.sim.RevokeAccessTokens()
	r.want(r.wake(patience), providers.ConnectionLost, "UNAUTHENTICATED")
	r.want(r.wake(patience), providers.Accepted, "")
	if n := r.sim.Stats().Token.Requests; n != 2 {
		t.Errorf("%d calls of the token endpoint, want 2", n)
	}
	r.sim.AddRule(sim.Rule{Provider: sim.FCM, Action: sim.Action{Reason: "UNAUTHENTICATED"}})
	r.want(r.wake(patience), providers.ConnectionLost, "UNAUTHENTICATED")
	r.want(r.wake(patience), providers.CredentialBad, "UNAUTHENTICATED")
	r.sim.ClearRules()
	r.want(r.wake(patience), providers.Accepted, "")
}

func TestInvalidGrantIsAskedOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.sim.AddRule(sim.Rule{Provider: sim.Token, Action: sim.Action{Reason: "invalid_grant"}})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { r.want(r.wake(patience), providers.CredentialBad, "invalid_grant") })
	}
	all.Wait()
	if s := r.sim.Stats(); s.Token.Requests != 1 || s.FCM.Requests != 0 {
		t.Errorf("%d calls of the token endpoint and %d pushes, want 1 and 0", s.Token.Requests, s.FCM.Requests)
	}
}

func TestTokenEndpoint(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		action  sim.Action
		verdict providers.Verdict
		reason  string
	}{
		"invalid_client":      {sim.Action{Reason: "invalid_client", Status: 401}, providers.CredentialBad, "invalid_client"},
		"unauthorized_client": {sim.Action{Reason: "unauthorized_client"}, providers.CredentialBad, "unauthorized_client"},
		"500":                 {sim.Action{Reason: "internal_failure", Status: 500}, providers.Unavailable, "token_endpoint_unavailable"},
		"429":                 {sim.Action{Reason: "rate_limit", Status: 429}, providers.Unavailable, "token_endpoint_unavailable"},
		"html":                {sim.Action{Status: 400, Body: "<html>"}, providers.Unavailable, "token_endpoint_unavailable"},
		"200 html":            {sim.Action{Status: 200, Body: "<html>"}, providers.Unavailable, "token_endpoint_unavailable"},
		"200 without a token": {sim.Action{Status: 200, Body: "{}"}, providers.Unavailable, "token_endpoint_unavailable"},
		"redirect":            {sim.Action{Status: 302, Body: "<html>"}, providers.Unavailable, "token_endpoint_unavailable"},
		"reset":               {sim.Action{Fault: sim.FaultReset}, providers.Unavailable, "token_endpoint_unavailable"},
		"hang":                {sim.Action{Fault: sim.FaultHang}, providers.Unavailable, "token_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, plain)
			r.sim.AddRule(sim.Rule{Provider: sim.Token, Action: tt.action})
			limit := patience
			if tt.action.Fault == sim.FaultHang {
				limit = 300 * time.Millisecond
			}
			r.want(r.wake(limit), tt.verdict, tt.reason)
		})
	}
}

func TestNobodyAtTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(_ *sim.Sim, o *fcm.Options) { o.TokenEndpoint = "http://127.0.0.1:1/token" })
	r.want(r.wake(patience), providers.Unavailable, "token_endpoint_unavailable")
}

// TestPlainHTTP is how a test without certificates would speak to a fake.
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *sim.Sim, o *fcm.Options) { o.Endpoint, o.InFlight = s.FCMPlainURL(), 8 })
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { r.want(r.wake(patience), providers.Accepted, "") })
	}
	all.Wait()
	// Eight at once and one for the access token. The HTTP client replaces one whose writer it takes for slow.
	if s := r.sim.Stats().FCM; s.Requests != 100 || s.ConnectionsOpened > 50 {
		t.Errorf("%d requests on %d connections, want 100 on few", s.Requests, s.ConnectionsOpened)
	}
}

// TestNarrowScope: the SDK would ask for the whole cloud.
func TestNarrowScope(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	r.want(r.wake(patience), providers.Accepted, "")
	for _, e := range r.sim.Log() {
		if e.Provider != sim.Token {
			continue
		}
		const want = `"scope":"https://www.googleapis.com/auth/firebase.messaging"`
		if !strings.Contains(e.Body, want) || !strings.Contains(e.Body, `"aud":"`+r.sim.FCMTokenURL()+`"`) {
			t.Errorf("assertion %s", e.Body)
		}
	}
}

func TestMalformedTokenIsSuspect(t *testing.T) {
	t.Parallel()
	r := newRig(t, plain)
	out := r.Push(t.Context(), providertest.NewPush("this-is-no-token-of-anybody"))
	r.want(out, providers.TokenSuspect, "invalid_token")
	r.want(r.Push(t.Context(), providertest.NewPush("")), providers.Rejected, "bad_request")
}
