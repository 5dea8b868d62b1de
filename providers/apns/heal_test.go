package apns

import (
	"crypto/x509"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"rouse/providers"
	"rouse/providers/sim"
)

const healTopic = "com.example.app"

// rig is a client beside the simulator, seen from inside.
type rig struct {
	t   *testing.T
	sim *sim.Sim
	*Client
}

func newRig(t *testing.T, sandbox bool) rig {
	t.Helper()
	return newRigWith(t, sandbox, Options{})
}

func newRigWith(t *testing.T, sandbox bool, o Options) rig {
	t.Helper()
	s, err := sim.Start(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	checked, err := Check(providers.APNsUpload{TeamID: "TEAM000001", KeyID: "KEY0000001", PrivateKey: s.NewAPNsKey("TEAM000001", "KEY0000001"), Topic: healTopic}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	o.Endpoint, o.SandboxEndpoint, o.RootCAs = s.APNsURL(), s.APNsSandboxURL(), roots
	c, err := New(checked.Secret, sandbox, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return rig{t, s, c}
}

func (r rig) wake(token string) providers.Outcome {
	r.t.Helper()
	return r.Push(r.t.Context(), providers.Push{
		ID: uuid.NewString(), Token: token, Kind: providers.Alert, Head: "C1", CollapseID: "rouse-1", ExpiresAt: time.Now().Add(time.Hour),
	})
}

func (r rig) want(out providers.Outcome, verdict providers.Verdict, reason string) {
	r.t.Helper()
	if out.Verdict != verdict || out.Reason != reason {
		r.t.Errorf("%+v, want %s %q", out, verdict, reason)
	}
}

func TestHeadersGolden(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	until := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		push providers.Push
		want map[string]string
	}{
		{
			providers.Push{Kind: providers.Alert, CollapseID: "rouse-1", ExpiresAt: until},
			map[string]string{"apns-push-type": "alert", "apns-priority": "10", "apns-collapse-id": "rouse-1", "apns-expiration": fmt.Sprint(until.Unix())},
		},
		{
			providers.Push{Kind: providers.Background, CollapseID: "rouse-1", ExpiresAt: until.Add(-2 * time.Hour)},
			map[string]string{"apns-push-type": "background", "apns-priority": "5", "apns-expiration": "0"},
		},
	} {
		p := tt.push
		p.ID, p.Token, p.Head = uuid.NewString(), r.sim.NewAPNsToken(healTopic, true), "C1"
		r.want(r.Push(t.Context(), p), providers.Accepted, "")
		got := r.sim.Pushes(p.Token)
		if len(got) != 1 {
			t.Fatalf("%d pushes", len(got))
		}
		tt.want["apns-topic"], tt.want["apns-id"] = healTopic, p.ID
		tt.want["content-type"] = "application/json; charset=utf-8"
		for name, value := range got[0].Headers {
			switch name {
			case "content-length", "user-agent":
			default:
				if tt.want[name] != value {
					t.Errorf("%s: %q, want %q", name, value, tt.want[name])
				}
				delete(tt.want, name)
			}
		}
		if len(tt.want) > 0 {
			t.Errorf("missing headers: %v", tt.want)
		}
	}
}

func TestExpiredTokenHealsOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	token := r.sim.NewAPNsToken(healTopic, false)
	r.want(r.wake(token), providers.Accepted, "")
	r.Age(30 * time.Minute)
	bearer := r.sdk.Token.Bearer
	remove := r.sim.AddRule(sim.Rule{Provider: sim.APNs, Count: 1, Action: sim.Action{Reason: "ExpiredProviderToken"}})
	r.want(r.wake(token), providers.ConnectionLost, "ExpiredProviderToken")
	remove()
	if r.sdk.Token.Bearer == bearer {
		t.Error("the provider token was not renewed")
	}
	r.want(r.wake(token), providers.Accepted, "")
	if n := r.sim.Stats().APNs.ConnectionsOpened; n != 2 {
		t.Errorf("%d connections, want a second one", n)
	}

	// Again, and again: now it is the app's trouble, until it works.
	remove = r.sim.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Reason: "ExpiredProviderToken"}})
	r.want(r.wake(token), providers.ConnectionLost, "ExpiredProviderToken")
	bearer = r.sdk.Token.Bearer
	r.want(r.wake(token), providers.CredentialBad, "ExpiredProviderToken")
	r.want(r.wake(token), providers.CredentialBad, "ExpiredProviderToken")
	if r.sdk.Token.Bearer != bearer {
		t.Error("a provider token younger than 20 minutes was replaced")
	}
	remove()
	r.want(r.wake(token), providers.Accepted, "")
	r.sim.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Reason: "UnrelatedKeyIdInToken"}})
	r.want(r.wake(token), providers.ConnectionLost, "UnrelatedKeyIdInToken")
}

func TestTooManyTokenUpdatesKeepsTheToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	token := r.sim.NewAPNsToken(healTopic, false)
	r.want(r.wake(token), providers.Accepted, "")
	r.Age(30 * time.Minute)
	bearer := r.sdk.Token.Bearer
	r.sim.AddRule(sim.Rule{Provider: sim.APNs, Count: 1, Action: sim.Action{Reason: "TooManyProviderTokenUpdates"}})
	r.want(r.wake(token), providers.AppThrottled, "TooManyProviderTokenUpdates")
	r.want(r.wake(token), providers.Accepted, "")
	if r.sdk.Token.Bearer != bearer {
		t.Error("a new provider token was made")
	}
	if n := r.sim.Stats().APNs.ConnectionsOpened; n != 2 {
		t.Errorf("%d connections, want a second one: the first is spoilt", n)
	}
}

// TestTurnedAwayForTheCredential is the loop in which Apple ends every
// connection before it answers; the SDK alone would hang in it for a minute and never say why.
func TestTurnedAwayForTheCredential(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	token := r.sim.NewAPNsToken(healTopic, false)
	remove := r.sim.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Fault: sim.FaultGoawayZero, Reason: "BadCertificateEnvironment"}})
	for range 3 {
		r.want(r.wake(token), providers.CredentialBad, "BadCertificateEnvironment")
	}
	remove()
	r.want(r.wake(token), providers.Accepted, "")
	// Another reason to go away is no credential's fault.
	r.sim.AddRule(sim.Rule{Provider: sim.APNs, Count: 1, Action: sim.Action{Fault: sim.FaultGoawayZero, Reason: "Shutdown"}})
	r.want(r.wake(token), providers.ConnectionLost, "goaway")
}

// TestWrongKey meets the simulator's own checks, with no rule to help.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	token := r.sim.NewAPNsToken(healTopic, false)
	r.sdk.Token.KeyID = "KEY0000009"
	if _, err := r.sdk.Token.Generate(); err != nil {
		t.Fatal(err)
	}
	r.want(r.wake(token), providers.CredentialBad, "InvalidProviderToken")
	r.want(r.wake(r.sim.NewAPNsToken(healTopic, true)), providers.CredentialBad, "InvalidProviderToken")
}

func TestTokenOfTheOtherEnvironment(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	r.want(r.wake(r.sim.NewAPNsToken(healTopic, true)), providers.TokenSuspect, "BadDeviceToken")
	r.want(r.wake(r.sim.NewAPNsToken("com.example.other", false)), providers.TokenSuspect, "DeviceTokenNotForTopic")
}

// TestHostileToken must not reach the URL: the SDK would put it there as it is.
func TestHostileToken(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	for _, token := range []string{"", "../4/broadcasts?x=1", "00112233445566778899zz", "0011223344556677\r\n"} {
		r.want(r.wake(token), providers.TokenSuspect, "BadDeviceToken")
	}
	if n := r.sim.Stats().APNs.Requests; n != 0 {
		t.Errorf("%d requests went out", n)
	}
}

func TestTokenFloor(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	at := time.Now()
	for _, tt := range []struct {
		age  time.Duration
		anew bool
	}{{0, false}, {19 * time.Minute, false}, {21 * time.Minute, true}, {-19 * time.Minute, false}, {-time.Hour, true}} {
		r.Age(tt.age)
		before := r.sdk.Token.IssuedAt
		r.renewToken(at)
		if anew := r.sdk.Token.IssuedAt != before; anew != tt.anew {
			t.Errorf("a token %v old was renewed: %v, want %v", tt.age, anew, tt.anew)
		}
	}
}

// TestCloseIdleConnections: the SDK's own method panics with a transport that lacks its own.
func TestCloseIdleConnections(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	r.sdk.CloseIdleConnections()
	r.want(r.wake(r.sim.NewAPNsToken(healTopic, false)), providers.Accepted, "")
}

// TestRenewalInABurst: pushes that wait for a slot were signed before the provider token was renewed. Were they to show
// the old one after others showed the new, Apple would see the token change back and forth.
func TestRenewalInABurst(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, false, Options{InFlight: 5})
	r.want(r.wake(r.sim.NewAPNsToken(healTopic, false)), providers.Accepted, "")
	r.sim.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Delay: 5 * time.Millisecond}})
	var all sync.WaitGroup
	for i := range 200 {
		if i == 100 {
			r.Age(51 * time.Minute)
		}
		token := r.sim.NewAPNsToken(healTopic, false)
		all.Go(func() { r.want(r.wake(token), providers.Accepted, "") })
	}
	all.Wait()
	if n := r.sim.Stats().APNs.DistinctJWTs; n != 2 {
		t.Errorf("%d provider tokens, want 2", n)
	}
}

// TestExpiryInABurst: what waited for a slot with the expired provider token goes out with the new one.
func TestExpiryInABurst(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, false, Options{InFlight: 5})
	r.Expire()
	var all sync.WaitGroup
	for range 200 {
		token := r.sim.NewAPNsToken(healTopic, false)
		all.Go(func() {
			out := r.wake(token)
			if out.Verdict == providers.ConnectionLost {
				out = r.wake(token)
			}
			r.want(out, providers.Accepted, "")
		})
	}
	all.Wait()
	stats := r.sim.Stats().APNs
	if stats.DistinctJWTs != 2 || stats.ConnectionsOpened != 2 {
		t.Errorf("%d provider tokens on %d connections, want one new token on one new connection", stats.DistinctJWTs, stats.ConnectionsOpened)
	}
}
