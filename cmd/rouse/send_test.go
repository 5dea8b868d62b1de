package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"rouse/client"
)

// newFailing is a server that accepts so many messages and then breaks every connection.
func newFailing(t *testing.T, accepts int32) (env []string) {
	t.Helper()
	var n atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i := n.Add(1)
		if i > accepts {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprintf(w, `{"id":"msg_%d","status":"accepted","recipients":1}`, i)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return []string{"ROUSE_URL=" + server.URL, "ROUSE_SECRET_KEY=sk"}
}

// TestSendTellsWhatWasAcceptedBeforeItFailed: those are the messages that must arrive.
func TestSendTellsWhatWasAcceptedBeforeItFailed(t *testing.T) {
	t.Parallel()
	code, out := command(t, newFailing(t, 2), "send", "--to", "dev_1", "--count", "5", "hello")
	for _, want := range []string{"msg_1  accepted  1 recipient\n", "msg_2  ", "after 2 went out"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if code != exitFailed {
		t.Errorf("exit %d, want %d", code, exitFailed)
	}
	if _, out, _ := commandIn(t, newFailing(t, 0), "", "send", "--to", "dev_1", "-o", "json", "hello"); out != "" {
		t.Errorf("of none accepted it prints %s", out)
	}
	var one client.MessageAccepted
	_, doc, _ := commandIn(t, newFailing(t, 1), "", "send", "--to", "dev_1", "-o", "json", "hello")
	if unmarshalOne(t, doc, &one); one.Id != "msg_1" {
		t.Errorf("one in JSON: %s", doc)
	}
	var list []client.MessageAccepted
	_, doc, _ = commandIn(t, newFailing(t, 1), "", "send", "--to", "dev_1", "-o", "json", "--count", "1", "hello")
	if unmarshalOne(t, doc, &list); len(list) != 1 {
		t.Errorf("one by --count in JSON: %s", doc)
	}
	if _, out := command(t, newFailing(t, 0), "send", "--to", "dev_1", "hello"); strings.Contains(out, "went out") {
		t.Errorf("none was accepted, and it says:\n%s", out)
	}
}

func TestSendTellsItInJSONToo(t *testing.T) {
	t.Parallel()
	code, out := command(t, newFailing(t, 2), "send", "--to", "dev_1", "--count", "5", "-o", "json", "hello")
	var sent []client.MessageAccepted
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&sent); err != nil || len(sent) != 2 || sent[1].Id != "msg_2" {
		t.Errorf("%v in:\n%s", err, out)
	}
	if code != exitFailed {
		t.Errorf("exit %d, want %d", code, exitFailed)
	}
}
