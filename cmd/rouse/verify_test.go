package main

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"rouse/config"
	"rouse/providers"
	"rouse/providers/sim"
	"rouse/tokens"
)

// verifying is a simulator and what speaks to it as a server would.
func verifying(t *testing.T) (*sim.Sim, opener) {
	t.Helper()
	s, err := sim.Start(t.Context(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	return s, openProvider(config.Endpoints{
		APNs: s.APNsURL(), APNsSandbox: s.APNsSandboxURL(), APNsCA: roots, FCM: s.FCMURL(), FCMToken: s.FCMTokenURL(), FCMCA: roots,
	}, slog.New(slog.DiscardHandler))
}

func apnsCredential(t *testing.T, team, key, pem string) tokens.Credential {
	t.Helper()
	c, err := checker{}.APNs(providers.APNsUpload{TeamID: team, KeyID: key, PrivateKey: pem, Topic: "com.example.app"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// brief is what a script looks at.
func brief(found []providers.Finding) []string {
	var all []string
	for _, f := range found {
		all = append(all, strings.TrimSpace(f.Check+" "+string(f.Status)+" "+f.Reason))
	}
	return all
}

func TestVerifyInBothEnvironments(t *testing.T) {
	t.Parallel()
	s, open := verifying(t)
	const team, key = "TEAM000001", "KEY0000001"
	both := s.NewAPNsKey(team, key)
	inSandbox := s.NewAPNsKeyIn(sim.Sandbox, team, "KEY0000002")
	for name, tt := range map[string]struct {
		credential tokens.Credential
		want       []string
	}{
		"good":         {apnsCredential(t, team, key, both), []string{"apns_production ok", "apns_sandbox ok"}},
		"sandbox only": {apnsCredential(t, team, "KEY0000002", inSandbox), []string{"apns_production warn BadEnvironmentKeyIdInToken", "apns_sandbox ok"}},
		"unknown":      {apnsCredential(t, team, "KEY0000009", both), []string{"apns_production fail InvalidProviderToken", "apns_sandbox fail InvalidProviderToken"}},
		"swapped":      {apnsCredential(t, key, team, both), []string{"apns_production fail ids_swapped", "apns_sandbox fail ids_swapped"}},
	} {
		if got := brief(verify(t.Context(), open, tt.credential)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestVerifyCertificateOfOneEnvironment meets the other one's GOAWAY.
func TestVerifyCertificateOfOneEnvironment(t *testing.T) {
	t.Parallel()
	s, open := verifying(t)
	made := s.NewAPNsIdentity(sim.APNsCertificate{Topic: "com.example.app", Environment: sim.Sandbox, Password: "x"})
	c, err := checker{}.APNs(providers.APNsUpload{P12: made.P12, P12Password: "x", Topic: "com.example.app"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"apns_production warn BadCertificateEnvironment", "apns_sandbox ok"}
	if got := brief(verify(t.Context(), open, c)); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestVerifyFCM(t *testing.T) {
	t.Parallel()
	s, open := verifying(t)
	c, err := checker{}.FCM(providers.FCMUpload{ServiceAccount: s.NewServiceAccount("example-project")})
	if err != nil {
		t.Fatal(err)
	}
	if got := brief(verify(t.Context(), open, c)); !slices.Equal(got, []string{"fcm_access_token ok", "fcm_send ok"}) {
		t.Errorf("%q", got)
	}
}

// pair is a provider in one of two environments: it finds nothing before it is asked in the other one, too.
type pair struct {
	providers.Provider
	asked, other chan struct{}
	closed       *atomic.Int32
}

func (p *pair) Verify(ctx context.Context) []providers.Finding {
	close(p.asked)
	select {
	case <-p.other:
		return []providers.Finding{{Check: "both", Status: providers.FindingOK, Cause: "Both were asked."}}
	case <-ctx.Done():
		return []providers.Finding{{Check: "both", Status: providers.FindingFail, Cause: "The other was not asked meanwhile."}}
	}
}

func (p *pair) Close() error {
	p.closed.Add(1)
	return nil
}

// TestVerifyBothEnvironmentsAtOnce: one that hangs costs the other nothing.
func TestVerifyBothEnvironmentsAtOnce(t *testing.T) {
	t.Parallel()
	production, sandbox := make(chan struct{}), make(chan struct{})
	var closed atomic.Int32
	open := func(_ tokens.Credential, in tokens.Environment) (providers.Provider, error) {
		if in == tokens.Sandbox {
			return &pair{asked: sandbox, other: production, closed: &closed}, nil
		}
		return &pair{asked: production, other: sandbox, closed: &closed}, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if got := brief(verify(ctx, open, tokens.Credential{Provider: tokens.APNs})); !slices.Equal(got, []string{"both ok", "both ok"}) || closed.Load() != 2 {
		t.Errorf("%q, %d closed", got, closed.Load())
	}
}

func TestVerifyUnusable(t *testing.T) {
	t.Parallel()
	broken := func(tokens.Credential, tokens.Environment) (providers.Provider, error) {
		return nil, errors.New("it is torn")
	}
	got := verify(t.Context(), broken, tokens.Credential{Provider: tokens.APNs})
	want := []string{"apns_production fail credential_unusable", "apns_sandbox fail credential_unusable"}
	if !slices.Equal(brief(got), want) || !strings.Contains(got[0].Cause, "torn") {
		t.Errorf("%+v, want %q", got, want)
	}
}

// TestForgive: a refusal for the environment is a warning only beside one that works.
func TestForgive(t *testing.T) {
	t.Parallel()
	of := func(status providers.FindingStatus, reason string) providers.Finding {
		return providers.Finding{Check: "c", Status: status, Reason: reason}
	}
	for _, reason := range ofEnvironment {
		fine := forgive([]providers.Finding{of(providers.FindingFail, reason), of(providers.FindingOK, "")})
		alone := forgive([]providers.Finding{of(providers.FindingFail, reason), of(providers.FindingFail, "InvalidProviderToken")})
		if fine[0].Status != providers.FindingWarn || alone[0].Status != providers.FindingFail {
			t.Errorf("%s: %s beside one that works, %s alone", reason, fine[0].Status, alone[0].Status)
		}
	}
	if got := forgive([]providers.Finding{of(providers.FindingFail, "TopicDisallowed"), of(providers.FindingOK, "")}); got[0].Status != providers.FindingFail {
		t.Errorf("another refusal became %s", got[0].Status)
	}
}
