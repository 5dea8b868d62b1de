package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"rouse/api"
	"rouse/messages"
)

// batchResult is what became of one message of a batch.
type batchResult struct {
	Index    int       `json:"index"`
	Status   int       `json:"status"`
	Replayed bool      `json:"replayed"`
	Message  *accepted `json:"message"`
	Error    *problem  `json:"error"`
}

// batch sends messages as they are, and returns what became of them.
func (w *world) batch(app tenant, key string, list ...string) []batchResult {
	w.t.Helper()
	var header map[string]string
	if key != "" {
		header = map[string]string{"Idempotency-Key": key}
	}
	var answer struct{ Results []batchResult }
	w.do(call{"POST", "/v1/messages/batch", app.sk, `{"messages":[` + strings.Join(list, ",") + `]}`, header}).want(200).decode(&answer)
	for i, r := range answer.Results {
		if r.Index != i || (r.Message == nil) == (r.Error == nil) || (r.Status == 202) != (r.Message != nil) {
			w.t.Errorf("result %d is %+v", i, r)
		}
	}
	return answer.Results
}

// to is a message to the phone.
func (p phone) message(data any, more ...string) string {
	return fmt.Sprintf(`{"to":{"device_id":"%s"},"data":%v%s}`, p.id, data, strings.Join(append([]string{""}, more...), ","))
}

func TestBatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p, foreign := w.newPhone(app), w.newPhone(w.newApp())
	list := []string{
		p.message(0), `{"to":{"device_id":"` + p.id + `"},"data":1,"ttl":-1}`, `7`, `null`, `{}`, foreign.message(2), p.message(3, `"send_on":1`),
		p.message(`"` + strings.Repeat("x", 64<<10) + `"`), p.message(`"` + strings.Repeat("x", 128<<10) + `"`), p.message(4, `"ttl":1.0`), p.message(strings.Repeat("[", 101) + strings.Repeat("]", 101)),
		`{"to":{"user_id":"nobody"},"data":5}`, `{"to":{"user_id":"a\u0000"},"data":5}`, p.message(6, `"send_at":"soon"`), p.message(7),
	}
	want := []struct {
		status        int
		code, pointer string
	}{
		{202, "", ""}, {422, "invalid_body", "/ttl"}, {422, "invalid_body", ""}, {422, "invalid_body", ""}, {422, "invalid_body", "/data"},
		{422, "device_not_found", "/to/device_id"}, {422, "invalid_body", "/send_on"}, {413, "data_too_large", ""}, {413, "body_too_large", ""}, {422, "invalid_body", "/ttl"},
		{422, "invalid_message", "/data"}, {202, "", ""}, {422, "invalid_user", "/to/user_id"}, {422, "invalid_body", "/send_at"}, {202, "", ""},
	}
	results := w.batch(app, "", list...)
	if len(results) != len(want) {
		t.Fatalf("%d results of %d", len(results), len(want))
	}
	for i, r := range results {
		switch {
		case r.Status != want[i].status:
			t.Errorf("%d: got %d, want %d: %+v", i, r.Status, want[i].status, r.Error)
		case r.Error == nil:
		case r.Error.Code != want[i].code || r.Error.Status != r.Status || !strings.Contains(errorsPage(), "`"+r.Error.Code+"`"):
			t.Errorf("%d: got %+v, want %s", i, r.Error, want[i].code)
		case want[i].pointer != "" && !strings.Contains(fmt.Sprint(r.Error.Errors), "{"+want[i].pointer+" "):
			t.Errorf("%d: nothing points at %s: %+v", i, want[i].pointer, r.Error.Errors)
		}
	}
	page := w.inbox(p, "")
	if len(page.Messages) != 2 || page.Messages[0].ID != results[0].Message.ID || string(page.Messages[1].Data) != "7" {
		t.Errorf("got %+v", page)
	}
	if n := w.heard.count(messages.HintNew); n != 2 {
		t.Errorf("%d hints", n)
	}
}

func TestBatchOfAudiences(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	results := w.batch(app, "", `{"to":{"topic":"news"},"data":1}`, `{"to":{"broadcast":true},"data":2}`, p.message(3, `"send_at":"`+later+`"`), `{"to":{"topic":"a b"},"data":4}`)
	for i, want := range []string{"fanning_out", "fanning_out", "scheduled"} {
		if m := results[i].Message; m == nil || m.Status != want || m.Recipients != 0 {
			t.Errorf("%d: got %+v", i, results[i])
		}
	}
	if at := results[2].Message.SendAt.Format(time.RFC3339); at != later || results[3].Status != 422 {
		t.Errorf("scheduled for %s, and %+v", at, results[3])
	}
	if n := w.heard.count(messages.HintFanout); n != 1 {
		t.Errorf("%d hints of one batch that there is something to fan out", n)
	}
}

func TestBatchIsRepeated(t *testing.T) {
	t.Parallel()
	w := setup{inboxMessages: 2}.start(t)
	app := w.newApp()
	p := w.newPhone(app)
	first := w.batch(app, "k", p.message(0), p.message(1), p.message(2))
	if first[0].Status != 202 || first[2].Status != 429 || first[2].Error.Code != "inbox_full" {
		t.Fatalf("got %+v", first)
	}
	w.inbox(p, "?ack="+w.inbox(p, "").Cursor)
	// What was stored is told again, what was refused is tried again, what is another message is refused.
	again := w.batch(app, "k", p.message(0), p.message(100), p.message(2), p.message(3))
	if !again[0].Replayed || *again[0].Message != *first[0].Message || again[1].Status != 422 || again[1].Error.Code != "idempotency_key_reused" || again[2].Replayed || again[2].Status != 202 || again[3].Status != 202 {
		t.Errorf("got %+v", again)
	}
	// A message of a batch has the batch's key and its place.
	alone := w.do(call{"POST", "/v1/messages", app.sk, p.message(0), map[string]string{"Idempotency-Key": "k[0]"}}).want(202)
	if alone.header.Get("Idempotent-Replayed") != "true" || alone.text("id") != first[0].Message.ID {
		t.Errorf("got %s", alone.body)
	}
	if page := w.inbox(p, ""); len(page.Messages) != 2 {
		t.Errorf("got %+v", page)
	}
	for _, bad := range []string{strings.Repeat("k", 241), "ö"} {
		w.do(call{"POST", "/v1/messages/batch", app.sk, `{"messages":[` + p.message(0) + `]}`, map[string]string{"Idempotency-Key": bad}}).refused(400, "bad_header")
	}
}

func TestOneBatchAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	var mu sync.Mutex
	fresh := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, r := range w.batch(app, "k", p.message(0), p.message(1)) {
				mu.Lock()
				if r.Status == 202 && !r.Replayed {
					fresh++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if fresh != 2 || len(w.inbox(p, "").Messages) != 2 {
		t.Errorf("%d are fresh", fresh)
	}
}

func TestBadBatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	for name, c := range map[string]struct {
		body          string
		status        int
		code, pointer string
	}{
		"empty":           {``, 400, "malformed_json", "-"},
		"no list":         {`{}`, 422, "invalid_body", "/messages"},
		"nothing in it":   {`{"messages":[]}`, 422, "invalid_body", "/messages"},
		"501":             {`{"messages":[` + strings.Repeat("{},", 500) + `{}]}`, 422, "invalid_body", "/messages"},
		"very many":       {`{"messages":[` + strings.Repeat("0,", 1<<20) + `0]}`, 422, "invalid_body", "/messages"},
		"an object":       {`{"messages":{}}`, 422, "invalid_body", "/messages"},
		"null":            {`{"messages":null}`, 422, "invalid_body", "/messages"},
		"a field too":     {`{"messages":[` + p.message(1) + `],"dry_run":true}`, 422, "invalid_body", "/dry_run"},
		"the list itself": {`[` + p.message(1) + `]`, 422, "invalid_body", ""},
		"not JSON":        {`{"messages":[` + p.message(1) + `,}]}`, 400, "malformed_json", "-"},
		"not UTF-8":       {`{"messages":[` + p.message("\"\xff\"") + `]}`, 400, "malformed_json", "-"},
		"too large":       {`{"messages":["` + strings.Repeat("x", 8<<20) + `"]}`, 413, "body_too_large", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.do(call{"POST", "/v1/messages/batch", app.sk, c.body, nil}).refused(c.status, c.code)
			if c.pointer != "-" {
				a.points(c.pointer)
			}
		})
	}
	for _, kind := range []string{"", "text/plain", "application/jsonl", "application/x-ndjsonp"} {
		w.do(call{"POST", "/v1/messages/batch", app.sk, `{}`, map[string]string{"Content-Type": kind}}).refused(415, "unsupported_media_type")
	}
	for _, kind := range []string{"application/json", "application/x-ndjson"} {
		w.do(call{"POST", "/v1/messages/batch", app.sk, `{}`, map[string]string{"Content-Type": kind, "Content-Encoding": "gzip"}}).refused(415, "unsupported_media_type")
	}
	if page := w.inbox(p, ""); len(page.Messages) != 0 {
		t.Errorf("%d messages of bad batches arrived", len(page.Messages))
	}
	// As large as may be, and 500 of them.
	list := []string{p.message(strings.Repeat(" ", 128<<10-len(p.message(1))) + "1")}
	for range 100 {
		list = append(list, p.message(`"`+strings.Repeat("x", 64<<10-2)+`"`))
	}
	for len(list) < 500 {
		list = append(list, p.message(1))
	}
	for i, r := range w.batch(app, "", list...) {
		if r.Status != 202 {
			t.Fatalf("%d: %+v", i, r.Error)
		}
	}
}

// TestABatchCountsItsMessages: on the limits of its key and its app, which may owe what is beyond them.
func TestABatchCountsItsMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	p := w.newPhone(app)
	key := w.do(call{"POST", "/v1/apps/" + app.id + "/keys", adminKey, obj{"kind": "secret", "rate_limit": obj{"per_second": 0.01, "burst": 10}}, nil}).want(201).text("key")
	send := func(n int) answer {
		list := strings.Repeat(p.message(1)+",", n)
		return w.do(call{"POST", "/v1/messages/batch", key, `{"messages":[` + list[:len(list)-1] + `]}`, nil})
	}
	if a := send(8).want(200); !strings.HasPrefix(a.header.Get("RateLimit"), `"key";r=2;`) || a.header.Get("RateLimit-Policy") != `"key";q=10;w=1000` {
		t.Errorf("told %v", a.header)
	}
	if a := send(20).want(200); !strings.HasPrefix(a.header.Get("RateLimit"), `"key";r=0;`) {
		t.Errorf("told %v", a.header)
	}
	a := send(1).refused(429, "rate_limited")
	if wait := a.header.Get("Retry-After"); wait < "1890" || wait > "1900" || !strings.Contains(a.problem().Detail, "this key") {
		t.Errorf("owing 18 at one in 100 s: Retry-After %s: %s", wait, a.body)
	}
	w.do(call{"POST", "/v1/messages", app.sk, p.message(1), nil}).want(202)
}

// TestLimitsAreEachTheirOwn: each by itself, told with every answer, and nothing told where there is none.
func TestLimitsAreEachTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.newApp(), w.newApp()
	p := w.newPhone(app)
	get := func(key string) answer {
		return w.do(call{"GET", "/v1/messages/msg_00000000000000000000000000", key, nil, nil})
	}
	if a := get(app.sk).want(404); a.header.Get("RateLimit") != "" || a.header.Get("RateLimit-Policy") != "" {
		t.Errorf("told of no limit: %v", a.header)
	}
	w.do(call{"PATCH", "/v1/apps/" + app.id, adminKey, obj{"rate_limit": obj{"per_second": 0.01, "burst": 2}}, nil}).want(200)
	second := w.do(call{"POST", "/v1/apps/" + app.id + "/keys", adminKey, obj{"kind": "secret"}, nil}).want(201).text("key")
	if a := get(app.sk).want(404); !strings.HasPrefix(a.header.Get("RateLimit"), `"app";r=1;`) {
		t.Errorf("told %v", a.header)
	}
	get(second).want(404)
	for _, key := range []string{app.sk, second} {
		if a := get(key).refused(429, "rate_limited"); !strings.Contains(a.problem().Detail, "this app") || !strings.HasPrefix(a.header.Get("RateLimit"), `"app";r=0;`) {
			t.Errorf("told %v: %s", a.header, a.body)
		}
	}
	w.do(call{"POST", "/v1/devices", app.pk, obj{"installation_id": "x", "platform": "other", "provider": "none"}, nil}).refused(429, "rate_limited")
	get(other.sk).want(404)
	w.inbox(p, "") // the devices of the app are not held up
	w.do(call{"PATCH", "/v1/apps/" + app.id, adminKey, obj{"rate_limit": obj{"per_second": 0}}, nil}).want(200)
	get(app.sk).want(404)
}

func TestLimitsOfDevicesAndAddresses(t *testing.T) {
	t.Parallel()
	w := setup{limits: api.Limits{Devices: api.Rate{PerSecond: 0.01, Burst: 2}}}.start(t)
	app := w.newApp()
	p, q := w.newPhone(app), w.newPhone(app)
	for left := 1; left >= 0; left-- {
		if a := w.do(call{"GET", "/v1/inbox", p.key, nil, nil}).want(200); !strings.HasPrefix(a.header.Get("RateLimit"), fmt.Sprintf(`"device";r=%d;`, left)) {
			t.Errorf("told %v", a.header)
		}
	}
	w.do(call{"GET", "/v1/inbox", p.key, nil, nil}).refused(429, "rate_limited")
	w.inbox(q, "")

	w = setup{limits: api.Limits{Addresses: api.Rate{PerSecond: 0.01, Burst: 4}}}.start(t)
	app = w.newApp()
	w.do(call{"GET", "/openapi.json", "", nil, nil}).want(200)
	w.do(call{"GET", "/v1/device", "nonsense", nil, nil}).refused(401, "bad_key")
	if a := w.do(call{"GET", "/v1/apps", adminKey, nil, nil}).want(200); !strings.HasPrefix(a.header.Get("RateLimit"), `"address";r=0;`) {
		t.Errorf("told %v", a.header)
	}
	w.do(call{"GET", "/v1/messages/x", app.sk, nil, nil}).refused(429, "rate_limited")
}
