package api_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func (w *world) receipts(p phone, list ...obj) int {
	w.t.Helper()
	var got struct{ Recorded int }
	w.do(call{"POST", "/v1/inbox/receipts", p.key, obj{"receipts": list, "sent_by": "a newer app"}, nil}).want(200).into(&got)
	return got.Recorded
}

// read takes some fields of an answer.
func (a answer) read(to any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, to); err != nil {
		a.t.Fatal(err)
	}
}

func TestReceiptsAreNotedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p, other := w.newPhone(app), w.newPhone(app)
	id, foreign := w.send(app, p, 1), w.send(app, other, 1)
	cursor := *w.events(app, "").Cursor
	x, _ := w.watch(app, "wait=55&after="+cursor)
	opened := time.Now().Add(time.Hour).UTC()
	if n := w.receipts(p, obj{"message_id": id, "event": "displayed", "note": 1}, obj{"message_id": id, "event": "displayed"}, obj{"message_id": id, "event": "opened", "at": opened},
		obj{"message_id": foreign, "event": "opened"}, obj{"message_id": "msg_no", "event": "opened"}, obj{"message_id": "msg_" + strings.Repeat("0", 26), "event": "dismissed"}); n != 2 {
		t.Errorf("%d were new", n)
	}
	if n := w.receipts(p, obj{"message_id": id, "event": "displayed"}); n != 0 {
		t.Errorf("again: %d were new", n)
	}
	page, types := soon(t, x).events(t)
	if !slices.Equal(types, []string{"message.displayed", "message.opened"}) || !strings.HasPrefix(string(page.Events[0].Data), `{"message_id":"`+id+`","device_id":"`+p.id+`","at":"`) {
		t.Errorf("%+v", page)
	}
	var m struct {
		Counters struct{ Queued, Displayed, Opened, Dismissed int }
	}
	w.do(call{"GET", "/v1/messages/" + id, app.sk, nil, nil}).want(200).read(&m)
	if c := m.Counters; c.Queued != 1 || c.Displayed != 1 || c.Opened != 1 || c.Dismissed != 0 {
		t.Errorf("counts %+v", c)
	}
	var d struct {
		Deliveries []struct {
			State    string
			Timeline []struct {
				At    time.Time
				Event string
			}
		}
	}
	w.do(call{"GET", "/v1/messages/" + id + "/deliveries", app.sk, nil, nil}).want(200).read(&d)
	var story []string
	for _, moment := range d.Deliveries[0].Timeline {
		story = append(story, moment.Event)
		if moment.At.After(time.Now().Add(time.Minute)) {
			t.Errorf("%s lies ahead", moment.Event)
		}
	}
	if !slices.Equal(story, []string{"accepted", "displayed", "opened"}) || d.Deliveries[0].State != "queued" {
		t.Errorf("%+v", d)
	}
}

func TestBadReceipts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.newPhone(w.newApp())
	post := func(body any) answer { return w.do(call{"POST", "/v1/inbox/receipts", p.key, body, nil}) }
	good := obj{"message_id": "msg_x", "event": "opened"}
	for _, body := range []any{obj{}, obj{"receipts": []obj{}}, obj{"receipts": []obj{{"message_id": "x"}}}, obj{"receipts": []obj{{"event": "opened"}}},
		obj{"receipts": []obj{{"message_id": "x", "event": "liked"}}}, obj{"receipts": []obj{{"message_id": "x", "event": "opened", "at": "yesterday"}}},
		obj{"receipts": slices.Repeat([]obj{good}, 501)}} {
		post(body).refused(422, "invalid_body")
	}
	post(obj{"receipts": slices.Repeat([]obj{good}, 500)}).want(200)
	post(obj{"receipts": []obj{{"message_id": "x", "event": "opened", "at": "0001-01-01T00:00:00Z"}}}).want(200)
	post(obj{"receipts": []obj{{"message_id": "x", "event": "opened", "at": "9999-12-31T23:59:59.999999999+14:00"}}}).want(200)
}
