package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"rouse/api"
	"rouse/fault"
	"rouse/messages"
)

// flow is a stream of messages on its way, read while it is written.
type flow struct {
	*client
	request *http.Request
	in      *io.PipeWriter
	came    chan struct{}
	answer  *http.Response
	err     error
	lines   *bufio.Reader
	body    bytes.Buffer
}

// flow begins a stream.
func (w *world) flow(app tenant, key string) *flow {
	w.t.Helper()
	body, in := io.Pipe()
	r, err := http.NewRequestWithContext(w.t.Context(), "POST", w.base+"/v1/messages/batch", body)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("Authorization", "Bearer "+app.sk)
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	f := &flow{client: w.client, request: r, in: in, came: make(chan struct{})}
	go func() {
		defer close(f.came)
		if f.answer, f.err = f.http.Do(r); f.err != nil {
			_ = body.CloseWithError(f.err)
			return
		}
		f.lines = bufio.NewReader(io.TeeReader(f.answer.Body, &f.body))
	}()
	w.t.Cleanup(func() {
		_ = in.CloseWithError(io.ErrUnexpectedEOF)
		<-f.came
		if f.answer != nil {
			_ = f.answer.Body.Close()
		}
	})
	return f
}

// write sends text; it reports whether the server took it.
func (f *flow) write(text string) bool {
	_, err := io.WriteString(f.in, text)
	return err == nil
}

// next reads one result; false is the end of the answer.
func (f *flow) next() (r batchResult, ok bool) {
	f.t.Helper()
	if <-f.came; f.err != nil {
		f.t.Fatalf("the stream was not answered: %v", f.err)
	}
	line, err := f.lines.ReadBytes('\n')
	if err == io.EOF && len(line) == 0 {
		return r, false
	}
	if err != nil {
		f.t.Fatalf("the answer broke off: %v after %q", err, line)
	}
	if err := json.Unmarshal(line, &r); err != nil {
		f.t.Fatalf("%v in %s", err, line)
	}
	return r, true
}

// rest reads to the end of the answer, and holds all of it to the contract.
func (f *flow) rest() (list []batchResult) {
	f.t.Helper()
	for r, ok := f.next(); ok; r, ok = f.next() {
		list = append(list, r)
	}
	f.validate(f.request, answer{t: f.t, status: f.answer.StatusCode, header: f.answer.Header, body: f.body.Bytes()})
	return list
}

// protocols has a test run over both that a stream may come by.
func protocols(t *testing.T, f func(*testing.T, setup)) {
	t.Run("HTTP/1.1", func(t *testing.T) {
		t.Parallel()
		f(t, setup{})
	})
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		f(t, setup{server: func(s *httptest.Server) { s.EnableHTTP2 = true }})
	})
}

func TestStream(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, s setup) {
		w := s.start(t)
		app := w.newApp()
		var phones []phone
		for range 3 {
			phones = append(phones, w.newPhone(app))
		}
		f := w.flow(app, "")
		const all = 1500
		go func() {
			for i := range all {
				switch i {
				case 100:
					f.write("{]\n")
				case 200:
					f.write("  \r\n\n" + `{"to":{"device_id":"dev_00000000000000000000000000"},"data":1}` + "\r\n")
				case 300:
					f.write(phones[0].message(`"`+strings.Repeat("x", 300<<10)+`"`) + "\n")
				case 350: // as long as may be
					f.write(phones[0].message(strings.Repeat(" ", 128<<10-len(phones[0].message(1)))+"1") + "\r\n")
				case 400:
					f.write("7\n")
				case all - 1:
					f.write(phones[2].message(i)) // without an end
				default:
					f.write(phones[i%3].message(i) + "\n")
				}
			}
			_ = f.in.Close()
		}()
		list := f.rest()
		if len(list) != all {
			t.Fatalf("%d results of %d", len(list), all)
		}
		codes := map[int]string{100: "malformed_json", 200: "device_not_found", 300: "body_too_large", 400: "invalid_body"}
		for i, r := range list {
			if r.Index != i || (r.Error == nil) != (codes[i] == "") || r.Error != nil && r.Error.Code != codes[i] || (r.Status == 202) != (r.Message != nil) {
				t.Fatalf("%d: got %+v", i, r)
			}
		}
		held := 0
		for _, p := range phones {
			held += w.drained(p)
		}
		if held != all-len(codes) {
			t.Errorf("%d messages arrived", held)
		}
		if s.server != nil != (f.answer.ProtoMajor == 2) || f.answer.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("answered by %s with %v", f.answer.Proto, f.answer.Header)
		}
	})
}

// TestStreamIsAnsweredWhileItIsRead: whoever waits for a result before writing on is not kept waiting.
func TestStreamIsAnsweredWhileItIsRead(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, s setup) {
		w := s.start(t)
		app := w.newApp()
		p := w.newPhone(app)
		f := w.flow(app, "")
		for i := range 5 {
			f.write(p.message(i) + "\n")
			if r, ok := f.next(); !ok || r.Index != i || r.Status != 202 {
				t.Fatalf("%d: got %+v", i, r)
			}
			if page := w.inbox(p, ""); len(page.Messages) != i+1 {
				t.Errorf("%d: answered, and %d are there", i, len(page.Messages))
			}
		}
		_ = f.in.Close()
		if list := f.rest(); len(list) != 0 {
			t.Errorf("got %+v", list)
		}
	})
}

func TestStreamOfNothing(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, s setup) {
		w := s.start(t)
		f := w.flow(w.newApp(), "")
		_ = f.in.Close()
		if list := f.rest(); len(list) != 0 || f.answer.StatusCode != 200 {
			t.Errorf("got %d %+v", f.answer.StatusCode, list)
		}
		if !strings.Contains(w.log.String(), `"operation":"sendMessages","status":200`) {
			t.Error("the log does not tell of it")
		}
	})
}

// TestStreamThatBreaksOff: what came whole is stored, half a line is not, though it may be a message by itself.
func TestStreamThatBreaksOff(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, s setup) {
		w := s.start(t)
		app := w.newApp()
		p := w.newPhone(app)
		f := w.flow(app, "k")
		f.write(p.message(0) + "\n")
		if r, _ := f.next(); r.Status != 202 {
			t.Fatalf("got %+v", r)
		}
		f.write(p.message(1) + "\n" + p.message(2))
		_ = f.in.CloseWithError(io.ErrUnexpectedEOF)
		poll(t, func() bool { return strings.Contains(w.log.String(), `"operation":"sendMessages"`) })
		if n := len(w.inbox(p, "").Messages); n < 1 || n > 2 {
			t.Errorf("%d messages arrived", n)
		}
		// Repeated with its key, what was stored is told again.
		f = w.flow(app, "k")
		f.write(p.message(0) + "\n" + p.message(1) + "\n" + p.message(2) + "\n")
		_ = f.in.Close()
		list := f.rest()
		if len(list) != 3 || !list[0].Replayed || list[2].Replayed || len(w.inbox(p, "").Messages) != 3 {
			t.Errorf("got %+v", list)
		}
	})
}

// TestStreamEndsCleanlyWithTheServer: a stop comes between two commits, what was stored is told, and the answer has its end.
func TestStreamEndsCleanlyWithTheServer(t *testing.T) {
	t.Parallel()
	protocols(t, func(t *testing.T, s setup) {
		w := s.start(t)
		app := w.newApp()
		p := w.newPhone(app)
		f := w.flow(app, "")
		var writer sync.WaitGroup
		writer.Go(func() {
			for i := 0; f.write(p.message(i) + "\n"); i++ {
			}
		})
		for i := range 20 {
			if r, ok := f.next(); !ok || r.Index != i {
				t.Fatalf("%d: got %+v", i, r)
			}
		}
		w.drain()
		told := 20
		for _, r := range f.rest() {
			if r.Status == 202 { // or the inbox is full
				told++
			}
		}
		if held := w.drained(p); held != told {
			t.Errorf("%d are stored, %d were told", held, told)
		}
		_ = f.in.Close()
		writer.Wait()
		g := w.flow(app, "")
		_ = g.in.Close()
		if <-g.came; g.err != nil || g.answer.StatusCode != 503 {
			t.Errorf("a stopping server begins another: %v %v", g.answer, g.err)
		}
	})
}

// drained counts what lies in an inbox, and acks it.
func (w *world) drained(p phone) (n int) {
	w.t.Helper()
	for after := ""; ; {
		page := w.inbox(p, "?limit=100"+after)
		n += len(page.Messages)
		if after = "&ack=" + page.Cursor; !page.More {
			return n
		}
	}
}

// full is a store that has no room for a while, and then none of the last.
type full struct {
	messageStore
	refusals atomic.Int64
	err      error
}

// messageStore under another name: the interface has a method of its own name.
type messageStore = api.Messages

func (f *full) AcceptAll(ctx context.Context, list []messages.Send) ([]messages.Verdict, error) {
	if f.refusals.Add(-1) >= 0 {
		return nil, f.err
	}
	return f.messageStore.AcceptAll(ctx, list)
}

// TestStreamWaitsForTheStore: one that has no room holds the stream up; one that may have stored it refuses that part, and goes on.
func TestStreamWaitsForTheStore(t *testing.T) {
	t.Parallel()
	store := &full{}
	w := setup{messages: func(m api.Messages) api.Messages { store.messageStore = m; return store }}.start(t)
	app := w.newApp()
	p := w.newPhone(app)
	store.err = fault.New(fault.Unavailable, "overloaded", "no room")
	store.refusals.Store(2)
	f := w.flow(app, "")
	f.write(p.message(0) + "\n")
	if r, ok := f.next(); !ok || r.Status != 202 || store.refusals.Load() != -1 {
		t.Errorf("got %+v", r)
	}
	store.err = fault.New(fault.Unavailable, "unavailable", "who knows")
	store.refusals.Store(1)
	f.write(p.message(1) + "\n")
	if r, ok := f.next(); !ok || r.Index != 1 || r.Status != 503 || r.Error.Code != "unavailable" {
		t.Errorf("got %+v", r)
	}
	f.write(p.message(2) + "\n")
	if r, ok := f.next(); !ok || r.Index != 2 || r.Status != 202 {
		t.Errorf("got %+v", r)
	}
}
