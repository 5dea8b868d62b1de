package store

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"rouse/migrations"
	"rouse/tokens"
)

// liveRows is how many rows each big table has when a migration meets it. A million takes a few minutes.
var liveRows = flag.Int("live-rows", 20_000, "rows of each big table in TestMigrationsHoldNobodyUp")

// longestBlock is how long a send may wait for a migration's lock, whatever the size of the tables. The server watches over it: what
// else this machine keeps waiting is not the migration's fault.
const longestBlock = time.Second

// fills puts n rows into what a schema has, by the table that it came with.
var fills = map[string][]string{
	"apps": {
		`INSERT INTO apps (id, name, inbox_overflow, created_at) VALUES ('app', 'shop', 'reject', 1)`,
		`INSERT INTO keys (id, app, kind, name, scopes, hash, created_at) SELECT 'key_' || n, 'app', 'secret', '', '', decode(md5(n::text), 'hex'), n FROM generate_series(1, $1::bigint) n`,
		`INSERT INTO credentials (app, provider, fingerprint, public, secret, updated_at) SELECT 'app_' || n, 'fcm', 'f', '', '', n FROM generate_series(1, $1::bigint) n`,
	},
	"devices": {
		`INSERT INTO devices (id, app, installation, platform, provider, environment, token_state, created_at, secret, token_hash, user_id)
			SELECT 'dev_' || n, 'app', n, 'android', 'fcm', 'production', CASE n % 10 WHEN 0 THEN 'dead' WHEN 1 THEN 'suspect' ELSE 'active' END, n, '',
			decode(md5(n::text), 'hex'), 'user_' || n / 2 FROM generate_series(1, $1::bigint) n`,
		`INSERT INTO inboxes (device, app, contact_at) SELECT 'dev_' || n, 'app', n FROM generate_series(1, $1::bigint) n`,
	},
	"deliveries": {
		`INSERT INTO deliveries (device, seq, app, message, class, urgency, size, created_at, expires_at, shared, body)
			SELECT 'dev_' || n, nextval('places'), 'app', 'msg_' || n, 3, 3, 100, n, n, 0, decode(repeat('ab', 100), 'hex') FROM generate_series(1, $1::bigint) n`,
		`INSERT INTO messages (id, app, user_id, urgency, recipients, pending, created_at, expires_at) SELECT 'msg_' || n, 'app', 'u', 3, 2, 2, n, n FROM generate_series(1, $1::bigint) n`,
		`INSERT INTO idempotency (app, key, request, receipt, created_at) SELECT 'app', n, '', '{}', n FROM generate_series(1, $1::bigint) n`,
	},
	"wakes": {
		`INSERT INTO wakes (device, previous, at, head_normal, head_high, accepted, background, took, provider, verdict, reason)
			SELECT 'dev_' || n, 0, n, n, n, 1, 0, n, 'fcm', 'accepted', '' FROM generate_series(1, $1::bigint) n`,
	},
	"events": {
		`INSERT INTO events (id, app, type, created_at, data) SELECT 'evt_' || n, 'app', 'circuit.opened', n, '{}' FROM generate_series(1, $1::bigint) n`,
	},
}

// sends is what accepting, fetching, registering and waking do to a schema, a transaction each, by the table that it came with.
var sends = map[string][]string{
	"apps": {"SELECT name FROM apps WHERE id = 'app'", "SELECT hash FROM keys WHERE id = 'key_' || $1", "UPDATE credentials SET updated_at = 1 WHERE app = 'app_' || $1"},
	"devices": {
		"SELECT token_state FROM devices WHERE id = 'dev_' || $1", "SELECT id FROM devices WHERE app = 'app' AND user_id = 'user_' || $1",
		"UPDATE devices SET generation = generation + 1 WHERE id = 'dev_' || $1", "UPDATE inboxes SET pending = pending + 1, head = head + 1 WHERE device = 'dev_' || $1",
		"INSERT INTO devices (id, app, installation, platform, provider, environment, token_state, created_at, secret) VALUES ('new_' || $1 || clock_timestamp(), 'app', 'new' || $1 || clock_timestamp(), '', '', '', '', 1, '')",
	},
	"deliveries": {
		`INSERT INTO deliveries (device, seq, app, message, class, urgency, size, created_at, expires_at, shared, body)
			VALUES ('dev_' || $1, nextval('places'), 'app', 'm' || $1, 3, 3, 1, 1, 1, 0, '')`,
		"UPDATE deliveries SET ended_at = 1, ended = 'acked', body = NULL WHERE device = 'dev_' || $1 AND ended_at IS NULL",
		"SELECT seq FROM deliveries WHERE device = 'dev_' || $1 AND ended_at IS NULL ORDER BY seq LIMIT 100",
		"INSERT INTO idempotency (app, key, request, receipt, created_at) VALUES ('app', 'new' || $1 || clock_timestamp(), '', '', 1)",
	},
	"wakes": {
		"INSERT INTO wakes (device, previous, at, head_normal, head_high, accepted, background, took, provider, verdict, reason) VALUES ('dev_' || $1, 0, 1, 1, 1, 1, 0, 1, '', '', '')",
	},
	"events": {"INSERT INTO events (id, app, type, created_at, data) VALUES ('e', 'app', 't', 1, '')"},
}

// traffic does what a node does, all the time, and knows the longest that any of it took. What waits for longestBlock fails.
type traffic struct {
	stop    context.CancelFunc
	longest chan slowest
}

type slowest struct {
	took  time.Duration
	query string
	done  int
	err   error
}

// startTraffic goes on with each statement on a connection of its own, every few milliseconds.
func startTraffic(t *testing.T, dsn string, statements []string) *traffic {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	x := &traffic{stop: stop, longest: make(chan slowest, len(statements))}
	for _, query := range statements {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), fmt.Sprint("SET lock_timeout = ", longestBlock.Milliseconds())); err != nil {
			t.Fatal(err)
		}
		go func() {
			defer conn.Close(context.Background())
			x.longest <- x.one(ctx, conn, query)
		}()
	}
	return x
}

func (x *traffic) one(ctx context.Context, conn *pgx.Conn, query string) slowest {
	worst := slowest{query: query}
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return worst
		case <-pace.C:
		}
		var args []any
		if strings.Contains(query, "$1") {
			args = []any{n%1000 + 1}
		}
		begun := time.Now()
		_, err := conn.Exec(context.Background(), query, append([]any{pgx.QueryExecModeExec}, args...)...)
		worst.took, worst.done = max(worst.took, time.Since(begun)), n
		if err != nil {
			worst.err = err
			return worst
		}
	}
}

// end returns the slowest of all.
func (x *traffic) end() (worst slowest) {
	x.stop()
	for range cap(x.longest) {
		one := <-x.longest
		if one.err != nil {
			return one
		}
		if one.took > worst.took {
			worst = slowest{took: one.took, query: one.query, done: worst.done}
		}
		worst.done += one.done
	}
	return worst
}

// live is a database in which rows are filled as the schema grows.
type live struct {
	t    *testing.T
	s    *Store
	dsn  string
	full map[string]bool
}

// newLive has a database with no schema yet. files are its migrations.
func newLive(t *testing.T, files fs.FS) *live {
	t.Helper()
	x := &live{t: t, dsn: PostgresForTest(t), full: map[string]bool{}}
	x.s = openUnmigrated(t, x.dsn)
	x.s.dialect.files = files
	return x
}

// to brings the schema to a version.
func (x *live) to(version int64) error {
	db := x.s.dialect.patient(2)
	defer db.Close()
	unlock, err := lockMigrations(x.t.Context(), db)
	if err != nil {
		return err
	}
	defer unlock()
	return x.s.migrateTo(x.t.Context(), db, version)
}

func (x *live) do(query string, args ...any) {
	x.t.Helper()
	conn, err := pgx.Connect(x.t.Context(), x.dsn)
	if err != nil {
		x.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(x.t.Context(), query, args...); err != nil {
		x.t.Fatalf("%s: %v", query, err)
	}
}

// fill puts rows into tables that are new since it was last called, and returns what a node does with all there are.
func (x *live) fill(rows int) (statements []string) {
	x.t.Helper()
	for table := range fills {
		var n int
		if err := x.s.reads.db.Get(&n, "SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1", table); err != nil {
			x.t.Fatal(err)
		}
		if n == 0 {
			continue
		}
		statements = append(statements, sends[table]...)
		if x.full[table] {
			continue
		}
		x.full[table] = true
		for _, query := range fills[table] {
			if strings.Contains(query, "$1") {
				x.do(query, rows)
			} else {
				x.do(query)
			}
		}
	}
	x.do("ANALYZE")
	return statements
}

// openUnmigrated opens a database of PostgreSQL and leaves it as it is.
func openUnmigrated(t *testing.T, dsn string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{DSN: dsn, Ring: &tokens.Ring{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestMigrationsHoldNobodyUp has every migration meet big tables while nodes work on them. -live-rows=1000000 is the full size.
func TestMigrationsHoldNobodyUp(t *testing.T) {
	t.Parallel()
	x := newLive(t, migrations.Postgres())
	if err := x.to(1); err != nil {
		t.Fatal(err)
	}
	for version := int64(2); version <= x.s.want; version++ {
		statements := x.fill(*liveRows)
		nodes := startTraffic(t, x.dsn, statements)
		begun := time.Now()
		err := x.to(version)
		took := time.Since(begun)
		worst := nodes.end()
		if err != nil {
			t.Fatalf("migration %d: %v", version, err)
		}
		if worst.err != nil {
			t.Fatalf("migration %d held this up: %s: %v", version, worst.query, worst.err)
		}
		t.Logf("migration %d with %d rows a table: %v, the longest of %d statements beside it %v", version, *liveRows, took.Round(time.Millisecond), worst.done, worst.took.Round(time.Millisecond))
	}
	var invalid []string
	if err := x.s.reads.db.Select(&invalid, "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"); err != nil || len(invalid) > 0 {
		t.Errorf("indexes that are not valid: %v, %v", invalid, err)
	}
}

// withLast are the migrations with one more.
func withLast(t *testing.T, last string) (files fs.FS, version int64) {
	t.Helper()
	all := fstest.MapFS{}
	names, err := fs.Glob(migrations.Postgres(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		content, err := fs.ReadFile(migrations.Postgres(), name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = &fstest.MapFile{Data: content}
		n, err := numberOf(name)
		if err != nil {
			t.Fatal(err)
		}
		version = max(version, n)
	}
	version++
	all[fmt.Sprintf("%04d_last.sql", version)] = &fstest.MapFile{Data: []byte(last)}
	return all, version
}

// A migration that does hold nodes up is found.
func TestAMigrationThatHoldsNodesUpIsFound(t *testing.T) {
	t.Parallel()
	files, version := withLast(t, "-- +goose Up\nALTER TABLE inboxes ADD COLUMN more BIGINT;\nSELECT pg_advisory_xact_lock(1);\n")
	x := newLive(t, files)
	if err := x.to(version - 1); err != nil {
		t.Fatal(err)
	}
	statements := x.fill(100)
	slow, err := pgx.Connect(t.Context(), x.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close(context.Background())
	if _, err := slow.Exec(t.Context(), "SELECT pg_advisory_lock(1)"); err != nil {
		t.Fatal(err)
	}
	nodes := startTraffic(t, x.dsn, statements)
	migrated := make(chan error, 1)
	go func() { migrated <- x.to(version) }()
	waitFor(t, func() bool { return len(nodes.longest) > 0 || len(migrated) > 0 })
	if _, err := slow.Exec(t.Context(), "SELECT pg_advisory_unlock(1)"); err != nil {
		t.Fatal(err)
	}
	err = <-migrated
	if worst := nodes.end(); err != nil || !codeIn(worst.err, "55P03") || !strings.Contains(worst.query, "inboxes") {
		t.Errorf("%v, %+v", err, worst)
	}
}

// Somebody reads for long: a migration that needs a lock stands back again and again, and nobody waits behind it for long.
func TestAMigrationBehindALongReaderHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	x := newLive(t, migrations.Postgres())
	if err := x.to(5); err != nil {
		t.Fatal(err)
	}
	statements := x.fill(1000)
	reader, err := pgx.Connect(t.Context(), x.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close(context.Background())
	if _, err := reader.Exec(t.Context(), "BEGIN; SELECT COUNT(*) FROM devices"); err != nil {
		t.Fatal(err)
	}
	nodes := startTraffic(t, x.dsn, statements)
	migrated := make(chan error, 1)
	go func() { migrated <- x.to(6) }()
	select {
	case err := <-migrated:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(3 * time.Second):
	}
	if _, err := reader.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-migrated; err != nil {
		t.Fatal(err)
	}
	if worst := nodes.end(); worst.err != nil {
		t.Errorf("%+v", worst)
	}
}

// What a migration left that was cut off in the middle of an index is mended by the next.
func TestAMigrationThatWasCutOffIsDoneAgain(t *testing.T) {
	t.Parallel()
	x := newLive(t, migrations.Postgres())
	if err := x.to(5); err != nil {
		t.Fatal(err)
	}
	x.fill(1000)
	// An index waits for whoever sees a moment before it was begun.
	reader, err := pgx.Connect(t.Context(), x.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close(context.Background())
	if _, err := reader.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT COUNT(*) FROM apps"); err != nil {
		t.Fatal(err)
	}
	other := openUnmigrated(t, x.dsn)
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	migrated := make(chan error, 1)
	go func() { migrated <- other.Migrate(ctx) }()
	x.awaitIndexes("credentials_expiry of credentials is invalid")
	cut()
	if err := <-migrated; err == nil {
		t.Fatal("it was not cut off")
	}
	if _, err := reader.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := other.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.awaitIndexes("credentials_expiry of credentials is valid, devices_died of devices is valid")
}

// awaitIndexes returns once the indexes that migration 6 makes are as it says.
func (x *live) awaitIndexes(want string) {
	x.t.Helper()
	const query = `SELECT COALESCE(string_agg(indexrelid::regclass || ' of ' || indrelid::regclass || CASE WHEN indisvalid THEN ' is valid' ELSE ' is invalid' END,
		', ' ORDER BY indexrelid::regclass::text), '') FROM pg_index WHERE indexrelid::regclass::text IN ('credentials_expiry', 'devices_died')`
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	late := time.After(time.Minute)
	for {
		var have string
		if err := x.s.reads.db.Get(&have, query); err != nil {
			x.t.Fatal(err)
		}
		if have == want {
			return
		}
		select {
		case <-look.C:
		case <-late:
			x.t.Fatalf("indexes: %q, want %q", have, want)
		}
	}
}

// Nodes that start at once: one migrates, the others wait, and do not stand in the way of its indexes.
func TestNodesThatMigrateAtOnceWaitForEachOther(t *testing.T) {
	t.Parallel()
	dsn := PostgresForTest(t)
	done := make(chan error, 4)
	for range cap(done) {
		s := openUnmigrated(t, dsn)
		go func() { done <- s.Migrate(t.Context()) }()
	}
	late := time.After(time.Minute)
	for range cap(done) {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-late:
			t.Fatal("they wait for each other for ever")
		}
	}
}
