package client_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rouse/client"
)

func TestNoNameMakesAnotherOperationOfAPath(t *testing.T) {
	t.Parallel()
	var paths []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.EscapedPath())
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	c, err := client.NewClient(server.URL)
	ok(t, err)
	for _, topic := range []string{"", ".", ".."} {
		answer, err := c.UnsubscribeUser(t.Context(), topic, "anna")
		if err == nil {
			ok(t, answer.Body.Close())
			t.Errorf("the topic %q was taken", topic)
		}
	}
	for _, topic := range []string{"...", "a.b", "a/../b"} {
		answer, err := c.UnsubscribeUser(t.Context(), topic, "../anna")
		ok(t, err)
		ok(t, answer.Body.Close())
	}
	want := "DELETE /v1/topics/.../users/..%2Fanna DELETE /v1/topics/a.b/users/..%2Fanna DELETE /v1/topics/a%2F..%2Fb/users/..%2Fanna"
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("asked for %s", got)
	}
}
