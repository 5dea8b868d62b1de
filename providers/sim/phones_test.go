package sim_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"rouse/providers/sim"
)

func TestNextPush(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	got := make(chan sim.Delivered, 1)
	go func() {
		d, err := s.NextPush(within(t, patience), strings.ToUpper(a.token), 1)
		if err != nil {
			t.Error(err)
		}
		got <- d
	}()
	for range 2 {
		a.push(ask{})
	}
	if d := <-got; d.N != 2 || d.Token != a.token {
		t.Errorf("%+v", d)
	}
	if d, err := s.NextPush(context.Background(), a.token, 0); err != nil || d.N != 1 {
		t.Errorf("the oldest unseen one comes first: %+v %v", d, err)
	}
	s.Reset()
	if n := len(s.Pushes(a.token)); n != 0 {
		t.Errorf("%d pushes after Reset", n)
	}
	a.push(ask{})
	if d, err := s.NextPush(within(t, patience), a.token, 2); err != nil || d.N != 3 {
		t.Errorf("who waits across a Reset gets the next one: %+v %v", d, err)
	}
}

func TestNextPushEnds(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	if _, err := s.NextPush(context.Background(), "unknown", 0); err == nil {
		t.Error("an unknown token")
	}
	token := s.NewFCMToken(project)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.NextPush(ctx, token, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.NextPush(context.Background(), token, 0)
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, sim.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestPhonesKeepTheNewest(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a := newApple(t, s)
	a.push(ask{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range (sim.PushLimit + 20) / 20 {
				a.push(ask{})
			}
		})
	}
	wg.Wait()
	pushes, log := s.Pushes(a.token), s.Log()
	sent := 1 + (sim.PushLimit+20)/20*20
	if len(pushes) != sim.PushLimit || pushes[len(pushes)-1].N != sent || pushes[0].N != sent-sim.PushLimit+1 {
		t.Errorf("%d pushes from %d to %d", len(pushes), pushes[0].N, pushes[len(pushes)-1].N)
	}
	if len(log) != sim.LogLimit || log[0].N != sent-sim.LogLimit+1 || log[len(log)-1].N != sent {
		t.Errorf("%d entries from %d to %d", len(log), log[0].N, log[len(log)-1].N)
	}
}

func TestResetKeepsWhatClientsHold(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	a, g := newApple(t, s), newGoogle(t, s)
	a.push(ask{})
	s.AddRule(sim.Rule{Action: sim.Action{Status: 500}})
	s.Reset()
	if got := s.Stats(); len(s.Log()) != 0 || got.APNs.Requests != 0 || got.APNs.ConnectionsOpen != 1 || got.APNs.DistinctJWTs != 0 {
		t.Errorf("%+v", got)
	}
	if got := a.push(ask{}); got.status != 200 {
		t.Errorf("APNs: %+v", got)
	}
	if got := g.send(g.message("")); got.status != 200 {
		t.Errorf("FCM: %+v", got)
	}
	if got := s.Stats().APNs; got.Requests != 1 || got.DistinctJWTs != 1 || s.Log()[0].N != 1 {
		t.Errorf("%+v", got)
	}
}

// TestCloseEndsWhatHangs has a request in every state that could keep a goroutine.
func TestCloseEndsWhatHangs(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := sim.Start(ctx, sim.Options{ControlListen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	g := newGoogle(t, s)
	dialSilent(t, s, s.APNsURL()) // never says a word
	faults := []sim.Action{{Fault: sim.FaultHang}, {Fault: sim.FaultBlackhole}, {Delay: time.Hour}, {Fault: sim.FaultSlowBody, Reason: "INTERNAL", Delay: time.Hour}}
	var wg sync.WaitGroup
	for _, action := range faults {
		remove := s.AddRule(sim.Rule{Action: action})
		before := s.Stats()
		fired := func() bool {
			now := s.Stats()
			return action.Delay == time.Hour && action.Fault == "" || now.APNs.Requests+now.FCM.Requests == before.APNs.Requests+before.FCM.Requests+2
		}
		a := newApple(t, s)
		phone := *g
		phone.client = h2Client(t, s)
		wg.Go(func() { _, _ = a.try(context.Background(), ask{}) })
		wg.Go(func() { _, _ = phone.try(context.Background(), phone.sendURL(), "application/json", phone.message("")) })
		waitFor(t, "both requests are caught", fired)
		if action.Delay == time.Hour && action.Fault == "" {
			waitFor(t, "both are delayed", func() bool { return s.RuleFired(3) == 2 })
		}
		remove()
	}
	wg.Go(func() {
		resp, err := http.Get(s.ControlURL() + "/control/pushes?token=" + g.token + "&wait=55")
		if err == nil {
			_ = resp.Body.Close()
		}
	})
	cancel() // the context stops it; Close waits
	closed := make(chan struct{})
	go func() {
		_ = s.Close()
		_ = s.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Close waits for ever")
	}
	wg.Wait()
	http.DefaultClient.CloseIdleConnections()
	if stats := s.Stats(); stats.APNs.ConnectionsOpen != 0 || stats.FCM.ConnectionsOpen != 0 {
		t.Errorf("%+v", stats)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(s.APNsURL(), "https://")); err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
}

func TestStartReportsABusyAddress(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{})
	address := strings.TrimPrefix(s.APNsURL(), "https://")
	for _, o := range []sim.Options{{APNsListen: address}, {FCMListen: address}, {ControlListen: address}, {APNsListen: "nonsense"}} {
		if other, err := sim.Start(context.Background(), o); err == nil {
			_ = other.Close()
			t.Errorf("%+v started", o)
		}
	}
}

func TestCertificateCoversTheHosts(t *testing.T) {
	t.Parallel()
	s := start(t, sim.Options{APNsListen: "0.0.0.0:0", Hosts: []string{"sim", "192.0.2.7"}})
	if !strings.HasPrefix(s.APNsURL(), "https://127.0.0.1:") {
		t.Errorf("an address nobody can dial: %s", s.APNsURL())
	}
	for _, name := range []string{"sim", "192.0.2.7", "localhost", "::1", "127.0.0.1"} {
		config := trust(t, s)
		config.ServerName, config.NextProtos = name, []string{"h2"}
		conn, err := (&tls.Dialer{Config: config}).DialContext(within(t, patience), "tcp", strings.TrimPrefix(s.APNsURL(), "https://"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = conn.Close()
	}
}
