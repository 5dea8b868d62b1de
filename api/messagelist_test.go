package api_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"rouse/messages"
)

// listed asks for all messages that fit, page by page, and returns their ids.
func (w *world) listed(app tenant, query string) (ids []string) {
	w.t.Helper()
	after := ""
	for range 1000 {
		var l struct {
			Messages []struct{ ID string }
			Cursor   string
			More     bool
		}
		w.do(call{"GET", "/v1/messages?" + query + after, app.sk, nil, nil}).want(200).decode(&l)
		for _, m := range l.Messages {
			ids = append(ids, m.ID)
		}
		if !l.More {
			return ids
		}
		after = "&after=" + l.Cursor
	}
	w.t.Fatal("the list does not end")
	return nil
}

func TestListMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p, q := w.newPhone(app), w.newPhone(app)
	w.do(call{"PUT", "/v1/users/an%2Fna/devices/" + q.id, app.sk, nil, nil}).want(204)
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	var ids []string
	for _, body := range []string{
		p.message(0), p.message(1, `"correlation_id":"c 1"`), `{"to":{"user_id":"an/na"},"data":2}`, `{"to":{"user_id":"nobody"},"data":3,"correlation_id":"c 1"}`,
		`{"to":{"topic":"news"},"data":4}`, `{"to":{"broadcast":true},"data":5}`, q.message(6, `"send_at":"`+later+`"`),
	} {
		ids = append(ids, w.do(call{"POST", "/v1/messages", app.sk, body, nil}).want(202).text("id"))
	}
	other := w.newApp()
	w.send(other, w.newPhone(other), 1)
	w.do(call{"POST", "/v1/messages/" + ids[0] + "/cancel", app.sk, nil, nil}).want(200)
	for query, want := range map[string][]int{
		"": {6, 5, 4, 3, 2, 1, 0}, "limit=1": {6, 5, 4, 3, 2, 1, 0}, "limit=2": {6, 5, 4, 3, 2, 1, 0},
		"device_id=" + p.id: {1, 0}, "device_id=" + q.id: {6}, "user_id=an%2Fna": {2}, "user_id=nobody": {3}, "user_id=stranger": {}, "topic=news": {4}, "topic=none": {},
		"correlation_id=c+1": {3, 1}, "correlation_id=c+1&device_id=" + p.id: {1}, "limit=1&correlation_id=c+1": {3, 1},
		"status=canceled": {0}, "status=scheduled": {6}, "status=fanning_out": {5, 4}, "status=no_recipients": {3}, "status=accepted": {2, 1},
		"created_after=2000-01-01T00:00:00Z": {6, 5, 4, 3, 2, 1, 0}, "created_before=2000-01-01T00:00:00Z": {}, "created_after=2100-01-01T00:00:00%2B02:00": {},
	} {
		got, expected := w.listed(app, query), []string{}
		for _, i := range want {
			expected = append(expected, ids[i])
		}
		if strings.Join(got, " ") != strings.Join(expected, " ") {
			t.Errorf("%s: got %v, want %v", query, got, expected)
		}
	}
	for _, bad := range []string{
		"limit=0", "limit=101", "limit=x", "device_id=x", "device_id=", "user_id=", "user_id=a%00", "user_id=%ff", "user_id=" + strings.Repeat("u", 257), "topic=", "topic=a+b",
		"topic=" + strings.Repeat("t", 129), "correlation_id=", "correlation_id=%00", "correlation_id=%ff", "correlation_id=" + strings.Repeat("c", 129),
		"status=", "status=queued", "created_after=soon", "created_before=1", "device_id=" + p.id + "&user_id=a", "status=accepted&status=canceled", "topic=a&topic=b",
	} {
		w.do(call{"GET", "/v1/messages?" + bad, app.sk, nil, nil}).refused(400, "bad_query")
	}
	for _, bad := range []string{"x", "", url.QueryEscape("msg_é"), p.id} {
		w.do(call{"GET", "/v1/messages?after=" + bad, app.sk, nil, nil}).refused(400, "bad_cursor")
	}
}

// TestSendsForLater are told to whoever fans out, read back as they were sent, and canceled before their time.
func TestSendsForLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	at := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Millisecond)
	var topics, later sentMessage
	w.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"topic": "news"}, "data": 1, "ttl": 60}, nil}).want(202).decode(&topics)
	if topics.Status != "fanning_out" || topics.Recipients != 0 || topics.ExpiresAt.Sub(topics.CreatedAt) != time.Minute {
		t.Errorf("got %+v", topics)
	}
	if h := w.heard.until(t, messages.HintFanout, 0); string(h.App) != app.id {
		t.Errorf("hinted %+v", h)
	}
	body := obj{"to": obj{"device_id": p.id}, "data": 1, "ttl": 60, "send_at": at.Format(time.RFC3339Nano)}
	key := map[string]string{"Idempotency-Key": "k"}
	w.do(call{"POST", "/v1/messages", app.sk, body, key}).want(202).decode(&later)
	if later.Status != "scheduled" || !later.SendAt.Equal(at) || !later.ExpiresAt.Equal(at.Add(time.Minute)) {
		t.Errorf("got %+v", later)
	}
	if w.do(call{"POST", "/v1/messages", app.sk, body, key}).want(202).header.Get("Idempotent-Replayed") != "true" {
		t.Error("scheduled twice")
	}
	if n := w.heard.count(messages.HintFanout); n != 2 {
		t.Errorf("%d hints: a replay is no news", n)
	}
	path := "/v1/messages/" + later.ID
	var read sentMessage
	w.do(call{"GET", path, app.sk, nil, nil}).want(200).decode(&read)
	if read.Status != "scheduled" || !read.SendAt.Equal(at) || read.To["device_id"] != p.id || len(w.inbox(p, "").Messages) != 0 {
		t.Errorf("got %+v", read)
	}
	for range 2 {
		w.do(call{"POST", path + "/cancel", app.sk, nil, nil}).want(200).decode(&read)
		if read.Status != "canceled" {
			t.Errorf("got %+v", read)
		}
	}
	// A time that has passed is now.
	body["send_at"] = time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	w.do(call{"POST", "/v1/messages", app.sk, body, nil}).want(202).decode(&read)
	if read.Status != "accepted" || len(w.inbox(p, "").Messages) != 1 {
		t.Errorf("got %+v", read)
	}
	w.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"device_id": "dev_00000000000000000000000000"}, "data": 1, "send_at": at}, nil}).refused(422, "device_not_found")
}
