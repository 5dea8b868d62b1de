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
