package testkit_test

import (
	"context"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"rouse/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask returns the one value a query gives.
func ask(t *testing.T, dsn, query string) (answer string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), query).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return answer
}

func TestEachDatabaseIsFreshAndEmpty(t *testing.T) {
	t.Parallel()
	first, second := testkit.Postgres(t), testkit.Postgres(t)
	ask(t, first, "WITH made AS (SELECT 1) SELECT 'made' FROM made")
	for _, dsn := range []string{first, second} {
		if n := ask(t, dsn, "SELECT count(*)::text FROM pg_tables WHERE schemaname = 'public'"); n != "0" {
			t.Errorf("%s tables in a fresh database", n)
		}
	}
	if a, b := ask(t, first, "SELECT current_database()::text"), ask(t, second, "SELECT current_database()::text"); a == b {
		t.Errorf("both are %s", a)
	}
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if on := ask(t, first, "SHOW "+setting); on != "on" {
			t.Errorf("%s is %s", setting, on)
		}
	}
}

func TestDatabasesAreDroppedWithTheirTest(t *testing.T) {
	t.Parallel()
	mine := testkit.Postgres(t)
	var name string
	t.Run("inner", func(t *testing.T) {
		name = ask(t, testkit.Postgres(t), "SELECT current_database()::text")
	})
	if n := ask(t, mine, "SELECT count(*)::text FROM pg_database WHERE datname = '"+name+"'"); n != "0" {
		t.Errorf("database %s is still there", name)
	}
}

func TestAClusterKeepsItsRowsOverACrash(t *testing.T) {
	t.Parallel()
	c := testkit.NewCluster(t)
	ask(t, c.DSN(), "SELECT set_config('application_name', 'x', false)")
	conn, err := pgx.Connect(t.Context(), c.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "CREATE TABLE kept AS SELECT 'here' AS word"); err != nil {
		t.Fatal(err)
	}
	c.Stop(t)
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a connection outlived its server")
	}
	c.Start(t)
	if word := ask(t, c.DSN(), "SELECT word FROM kept"); word != "here" {
		t.Errorf("read %q", word)
	}
	c.Kill(t)
	c.Start(t)
	if rows, err := c.Ask(t.Context(), "SELECT word, NULL FROM kept"); err != nil || !slices.EqualFunc(rows, [][]string{{"here", ""}}, slices.Equal) {
		t.Errorf("read %q, %v", rows, err)
	}
}
