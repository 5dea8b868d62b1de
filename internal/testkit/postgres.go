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
var shared = sync.OnceValues(func() (host, error) { return newHost("on") })

// quick is another such server, that waits for no disk.
var quick = sync.OnceValues(func() (host, error) { return newHost("off") })

// host is a server on which databases can be made.
type host interface{ DSN() string }

func newHost(fsync string) (host, error) {
	if dsn := os.Getenv(PostgresVariable); dsn != "" {
		return given(dsn), nil
	}
	return newCluster(fsync)
}

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
	return database(t, kept.DSN(), "")
}

// QuickPostgres is Postgres on a server that waits for no disk: what is written outlives a crash of the server, but not of the machine.
// It is for suites of many databases that are about neither the disk nor speed, which take half as long with it.
func QuickPostgres(t testing.TB) (dsn string) {
	t.Helper()
	kept, err := quick()
	need(t, err)
	return database(t, kept.DSN(), "")
}

// Database returns the DSN of a fresh, empty database of the cluster that is dropped when the test ends.
func (c *Cluster) Database(t testing.TB) (dsn string) {
	t.Helper()
	return database(t, c.DSN(), "")
}

// database makes a database, a copy of the template if there is one.
func database(t testing.TB, server, template string) (dsn string) {
	t.Helper()
	name := "t_" + strings.TrimPrefix(string(ident.NewApp()), "app_")
	dsn, err := onDatabase(server, name)
	if err != nil {
		t.Fatal(err)
	}
	create := "CREATE DATABASE " + name
	if template != "" {
		create += " TEMPLATE " + template
	}
	if err := command(server, create); err != nil {
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
