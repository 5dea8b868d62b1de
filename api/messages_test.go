package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"rouse/messages"
)

type accepted struct {
	ID         string    `json:"id"`
	Status     string    `json:"status"`
	Recipients int       `json:"recipients"`
	CreatedAt  time.Time `json:"created_at"`
	ExpiresAt  time.Time `json:"expires_at"`
	SendAt     time.Time `json:"send_at"`
}

type sentMessage struct {
	accepted
	To            map[string]string `json:"to"`
	Urgency       string            `json:"urgency"`
	CollapseKey   string            `json:"collapse_key"`
	CorrelationID string            `json:"correlation_id"`
	Counters      map[string]int    `json:"counters"`
}

func TestSendAndReadBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	a := w.do(call{"POST", "/v1/messages", app.sk, obj{
		"to": obj{"device_id": p.id}, "data": obj{"order": 4711}, "ttl": 3600, "urgency": "low", "collapse_key": "orders",
		"notification": obj{"title": "Ready"}, "correlation_id": "c-1",
	}, nil}).want(202)
	var sent accepted
	a.into(&sent)
	if sent.Status != "accepted" || sent.Recipients != 1 || sent.ExpiresAt.Sub(sent.CreatedAt) != time.Hour || time.Since(sent.CreatedAt) > time.Minute {
		t.Errorf("got %+v", sent)
	}
	if a.header.Get("Idempotent-Replayed") != "" {
		t.Error("replayed?")
	}
	if h := w.heard.until(t, messages.HintNew, 0); string(h.Device) != p.id || string(h.App) != app.id || h.Seq == 0 || h.Class != messages.NoWake {
		t.Errorf("hinted %+v", h)
	}
	var m sentMessage
	w.do(call{"GET", a.header.Get("Location"), app.sk, nil, nil}).want(200).into(&m)
	if m.accepted != sent || m.To["device_id"] != p.id || m.Urgency != "low" || m.CollapseKey != "orders" || m.CorrelationID != "c-1" || m.Counters["queued"] != 1 || len(m.Counters) != 11 {
		t.Errorf("got %+v", m)
	}
}

func TestDefaultsOfASend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	var m sentMessage
	w.do(call{"GET", "/v1/messages/" + w.send(app, p, nil), app.sk, nil, nil}).want(200).into(&m)
	if m.Urgency != "high" || m.ExpiresAt.Sub(m.CreatedAt) != 7*24*time.Hour {
		t.Errorf("got %+v", m)
	}
	if page := w.inbox(p, ""); string(page.Messages[0].Data) != "null" {
		t.Errorf("null came as %s", page.Messages[0].Data)
	}
}

// TestDataByteForByte: what the sender wrote is what the device reads, spaces, escapes, order and all.
func TestDataByteForByte(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	for _, data := range []string{
		`{ "b" : 1,  "a":2 , "b":3 }`, `"<script>&\u2028\/"`, `1.000000000000000000000000001e+0`, "[ \n\t ]", `12345678901234567890`, strings.Repeat("[", 100) + strings.Repeat("]", 100), `"` + "\u2028" + `"`, `""`, `false`,
	} {
		w.do(call{"POST", "/v1/messages", app.sk, `{"to":{"device_id":"` + p.id + `"},"data": ` + data + ` }`, nil}).want(202)
		page := w.do(call{"GET", "/v1/inbox", p.key, nil, nil}).want(200)
		if !strings.Contains(string(page.body), `"data":`+data+`,"urgency"`) {
			t.Errorf("sent %s, got %s", data, page.body)
		}
		var one inboxPage
		page.into(&one)
		item := w.do(call{"GET", "/v1/inbox/" + one.Messages[0].ID, p.key, nil, nil}).want(200)
		if !strings.Contains(string(item.body), `"data":`+data+`,"urgency"`) {
			t.Errorf("sent %s, got %s", data, item.body)
		}
		w.inbox(p, "?ack="+one.Cursor)
	}
}

func TestBadSends(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	foreign := w.newPhone(w.newApp())
	to := `"to":{"device_id":"` + p.id + `"}`
	large := `"` + strings.Repeat("x", 64<<10-2) + `"`
	for name, c := range map[string]struct {
		body          string
		status        int
		code, pointer string
	}{
		"empty":                {"", 400, "malformed_json", ""},
		"deep data":            {`{` + to + `,"data":` + strings.Repeat("[", 101) + strings.Repeat("]", 101) + `}`, 422, "invalid_message", "/data"},
		"deepest data":         {`{` + to + `,"data":` + strings.Repeat(`{"a":`, 9990) + "1" + strings.Repeat("}", 9990) + `}`, 422, "invalid_message", "/data"},
		"not JSON":             {`{"to"`, 400, "malformed_json", ""},
		"two values":           {`{} {}`, 400, "malformed_json", ""},
		"not UTF-8":            {`{` + to + `,"data":"` + "\xff" + `"}`, 400, "malformed_json", ""},
		"an array":             {`[]`, 422, "invalid_body", "-"},
		"null":                 {`null`, 422, "invalid_body", "-"},
		"nothing in it":        {`{}`, 422, "invalid_body", "/data"},
		"nobody":               {`{"to":{},"data":1}`, 422, "invalid_body", "/to"},
		"two recipients":       {`{"to":{"device_id":"` + p.id + `","user_id":"anna"},"data":1}`, 422, "invalid_body", "/to"},
		"to nobody":            {`{"to":{"broadcast":false},"data":1}`, 422, "invalid_body", "/to/broadcast"},
		"a topic's name":       {`{"to":{"topic":"a b"},"data":1}`, 422, "invalid_message", "/to/topic"},
		"a topic, ttl 0":       {`{"to":{"topic":"a"},"data":1,"ttl":0}`, 422, "invalid_message", "/ttl"},
		"everybody, ttl 0":     {`{"to":{"broadcast":true},"data":1,"ttl":0}`, 422, "invalid_message", "/ttl"},
		"bad device id":        {`{"to":{"device_id":"dev_1"},"data":1}`, 422, "invalid_body", "/to/device_id"},
		"unknown device":       {`{"to":{"device_id":"dev_00000000000000000000000000"},"data":1}`, 422, "device_not_found", "/to/device_id"},
		"another app's device": {`{"to":{"device_id":"` + foreign.id + `"},"data":1}`, 422, "device_not_found", "/to/device_id"},
		"control in user":      {`{"to":{"user_id":"a\u0000"},"data":1}`, 422, "invalid_user", "/to/user_id"},
		"long user in bytes":   {`{"to":{"user_id":"` + strings.Repeat("ö", 200) + `"},"data":1}`, 422, "invalid_user", "/to/user_id"},
		"ttl text":             {`{` + to + `,"data":1,"ttl":"1"}`, 422, "invalid_body", "/ttl"},
		"ttl negative":         {`{` + to + `,"data":1,"ttl":-1}`, 422, "invalid_body", "/ttl"},
		"ttl long":             {`{` + to + `,"data":1,"ttl":2592001}`, 422, "invalid_body", "/ttl"},
		"ttl half":             {`{` + to + `,"data":1,"ttl":0.5}`, 422, "invalid_body", "/ttl"},
		"ttl with a point":     {`{` + to + `,"data":1,"ttl":1.0}`, 422, "invalid_body", "/ttl"},
		"ttl huge":             {`{` + to + `,"data":1,"ttl":1e999999999}`, 422, "invalid_body", "/ttl"},
		"ttl null":             {`{` + to + `,"data":1,"ttl":null}`, 422, "invalid_body", "/ttl"},
		"urgency":              {`{` + to + `,"data":1,"urgency":"extreme"}`, 422, "invalid_body", "/urgency"},
		"urgency empty":        {`{` + to + `,"data":1,"urgency":""}`, 422, "invalid_body", "/urgency"},
		"collapse key":         {`{` + to + `,"data":1,"collapse_key":"` + strings.Repeat("ö", 33) + `"}`, 422, "invalid_message", "/collapse_key"},
		"correlation id":       {`{` + to + `,"data":1,"correlation_id":"` + strings.Repeat("ö", 65) + `"}`, 422, "invalid_message", "/correlation_id"},
		"notification":         {`{` + to + `,"data":1,"notification":{}}`, 422, "invalid_body", "/notification"},
		"notification field":   {`{` + to + `,"data":1,"notification":{"subtitle":"x"}}`, 422, "invalid_body", "/notification/subtitle"},
		"unknown field":        {`{` + to + `,"data":1,"send_on":"x"}`, 422, "invalid_body", "/send_on"},
		"no time":              {`{` + to + `,"data":1,"send_at":"x"}`, 422, "invalid_body", "/send_at"},
		"a time without zone":  {`{` + to + `,"data":1,"send_at":"2030-01-02T08:00:00"}`, 422, "invalid_body", "/send_at"},
		"a leap second":        {`{` + to + `,"data":1,"send_at":"2030-12-31T23:59:60Z"}`, 422, "invalid_body", "/send_at"},
		"a time as a number":   {`{` + to + `,"data":1,"send_at":1893571200}`, 422, "invalid_body", "/send_at"},
		"far off":              {`{` + to + `,"data":1,"send_at":"9999-12-31T23:59:59.999Z"}`, 422, "invalid_message", "/send_at"},
		"other capitals":       {`{` + to + `,"data":1,"TTL":1}`, 422, "invalid_body", "/TTL"},
		"pointer escapes":      {`{` + to + `,"data":1,"a/b~c":1}`, 422, "invalid_body", "/a~1b~0c"},
		"large data":           {`{` + to + `,"data":` + large[:len(large)-1] + `x"}`, 413, "data_too_large", ""},
		"large body":           {`{` + to + `,"data":"` + strings.Repeat("x", 128<<10) + `"}`, 413, "body_too_large", ""},
		"deep":                 {`{` + to + `,"data":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, 400, "malformed_json", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.do(call{"POST", "/v1/messages", app.sk, c.body, nil}).refused(c.status, c.code)
			switch c.pointer {
			case "":
			case "-":
				a.points("")
			default:
				a.points(c.pointer)
			}
		})
	}
	w.do(call{"POST", "/v1/messages", app.sk, `{` + to + `,"data":` + large + `}`, nil}).want(202)
	if detail := w.do(call{"POST", "/v1/messages", app.sk, "{\n \"to\": ?}", nil}).refused(400, "malformed_json").problem().Detail; !strings.Contains(detail, "line 2, column 8") {
		t.Errorf("the place is wrong: %s", detail)
	}
}

func TestMediaTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	body := obj{"to": obj{"device_id": p.id}, "data": 1}
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", ";;"} {
		w.do(call{"POST", "/v1/messages", app.sk, body, map[string]string{"Content-Type": kind}}).refused(415, "unsupported_media_type")
	}
	w.do(call{"POST", "/v1/messages", app.sk, body, map[string]string{"Content-Encoding": "gzip"}}).refused(415, "unsupported_media_type")
	w.do(call{"POST", "/v1/messages", app.sk, body, map[string]string{"Content-Type": "Application/JSON; charset=utf-8"}}).want(202)
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	key := map[string]string{"Idempotency-Key": "order-1"}
	to := `"to":{"device_id":"` + p.id + `"}`
	first := w.do(call{"POST", "/v1/messages", app.sk, `{` + to + `,"data":{"a":1}}`, key}).want(202)
	again := w.do(call{"POST", "/v1/messages", app.sk, `{ "data": {"a": 1} , ` + to + `}`, key}).want(202)
	if string(first.body) != string(again.body) || again.header.Get("Idempotent-Replayed") != "true" || again.header.Get("Location") != first.header.Get("Location") {
		t.Errorf("first %s, again %s", first.body, again.body)
	}
	w.do(call{"POST", "/v1/messages", app.sk, `{` + to + `,"data":{"a":2}}`, key}).refused(422, "idempotency_key_reused")
	w.do(call{"POST", "/v1/messages", app.sk, `{` + to + `,"data":{"a":1},"ttl":5}`, key}).refused(422, "idempotency_key_reused")
	// A number that float64 cannot hold apart is another body all the same.
	big := map[string]string{"Idempotency-Key": "big"}
	w.do(call{"POST", "/v1/messages", app.sk, `{` + to + `,"data":12345678901234567890}`, big}).want(202)
	w.do(call{"POST", "/v1/messages", app.sk, `{` + to + `,"data":12345678901234567891}`, big}).refused(422, "idempotency_key_reused")
	other := w.newApp()
	mine := w.newPhone(other)
	if a := w.do(call{"POST", "/v1/messages", other.sk, obj{"to": obj{"device_id": mine.id}, "data": 1}, key}).want(202); a.header.Get("Idempotent-Replayed") != "" {
		t.Error("another app's key was taken for this one's")
	}
	for _, bad := range []string{strings.Repeat("k", 256), "ö", "a\tb"} {
		w.do(call{"POST", "/v1/messages", app.sk, obj{}, map[string]string{"Idempotency-Key": bad}}).want(422) // the body comes first
		w.do(call{"POST", "/v1/messages", app.sk, `{` + to + `,"data":1}`, map[string]string{"Idempotency-Key": bad}}).refused(400, "bad_header")
	}
	if page := w.inbox(p, ""); len(page.Messages) != 2 {
		t.Errorf("%d messages arrived", len(page.Messages))
	}
	if n := w.heard.count(messages.HintNew); n != 3 {
		t.Errorf("%d hints: a replay hints nothing", n)
	}
}

func TestIdempotentSendsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	var mu sync.Mutex
	ids, fresh := map[string]bool{}, 0
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			a, err := w.try(t.Context(), call{"POST", "/v1/messages", app.sk, obj{"to": obj{"device_id": p.id}, "data": 1}, map[string]string{"Idempotency-Key": "k"}})
			if err != nil || a.status != 202 {
				t.Errorf("%v %d", err, a.status)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[a.text("id")] = true
			if a.header.Get("Idempotent-Replayed") == "" {
				fresh++
			}
		})
	}
	wg.Wait()
	if len(ids) != 1 || fresh != 1 || len(w.inbox(p, "").Messages) != 1 {
		t.Errorf("%d ids, %d fresh", len(ids), fresh)
	}
}

func TestDeliveriesAndCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	var phones []phone
	for range 3 {
		p := w.newPhone(app)
		w.do(call{"PUT", "/v1/users/anna/devices/" + p.id, app.sk, nil, nil}).want(204)
		phones = append(phones, p)
	}
	var sent accepted
	w.do(call{"POST", "/v1/messages", app.sk, obj{"to": obj{"user_id": "anna"}, "data": 1}, nil}).want(202).into(&sent)
	path := "/v1/messages/" + sent.ID
	page := w.inbox(phones[0], "")
	w.do(call{"POST", "/v1/inbox/acks", phones[0].key, obj{"ids": []string{page.Messages[0].ID}}, nil}).want(200)
	w.inbox(phones[1], "")
	type delivery struct {
		DeviceID string `json:"device_id"`
		State    string `json:"state"`
		Timeline []struct {
			At         time.Time `json:"at"`
			Event      string    `json:"event"`
			Provider   string    `json:"provider"`
			Verdict    string    `json:"verdict"`
			Reason     string    `json:"reason"`
			DurationMS *int64    `json:"duration_ms"`
		} `json:"timeline"`
		NotWoken *struct {
			Code   string `json:"code"`
			Detail string `json:"detail"`
		} `json:"not_woken"`
	}
	type list struct {
		Deliveries []delivery `json:"deliveries"`
		Cursor     string     `json:"cursor"`
		More       bool       `json:"more"`
	}
	states := map[string]string{}
	after := ""
	for range 3 {
		var l list
		w.do(call{"GET", path + "/deliveries?limit=1" + after, app.sk, nil, nil}).want(200).into(&l)
		if len(l.Deliveries) != 1 || l.More != (len(states) < 2) {
			t.Fatalf("got %+v", l)
		}
		d := l.Deliveries[0]
		states[d.DeviceID] = d.State
		if len(d.Timeline) == 0 || d.Timeline[0].Event != "accepted" || d.NotWoken == nil {
			t.Errorf("got %+v", d)
		}
		after = "&after=" + l.Cursor
	}
	if states[phones[0].id] != "acked" || states[phones[1].id] != "fetched" || states[phones[2].id] != "queued" {
		t.Errorf("states %v", states)
	}
	w.do(call{"GET", path + "/deliveries?after=x", app.sk, nil, nil}).refused(400, "bad_cursor")
	w.do(call{"GET", path + "/deliveries?limit=0", app.sk, nil, nil}).refused(400, "bad_query")
	var m sentMessage
	for range 2 {
		w.do(call{"POST", path + "/cancel", app.sk, nil, nil}).want(200).into(&m)
		if m.Status != "canceled" || m.Counters["canceled"] != 2 || m.Counters["acked"] != 1 {
			t.Errorf("got %+v", m)
		}
	}
	if page := w.inbox(phones[2], ""); len(page.Messages) != 0 {
		t.Error("a canceled message arrives")
	}
	other := w.newApp()
	for _, x := range []call{
		{"GET", path, other.sk, nil, nil}, {"GET", path + "/deliveries", other.sk, nil, nil}, {"POST", path + "/cancel", other.sk, nil, nil},
		{"GET", "/v1/messages/x", app.sk, nil, nil}, {"GET", "/v1/messages/x/deliveries", app.sk, nil, nil}, {"POST", "/v1/messages/x/cancel", app.sk, nil, nil},
	} {
		w.do(x).refused(404, "message_not_found")
	}
}

func TestFullInbox(t *testing.T) {
	t.Parallel()
	w := setup{inboxMessages: 3}.start(t)
	app := w.newApp()
	p := w.newPhone(app)
	for i := range 3 {
		w.send(app, p, i)
	}
	body := obj{"to": obj{"device_id": p.id}, "data": 3}
	w.do(call{"POST", "/v1/messages", app.sk, body, nil}).refused(429, "inbox_full")
	w.do(call{"PATCH", "/v1/apps/" + app.id, adminKey, obj{"inbox_overflow": "drop_oldest"}, nil}).want(200)
	w.do(call{"POST", "/v1/messages", app.sk, body, nil}).want(202)
	page := w.inbox(p, "")
	if len(page.Messages) != 3 || page.Gap == nil || page.Gap.Count != 1 || page.Gap.Reason != "quota" {
		t.Fatalf("got %+v", page)
	}
	for i, m := range page.Messages {
		if string(m.Data) != fmt.Sprint(i+1) {
			t.Errorf("message %d is %s", i, m.Data)
		}
	}
	if page = w.inbox(p, "?ack="+page.Cursor); page.Gap != nil || len(page.Messages) != 0 {
		t.Errorf("after the ack: %+v", page)
	}
}
