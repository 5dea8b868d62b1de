package api_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"rouse"
	"rouse/api"
	"rouse/messages"
)

// TestNoGetTakesABody: every GET of the contract refuses one.
func TestNoGetTakesABody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	device := w.newPhone(app)
	message := w.send(app, device, 1)
	keys := map[string]string{"adminKey": adminKey, "secretKey": app.sk, "deviceKey": device.key}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(rouse.Contract()))
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("{app_id}", app.id, "{message_id}", message)
	for path, item := range doc.Paths.Map() {
		if item.Get == nil {
			continue
		}
		key := ""
		if needs := item.Get.Security; needs != nil {
			for name := range (*needs)[0] {
				key = keys[name]
			}
		}
		w.do(call{"GET", fill.Replace(path), key, "{}", nil}).refused(400, "unexpected_body")
	}
}

// TestPollWithAnUnreadBodyIsNoGhost: net/http does not notice that a client left while a body of its is unread, so such a
// poll is answered at once, and never parks.
func TestPollWithAnUnreadBodyIsNoGhost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.newPhone(w.newApp())
	for header, status := range map[string]int{
		"Content-Length: 10": 400, "Transfer-Encoding: chunked": 400, "Content-Length: 10\r\nExpect: 100-continue": 400, "Content-Length: 0": 200,
	} {
		wait := 55
		if status == 200 {
			wait = 0
		}
		if got := w.raw(fmt.Sprintf("GET /v1/inbox?wait=%d HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n", wait, p.key, header)); got != status {
			t.Errorf("%q: status %d, want %d", header, got, status)
		}
	}
	if n := w.heard.count(messages.HintPolling); n != 0 || api.Waiting(w.api) != 0 {
		t.Errorf("%d polls parked, %d are left", n, api.Waiting(w.api))
	}
}

// raw sends text as a request, announced body or not, and returns the status of the answer.
func (w *world) raw(text string) int {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		w.t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		w.t.Errorf("no answer within 10 s: %v", err)
		return 0
	}
	defer answer.Body.Close()
	return answer.StatusCode
}

// What a client writes is stored as it is or refused: PostgreSQL takes no U+0000 in text, and two collapse keys must not become one.
// data is bytes.
func TestTextWithU0000IsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.newApp()
	phone := w.newPhone(app)
	to := map[string]any{"device_id": phone.id}
	for _, field := range []string{"/collapse_key", "/correlation_id"} {
		body := map[string]any{"to": to, "data": 1, field[1:]: "a\x00b"}
		w.do(call{"POST", "/v1/messages", app.sk, body, nil}).refused(422, "invalid_body").points(field)
	}
	w.do(call{"POST", "/v1/messages", app.sk, map[string]any{"to": map[string]any{"user_id": "u\x00"}, "data": 1}, nil}).refused(422, "invalid_user")
	w.do(call{"POST", "/v1/apps", adminKey, map[string]any{"name": "a\x00"}, nil}).refused(422, "invalid_body").points("/name")
	w.do(call{"PATCH", "/v1/apps/" + app.id, adminKey, map[string]any{"name": "a\x00b"}, nil}).refused(422, "invalid_body").points("/name")
	w.do(call{"POST", "/v1/apps/" + app.id + "/keys", adminKey, map[string]any{"kind": "secret", "name": "k\x00"}, nil}).refused(422, "invalid_body").points("/name")
	w.do(call{"PATCH", "/v1/device", phone.key, map[string]any{"app_version": "1\x00"}, nil}).refused(422, "invalid_registration")
	w.do(call{"POST", "/v1/messages", app.sk, map[string]any{"to": to, "data": "a\x00b"}, nil}).want(202)
}
