package apns

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rouse/providers"
	"rouse/providers/sim"
)

// verifier is a client for an upload, beside the simulator.
func verifier(t *testing.T, s *sim.Sim, u providers.APNsUpload) *Client {
	t.Helper()
	checked, err := Check(u, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(checked.Secret, false, Options{Endpoint: s.APNsURL(), RootCAs: roots(t, s.CAPEM())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func roots(t *testing.T, text []byte) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatal("that is no certificate")
	}
	return pool
}

func startSim(t *testing.T) *sim.Sim {
	t.Helper()
	s, err := sim.Start(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func anywhere(s *sim.Sim) string  { return s.NewAPNsKey("TEAM000001", "KEY0000001") }
func inSandbox(s *sim.Sim) string { return s.NewAPNsKeyIn(sim.Sandbox, "TEAM000001", "KEY0000001") }
func ofAnother(s *sim.Sim) string {
	return s.NewAPNsKey("TEAM000001", "KEY0000001", "com.example.other")
}

// TestVerifyTellsSwappedIDs: with one token more, in one request more, on a connection of its own.
func TestVerifyTellsSwappedIDs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		register     func(*sim.Sim) string
		team, key    string
		reason, says string
		tokens       int
	}{
		"swapped":                            {anywhere, "KEY0000001", "TEAM000001", "ids_swapped", "Put it again with the two exchanged: team id TEAM000001 and key id KEY0000001. If", 2},
		"right":                              {anywhere, "TEAM000001", "KEY0000001", "", "takes the credential", 1},
		"another key":                        {anywhere, "TEAM000001", "KEY0000009", "InvalidProviderToken", "AuthKey_", 2},
		"swapped, for the other environment": {inSandbox, "KEY0000001", "TEAM000001", "ids_swapped", "exchanged", 2},
		"swapped, for another topic":         {ofAnother, "KEY0000001", "TEAM000001", "ids_swapped", "exchanged", 2},
	} {
		s := startSim(t)
		c := verifier(t, s, providers.APNsUpload{TeamID: tt.team, KeyID: tt.key, PrivateKey: tt.register(s), Topic: healTopic})
		found := c.Verify(t.Context())
		if len(found) != 1 || found[0].Reason != tt.reason || !strings.Contains(found[0].Cause+found[0].Cure, tt.says) {
			t.Errorf("%s: %+v, want %q and %q", name, found, tt.reason, tt.says)
		}
		stats := s.Stats().APNs
		if stats.DistinctJWTs != tt.tokens || stats.Requests != tt.tokens || stats.ConnectionsOpened != tt.tokens {
			t.Errorf("%s: %d tokens in %d requests on %d connections, want %d each", name, stats.DistinctJWTs, stats.Requests, stats.ConnectionsOpened, tt.tokens)
		}
	}
}

// TestVerifyCertificates meets the simulator's own checks.
func TestVerifyCertificates(t *testing.T) {
	t.Parallel()
	s := startSim(t)
	for name, tt := range map[string]struct {
		made   sim.APNsCertificate
		status providers.FindingStatus
		reason string
	}{
		"good":           {sim.APNsCertificate{}, providers.FindingOK, ""},
		"sandbox alone":  {sim.APNsCertificate{Environment: sim.Sandbox}, providers.FindingFail, "BadCertificateEnvironment"},
		"somebody's own": {sim.APNsCertificate{Unknown: true}, providers.FindingFail, "BadCertificate"},
	} {
		tt.made.Topic = healTopic
		made := s.NewAPNsIdentity(tt.made)
		c := verifier(t, s, providers.APNsUpload{P12: made.P12, Topic: healTopic})
		found := c.Verify(t.Context())
		if found[0].Status != tt.status || found[0].Reason != tt.reason {
			t.Errorf("%s: %+v, want %s %q", name, found, tt.status, tt.reason)
		}
		out := rig{t, s, c}.wake(s.NewAPNsToken(healTopic, false))
		if accepted := out.Verdict == providers.Accepted; accepted != (tt.status == providers.FindingOK) || !accepted && out.Verdict != providers.CredentialBad {
			t.Errorf("%s: a push: %+v", name, out)
		}
	}
}

// TestExpiredCertificate: nobody has to be asked about it.
func TestExpiredCertificate(t *testing.T) {
	t.Parallel()
	s := startSim(t)
	made := s.NewAPNsIdentity(sim.APNsCertificate{Topic: healTopic, Expires: time.Now().Add(-time.Hour)})
	sealed, err := json.Marshal(secret{Certificate: made.CertificatePEM, CertificateKey: made.PrivateKeyPEM, Topic: healTopic})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(sealed, false, Options{Endpoint: s.APNsURL(), RootCAs: roots(t, s.CAPEM())})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if found := c.Verify(t.Context()); found[0].Status != providers.FindingFail || found[0].Reason != "certificate_expired" {
		t.Errorf("%+v", found)
	}
	if n := s.Stats().APNs.Requests; n != 0 {
		t.Errorf("%d requests", n)
	}
}

// TestCertificateRefusedInTheHandshake: a server that ends TLS for the certificate says so in an alert, in the
// handshake or, since TLS 1.3, after it. The end of the connection may overtake that alert; then the next push tells.
func TestCertificateRefusedInTheHandshake(t *testing.T) {
	t.Parallel()
	made := startSim(t).NewAPNsIdentity(sim.APNsCertificate{Topic: healTopic})
	checked, err := Check(providers.APNsUpload{P12: made.P12, Topic: healTopic}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.EnableHTTP2 = true
		server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool(), MinVersion: version, MaxVersion: version}
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.StartTLS()
		t.Cleanup(server.Close)
		pool := x509.NewCertPool()
		pool.AddCert(server.Certificate())
		c, err := New(checked.Secret, false, Options{Endpoint: server.URL, RootCAs: pool})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		r := rig{t, nil, c}
		for range 2 {
			out := r.wake(nobody)
			for i := 0; i < 20 && version == tls.VersionTLS13 && out.Verdict == providers.ConnectionLost; i++ {
				out = r.wake(nobody)
			}
			r.want(out, providers.CredentialBad, "certificate_refused")
		}
	}
}

// TestRefusedSentences: each refusal has a cause of its own.
func TestRefusedSentences(t *testing.T) {
	t.Parallel()
	c := &Client{secret: secret{TeamID: "TEAM000001", KeyID: "KEY0000001", Topic: healTopic}, sandbox: true}
	for reason, says := range map[string]string{
		"InvalidProviderToken": "the key KEY0000001 of team TEAM000001", "ExpiredProviderToken": "clock is wrong", "MissingProviderToken": "neither",
		"UnrelatedKeyIdInToken": "does not connect", "BadEnvironmentKeyIdInToken": "not made for the sandbox", "BadEnvironmentKeyInToken": "not made for the sandbox",
		"BadCertificateEnvironment": "certificate is not made for the sandbox", "BadCertificate": "refuses the certificate", "certificate_refused": "refuses the certificate",
		"TopicDisallowed": "topic " + healTopic, "BadTopic": "topic " + healTopic, "Forbidden": "(Forbidden)",
	} {
		f := c.finding(providers.Outcome{Verdict: providers.CredentialBad, Reason: reason, Status: 403})
		if f.Check != "apns_sandbox" || f.Status != providers.FindingFail || !strings.Contains(f.Cause, says) || f.Cure == "" {
			t.Errorf("%s: %+v, want %q in it", reason, f, says)
		}
	}
}
