package bus

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"rouse/internal/testkit"
)

// TestAProbeHearsItself, directly; through a pooler in transaction mode it does not, and says which it was.
func TestAProbeHearsItself(t *testing.T) {
	t.Parallel()
	dsn := testkit.Postgres(t)
	took, pooled, err := probePostgres(t.Context(), dsn, patience)
	if err != nil || pooled || took <= 0 {
		t.Errorf("directly: %v, %v, %v", took, pooled, err)
	}
	if _, pooled, err = ProbePostgres(t.Context(), testkit.Pooler(t, dsn, 4)); !errors.Is(err, ErrDeaf) || !pooled {
		t.Errorf("through a pooler: %v, %v", pooled, err)
	}
}

func TestAProbeTellsWhatIsInItsWayAndNoPassword(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"postgres://rouse:canary@127.0.0.1:1/rouse", "postgres://rouse:canary@db:port/rouse", "postgres://rouse:canary@does-not-exist.invalid/rouse"} {
		if _, _, err := ProbePostgres(t.Context(), dsn); err == nil || errors.Is(err, ErrDeaf) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v", err)
		}
	}
	for _, url := range []string{"nats://rouse:canary@127.0.0.1:1", "nats://canary@does-not-exist.invalid"} {
		if _, err := ProbeNATS(t.Context(), url); err == nil || errors.Is(err, ErrDeaf) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v", err)
		}
	}
}

// TestAProbeOfNATS hears itself, and nodes that hear it are not troubled; it finds out who may not speak, who may not listen, and a wrong password.
func TestAProbeOfNATS(t *testing.T) {
	t.Parallel()
	server := guardedNATS(t)
	at := func(user string) string {
		return (&url.URL{Scheme: "nats", User: url.UserPassword(user, "canary"), Host: server.Addr().String()}).String()
	}
	node := listen(t, newNATS(t, at("good")), nil)
	before := node.said()
	if took, err := probeNATS(t.Context(), at("good"), patience); err != nil || took <= 0 {
		t.Errorf("%v, %v", took, err)
	}
	for _, user := range []string{"dumb", "deaf", "unknown"} {
		if _, err := ProbeNATS(t.Context(), at(user)); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", user, err)
		}
	}
	if node.said() != before {
		t.Error("a node was told that something was lost")
	}
}

// guardedNATS is a server with users who may do everything a node does, not speak, and not listen.
func guardedNATS(t *testing.T) *natsserver.Server {
	t.Helper()
	no := &natsserver.SubjectPermission{Deny: []string{">"}}
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoLog: true, NoSigs: true, Users: []*natsserver.User{
		{Username: "good", Password: "canary", Permissions: &natsserver.Permissions{
			Publish: &natsserver.SubjectPermission{Allow: []string{subject + "*"}}, Subscribe: &natsserver.SubjectPermission{Allow: []string{subject + "*"}},
		}},
		{Username: "dumb", Password: "canary", Permissions: &natsserver.Permissions{Publish: no}},
		{Username: "deaf", Password: "canary", Permissions: &natsserver.Permissions{Subscribe: no}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("NATS does not start")
	}
	return s
}

// TestABusSaysWhetherItIsConnected, and behind a pooler in transaction mode it never is.
func TestABusSaysWhetherItIsConnected(t *testing.T) {
	t.Parallel()
	connected := func(b node) bool { return b.(interface{ Connected() bool }).Connected() }
	for kind, open := range mortal {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := open(t)
			b := r.join(t)
			if connected(b) {
				t.Error("connected before it runs")
			}
			e := begin(t, b, nil)
			e.until("connected", func() bool { return connected(b) })
			r.stop(t)
			e.until("cut off", func() bool { return !connected(b) })
			r.start(t)
			e.until("connected again", func() bool { return connected(b) })
			e.stop(t)
			if connected(b) {
				t.Error("connected after it ended")
			}
		})
	}
	t.Run("pooled", func(t *testing.T) {
		t.Parallel()
		b := newPostgres(t, testkit.Pooler(t, testkit.Postgres(t), 4))
		b.beat, b.silence = time.Millisecond, 100*time.Millisecond
		e := begin(t, b, nil)
		lied := false
		e.until("tried four times", func() bool { lied = lied || connected(b); return e.lost > 3 })
		if lied {
			t.Error("connected, though nothing comes through")
		}
	})
}
