package store_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/store"
)

// TestInspectPostgres looks at a database that a node runs on, and at what the server says of itself.
func TestInspectPostgres(t *testing.T) {
	t.Parallel()
	dsn, ring := testkit.Postgres(t), testkit.Ring(t)
	s := testkit.Store(t, func(o *store.Options) { o.DSN, o.Ring = dsn, ring })
	app := furnish(t, s)
	node := ident.NewNode()
	if _, _, err := s.Beat(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.TakeLease(t.Context(), "sweeps", node, time.Minute); err != nil {
		t.Fatal(err)
	}
	i, err := store.Inspect(t.Context(), store.InspectOptions{DSN: dsn, Ring: ring})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	readsTables(t, i, app.ID)
	if all, shut, err := i.Sealers(t.Context(), testkit.Ring(t)); err != nil || len(all) != 1 || len(shut) != 1 {
		t.Errorf("with another key: %v, %v, %v", all, shut, err)
	}
	now, all, duties, err := i.Nodes(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != node || now.Before(all[0].BeatAt) {
		t.Errorf("nodes %v at %v, %v", all, now, err)
	}
	if len(duties) != 1 || duties[0] != (store.Duty{Name: "sweeps", Node: node, Held: true}) {
		t.Errorf("duties %v", duties)
	}
	server, err := i.Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if server.TooOld || server.Pooled || server.Standby || !server.MayCreate || server.SynchronousCommit != "on" || server.Fsync != "on" ||
		server.FullPageWrites != "on" || server.Encoding != "UTF8" || !strings.Contains(server.Version, ".") || strings.Contains(server.Version, " ") {
		t.Errorf("%+v", server)
	}
	if server.Ahead.Abs() > time.Second || server.RoundTrip <= 0 || server.Left() < 10 || server.Used < 1 {
		t.Errorf("%+v", server)
	}
	if !i.Undisturbed() {
		t.Error("a database that many share is disturbed")
	}
}

// TestInspectPostgresCountsWhereConnectionsAreFewest: a bound of the role or of the database may be nearer than the server's.
func TestInspectPostgresCountsWhereConnectionsAreFewest(t *testing.T) {
	t.Parallel()
	dsn := testkit.QuickPostgres(t)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var name string
	if err := db.QueryRow("SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"ALTER DATABASE " + name + " CONNECTION LIMIT 7", "ALTER DATABASE " + name + " SET synchronous_commit = off",
		"ALTER DATABASE " + name + " SET default_transaction_read_only = on"} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	i, err := store.Inspect(t.Context(), store.InspectOptions{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	server, err := i.Server(t.Context())
	if err != nil || server.Most != 7 || server.Used < 2 || server.Left() != 7-server.Used {
		t.Errorf("%+v, %v", server, err)
	}
	if server.SynchronousCommit != "off" || !server.Standby {
		t.Errorf("%+v", server)
	}
	if have, want, err := i.Schema(t.Context()); err != nil || have != 0 || want == 0 {
		t.Errorf("an empty database has schema %d of %d, %v", have, want, err)
	}
}

func TestInspectPostgresTellsWhyItCannot(t *testing.T) {
	t.Parallel()
	dsn := testkit.QuickPostgres(t)
	with := func(change func(*url.URL)) string {
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(u.User.Username(), "canary-password")
		change(u)
		return u.String()
	}
	for name, c := range map[string]struct {
		dsn  string
		want error
	}{
		"no server":   {"postgres://rouse:canary-password@127.0.0.1:1/rouse", store.ErrUnreachable},
		"no host":     {"postgres://rouse:canary-password@does-not-exist.invalid/rouse", store.ErrUnreachable},
		"no database": {with(func(u *url.URL) { u.Path = "/absent" }), store.ErrNoDatabase},
		"no user":     {with(func(u *url.URL) { u.User = url.UserPassword("nobody-at-all", "canary-password") }), store.ErrNotAdmitted},
	} {
		_, err := store.Inspect(t.Context(), store.InspectOptions{DSN: c.dsn})
		if !errors.Is(err, c.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Inspect(ctx, store.InspectOptions{DSN: dsn}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

func TestCheckDSNRepeatsNothing(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"sqlite:rouse.db", "postgres://db/rouse", "postgresql://u:p@a:1,b:2/rouse?target_session_attrs=any"} {
		if err := store.CheckDSN(dsn); err != nil {
			t.Errorf("%s: %v", dsn, err)
		}
	}
	for _, dsn := range []string{"postgres://u:canary@db:port/x", "postgres://u:can%ary@db/x", "postgres://u:canary@db/x?sslmode=canary", "canary", ""} {
		if err := store.CheckDSN(dsn); err == nil || strings.Contains(err.Error(), "can") && strings.Contains(err.Error(), "ary") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}
