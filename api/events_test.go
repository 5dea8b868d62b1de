package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rouse/tokens"
)

type event struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	CreatedAt time.Time       `json:"created_at"`
	Data      json.RawMessage `json:"data"`
}

type eventPage struct {
	Events []event `json:"events"`
	Cursor *string `json:"cursor"`
	More   bool    `json:"more"`
}

func (w *world) events(app tenant, query string) eventPage {
	w.t.Helper()
	var p eventPage
	w.do(call{"GET", "/v1/events?" + query, app.sk, nil, nil}).want(200).into(&p)
	return p
}

// throttle opens a circuit of the app and closes it, n times; each is two events.
func (w *world) throttle(app tenant, n int) {
	w.t.Helper()
	for i := range n {
		c := tokens.Circuit{
			Outlet: tokens.Outlet{Provider: tokens.FCM}, State: tokens.CircuitOpen,
			Cause: tokens.CauseThrottled, Reason: fmt.Sprintf("REASON_%d", i), OpenedAt: time.Now(), RetryAt: time.Now().Add(time.Hour),
		}
		w.note(app, c)
		c.State = tokens.CircuitClosed
		w.note(app, c)
	}
}

func TestEventsTellWhatHappened(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	if p := w.events(app, ""); p.Events == nil || len(p.Events) != 0 || p.More || p.Cursor != nil {
		t.Errorf("a new app has %+v", p)
	}
	at := time.Now().UTC().Truncate(time.Millisecond)
	w.putApple(app)
	w.note(app, tokens.Circuit{
		Outlet: tokens.Outlet{Provider: tokens.APNs, Environment: tokens.Sandbox}, State: tokens.CircuitOpen,
		Cause: tokens.CauseCredential, Reason: "InvalidProviderToken", OpenedAt: time.Now(), RetryAt: at.Add(time.Hour),
	})
	w.throttle(other, 1)
	w.putApple(app)
	var types []string
	p := w.events(app, "unknown=parameter")
	for _, e := range p.Events {
		types = append(types, e.Type)
		if !strings.HasPrefix(e.ID, "evt_") || e.CreatedAt.Before(at) || time.Since(e.CreatedAt) > time.Minute {
			t.Errorf("got %+v", e)
		}
	}
	if !slices.Equal(types, []string{"circuit.opened", "credential.failing", "circuit.closed"}) || p.More || p.Cursor == nil {
		t.Fatalf("got %v, %+v", types, p)
	}
	var opened struct{ Provider, Environment, Cause, Reason, RetryAt string }
	raw := strings.Replace(string(p.Events[0].Data), "retry_at", "RetryAt", 1)
	if err := json.Unmarshal([]byte(raw), &opened); err != nil {
		t.Fatal(err)
	}
	retry, err := time.Parse(time.RFC3339, opened.RetryAt)
	if err != nil || opened.Provider != "apns" || opened.Environment != "sandbox" || opened.Cause != "credential" || opened.Reason != "InvalidProviderToken" || !retry.Equal(at.Add(time.Hour)) {
		t.Errorf("the opening says %s, %v", p.Events[0].Data, err)
	}
	if p := w.events(other, ""); len(p.Events) != 2 {
		t.Errorf("another app has %+v", p)
	}
}

// TestEventsArePaged: the pages are what one page would be, an empty page keeps its cursor, and what happens later is behind it.
func TestEventsArePaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	w.throttle(app, 2)
	w.throttle(w.newApp(), 1) // places between that are not the app's
	w.throttle(app, 1)
	all := w.events(app, "limit=6")
	if len(all.Events) != 6 || all.More {
		t.Fatalf("got %+v", all)
	}
	if p := w.events(app, "limit=5"); len(p.Events) != 5 || !p.More {
		t.Errorf("five of six: %+v", p)
	}
	var ids []string
	after := ""
	for range 3 {
		p := w.events(app, "limit=2"+after)
		for _, e := range p.Events {
			ids = append(ids, e.ID)
		}
		if p.More != (len(ids) < 6) {
			t.Errorf("more is %v after %d", p.More, len(ids))
		}
		after = "&after=" + *p.Cursor
	}
	for i, e := range all.Events {
		if i >= len(ids) || ids[i] != e.ID {
			t.Fatalf("paged %v, whole %+v", ids, all.Events)
		}
	}
	end := w.events(app, "limit=2"+after)
	if len(end.Events) != 0 || end.More || "&after="+*end.Cursor != after {
		t.Errorf("past the end: %+v", end)
	}
	w.throttle(app, 1)
	if p := w.events(app, after); len(p.Events) != 2 {
		t.Errorf("what came later: %+v", p)
	}
}

// TestEventsSince: now, and a time, are places to begin at, also where nothing happened yet.
func TestEventsSince(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	fresh := w.events(app, "since=now")
	if len(fresh.Events) != 0 || fresh.More || fresh.Cursor == nil {
		t.Fatalf("a new app has %+v", fresh)
	}
	w.throttle(app, 2)
	if p := w.events(app, "after="+*fresh.Cursor); len(p.Events) != 4 {
		t.Errorf("behind the first now: %+v", p)
	}
	now := w.events(app, "since=now&types=circuit.*")
	if len(now.Events) != 0 || now.Cursor == nil {
		t.Fatalf("now: %+v", now)
	}
	w.throttle(app, 1)
	if p := w.events(app, "after="+*now.Cursor); len(p.Events) != 2 {
		t.Errorf("behind now: %+v", p)
	}
	for when, want := range map[time.Duration]int{-time.Hour: 6, time.Hour: 0} {
		p := w.events(app, "since="+time.Now().Add(when).UTC().Format(time.RFC3339))
		if len(p.Events) != want || p.Cursor == nil {
			t.Errorf("since %v: %+v, want %d", when, p, want)
		}
	}
	for query, code := range map[string]string{"since=yesterday": "bad_query", "since=2030-01-02": "bad_query", "since=now&after=" + *now.Cursor: "bad_query", "since=": "bad_query"} {
		w.do(call{"GET", "/v1/events?" + query, app.sk, nil, nil}).refused(400, code)
	}
}

// TestEventCursorOutlivesItsEvent: after everything was removed an old cursor misses nothing and repeats nothing.
func TestEventCursorOutlivesItsEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	w.throttle(app, 2)
	first, whole := w.events(app, "limit=1"), w.events(app, "")
	if _, err := w.store.Purge(t.Context(), time.Now().Add(time.Hour), time.Now(), 1000); err != nil {
		t.Fatal(err)
	}
	if p := w.events(app, ""); len(p.Events) != 0 {
		t.Fatalf("%d events outlive the time they are kept", len(p.Events))
	}
	w.throttle(app, 1)
	for _, cursor := range []string{*first.Cursor, *whole.Cursor} {
		if p := w.events(app, "after="+cursor); len(p.Events) != 2 || p.Events[0].Type != "circuit.opened" {
			t.Errorf("behind %s: %+v", cursor, p)
		}
	}
}

func TestBadEventQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	w.throttle(app, 1)
	cursor := *w.events(app, "limit=1").Cursor
	for query, code := range map[string]string{
		"limit=0": "bad_query", "limit=101": "bad_query", "limit=x": "bad_query", "limit=1&limit=2": "bad_query", "limit=": "bad_query",
		"after=": "bad_cursor", "after=e": "bad_cursor", "after=1": "bad_cursor", "after=e-1": "bad_cursor", "after=e%2B1": "bad_cursor",
		"after=e01": "bad_cursor", "after=E1": "bad_cursor", "after=eG": "bad_cursor", "after=ezzzzzzzzzzzzzz": "bad_cursor", "after=e1%00": "bad_cursor",
		"after=" + cursor + "&after=" + cursor: "bad_query", "after=" + app.id: "bad_cursor",
	} {
		w.do(call{"GET", "/v1/events?" + query, app.sk, nil, nil}).refused(400, code)
	}
	// A place that was never reached is the end.
	if p := w.events(app, "after=e1y2p0ij32e8e7"); len(p.Events) != 0 || p.More {
		t.Errorf("got %+v", p)
	}
}
