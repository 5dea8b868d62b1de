package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"rouse/api"
	"rouse/ident"
	"rouse/messages"
)

func TestInboxInPagesAndOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	for i := range 7 {
		w.send(app, p, i)
	}
	query, seen := "?limit=3", 0
	for {
		page := w.inbox(p, query)
		for _, m := range page.Messages {
			if string(m.Data) != fmt.Sprint(seen) || m.Attempt != 1 || m.Urgency != "high" {
				t.Errorf("message %d: %+v", seen, m)
			}
			seen++
		}
		if page.More != (seen < 7) {
			t.Errorf("more is %v after %d", page.More, seen)
		}
		if !page.More {
			break
		}
		query = "?limit=3&after=" + page.Cursor
	}
	if h := w.heard.until(t, messages.HintServed, 2); h.Parked || h.More || string(h.Device) != p.id || h.Seq == 0 {
		t.Errorf("hinted %+v", h)
	}
	// Un-acked, so all of it comes again, and says so.
	if page := w.inbox(p, ""); len(page.Messages) != 7 || page.Messages[0].Attempt != 2 {
		t.Errorf("%d messages, attempt %d", len(page.Messages), page.Messages[0].Attempt)
	}
}

func TestAcks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	for i := range 6 {
		w.send(app, p, i)
	}
	ack := func(body obj) string {
		return string(w.do(call{"POST", "/v1/inbox/acks", p.key, body, nil}).want(200).body)
	}
	all := w.inbox(p, "")
	two := w.inbox(p, "?limit=2")
	if got := ack(obj{"up_to": two.Cursor, "from_the_future": 1}); got != "{\"acked\":2}\n" {
		t.Errorf("acked %s", got)
	}
	if h := w.heard.until(t, messages.HintAcked, 0); h.Seq == 0 || string(h.Device) != p.id {
		t.Errorf("hinted %+v", h)
	}
	if got := ack(obj{"up_to": two.Cursor}); got != "{\"acked\":0}\n" {
		t.Errorf("again: %s", got)
	}
	if got := ack(obj{"ids": []string{all.Messages[0].ID, all.Messages[3].ID, "nonsense", "msg_00000000000000000000000000"}}); got != "{\"acked\":1}\n" {
		t.Errorf("acked %s", got)
	}
	if h := w.heard.until(t, messages.HintAcked, 1); h.Seq != 0 {
		t.Errorf("hinted %+v", h)
	}
	if got := ack(obj{"ids": []string{}}); got != "{\"acked\":0}\n" {
		t.Errorf("nothing: %s", got)
	}
	page := w.inbox(p, "?limit=1&ack="+all.Cursor)
	if len(page.Messages) != 0 || page.Cursor == "" {
		t.Errorf("got %+v", page)
	}
	// The cursor of an empty page is good for both.
	if page = w.inbox(p, "?after="+page.Cursor+"&ack="+page.Cursor); len(page.Messages) != 0 {
		t.Errorf("got %+v", page)
	}
	if n := w.heard.count(messages.HintAcked); n != 3 {
		t.Errorf("%d hints of acks: one that acked nothing hints nothing", n)
	}
}

func TestBadInboxCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p, other := w.newPhone(app), w.newPhone(app)
	w.send(app, other, 1)
	foreign := w.inbox(other, "").Cursor
	beyond := string(messages.NewCursor(ident.Device(p.id), 1<<40))
	for query, code := range map[string]string{
		"wait=56": "bad_query", "wait=-1": "bad_query", "wait=": "bad_query", "wait=1.5": "bad_query", "wait=1&wait=1": "bad_query", "wait=99999999999999999999": "bad_query",
		"limit=0": "bad_query", "limit=101": "bad_query", "limit=ten": "bad_query", "a=%zz": "bad_query", "wait=1;limit=2": "bad_query",
		"after=x": "bad_cursor", "after=" + w.inbox(p, "").Cursor + "%0a": "bad_cursor", "after=": "bad_cursor", "ack=": "bad_cursor", "ack=x": "bad_cursor", "after=" + foreign: "bad_cursor", "ack=" + foreign: "bad_cursor",
		"after=" + beyond: "bad_cursor", "ack=" + beyond: "bad_cursor", "wait=5&after=" + beyond: "bad_cursor",
	} {
		t.Run(query, func(t *testing.T) {
			w.do(call{"GET", "/v1/inbox?" + query, p.key, nil, nil}).refused(400, code)
		})
	}
	acks := "/v1/inbox/acks"
	w.do(call{"POST", acks, p.key, obj{}, nil}).refused(422, "invalid_body").points("")
	w.do(call{"POST", acks, p.key, obj{"ids": []string{}, "up_to": foreign}, nil}).refused(422, "invalid_body").points("")
	w.do(call{"POST", acks, p.key, obj{"up_to": foreign}, nil}).refused(400, "bad_cursor").points("/up_to")
	w.do(call{"POST", acks, p.key, obj{"up_to": beyond}, nil}).refused(400, "bad_cursor")
	w.do(call{"POST", acks, p.key, obj{"up_to": ""}, nil}).refused(422, "invalid_body").points("/up_to")
	w.do(call{"POST", acks, p.key, obj{"ids": make([]string, 501)}, nil}).refused(422, "invalid_body").points("/ids")
	w.do(call{"POST", acks, p.key, obj{"ids": []int{1}}, nil}).refused(422, "invalid_body").points("/ids/0")
	w.do(call{"POST", acks, p.key, obj{"ids": nil}, nil}).refused(422, "invalid_body").points("/ids")
}

func TestOneMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p, other := w.newPhone(app), w.newPhone(app)
	id := w.send(app, p, obj{"a": 1})
	a := w.do(call{"GET", "/v1/inbox/" + id, p.key, nil, nil}).want(200)
	if a.text("id") != id {
		t.Errorf("got %s", a.body)
	}
	w.do(call{"GET", "/v1/inbox/" + id, other.key, nil, nil}).refused(404, "message_not_found")
	w.do(call{"GET", "/v1/inbox/x", p.key, nil, nil}).refused(404, "message_not_found")
	w.do(call{"POST", "/v1/inbox/acks", p.key, obj{"ids": []string{id}}, nil}).want(200)
	w.do(call{"GET", "/v1/inbox/" + id, p.key, nil, nil}).refused(404, "message_not_found")
}

// waiting is a poll in flight.
type waiting struct {
	answer chan answer
	leave  context.CancelFunc
}

// wait starts a poll and returns once it is parked.
func (w *world) wait(p phone, query string) waiting {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	parked := w.heard.count(messages.HintPolling)
	x := waiting{answer: make(chan answer, 1), leave: cancel}
	go func() {
		a, err := w.try(ctx, call{"GET", "/v1/inbox?" + query, p.key, nil, nil})
		if err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("polling: %v", err)
		}
		x.answer <- a
	}()
	h := w.heard.until(w.t, messages.HintPolling, parked)
	if string(h.Device) != p.id || time.Until(h.Until) > 55*time.Second {
		w.t.Errorf("hinted %+v", h)
	}
	return x
}

func (x waiting) page(t *testing.T) (inboxPage, http.Header) {
	t.Helper()
	select {
	case a := <-x.answer:
		var page inboxPage
		a.want(200).into(&page)
		return page, a.header
	case <-time.After(20 * time.Second):
		t.Fatal("the poll hangs")
		return inboxPage{}, nil
	}
}

func TestParkedPollGetsTheMessage(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: time.Hour}}.start(t) // only the hint can do it
	app := w.newApp()
	p := w.newPhone(app)
	x := w.wait(p, "wait=55")
	if got := counted(t, w, "rouse_waiters"); got != 1 {
		t.Errorf("rouse_waiters is %v", got)
	}
	id := w.send(app, p, "hello")
	page, _ := x.page(t)
	if len(page.Messages) != 1 || page.Messages[0].ID != id {
		t.Errorf("got %+v", page)
	}
	if h := w.heard.until(t, messages.HintServed, 0); !h.Parked || h.Seq == 0 || string(h.App) != app.id {
		t.Errorf("hinted %+v", h)
	}
	if n := w.heard.count(messages.HintIdle); n != 0 {
		t.Errorf("served, and idle %d times", n)
	}
	if api.Waiting(w.api) != 0 {
		t.Error("it is still parked")
	}
	// Ack, read and wait in one: the ack is done before the wait.
	x = w.wait(p, "wait=55&ack="+page.Cursor)
	id = w.send(app, p, "again")
	if page, _ = x.page(t); len(page.Messages) != 1 || page.Messages[0].ID != id {
		t.Errorf("got %+v", page)
	}
}

// TestLostHintDelaysOnly: the bus says nothing, the poll looks by itself.
func TestLostHintDelaysOnly(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: 50 * time.Millisecond}}.start(t)
	app := w.newApp()
	p := w.newPhone(app)
	x := w.wait(p, "wait=55")
	_, err := w.store.Accept(t.Context(), must(messages.New(messages.Send{
		App: ident.App(app.id), To: messages.Target{Device: ident.Device(p.id)}, Data: []byte("1"), TTL: time.Hour, CreatedAt: time.Now(),
	})))
	if err != nil {
		t.Fatal(err)
	}
	if page, _ := x.page(t); len(page.Messages) != 1 {
		t.Errorf("got %+v", page)
	}
}

// TestLostHintsAreToldByTheBus: a bus that lost some makes everybody look.
func TestLostHintsAreToldByTheBus(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: time.Hour}}.start(t)
	app := w.newApp()
	p := w.newPhone(app)
	x := w.wait(p, "wait=55")
	_, err := w.store.Accept(t.Context(), must(messages.New(messages.Send{
		App: ident.App(app.id), To: messages.Target{Device: ident.Device(p.id)}, Data: []byte("1"), TTL: time.Hour, CreatedAt: time.Now(),
	})))
	if err != nil {
		t.Fatal(err)
	}
	lost := func(_ context.Context, receive func([]messages.Hint, bool)) error {
		receive(nil, true)
		return nil
	}
	if err := w.api.Run(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	if page, _ := x.page(t); len(page.Messages) != 1 {
		t.Errorf("got %+v", page)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestPollTimesOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.newPhone(w.newApp())
	began := time.Now()
	page, header := w.wait(p, "wait=1").page(t)
	if took := time.Since(began); took < 800*time.Millisecond {
		t.Errorf("took %s", took)
	}
	if len(page.Messages) != 0 || page.Cursor == "" || page.More || header.Get("Retry-After") != "" {
		t.Errorf("got %+v", page)
	}
	w.heard.until(t, messages.HintIdle, 0)
	w.inbox(p, "?after="+page.Cursor+"&ack="+page.Cursor)
}

func TestNewerPollDisplacesOlder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	older := w.wait(p, "wait=55")
	newer := w.wait(p, "wait=55")
	if page, _ := older.page(t); len(page.Messages) != 0 {
		t.Errorf("the older got %+v", page)
	}
	if got := counted(t, w, "rouse_polls_displaced_total"); got != 1 {
		t.Errorf("rouse_polls_displaced_total is %v", got)
	}
	w.send(app, p, 1)
	if page, _ := newer.page(t); len(page.Messages) != 1 {
		t.Errorf("the newer got %+v", page)
	}
}

func TestClientLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.newPhone(w.newApp())
	x := w.wait(p, "wait=55")
	x.leave()
	w.heard.until(t, messages.HintIdle, 0)
	poll(t, func() bool { return api.Waiting(w.api) == 0 })
}

func TestDrainAnswersEverybody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	var polls []waiting
	for range 5 {
		polls = append(polls, w.wait(w.newPhone(app), "wait=55"))
	}
	w.drain()
	for _, x := range polls {
		page, header := x.page(t)
		after, err := strconv.Atoi(header.Get("Retry-After"))
		if err != nil || after < 1 || after > 4 || len(page.Messages) != 0 || page.Cursor == "" {
			t.Errorf("Retry-After %q, %+v", header.Get("Retry-After"), page)
		}
	}
	// One that comes late still reads what is there, and does not wait.
	late := w.newPhone(app)
	began := time.Now()
	a := w.do(call{"GET", "/v1/inbox?wait=55", late.key, nil, nil}).want(200)
	if took := time.Since(began); took > 45*time.Second || a.header.Get("Retry-After") == "" {
		t.Errorf("took %s, Retry-After %q", took, a.header.Get("Retry-After"))
	}
	w.send(app, late, 1)
	if page := w.inbox(late, "?wait=55"); len(page.Messages) != 1 {
		t.Errorf("got %+v", page)
	}
}

func TestUnregisteredWhileWaiting(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Recheck: time.Hour}}.start(t)
	p := w.newPhone(w.newApp())
	x := w.wait(p, "wait=55")
	w.do(call{"DELETE", "/v1/device", p.key, nil, nil}).want(204)
	(<-x.answer).refused(410, "device_unregistered")
	if api.Waiting(w.api) != 0 {
		t.Error("it is still parked")
	}
}

// TestTTLZero reaches only who is polling right now.
func TestTTLZero(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	body := obj{"to": obj{"device_id": p.id}, "data": "now", "ttl": 0}
	w.do(call{"POST", "/v1/messages", app.sk, body, nil}).want(202)
	if page := w.inbox(p, ""); len(page.Messages) != 0 {
		t.Errorf("got %+v", page)
	}
	x := w.wait(p, "wait=55")
	w.do(call{"POST", "/v1/messages", app.sk, body, nil}).want(202)
	if page, _ := x.page(t); len(page.Messages) != 1 || string(page.Messages[0].Data) != `"now"` {
		t.Errorf("got %+v", page)
	}
}

// counted reads a metric that has no labels.
func counted(t *testing.T, w *world, name string) float64 {
	t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

func TestRequestsAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do(call{"GET", "/v1/apps", adminKey, nil, nil}).want(200)
	w.do(call{"GET", "/v1/apps", "", nil, nil}).want(401)
	w.do(call{"GET", "/nowhere", "", nil, nil}).want(404)
	n, err := testutil.GatherAndCount(prometheus.Gatherer(w.metrics), "rouse_http_requests_total")
	if err != nil || n != 3 {
		t.Errorf("%d series, %v", n, err)
	}
	if problems, err := testutil.GatherAndLint(w.metrics); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}
