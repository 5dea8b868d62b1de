package sim_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"software.sslmate.com/src/go-pkcs12"

	"rouse/providers/sim"
)

// withCertificate is an app that shows a client certificate and no provider token.
func withCertificate(t *testing.T, s *sim.Sim, c sim.APNsCertificate) *apple {
	t.Helper()
	made := s.NewAPNsIdentity(c)
	pair, err := tls.X509KeyPair([]byte(made.CertificatePEM), []byte(made.PrivateKeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	return &apple{t: t, sim: s, token: s.NewAPNsToken(topic, c.Environment == sim.Sandbox), client: certificateClient(t, s, pair)}
}

func certificateClient(t *testing.T, s *sim.Sim, pair tls.Certificate) *http.Client {
	t.Helper()
	config := trust(t, s)
	config.Certificates = []tls.Certificate{pair}
	transport := &http2.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestAPNsCertificateInsteadOfToken(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := withCertificate(t, s, sim.APNsCertificate{Topic: topic})
	for name, row := range map[string]struct {
		header map[string]string
		status int
		reason string
	}{
		"its topic":         {nil, 200, ""},
		"no topic":          {map[string]string{"apns-topic": ""}, 200, ""},
		"voip":              {map[string]string{"apns-topic": topic + ".voip", "apns-push-type": "voip"}, 200, ""},
		"complication":      {map[string]string{"apns-topic": topic + ".complication", "apns-push-type": "complication"}, 200, ""},
		"another app":       {map[string]string{"apns-topic": "com.example.other"}, 400, "BadTopic"},
		"only with a token": {map[string]string{"apns-topic": topic + ".location-query", "apns-push-type": "location"}, 400, "BadTopic"},
		"bad token ignored": {map[string]string{"authorization": "bearer nonsense"}, 200, ""},
		"header checks":     {map[string]string{"apns-priority": "7"}, 400, "BadPriority"},
	} {
		if got := a.push(ask{header: row.header}); got.status != row.status || got.reason != row.reason {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if n := len(s.Pushes(a.token)); n != 5 {
		t.Errorf("%d pushes, want the five good ones", n)
	}
	if got := a.push(ask{base: s.APNsSandboxURL()}); got.reason != "BadDeviceToken" {
		t.Errorf("good for both environments, so the token is what is wrong: %+v", got)
	}
}

// TestAPNsCertificateNeedsNoWarmUp: a certificate proves who asks before the first stream.
func TestAPNsCertificateNeedsNoWarmUp(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := withCertificate(t, s, sim.APNsCertificate{Topic: topic})
	s.AddRule(sim.Rule{Action: sim.Action{Delay: 50 * time.Millisecond}})
	config := a.client.Transport.(*http2.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"h2"}
	c := dialWith(t, s.APNsURL(), config)
	if n := c.limit(); n != 1000 {
		t.Errorf("limit %d at once, want 1000", n)
	}
	var wg sync.WaitGroup
	for range 90 {
		wg.Go(func() {
			if got, err := a.try(within(t, patience), ask{}); err != nil || got.status != 200 {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	wg.Wait()
	if stats := s.Stats().APNs; stats.RefusedStreams != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestAPNsCertificateNoGood(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	for name, c := range map[string]sim.APNsCertificate{
		"expired":      {Topic: topic, Expires: time.Now().Add(-time.Minute)},
		"long expired": {Topic: topic, Expires: time.Now().AddDate(-3, 0, 0)},
		"unknown":      {Topic: topic, Unknown: true},
	} {
		a := withCertificate(t, s, c)
		if got := a.push(ask{}); got.status != 403 || got.reason != "BadCertificate" {
			t.Errorf("%s: %+v", name, got)
		}
		if n := len(s.Pushes(a.token)); n != 0 {
			t.Errorf("%s: delivered %d times", name, n)
		}
	}
}

// TestAPNsCertificateOfTheOtherEnvironment: the client is sent away without an answer, again and again.
func TestAPNsCertificateOfTheOtherEnvironment(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	for environment, urls := range map[string][2]string{
		sim.Production: {s.APNsURL(), s.APNsSandboxURL()}, sim.Sandbox: {s.APNsSandboxURL(), s.APNsURL()},
	} {
		a := withCertificate(t, s, sim.APNsCertificate{Topic: topic, Environment: environment})
		if got := a.push(ask{base: urls[0]}); got.status != 200 {
			t.Errorf("%s: %+v", environment, got)
		}
		config := a.client.Transport.(*http2.Transport).TLSClientConfig.Clone()
		config.NextProtos = []string{"h2"}
		for range 2 {
			c := dialWith(t, urls[1], config)
			c.push(1, a)
			goaway := c.ended()
			if goaway == nil || goaway.LastStreamID != 0 || goaway.ErrCode != http2.ErrCodeNo {
				t.Fatalf("%s: %v", environment, goaway)
			}
			equalJSON(t, goaway.DebugData(), []byte(`{"reason":"BadCertificateEnvironment"}`))
		}
	}
}

// TestAPNsP12 reads the file as a client would.
func TestAPNsP12(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	made := s.NewAPNsIdentity(sim.APNsCertificate{Topic: topic, Password: "letmein"})
	key, leaf, chain, err := pkcs12.DecodeChain(made.P12, "letmein")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := pkcs12.DecodeChain(made.P12, "wrong"); !errors.Is(err, pkcs12.ErrIncorrectPassword) {
		t.Errorf("%v", err)
	}
	pair := tls.Certificate{Certificate: [][]byte{leaf.Raw, chain[0].Raw}, PrivateKey: key}
	a := &apple{t: t, sim: s, token: s.NewAPNsToken(topic, false), client: certificateClient(t, s, pair)}
	if got := a.push(ask{}); got.status != 200 {
		t.Errorf("%+v", got)
	}
}

func TestControlMakesCertificates(t *testing.T) {
	t.Parallel()
	s, c := newRemote(t)
	var made struct {
		Certificate string
		PrivateKey  string `json:"private_key"`
		P12         []byte
	}
	c.call("POST", "/control/apns/certificates", fmt.Sprintf(`{"topic":%q,"environment":"production","password":"x"}`, topic), 201, &made)
	pair, err := tls.X509KeyPair([]byte(made.Certificate), []byte(made.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := pkcs12.DecodeChain(made.P12, "x"); err != nil {
		t.Error(err)
	}
	a := &apple{t: t, sim: s, token: s.NewAPNsToken(topic, false), client: certificateClient(t, s, pair)}
	if got := a.push(ask{}); got.status != 200 {
		t.Errorf("%+v", got)
	}
	c.call("POST", "/control/apns/certificates", `{}`, 422, nil)
	c.call("POST", "/control/apns/certificates", `{"topic":"a.b","environment":"test"}`, 422, nil)
}
