package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

type topic struct {
	Name        string    `json:"name"`
	Subscribers int       `json:"subscribers"`
	CreatedAt   time.Time `json:"created_at"`
}

// subscribed fails unless the device is subscribed to exactly those.
func (w *world) subscribed(p phone, want ...string) {
	w.t.Helper()
	var own struct {
		Topics []string `json:"topics"`
	}
	w.do(call{"GET", "/v1/device/topics", p.key, nil, nil}).want(200).into(&own)
	if own.Topics == nil || !slices.Equal(own.Topics, want) {
		w.t.Errorf("subscribed to %v, want %v", own.Topics, want)
	}
}

func (w *world) topic(app tenant, name string) (got topic) {
	w.t.Helper()
	w.do(call{"GET", "/v1/topics/" + name, app.sk, nil, nil}).want(200).into(&got)
	return got
}

func TestDeviceSubscribesItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.register(app.pk, installation(obj{"topics": []string{"news", "de.AT:weather_1-x", "news"}}))
	w.subscribed(p, "de.AT:weather_1-x", "news")
	q := w.newPhone(app)
	w.subscribed(q)
	for range 2 {
		w.do(call{"PUT", "/v1/device/topics/news", q.key, nil, nil}).want(204)
	}
	w.subscribed(q, "news")
	if got := w.topic(app, "news"); got.Name != "news" || got.Subscribers != 2 || time.Since(got.CreatedAt) > time.Minute {
		t.Errorf("got %+v", got)
	}
	again := obj{"installation_id": w.installationOf(p), "platform": "other", "provider": "none", "topics": []string{"more"}}
	w.do(call{"POST", "/v1/devices", p.key, again, nil}).want(200)
	w.subscribed(p, "de.AT:weather_1-x", "more", "news") // those that were there stay
	for range 2 {
		w.do(call{"DELETE", "/v1/device/topics/news", p.key, nil, nil}).want(204)
	}
	w.do(call{"DELETE", "/v1/device/topics/never", p.key, nil, nil}).want(204)
	w.subscribed(p, "de.AT:weather_1-x", "more")
	w.do(call{"DELETE", "/v1/device", p.key, nil, nil}).want(204)
	if got := w.topic(app, "more"); got.Subscribers != 0 {
		t.Errorf("who is gone is subscribed: %+v", got)
	}
	w.do(call{"PUT", "/v1/device/topics/news", p.key, nil, nil}).refused(410, "device_unregistered")
}

// hostile are names that are no topics, as they are in a path.
var hostile = []string{
	"%2e", "%2e%2e", "a%20b", "a%2Fb", "%2e%2e%2f", "..%2F..", "%00", "a%00", "%FF", "%C3%B6", "news%0A", "a*", "%27%20OR%201=1--", "a%3Fb", "$all", strings.Repeat("x", 129),
}

func TestNamesOfTopics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	longest := strings.Repeat("x", 128)
	w.do(call{"PUT", "/v1/device/topics/" + longest, p.key, nil, nil}).want(204)
	w.do(call{"PUT", "/v1/device/topics/%6E%65ws", p.key, nil, nil}).want(204) // "news", spelt otherwise
	w.subscribed(p, "news", longest)
	for _, name := range hostile {
		for _, x := range []call{
			{"PUT", "/v1/device/topics/" + name, p.key, nil, nil}, {"DELETE", "/v1/device/topics/" + name, p.key, nil, nil},
			{"GET", "/v1/topics/" + name, app.sk, nil, nil}, {"DELETE", "/v1/topics/" + name, app.sk, nil, nil},
			{"PUT", "/v1/topics/" + name + "/devices/" + p.id, app.sk, nil, nil}, {"DELETE", "/v1/topics/" + name + "/devices/" + p.id, app.sk, nil, nil},
			{"PUT", "/v1/topics/" + name + "/users/anna", app.sk, nil, nil}, {"DELETE", "/v1/topics/" + name + "/users/anna", app.sk, nil, nil},
			{"POST", "/v1/topics/" + name + "/subscriptions", app.sk, obj{"device_ids": []string{p.id}}, nil},
			{"POST", "/v1/topics/" + name + "/unsubscriptions", app.sk, obj{"device_ids": []string{p.id}}, nil},
		} {
			w.do(x).refused(422, "invalid_topic")
		}
	}
	w.do(call{"POST", "/v1/devices", app.pk, installation(obj{"topics": []string{"ok", "not ok"}}), nil}).refused(422, "invalid_topic").points("/topics/1")
	w.do(call{"POST", "/v1/devices", app.pk, installation(obj{"topics": []string{"a\x00"}}), nil}).refused(422, "invalid_topic").points("/topics/0")
	w.do(call{"POST", "/v1/devices", app.pk, installation(obj{"topics": []any{1}}), nil}).refused(422, "invalid_body").points("/topics/0")
}

func TestTopicsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("t%d", i))
	}
	w.do(call{"POST", "/v1/devices", app.pk, installation(obj{"topics": many}), nil}).refused(422, "invalid_body").points("/topics")
	p := w.register(app.pk, installation(obj{"topics": many[:199]}))
	w.do(call{"PUT", "/v1/device/topics/t199", p.key, nil, nil}).want(204)
	w.do(call{"PUT", "/v1/device/topics/t0", p.key, nil, nil}).want(204)
	w.do(call{"PUT", "/v1/device/topics/t200", p.key, nil, nil}).refused(422, "too_many_topics")
	w.do(call{"PUT", "/v1/topics/t200/devices/" + p.id, app.sk, nil, nil}).refused(422, "too_many_topics")
	w.do(call{"GET", "/v1/topics/t200", app.sk, nil, nil}).refused(404, "topic_not_found")
	for i := range 100 {
		w.do(call{"PUT", "/v1/topics/" + many[i] + "/users/anna", app.sk, nil, nil}).want(204)
	}
	w.do(call{"PUT", "/v1/topics/t100/users/anna", app.sk, nil, nil}).refused(422, "too_many_topics")
}

func TestTopicsAreListedAndDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	p := w.newPhone(app)
	type page struct {
		Topics []topic `json:"topics"`
		Cursor string  `json:"cursor"`
		More   bool    `json:"more"`
	}
	list := func(key, query string) (got page) {
		w.do(call{"GET", "/v1/topics?" + query, key, nil, nil}).want(200).into(&got)
		return got
	}
	if got := list(app.sk, ""); got.Topics == nil || len(got.Topics) != 0 || got.More || got.Cursor != "" {
		t.Errorf("got %+v", got)
	}
	for _, name := range []string{"c", "a", "b"} {
		w.do(call{"PUT", "/v1/topics/" + name + "/devices/" + p.id, app.sk, nil, nil}).want(204)
	}
	first := list(app.sk, "limit=2")
	if len(first.Topics) != 2 || first.Topics[0].Name != "a" || first.Topics[1].Subscribers != 1 || !first.More || first.Cursor != "b" {
		t.Errorf("got %+v", first)
	}
	last := list(app.sk, "limit=2&after="+first.Cursor)
	if len(last.Topics) != 1 || last.Topics[0].Name != "c" || last.More {
		t.Errorf("got %+v", last)
	}
	if got := list(app.sk, "after=c"); len(got.Topics) != 0 || got.Cursor != "c" {
		t.Errorf("past the end: %+v", got)
	}
	if got := list(other.sk, ""); len(got.Topics) != 0 {
		t.Errorf("another app lists %+v", got)
	}
	w.do(call{"GET", "/v1/topics/a", other.sk, nil, nil}).refused(404, "topic_not_found")
	w.do(call{"DELETE", "/v1/topics/a", other.sk, nil, nil}).refused(404, "topic_not_found")
	w.do(call{"GET", "/v1/topics?after=a%20b", app.sk, nil, nil}).refused(400, "bad_cursor")
	w.do(call{"GET", "/v1/topics?limit=0", app.sk, nil, nil}).refused(400, "bad_query")
	w.do(call{"DELETE", "/v1/topics/b", app.sk, nil, nil}).want(204)
	w.do(call{"DELETE", "/v1/topics/b", app.sk, nil, nil}).refused(404, "topic_not_found")
	w.subscribed(p, "a", "c")
}

// TestSubscriptionsOfAUser are those of the user's devices, while they are that.
func TestSubscriptionsOfAUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	one, two := w.newPhone(app), w.newPhone(app)
	w.do(call{"PUT", "/v1/users/anna/devices/" + one.id, app.sk, nil, nil}).want(204)
	w.do(call{"PUT", "/v1/topics/news/users/anna", app.sk, nil, nil}).want(204)
	w.do(call{"PUT", "/v1/topics/news/devices/" + one.id, app.sk, nil, nil}).want(204)
	w.do(call{"PUT", "/v1/users/anna/devices/" + two.id, app.sk, nil, nil}).want(204)
	w.subscribed(one, "news")
	w.subscribed(two, "news")
	if n := w.topic(app, "news").Subscribers; n != 2 {
		t.Errorf("%d subscribers", n)
	}
	w.do(call{"DELETE", "/v1/topics/news/devices/" + one.id, app.sk, nil, nil}).want(204)
	w.subscribed(one, "news") // through its user
	w.do(call{"PUT", "/v1/topics/news/devices/" + one.id, app.sk, nil, nil}).want(204)
	w.do(call{"DELETE", "/v1/device/user", two.key, nil, nil}).want(204)
	w.subscribed(two)
	w.do(call{"DELETE", "/v1/topics/news/users/anna", app.sk, nil, nil}).want(204)
	w.subscribed(one, "news")
	w.do(call{"PUT", "/v1/topics/news/users/%00", app.sk, nil, nil}).refused(422, "invalid_user")
	w.do(call{"DELETE", "/v1/topics/news/users/%FF", app.sk, nil, nil}).refused(422, "invalid_user")
}

type subscription struct {
	Index    int      `json:"index"`
	DeviceID string   `json:"device_id"`
	Status   int      `json:"status"`
	Error    *problem `json:"error"`
}

// TestSubscriptionsInBatches: what is wrong with one device hurts no other, and each has its own result.
func TestSubscriptionsInBatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	one, two, gone, foreign := w.newPhone(app), w.newPhone(app), w.newPhone(app), w.newPhone(w.newApp())
	w.do(call{"DELETE", "/v1/device", gone.key, nil, nil}).want(204)
	batch := func(path string, ids []string, want ...int) {
		t.Helper()
		a := w.do(call{"POST", "/v1/topics/news/" + path, app.sk, obj{"device_ids": ids}, nil}).want(200)
		var got struct{ Results []subscription }
		a.decode(&got)
		if len(got.Results) != len(ids) {
			t.Fatalf("%d results: %s", len(got.Results), a.body)
		}
		for i, r := range got.Results {
			wrong := r.Error == nil || r.Error.Code != "device_not_found" || r.Error.Status != 404 || r.Error.RequestID != a.header.Get("X-Request-Id")
			if r.Index != i || r.DeviceID != ids[i] || r.Status != want[i] || (r.Status == 204) != (r.Error == nil) || r.Status != 204 && wrong {
				t.Errorf("result %d: %+v", i, r)
			}
		}
	}
	ids := []string{one.id, "nonsense", foreign.id, two.id, one.id, gone.id, "dev_00000000000000000000000000", ""}
	batch("subscriptions", ids, 204, 404, 404, 204, 204, 404, 404, 404)
	w.subscribed(one, "news")
	w.subscribed(two, "news")
	w.subscribed(foreign)
	batch("unsubscriptions", []string{two.id, foreign.id, two.id}, 204, 404, 204)
	w.subscribed(two)
	batch("subscriptions", []string{"x"}, 404)
	for i, bad := range []struct {
		body    any
		pointer string
	}{
		{obj{}, "/device_ids"},
		{obj{"device_ids": []string{}}, "/device_ids"},
		{obj{"device_ids": slices.Repeat([]string{one.id}, 501)}, "/device_ids"},
		{obj{"device_ids": []any{1}}, "/device_ids/0"},
		{obj{"device_ids": []string{one.id, one.key}}, "/device_ids/1"}, // a key in the wrong place is not repeated
		{obj{"device_ids": []string{one.id}, "users": 1}, "/users"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w.do(call{"POST", "/v1/topics/news/subscriptions", app.sk, bad.body, nil}).refused(422, "invalid_body").points(bad.pointer)
		})
	}
}
