package api_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rouse/api"
	"rouse/bus"
	rouse "rouse/client"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
)

// nodes starts n nodes on one store and one bus.
func nodes(t *testing.T, n int) []*world {
	t.Helper()
	s, hints := testkit.Store(t), &bus.Memory{}
	var all []*world
	for range n {
		all = append(all, setup{limits: onlyHints}.join(t, s, hints))
	}
	return all
}

// onlyHints leaves nothing to the slow timer.
var onlyHints = api.Limits{Recheck: time.Hour}

// farNodes starts n nodes as processes are: each with a store and a bus of its own, on one PostgreSQL.
func farNodes(t *testing.T, n int) []*world {
	t.Helper()
	dsn, ring := testkit.MigratedPostgres(t), testkit.Ring(t)
	var all []*world
	for range n {
		s := testkit.Store(t, func(o *store.Options) { o.DSN, o.Ring = dsn, ring })
		hints, err := bus.NewPostgres(dsn, nil)
		if err != nil {
			t.Fatal(err)
		}
		background(t, func(ctx context.Context) { _ = hints.Run(ctx) })
		all = append(all, setup{limits: onlyHints}.join(t, s, hints))
	}
	meet(t, all)
	return all
}

func (s setup) join(t *testing.T, on *store.Store, hints testkit.Bus) *world {
	t.Helper()
	w := s.parts(t)
	w.store = on
	s.serve(t, w, hints)
	return w
}

// meet waits until each node hears each other.
func meet(t *testing.T, all []*world) {
	t.Helper()
	for _, from := range all {
		someone := ident.NewDevice()
		poll(t, func() bool {
			from.heard.bus.Hint(messages.Hint{Kind: messages.HintPolling, Device: someone, Seq: 1, Until: time.Now().Add(time.Minute)})
			for _, to := range all {
				if !api.Present(to.api, someone) {
					return false
				}
			}
			return true
		})
	}
}

// everywhere runs a test with nodes that share memory, and with nodes that share a database.
func everywhere(t *testing.T, n int, test func(t *testing.T, all []*world)) {
	t.Run("one process", func(t *testing.T) {
		t.Parallel()
		test(t, nodes(t, n))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, farNodes(t, n))
	})
}

// knows waits until the node takes the device for polling, or for not.
func (w *world) knows(p phone, polling bool) {
	w.t.Helper()
	poll(w.t, func() bool { return api.Present(w.api, ident.Device(p.id)) == polling })
}

// now sends a message that only a polling device gets, and returns its id.
func (w *world) now(app tenant, p phone) string {
	w.t.Helper()
	return w.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"device_id": p.id}, "data": "now", "ttl": 0}, nil}).want(202).text("id")
}

// dropped reports whether the message found nobody.
func (w *world) dropped(app tenant, id string) bool {
	w.t.Helper()
	var m struct{ Counters map[string]int }
	w.do(call{"GET", "/v1/messages/" + id, app.sk, nil, nil}).want(200).decode(&m)
	return m.Counters["dropped"] == 1
}

func TestMessageReachesAPollOnAnotherNode(t *testing.T) {
	t.Parallel()
	everywhere(t, 2, func(t *testing.T, all []*world) {
		a, b := all[0], all[1]
		app := a.newApp()
		p := a.newPhone(app)
		x := b.wait(p, "wait=55")
		id := a.send(app, p, "hello")
		page, _ := x.page(t)
		if len(page.Messages) != 1 || page.Messages[0].ID != id {
			t.Errorf("got %+v", page)
		}
	})
}

// TestTTLZeroOnAnotherNode: the node that takes the message in knows who is polling on another, and who no longer is.
func TestTTLZeroOnAnotherNode(t *testing.T) {
	t.Parallel()
	everywhere(t, 2, func(t *testing.T, all []*world) {
		a, b := all[0], all[1]
		app := a.newApp()
		p := a.newPhone(app)
		x := b.wait(p, "wait=55")
		a.knows(p, true)
		id := a.now(app, p)
		if page, _ := x.page(t); len(page.Messages) != 1 || page.Messages[0].ID != id {
			t.Errorf("got %+v", page)
		}
		a.knows(p, false) // it was served
		if id := a.now(app, p); !a.dropped(app, id) {
			t.Error("a message that reached nobody was kept after the poll was served")
		}
		x = b.wait(p, "wait=55&after="+b.inbox(p, "").Cursor)
		a.knows(p, true)
		x.leave()
		a.knows(p, false) // it left
		if id := a.now(app, p); !a.dropped(app, id) {
			t.Error("a message that reached nobody was kept after the poll was idle")
		}
		b.wait(p, "wait=55&after="+b.inbox(p, "").Cursor)
		a.knows(p, true)
		b.do(call{"DELETE", "/v1/device", p.key, nil, nil}).want(204)
		a.knows(p, false) // it is gone
	})
}

// TestLaterPollDisplacesOnEveryNode also keeps the device present for a third node all the while, though its older poll has
// ended: nothing says that it is idle.
func TestLaterPollDisplacesOnEveryNode(t *testing.T) {
	t.Parallel()
	everywhere(t, 3, func(t *testing.T, all []*world) {
		a, b, c := all[0], all[1], all[2]
		app := a.newApp()
		p := a.newPhone(app)
		x := a.wait(p, "wait=55")
		c.knows(p, true)
		for _, to := range []*world{b, a, b} {
			next := to.wait(p, "wait=55")
			if page, _ := x.page(t); len(page.Messages) != 0 {
				t.Errorf("the older got %+v", page)
			}
			x = next
		}
		if n := a.heard.count(messages.HintIdle) + b.heard.count(messages.HintIdle); n != 0 {
			t.Errorf("idle %d times", n)
		}
		if !api.Present(c.api, ident.Device(p.id)) {
			t.Error("the third node takes it for gone")
		}
		if n := counted(t, a, "rouse_polls_displaced_total") + counted(t, b, "rouse_polls_displaced_total"); n != 3 {
			t.Errorf("displaced %v times", n)
		}
		if api.Waiting(a.api) != 0 || api.Waiting(b.api) != 1 {
			t.Errorf("%d and %d polls wait", api.Waiting(a.api), api.Waiting(b.api))
		}
		id := c.now(app, p)
		if page, _ := x.page(t); len(page.Messages) != 1 || page.Messages[0].ID != id {
			t.Errorf("the last got %+v", page)
		}
	})
}

// TestTwoReceiversOfOneDeviceDoNotSpin: they take the place from each other, ever more slowly.
func TestTwoReceiversOfOneDeviceDoNotSpin(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2)
	p := all[0].newPhone(all[0].newApp())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	for _, w := range all {
		c, err := rouse.NewClientWithResponses(w.server.URL, rouse.WithKey(p.key), rouse.WithHTTPClient(w.server.Client()))
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			_ = (&rouse.Receiver{Client: c}).Run(ctx, func(context.Context, rouse.InboxPage) error { return nil })
		})
	}
	polls := func() (n int) {
		for _, w := range all {
			n += w.heard.count(messages.HintPolling)
		}
		return n
	}
	begun := time.Now()
	poll(t, func() bool { return polls() >= 3 && time.Since(begun) > 3*time.Second })
	cancel()
	running.Wait()
	// Each waits for at least 250 ms before it takes the place again, 500 ms the next time, and so on.
	if n, took := polls(), time.Since(begun); n > 30 {
		t.Errorf("%d polls in %s", n, took)
	}
}

// TestRecheckFindsAndAnnounces: homes changed. A message whose hint died with its node is found, and those who poll are told of
// again, under their own numbers.
func TestRecheckFindsAndAnnounces(t *testing.T) {
	t.Parallel()
	everywhere(t, 2, func(t *testing.T, all []*world) {
		a, b := all[0], all[1]
		app := a.newApp()
		first, second := a.newPhone(app), a.newPhone(app)
		x, y := b.wait(first, "wait=55"), b.wait(second, "wait=55")
		told := b.heard.until(t, messages.HintPolling, 0)
		a.acceptUnsaid(app, second)
		b.api.Recheck()
		if page, _ := y.page(t); len(page.Messages) != 1 {
			t.Errorf("got %+v", page)
		}
		b.heard.until(t, messages.HintPolling, 3)
		again := 0
		for n := range 4 {
			if h := b.heard.until(t, messages.HintPolling, n); h == told {
				again++
			}
		}
		if again != 2 {
			t.Errorf("the first was told of %d times", again)
		}
		if len(x.answer) != 0 || api.Waiting(b.api) != 1 {
			t.Error("the first poll has nothing to say, and ended")
		}
		a.knows(first, true)
	})
}

// acceptUnsaid takes a message in that nobody hears of, as if the node had died before it hinted.
func (w *world) acceptUnsaid(app tenant, p phone) {
	w.t.Helper()
	_, err := w.store.Accept(w.t.Context(), must(messages.New(messages.Send{
		App: ident.App(app.id), To: messages.Target{Device: ident.Device(p.id)}, Data: []byte("1"), TTL: time.Hour, CreatedAt: time.Now(),
	})))
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestRepeatOnAnotherNode: the second request with a key comes to another node while the first is under way.
func TestRepeatOnAnotherNode(t *testing.T) {
	t.Parallel()
	everywhere(t, 2, func(t *testing.T, all []*world) {
		app := all[0].newApp()
		p := all[0].newPhone(app)
		const rounds = 30
		for range rounds {
			key, got := unique("order"), make([]answer, len(all))
			var both sync.WaitGroup
			for i, w := range all {
				both.Go(func() {
					got[i] = w.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"device_id": p.id}, "data": key}, map[string]string{"Idempotency-Key": key}})
				})
			}
			both.Wait()
			replayed := 0
			for _, a := range got {
				if a.want(202).header.Get("Idempotent-Replayed") == "true" {
					replayed++
				}
			}
			if replayed != 1 || got[0].text("id") != got[1].text("id") {
				t.Errorf("%d replayed: %s, %s", replayed, got[0].body, got[1].body)
			}
		}
		if page := all[1].inbox(p, "?limit=100"); len(page.Messages) != rounds {
			t.Errorf("%d messages of %d", len(page.Messages), rounds)
		}
		all[0].do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"device_id": p.id}, "data": 1}, map[string]string{"Idempotency-Key": "k"}}).want(202)
		all[1].do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"device_id": p.id}, "data": 2}, map[string]string{"Idempotency-Key": "k"}}).want(422)
	})
}

// TestOneInstallationOnTwoNodes registers at once: one device comes of it, and exactly one app holds its secret.
func TestOneInstallationOnTwoNodes(t *testing.T) {
	t.Parallel()
	everywhere(t, 2, func(t *testing.T, all []*world) {
		app := all[0].newApp()
		for range 15 {
			body, got := iphone(unique("installation")), make([]answer, len(all))
			var both sync.WaitGroup
			for i, w := range all {
				both.Go(func() { got[i] = w.do(call{"POST", "/v1/devices", app.pk, body, nil}) })
			}
			both.Wait()
			if got[0].status != 201 {
				got[0], got[1] = got[1], got[0]
			}
			got[0].want(201)
			got[1].refused(409, "installation_exists")
			all[1].inbox(phone{got[0].text("id"), got[0].text("secret")}, "")
		}
	})
}

// TestBoundOnOneNodeSentOnAnother: what one node has answered, all know.
func TestBoundOnOneNodeSentOnAnother(t *testing.T) {
	t.Parallel()
	everywhere(t, 2, func(t *testing.T, all []*world) {
		a, b := all[0], all[1]
		app := a.newApp()
		p := b.newPhone(app)
		for range 10 {
			user := unique("user")
			a.do(call{"PUT", "/v1/users/" + user + "/devices/" + p.id, app.sk, nil, nil}).want(204)
			var sent struct{ Recipients int }
			b.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"user_id": user}, "data": user}, nil}).want(202).decode(&sent)
			if sent.Recipients != 1 {
				t.Errorf("%d recipients", sent.Recipients)
			}
		}
	})
}

// balancer sends requests to a, and to b once a stops.
type balancer struct {
	a, b  *world
	moved atomic.Bool
	// away is for how many seconds the client was told to stay away last. The client writes it.
	away int
}

func (l *balancer) Do(r *http.Request) (*http.Response, error) {
	to := l.a
	if l.moved.Load() {
		to = l.b
	}
	r.URL.Host = strings.TrimPrefix(to.server.URL, "http://")
	r.Host = r.URL.Host
	answer, err := to.http.Do(r)
	if err == nil && answer.Header.Get("Retry-After") != "" {
		l.away, err = strconv.Atoi(answer.Header.Get("Retry-After"))
	}
	return answer, err
}

// TestReceiverMovesToAnotherNode: its node stops, it stays away as long as it was told, which is no longer than 4 s, and finds
// what came meanwhile on another.
func TestReceiverMovesToAnotherNode(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2)
	a, b := all[0], all[1]
	app := a.newApp()
	p := a.newPhone(app)
	between := &balancer{a: a, b: b}
	c, err := rouse.NewClientWithResponses(a.server.URL, rouse.WithKey(p.key), rouse.WithHTTPClient(between))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string, 10)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		_ = (&rouse.Receiver{Client: c}).Run(ctx, func(_ context.Context, page rouse.InboxPage) error {
			for _, m := range page.Messages {
				var s string
				_ = json.Unmarshal(m.Data, &s)
				got <- s
			}
			return nil
		})
	})
	a.heard.until(t, messages.HintPolling, 0)
	a.send(app, p, "before")
	if s := <-got; s != "before" {
		t.Errorf("got %q", s)
	}
	a.heard.until(t, messages.HintPolling, 1)
	between.moved.Store(true)
	began := time.Now()
	a.drain()
	poll(t, func() bool { return api.Waiting(a.api) == 0 }) // or the poll there may still find it
	b.send(app, p, "meanwhile")
	if s := <-got; s != "meanwhile" {
		t.Errorf("got %q", s)
	}
	if took := time.Since(began); between.away < 1 || between.away > 4 || took < time.Duration(between.away)*time.Second {
		t.Errorf("it came %s after the stop began, told to stay away for %d s", took, between.away)
	}
	b.heard.until(t, messages.HintPolling, 0)
	b.send(app, p, "after")
	if s := <-got; s != "after" {
		t.Errorf("got %q", s)
	}
}
