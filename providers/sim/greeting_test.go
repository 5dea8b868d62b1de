package sim_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"rouse/providers/sim"
)

// dialOnce shakes hands with a fake.
func dialOnce(ctx context.Context, t *testing.T, s *sim.Sim, url string, protocols ...string) (*tls.Conn, error) {
	t.Helper()
	config := trust(t, s)
	config.NextProtos = protocols
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "/")
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*tls.Conn), nil
}

// TestGreetings has each fault before HTTP/2, on both fakes: what the client sees,
// that the log tells of it, and that the next connection is good.
func TestGreetings(t *testing.T) {
	t.Parallel()
	reset := func(_ *tls.Conn, err error) bool { return errors.Is(err, syscall.ECONNRESET) }
	late := func(_ *tls.Conn, err error) bool { return errors.Is(err, context.DeadlineExceeded) }
	invalid := func(why x509.InvalidReason) func(*tls.Conn, error) bool {
		return func(_ *tls.Conn, err error) bool {
			var bad x509.CertificateInvalidError
			return errors.As(err, &bad) && bad.Reason == why
		}
	}
	for name, row := range map[string]struct {
		action sim.Action
		seen   func(*tls.Conn, error) bool
	}{
		"refused": {sim.Action{Fault: sim.FaultRefuse}, reset},
		"stalled": {sim.Action{Fault: sim.FaultTLSStall}, late},
		"unknown authority": {sim.Action{Fault: sim.FaultWrongCertificate}, func(_ *tls.Conn, err error) bool {
			var unknown x509.UnknownAuthorityError
			return errors.As(err, &unknown)
		}},
		"expired": {sim.Action{Fault: sim.FaultWrongCertificate, Reason: "expired"}, invalid(x509.Expired)},
		"other name": {sim.Action{Fault: sim.FaultWrongCertificate, Reason: "name"}, func(_ *tls.Conn, err error) bool {
			var name x509.HostnameError
			return errors.As(err, &name)
		}},
		"no h2": {sim.Action{Fault: sim.FaultHTTP1Only}, func(_ *tls.Conn, err error) bool {
			return err != nil && strings.Contains(err.Error(), "no application protocol")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, sim.Options{})
			for provider, url := range map[string]string{sim.APNs: s.APNsURL(), sim.FCM: s.FCMURL()} {
				s.AddRule(sim.Rule{Provider: provider, Count: 1, Action: row.action})
				before := len(s.Log())
				ctx := within(t, patience)
				if row.action.Fault == sim.FaultTLSStall {
					ctx = within(t, 100*time.Millisecond)
				}
				if conn, err := dialOnce(ctx, t, s, url, "h2"); !row.seen(conn, err) {
					t.Errorf("%s: %v", provider, err)
				}
				// Who gives up early may be gone before the fake has met them.
				waitFor(t, "the log tells of it", func() bool { return len(s.Log()) > before })
				log := s.Log()
				if e := log[len(log)-1]; e.Fault != row.action.Fault || e.Provider != provider || e.Method != "" || e.Connection == 0 {
					t.Errorf("%s: log %+v", provider, e)
				}
				if _, err := dialOnce(within(t, patience), t, s, url, "h2"); err != nil {
					t.Errorf("%s: afterwards %v", provider, err)
				}
			}
			if stats := s.Stats(); stats.APNs.Requests+stats.FCM.Requests+len(stats.Violations) != 0 {
				t.Errorf("%+v", stats)
			}
		})
	}
}

// TestStallEndsWithTheClient: what stalls holds no connection once the client has left.
func TestStallEndsWithTheClient(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	s.AddRule(sim.Rule{Action: sim.Action{Fault: sim.FaultTLSStall}})
	for _, url := range []string{s.APNsURL(), s.FCMURL()} {
		conn, err := net.Dial("tcp", strings.Split(strings.TrimPrefix(url, "https://"), "/")[0])
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, "it is open", func() bool { return s.Stats().APNs.ConnectionsOpen+s.Stats().FCM.ConnectionsOpen == 1 })
		_ = conn.Close()
		waitFor(t, "it is closed", func() bool { return s.Stats().APNs.ConnectionsOpen+s.Stats().FCM.ConnectionsOpen == 0 })
	}
}

func TestStallPasses(t *testing.T) {
	t.Parallel()
	const delay = 80 * time.Millisecond
	s := start(t, sim.Options{})
	a := newApple(t, s)
	s.AddRule(sim.Rule{Count: 1, Action: sim.Action{Fault: sim.FaultTLSStall, Delay: delay}})
	began := time.Now()
	if got := a.push(ask{}); got.status != 200 || time.Since(began) < delay {
		t.Errorf("%+v after %v", got, time.Since(began))
	}
}

func TestHTTP1OnlyAtGoogle(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	g := newGoogle(t, s)
	s.AddRule(sim.Rule{Action: sim.Action{Fault: sim.FaultHTTP1Only}})
	transport := &http.Transport{TLSClientConfig: trust(t, s), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	g.client = &http.Client{Transport: transport}
	if got := g.send(g.message("")); got.status != 200 {
		t.Errorf("%+v", got)
	}
	conn, err := dialOnce(within(t, patience), t, s, s.APNsURL(), "h2", "http/1.1")
	if err != nil || conn.ConnectionState().NegotiatedProtocol != "http/1.1" {
		t.Fatalf("%v", err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the fake Apple speaks HTTP/1.1")
	}
	if n := s.Stats().APNs.Violations; n != 0 {
		t.Errorf("%d violations; it was the server's doing", n)
	}
}

func TestLateSettings(t *testing.T) {
	t.Parallel()
	const delay = 80 * time.Millisecond
	s := start(t, sim.Options{})
	a := newApple(t, s)
	s.AddRule(sim.Rule{Action: sim.Action{Fault: sim.FaultLateSettings, Delay: delay}})
	began := time.Now()
	c := dialRaw(t, s)
	c.push(1, a) // a client that does not wait
	if n := c.limit(); n != 1 || time.Since(began) < delay {
		t.Errorf("limit %d after %v", n, time.Since(began))
	}
	if n := c.limit(); n != 1000 {
		t.Errorf("limit %d", n)
	}
	if got := c.status(1); got != "200" {
		t.Errorf("status %s", got)
	}
}

func TestTinyWindow(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	s.AddRule(sim.Rule{Action: sim.Action{Fault: sim.FaultTinyWindow}})
	if v, ok := next[*http2.SettingsFrame](dialRaw(t, s)).Value(http2.SettingInitialWindowSize); !ok || v != 16 {
		t.Errorf("window %d", v)
	}
	if got := a.push(ask{}); got.status != 200 || string(s.Pushes(a.token)[0].Body) != body {
		t.Errorf("%+v", got)
	}
}

// TestCloseEndsStalledHandshakes: neither fake keeps a goroutine for them.
func TestCloseEndsStalledHandshakes(t *testing.T) {
	t.Parallel()
	s, err := sim.Start(context.Background(), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, action := range []sim.Action{{Fault: sim.FaultTLSStall}, {Fault: sim.FaultTLSStall, Delay: time.Hour}, {Fault: sim.FaultLateSettings, Delay: time.Hour}} {
		remove := s.AddRule(sim.Rule{Provider: sim.APNs, Action: action})
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.APNsURL(), "https://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		waitFor(t, "it is open", func() bool { return s.Stats().APNs.ConnectionsOpen == i+1 })
		remove()
	}
	var closed atomic.Bool
	go func() { _ = s.Close(); closed.Store(true) }()
	waitFor(t, "Close comes back", closed.Load)
}
