package store_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

var memberTests = map[string]func(*testing.T, *world){
	"a beat shows who is there, and keeps when it came":  memberBeats,
	"a node that leaves is gone":                         memberLeaves,
	"a lease is one node's until it is over or released": leaseChangesHands,
	"leases are apart":                                   leasesApart,
}

// beat returns the clock and the node's own row, and checks that the others are as wanted.
func (w *world) beat(node ident.Node, others ...ident.Node) (now time.Time, own messages.Node) {
	w.t.Helper()
	now, all, err := w.Beat(w.ctx(), node)
	w.must(err)
	var got []ident.Node
	for _, n := range all {
		if n.ID == node {
			own = n
			continue
		}
		got = append(got, n.ID)
	}
	slices.Sort(got)
	slices.Sort(others)
	if !slices.Equal(others, got) {
		w.t.Errorf("besides %s there are %v, want %v", node, got, others)
	}
	if own.ID != node || !own.BeatAt.Equal(now) || own.JoinedAt.After(now) {
		w.t.Errorf("at %s its own row is %+v", now, own)
	}
	return now, own
}

func memberBeats(t *testing.T, w *world) {
	a, b := ident.NewNode(), ident.NewNode()
	began := time.Now()
	now, first := w.beat(a)
	if d := now.Sub(began); d < -time.Second || d > time.Minute {
		t.Errorf("the database's clock is %s off", d)
	}
	_, came := w.beat(b, a)
	_, again := w.beat(a, b)
	if !again.JoinedAt.Equal(first.JoinedAt) {
		t.Errorf("it came at %s, and then at %s", first.JoinedAt, again.JoinedAt)
	}
	_, all, err := w.Beat(w.ctx(), a)
	w.must(err)
	if i := slices.IndexFunc(all, func(n messages.Node) bool { return n.ID == b }); all[i] != came {
		t.Errorf("the other's row is %+v, and it was told %+v", all[i], came)
	}
}

func memberLeaves(_ *testing.T, w *world) {
	a, b := ident.NewNode(), ident.NewNode()
	w.beat(a)
	w.beat(b, a)
	w.must(w.Leave(w.ctx(), a))
	w.must(w.Leave(w.ctx(), a))
	w.beat(b)
	w.beat(a, b) // without a row it comes anew
}

func (w *world) lease(name string, node ident.Node, life time.Duration) int64 {
	w.t.Helper()
	term, ok, err := w.TakeLease(w.ctx(), name, node, life)
	w.must(err)
	if ok != (term > 0) {
		w.t.Errorf("term %d, and it is taken: %t", term, ok)
	}
	return term
}

func leaseChangesHands(t *testing.T, w *world) {
	a, b := ident.NewNode(), ident.NewNode()
	steps := []struct {
		node ident.Node
		life time.Duration
		want int64
	}{{a, time.Minute, 1}, {b, time.Minute, 0}, {a, time.Minute, 1}, {a, 0, 1}, {b, time.Minute, 2}, {a, time.Minute, 0}}
	for i, s := range steps {
		if got := w.lease("duty", s.node, s.life); got != s.want {
			t.Fatalf("step %d: term %d, want %d", i, got, s.want)
		}
	}
	w.must(w.ReleaseLease(w.ctx(), "duty", a)) // is not its
	if got := w.lease("duty", a, time.Minute); got != 0 {
		t.Errorf("it was taken from the other's hands, term %d", got)
	}
	w.must(w.ReleaseLease(w.ctx(), "duty", b))
	if got := w.lease("duty", a, time.Hour); got != 3 {
		t.Errorf("term %d after a release, want 3", got)
	}
	if got := w.lease("duty", b, time.Second); got != 4 {
		t.Errorf("a lease far longer than any was given before the clock was set back: term %d, want 4", got)
	}
}

func leasesApart(t *testing.T, w *world) {
	a, b := ident.NewNode(), ident.NewNode()
	if w.lease("one", a, time.Minute) != 1 || w.lease("two", b, time.Minute) != 1 {
		t.Error("two duties are not two nodes'")
	}
}

// A node whose writer does nothing is slow, and not dead.
func TestANodeLivesWithoutItsWriter(t *testing.T) {
	t.Parallel()
	s, err := store.Open(t.Context(), store.Options{DSN: testkit.MigratedPostgres(t), Ring: testkit.Ring(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := &world{t: t, Store: s}
	w.must(s.Migrate(t.Context())) // and nobody runs it
	node := ident.NewNode()
	w.beat(node)
	if w.lease("duty", node, time.Minute) != 1 {
		t.Error("no lease")
	}
	w.must(errors.Join(w.ReleaseLease(w.ctx(), "duty", node), w.Leave(w.ctx(), node)))
}

// Two nodes may do a duty at the same time for a moment; what they tell is told once.
func TestTwoNodesTellOfAnExpiryOnce(t *testing.T) {
	t.Parallel()
	dsn, ring := testkit.MigratedPostgres(t), testkit.Ring(t)
	on := func(o *store.Options) { o.DSN, o.Ring = dsn, ring }
	nodes := []*store.Store{testkit.Store(t, on), testkit.Store(t, on)}
	now := time.Now()
	var apps []ident.App
	for range 20 {
		app := testkit.App(t, nodes[0]).ID
		c := tokens.Credential{App: app, Provider: tokens.APNs, Fingerprint: "f", Public: []byte("{}"), Secret: []byte("{}"),
			UpdatedAt: now, ExpiresAt: now.Add(time.Hour)}
		if err := nodes[0].PutCredential(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		apps = append(apps, app)
	}
	var both sync.WaitGroup
	for _, n := range nodes {
		both.Go(func() {
			if _, err := n.TellExpiring(t.Context(), now); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	for _, app := range apps {
		if list, _, err := nodes[0].Events(t.Context(), app, 0, 10); err != nil || len(list) != 1 {
			t.Errorf("%d events of one expiry, %v", len(list), err)
		}
	}
}
