package fcm

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"rouse/providers"
	"rouse/providers/sim"
)

// verifier is a client that speaks to the simulator, but for what change says.
func verifier(t *testing.T, change func(*Options)) *Client {
	t.Helper()
	s, err := sim.Start(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	checked, err := Check(fileOf(t, account(t)), now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	o := Options{Endpoint: s.FCMURL(), TokenEndpoint: s.FCMTokenURL(), RootCAs: roots}
	change(&o)
	c, err := New(checked.Secret, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestVerifyUnknownAccount meets the simulator's own checks: it does not know the service account.
func TestVerifyUnknownAccount(t *testing.T) {
	t.Parallel()
	found := verifier(t, func(*Options) {}).Verify(t.Context())
	if len(found) != 1 || found[0].Check != checkAccess || found[0].Reason != "invalid_grant" || !strings.Contains(found[0].Cause, "deleted or disabled") {
		t.Errorf("%+v", found)
	}
}

// TestVerifyTheWayToTheTokenEndpoint: what keeps us from it is named.
func TestVerifyTheWayToTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	deaf, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = deaf.Close() })
	for name, tt := range map[string]struct {
		change func(*Options)
		reason string
		limit  time.Duration
	}{
		"nobody listens":      {func(o *Options) { o.TokenEndpoint = "https://127.0.0.1:1/token" }, "connect_failed", time.Minute},
		"foreign certificate": {func(o *Options) { o.RootCAs = x509.NewCertPool() }, "untrusted_certificate", time.Minute},
		"no answer":           {func(o *Options) { o.TokenEndpoint = "https://" + deaf.Addr().String() + "/token" }, "token_timeout", 2 * time.Second},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
		found := verifier(t, tt.change).Verify(ctx)
		cancel()
		if len(found) != 1 || found[0].Check != checkAccess || found[0].Status != providers.FindingFail || found[0].Reason != tt.reason {
			t.Errorf("%s: %+v, want %s", name, found, tt.reason)
		}
	}
}

// TestClock: a signature refused beside a clock that is off is the clock's fault.
func TestClock(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for date, want := range map[string]time.Duration{
		at.Format(http.TimeFormat):                        0,
		at.Add(-10 * time.Minute).Format(http.TimeFormat): 10 * time.Minute,
		at.Add(7 * time.Minute).Format(http.TimeFormat):   -7 * time.Minute,
		"yesterday": 0,
		"":          0,
	} {
		if got := skew(date, at); got != want {
			t.Errorf("%q: %v, want %v", date, got, want)
		}
	}
	c := &Client{project: "p"}
	for skew, says := range map[time.Duration]string{
		10 * time.Minute: "clock is 10m0s ahead", -7 * time.Minute: "clock is 7m0s behind", 30 * time.Second: "deleted or disabled", 0: "deleted or disabled",
	} {
		if f := c.noAccess(&accessError{bad: true, reason: "invalid_grant", skew: skew}); !strings.Contains(f.Cause, says) || f.Reason != "invalid_grant" {
			t.Errorf("%v: %+v, want %q in it", skew, f, says)
		}
	}
}

// TestTheAnswerTellsTheClock: the token endpoint's own date is taken from its refusal.
func TestTheAnswerTellsTheClock(t *testing.T) {
	t.Parallel()
	_, _, err := verifier(t, func(*Options) {}).access.token(t.Context())
	if e := ofAccess(err); !e.bad || e.skew.Abs() > 5*time.Second {
		t.Errorf("%+v: the simulator's clock is ours", e)
	}
}

// TestRefusedSentences: each refusal has a cause of its own.
func TestRefusedSentences(t *testing.T) {
	t.Parallel()
	c := &Client{project: "example-project", host: "fcm.googleapis.com"}
	for reason, says := range map[string]string{
		"SERVICE_DISABLED": "switched off", "UNAUTHENTICATED": "refuses it twice", "http_401": "refuses it twice", "PERMISSION_DENIED": "may not send",
		"IAM_PERMISSION_DENIED": "may not send", "SOMETHING_NEW": "(SOMETHING_NEW)",
	} {
		f := c.finding(answer{status: 403, known: true}, providers.Outcome{Verdict: providers.CredentialBad, Reason: reason, Status: 403})
		if f.Status != providers.FindingFail || !strings.Contains(f.Cause, says) || f.Cure == "" {
			t.Errorf("%s: %+v, want %q in it", reason, f, says)
		}
	}
}
