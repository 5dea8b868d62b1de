package webhooks_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rouse/bus"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
	"rouse/webhooks"
)

// freezer is a process's way to the database. While it is frozen nothing of it goes on; what it was about to note is done when it thaws.
type freezer struct {
	webhooks.Store
	frozen, thawed chan struct{}
	late, counted  atomic.Int64
}

var errThawed = errors.New("this process was taken for dead")

func (f *freezer) NotePosts(ctx context.Context, n messages.WebhookNote) (bool, error) {
	select {
	case <-f.frozen:
	default:
		return f.Store.NotePosts(ctx, n)
	}
	<-f.thawed
	ok, err := f.Store.NotePosts(context.WithoutCancel(ctx), n)
	if f.late.Add(1); ok {
		f.counted.Add(1)
	}
	return ok, err
}

func (f *freezer) WebhookTurns(ctx context.Context) ([]messages.WebhookTurn, error) {
	select {
	case <-f.frozen:
		<-f.thawed
		return nil, errThawed
	default:
		return f.Store.WebhookTurns(ctx)
	}
}

// Of two nodes on PostgreSQL the one that posts freezes in the middle, the other takes over, and then the first goes on: nothing is
// missing, the order is kept, and what the first notes so late does not count.
func TestAnotherNodeTakesOver(t *testing.T) {
	t.Parallel()
	dsn, ring := testkit.MigratedPostgres(t), testkit.Ring(t)
	first, second := openNode(t, dsn, ring), openNode(t, dsn, ring)
	app := testkit.App(t, first).ID
	backend := &receiver{t: t, flying: map[ident.Device]int{}, shared: true} // for a moment two nodes post
	f := &freezer{Store: first, frozen: make(chan struct{}), thawed: make(chan struct{})}
	var posts atomic.Int64
	backend.answer = func(http.ResponseWriter, *http.Request, got) {
		if posts.Add(1) == 41 {
			close(f.frozen) // with a post under way: so there is something to note later
		}
		<-time.After(5 * time.Millisecond)
	}
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	backend.address = strings.TrimPrefix(server.URL, "http://")
	addHook(t, first, app, backend, "message.*")
	var wants []messages.Event
	happen := func(n int) {
		t.Helper()
		var all sync.WaitGroup
		for range 8 {
			d := testkit.Device(t, first, app).ID
			all.Go(func() {
				for range n {
					m := testkit.Accept(t, second, testkit.Send(app, d))
					if _, err := first.AckIDs(context.Background(), d, []ident.Message{m.ID}, time.Now()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		wants = nil
		for _, e := range eventsOf(t, first, app) {
			if strings.HasPrefix(string(e.Type), "message.") {
				wants = append(wants, e)
			}
		}
	}
	hook := func() messages.Webhook {
		t.Helper()
		hooks, err := first.Webhooks(context.Background(), app)
		must(t, err)
		return hooks[0]
	}
	happen(30)
	stop := startNode(t, f)
	eventually(t, func() bool { return posts.Load() > 40 })
	<-f.frozen
	term := hook().Term
	happen(10)
	stopSecond := startNode(t, second)
	eventually(t, func() bool { return hook().Term > term && len(backend.ids()) == len(wants) })
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	close(f.thawed)
	<-stopped
	happen(2)
	eventually(t, func() bool { return len(backend.ids()) == len(wants) })
	backend.complete(t, wants)
	if f.late.Load() == 0 || f.counted.Load() != 0 {
		t.Errorf("%d late notes, %d counted", f.late.Load(), f.counted.Load())
	}
	// It is not left to the stop, which has a second for it.
	eventually(t, func() bool { return hook().Place >= wants[len(wants)-1].Seq })
	stopSecond()
	if h := hook(); h.Retrying != 0 {
		t.Errorf("in the end: %+v", h)
	}
}

func openNode(t *testing.T, dsn string, ring *tokens.Ring) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), store.Options{DSN: dsn, Ring: ring})
	must(t, err)
	must(t, s.Migrate(context.Background()))
	stop := testkit.Run(t, s)
	t.Cleanup(func() {
		stop()
		must(t, s.Close())
	})
	return s
}

func startNode(t *testing.T, s webhooks.Store) (stop func()) {
	t.Helper()
	p, err := webhooks.New(webhooks.Options{Store: s, Hints: &bus.Memory{}, Nodes: alone{}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	must(t, err)
	stop = run(t, p)
	t.Cleanup(stop)
	return stop
}

// eventually waits for what happens elsewhere.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(time.Minute)
	for !done() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal("it did not come to that in a minute")
		}
	}
}
