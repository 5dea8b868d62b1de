package testkit

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rouse/ident"
)

// PostgresVariable names the environment variable with the DSN (postgres://...) of a server whose role may create
// databases. Tests that need PostgreSQL use it, and start one of their own if it is not set.
const PostgresVariable = "ROUSE_TEST_POSTGRES"

// shared is the one server of this process: what PostgresVariable names, else a cluster that ends with the process. It
// is kept for as long: a cluster that nobody knows any more is closed by the garbage collector.
var shared = sync.OnceValues(func() (server interface{ DSN() string }, err error) {
	if dsn := os.Getenv(PostgresVariable); dsn != "" {
		return given(dsn), nil
	}
	return newCluster()
})

// given is a server that somebody else runs.
type given string

// DSN is what was given.
func (g given) DSN() string { return string(g) }

// Postgres returns the DSN of a fresh, empty database that is dropped when the test ends. All calls of one process
// share a server. Without a server and without PostgreSQL's programs the test is skipped, and says what it needs.
func Postgres(t testing.TB) (dsn string) {
	t.Helper()
	kept, err := shared()
	need(t, err)
	server := kept.DSN()
	name := "t_" + strings.TrimPrefix(string(ident.NewApp()), "app_")
	if dsn, err = onDatabase(server, name); err != nil {
		t.Fatal(err)
	}
	if err := command(server, "CREATE DATABASE "+name); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	t.Cleanup(func() {
		if err := command(server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return dsn
}

// need ends the test if there is no server: skipped if there are no programs to start one with, failed otherwise.
func need(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, errNoPrograms) {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
}

// onDatabase is the DSN of another database of the same server.
func onDatabase(dsn, name string) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		return "", fmt.Errorf("%s has to look like postgres://user:password@host:5432/postgres", PostgresVariable)
	}
	u.Path = "/" + name
	return u.String(), nil
}

// command runs one statement on a connection of its own.
func command(dsn, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}
