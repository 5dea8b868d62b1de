package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// itemTo is a message to a device, as a line of a batch.
func itemTo(device string, n int) string {
	return fmt.Sprintf(`{"to":{"device_id":%q},"data":%d,"ttl":3600}`, device, n)
}

// TestBatchOfAFile: each line is stored or refused by itself, and those that were refused are named by their place in the file.
func TestBatchOfAFile(t *testing.T) {
	t.Parallel()
	onEngines(t, testBatchOfAFile)
}

func testBatchOfAFile(t *testing.T, on engine) {
	r := newRigOn(t, on)
	env := r.adminEnv()
	phone := r.enrol("phone", "none")
	nobody := "dev_" + strings.Repeat("0", 26)
	in := strings.Join([]string{itemTo(phone.device, 0), "", itemTo(nobody, 1), "not JSON", itemTo(phone.device, 2)}, "\n")
	code, out, said := commandIn(t, env, in, "send", "--batch", "-", "--idempotency-key", "b1")
	if code != exitFailed || !strings.Contains(said, "2 of 4 messages were refused") {
		t.Errorf("exit %d\n%s", code, said)
	}
	says(t, out, "line 3: ", "device_not_found", "line 4: ", "2 stored, 2 refused\n")
	if strings.Count(out, "\n") != 3 {
		t.Errorf("it said\n%s", out)
	}
	// Again: nothing is sent twice, and in JSON there is a line each.
	_, out, _ = commandIn(t, env, in, "send", "--batch", "-", "--idempotency-key", "b1", "-o", "json")
	list := strings.Split(strings.TrimSpace(out), "\n")
	var statuses []int
	for n, text := range list {
		var result lineResult
		if err := json.Unmarshal([]byte(text), &result); err != nil || result.Index != n || result.Line != []int{1, 3, 4, 5}[n] || (result.Message == nil) == (result.Error == nil) {
			t.Errorf("%v in %s", err, text)
		}
		statuses = append(statuses, result.Status)
	}
	if want := []int{202, 422, 400, 202}; !slices.Equal(statuses, want) {
		t.Errorf("statuses %v, want %v", statuses, want)
	}
	if got := r.drain(phone); len(got) != 2 {
		t.Errorf("the phone got %v", got)
	}
	var many strings.Builder
	for n := range 1200 { // over several commits; more than one inbox takes
		fmt.Fprintln(&many, itemTo(phone.device, n))
	}
	path := file(t, "many.ndjson", []byte(many.String()))
	code, out, said = commandIn(t, env, "", "send", "--batch", path)
	if code != exitFailed || !strings.Contains(out, "1000 stored, 200 refused\n") || strings.Count(out, "inbox_full") != 200 {
		t.Errorf("exit %d\n%s%s", code, lastLines(out, 3), said)
	}
	if got := r.drain(phone); len(got) != 1000 {
		t.Errorf("the phone got %d", len(got))
	}
	for words, want := range map[string]string{"--batch - --at +1h": "--idempotency-key", "--batch - --to dev_1": "--batch", "--batch nowhere": "nowhere"} {
		refuses(t, env, exitUsage, want, append([]string{"send"}, strings.Fields(words)...)...)
	}
}

// TestBatchThatBreaksOff says how to find out what was stored: by sending it again under the same key.
func TestBatchThatBreaksOff(t *testing.T) {
	t.Parallel()
	keys := make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys <- r.Header.Get("Idempotency-Key")
		_, _ = io.ReadFull(r.Body, make([]byte, len(itemTo("dev_1", 0))))
		w.Header().Set("Content-Type", ndjson)
		_, _ = io.WriteString(w, `{"index":0,"status":202,"message":{"id":"msg_1","status":"accepted","recipients":1}}`+"\n")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	env := []string{"ROUSE_URL=" + server.URL, "ROUSE_SECRET_KEY=sk"}
	in := strings.Repeat(itemTo("dev_1", 0)+"\n", 3)
	code, out, said := commandIn(t, env, in, "send", "--batch", "-")
	key := <-keys
	if code != exitFailed || key == "" || !strings.Contains(said, "--idempotency-key "+key+",") || !regexp.MustCompile(`of 2 messages nobody knows`).MatchString(said) || !strings.Contains(out, "1 stored, 0 refused") {
		t.Errorf("exit %d, key %q\n%s%s", code, key, out, said)
	}
}

// TestBatchOfAFileThatCannotBeRead: what came before is stored, and the trouble is told.
func TestBatchOfAFileThatCannotBeRead(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", ndjson)
		for n := range strings.Count(string(body), "\n") {
			_, _ = fmt.Fprintf(w, `{"index":%d,"status":202,"message":{"id":"msg_1","status":"accepted","recipients":1}}`+"\n", n)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	var out, said strings.Builder
	in := io.MultiReader(strings.NewReader(itemTo("dev_1", 0)+"\n"+itemTo("dev_1", 1)), iotest.ErrReader(errors.New("the disk is gone")))
	code := run(t.Context(), []string{"send", "--batch", "-"}, []string{"ROUSE_URL=" + server.URL, "ROUSE_SECRET_KEY=sk"}, in, &out, &said)
	if code != exitFailed || !strings.Contains(said.String(), "the disk is gone; what came before it was sent") || !strings.Contains(out.String(), "1 stored") {
		t.Errorf("exit %d\n%s%s", code, &out, &said)
	}
}
