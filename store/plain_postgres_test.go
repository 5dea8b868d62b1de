package store

import (
	"io"
	"net"
	"net/url"
	"strings"
	"testing"

	"rouse/tokens"
)

// What keeps a node from PostgreSQL is told once, in one line.
func TestWhyPostgresCannotBeReachedIsOneLine(t *testing.T) {
	t.Parallel()
	there, err := url.Parse(PostgresForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*url.URL)) string {
		u := *there
		change(&u)
		return u.String()
	}
	for words, dsn := range map[string]string{
		"connection refused":       "postgres://rouse:hunter2@127.0.0.1:1/rouse",
		"127.0.0.1:2":              "postgres://rouse:hunter2@127.0.0.1:1,127.0.0.1:2/rouse",
		`database "absent"`:        with(func(u *url.URL) { u.Path = "/absent" }),
		`role "nobody"`:            with(func(u *url.URL) { u.User = url.UserPassword("nobody", "hunter2") }),
		"the server speaks no TLS": "postgres://rouse:hunter2@" + withoutTLS(t) + "/rouse?sslmode=require",
	} {
		_, open := Open(t.Context(), Options{DSN: dsn, Ring: &tokens.Ring{}})
		_, inspect := Inspect(t.Context(), InspectOptions{DSN: dsn})
		for _, err := range []error{open, inspect} {
			if err == nil || !strings.Contains(err.Error(), words) || strings.ContainsAny(err.Error(), "\n\t") || strings.Count(err.Error(), "connect as") != 1 || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %q", words, err)
			}
		}
	}
}

// withoutTLS answers as a PostgreSQL server that speaks none: N to the request of eight bytes.
func withoutTLS(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := io.ReadFull(c, make([]byte, 8)); err == nil {
				_, _ = c.Write([]byte("N"))
			}
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}
