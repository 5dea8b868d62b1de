package api_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rouse/api"
	"rouse/bus"
	"rouse/ident"
	"rouse/messages"
)

// watch asks for events and returns once the call waits.
func (w *world) watch(app tenant, query string) (answered chan answer, leave context.CancelFunc) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	before := eventWaiters(w)
	answered = make(chan answer, 1)
	go func() {
		a, err := w.try(ctx, call{"GET", "/v1/events?" + query, app.sk, nil, nil})
		if err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("waiting for events: %v", err)
		}
		answered <- a
	}()
	w.watching(before + 1)
	return answered, cancel
}

func eventWaiters(w *world) float64 { return counted(w.t.(*testing.T), w, "rouse_event_waiters") }

// watching waits until so many calls wait for events.
func (w *world) watching(n float64) {
	w.t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(10 * time.Second); eventWaiters(w) != n; <-look.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("%v calls wait for events, not %v", eventWaiters(w), n)
		}
	}
}

func (a answer) events(t testing.TB) (p eventPage, types []string) {
	t.Helper()
	a.want(200).into(&p)
	for _, e := range p.Events {
		types = append(types, e.Type)
	}
	return p, types
}

func soon(t testing.TB, answered chan answer) answer {
	t.Helper()
	select {
	case a := <-answered:
		return a
	case <-time.After(20 * time.Second):
		t.Fatal("the call hangs")
		return answer{}
	}
}

func TestAWaitForEventsEndsWithTheFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	p, stranger := w.newPhone(app), w.newPhone(other)
	first := w.events(app, "wait=55") // what is there is no wait
	if len(first.Events) != 1 || first.Events[0].Type != "device.registered" {
		t.Fatalf("got %+v", first)
	}
	after := "wait=55&after=" + *first.Cursor
	both, _ := w.watch(app, after)
	expired, _ := w.watch(app, after+"&types=message.expired,device.*")
	id := w.send(app, p, 1)
	w.send(other, stranger, 1)
	w.do(call{"POST", "/v1/inbox/acks", stranger.key, obj{"up_to": w.inbox(stranger, "").Cursor}, nil}).want(200)
	w.do(call{"POST", "/v1/inbox/acks", p.key, obj{"ids": []string{id}}, nil}).want(200)
	page, types := soon(t, both).events(t)
	if !slices.Equal(types, []string{"message.acked"}) || page.More || *page.Cursor == *first.Cursor {
		t.Errorf("got %+v", page)
	}
	w.do(call{"DELETE", "/v1/device", p.key, nil, nil}).want(204)
	if _, types := soon(t, expired).events(t); !slices.Equal(types, []string{"device.unregistered"}) {
		t.Errorf("the filter let through %v", types)
	}
	w.watching(0)
}

// TestAWaitForEventsNeedsNoHint: hints may be lost, and other nodes write too.
func TestAWaitForEventsNeedsNoHint(t *testing.T) {
	t.Parallel()
	s := setup{}
	w := s.parts(t)
	w.store = openStore(t, w.db, w.logger(), 0)
	s.serve(t, w, deaf{&bus.Memory{}})
	app := w.newApp()
	answered, _ := w.watch(app, "wait=55")
	w.newPhone(app)
	if _, types := soon(t, answered).events(t); len(types) != 1 {
		t.Errorf("got %v", types)
	}
}

// deaf tells nobody anything.
type deaf struct{ *bus.Memory }

func (deaf) Hint(...messages.Hint) {}

// looks is a store that counts how often somebody has looked for events.
type looks struct {
	api.Events
	over atomic.Int64
}

func (l *looks) EventPage(ctx context.Context, q messages.EventQuery) (messages.EventPage, error) {
	page, err := l.Events.EventPage(ctx, q)
	l.over.Add(1)
	return page, err
}

func TestAWaitForEventsEnds(t *testing.T) {
	t.Parallel()
	looks := &looks{}
	w := setup{events: func(e api.Events) api.Events { looks.Events = e; return looks }}.start(t)
	app := w.newApp()
	w.newPhone(app)
	cursor := *w.events(app, "").Cursor
	began := time.Now()
	if p := w.events(app, "wait=1&after="+cursor); len(p.Events) != 0 || *p.Cursor != cursor || time.Since(began) < time.Second {
		t.Errorf("after %s: %+v", time.Since(began), p)
	}
	if p := w.events(app, "wait=1&types=message.*"); len(p.Events) != 0 || p.More || *p.Cursor != cursor {
		t.Errorf("the cursor did not go on: %+v", p)
	}
	_, leave := w.watch(app, "wait=55&after="+cursor)
	leave()
	w.watching(0) // who left does not wait

	revoked := w.do(call{"POST", "/v1/apps/" + app.id + "/keys", adminKey, obj{"kind": "secret"}, nil}).want(201)
	before := looks.over.Load()
	gone, _ := w.watch(tenant{sk: revoked.text("key")}, "wait=55&after="+cursor)
	poll(t, func() bool { return looks.over.Load() > before }) // its key was good for the first look
	w.do(call{"DELETE", "/v1/apps/" + app.id + "/keys/" + revoked.text("id"), adminKey, nil, nil}).want(204)
	w.throttle(app, 1)
	soon(t, gone).refused(401, "unknown_key")

	drained, _ := w.watch(app, "wait=55&types=message.*&after="+cursor)
	w.drain()
	if p, types := soon(t, drained).events(t); len(types) != 0 || p.More {
		t.Errorf("the drain answered %+v", p)
	}
}

// TestOneAppsWaitsAreItsOwnTrouble: 64 calls of an app may wait on a node.
func TestOneAppsWaitsAreItsOwnTrouble(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() { _, _ = w.try(ctx, call{"GET", "/v1/events?wait=55", app.sk, nil, nil}) })
	}
	w.watching(64)
	if a := w.do(call{"GET", "/v1/events?wait=1", app.sk, nil, nil}).refused(429, "too_many_waiting"); a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.events(app, "")
	w.events(other, "wait=1")
	cancel()
	all.Wait()
	w.watching(0)
}

func TestBadEventWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	for _, query := range []string{"wait=-1", "wait=56", "wait=x", "wait=1.5", "wait=", "wait=1&wait=1", "types=", "types=message", "types=message.*,", "types=message.fetched",
		"types=nothing.*", "types=message.acked&types=message.acked", "types=" + url.QueryEscape("message.acked, message.expired"), "types=webhook.test%00", "types=**"} {
		w.do(call{"GET", "/v1/events?" + query, app.sk, nil, nil}).refused(400, "bad_query")
	}
	for _, query := range []string{"types=*", "types=message.acked", "types=message.*,device.registered,webhook.*", "types=*&wait=0"} {
		w.events(app, query)
	}
}

// TestEventsOfASendThatEndsAtOnce: what is dropped or replaced by a send is told without anybody fetching anything.
func TestEventsOfASendThatEndsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	send := func(more obj) string {
		body := obj{"to": obj{"device_id": p.id}, "data": 1}
		for k, v := range more {
			body[k] = v
		}
		return w.do(call{"POST", "/v1/messages", app.sk, body, nil}).want(202).text("id")
	}
	cursor := *w.events(app, "").Cursor
	x, _ := w.watch(app, "wait=55&after="+cursor)
	dropped := send(obj{"ttl": 0, "correlation_id": "order \"1\""})
	page, types := soon(t, x).events(t)
	if !slices.Equal(types, []string{"message.dropped"}) ||
		string(page.Events[0].Data) != `{"message_id":"`+dropped+`","device_id":"`+p.id+`","correlation_id":"order \"1\"","reason":"not_polling"}` {
		t.Fatalf("%+v", page)
	}
	old := send(obj{"collapse_key": "k"})
	x, _ = w.watch(app, "wait=55&after="+*page.Cursor)
	fresh := send(obj{"collapse_key": "k"})
	page, types = soon(t, x).events(t)
	if !slices.Equal(types, []string{"message.replaced"}) || string(page.Events[0].Data) != `{"message_id":"`+old+`","device_id":"`+p.id+`","replaced_by":"`+fresh+`"}` {
		t.Errorf("%+v", page)
	}
	x, _ = w.watch(app, "wait=55&after="+*page.Cursor)
	w.do(call{"POST", "/v1/messages/" + fresh + "/cancel", app.sk, nil, nil}).want(200)
	if _, types = soon(t, x).events(t); !slices.Equal(types, []string{"message.canceled"}) {
		t.Errorf("%v", types)
	}
	for _, kind := range []messages.HintKind{messages.HintEvents} {
		if h := w.heard.until(t, kind, 0); h.App != ident.App(app.id) {
			t.Errorf("hinted %+v", h)
		}
	}
}
