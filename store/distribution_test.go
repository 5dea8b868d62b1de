package store

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// standIn is what Distribute needs of Citus.
//
//go:embed testdata/citus.sql
var standIn string

// citusLike opens a store on a fresh database that has the stand-in.
func citusLike(t testing.TB) *Store {
	t.Helper()
	s := nodes(t, 1)[0]
	t.Cleanup(func() { _ = s.Close() })
	s.onWriter(t, standIn)
	return s
}

func TestDistributePutsEachTableInItsPlace(t *testing.T) {
	t.Parallel()
	s := citusLike(t)
	done, err := s.Distribute(t.Context(), 32)
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Table  string
		Key    *string
		Beside string
		Shards *int
	}
	if err := s.writes.Select(&rows, `SELECT CAST(logicalrelid AS TEXT) AS "table", partkey AS "key", beside, shards FROM pg_dist_partition ORDER BY at`); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		key, shards := "everywhere", 0
		if r.Key != nil {
			key = *r.Key
		}
		if r.Shards != nil {
			shards = *r.Shards
		}
		got = append(got, fmt.Sprint(r.Table, " ", key, " ", r.Beside, " ", shards))
	}
	want := []string{
		"inboxes device none 32", "devices id inboxes 0", "deliveries device inboxes 0", "gaps device inboxes 0", "wakes device inboxes 0",
		"subscriptions device inboxes 0",
		"messages id none 32", "idempotency key none 32", "apps everywhere reference 0", "credentials everywhere reference 0",
	}
	if !slices.Equal(got, want) || len(done) != len(want) {
		t.Errorf("distributed as\n%s\nand told of %v", strings.Join(got, "\n"), done)
	}
	var unique int
	if err := s.writes.Get(&unique, "SELECT COUNT(*) FROM pg_index WHERE indrelid = 'devices'::regclass AND indisunique AND NOT indisprimary"); err != nil || unique != 0 {
		t.Errorf("%d unique indexes of devices are left: %v", unique, err)
	}
	var setting string
	if err := s.writes.Get(&setting, `SELECT array_to_string(setconfig, ' ') FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
		WHERE d.datname = current_database()`); err != nil || setting != "citus.enable_deadlock_prevention=off" {
		t.Errorf("the database has the setting %q: %v", setting, err)
	}
	if again, err := s.Distribute(t.Context(), 0); err != nil || len(again) != 0 {
		t.Errorf("again: %v, %v", again, err)
	}
}

// The rule that the stand-in enforces is one that the schema breaks where Distribute does not mend it.
func TestTheStandInRefusesWhatCitusRefuses(t *testing.T) {
	t.Parallel()
	s := citusLike(t)
	ctx := t.Context()
	for _, query := range []string{"SELECT create_distributed_table('devices', 'id')", "SELECT create_distributed_table('devices', 'app')",
		"SELECT create_distributed_table('gaps', 'lost')", "SELECT create_distributed_table('deliveries', 'device', colocate_with => 'inboxes')"} {
		tx := s.writes.MustBegin()
		if _, err := tx.ExecContext(ctx, "SET LOCAL citus.multi_shard_modify_mode = 'sequential'"); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(ctx, query); err == nil {
			t.Errorf("%s was taken", query)
		}
		_ = tx.Rollback()
	}
	// And a table that cannot be distributed takes all back.
	s.onWriter(t, "CREATE UNIQUE INDEX forgotten ON wakes (id)")
	if _, err := s.Distribute(ctx, 0); err == nil || !strings.Contains(err.Error(), "forgotten") {
		t.Errorf("it was distributed with a unique index in the way: %v", err)
	}
	var n int
	if err := s.writes.Get(&n, "SELECT COUNT(*) FROM pg_dist_partition"); err != nil || n != 0 {
		t.Errorf("%d tables stay distributed: %v", n, err)
	}
}

func TestDistributeRefuses(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	plain := nodes(t, 1)[0]
	defer plain.Close()
	sqlite := openFile(t, "")
	defer sqlite.Close()
	busy := citusLike(t)
	busy.onWriter(t, "INSERT INTO nodes (id, joined_at, beat_at) SELECT 'n', 0, EXTRACT(EPOCH FROM clock_timestamp()) * 1000 - 1000")
	old := citusLike(t)
	old.onWriter(t, "DELETE FROM goose_db_version WHERE version_id = (SELECT MAX(version_id) FROM goose_db_version)")
	for _, c := range []struct {
		s      *Store
		shards int
		why    string
	}{
		{plain, 0, "CREATE EXTENSION citus"}, {sqlite, 0, "only PostgreSQL"}, {busy, 0, "1 nodes run"},
		{citusLike(t), -1, "cannot be"}, {citusLike(t), 64_001, "cannot be"}, {old, 0, "run rouse migrate"},
	} {
		if _, err := c.s.Distribute(ctx, c.shards); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("got %v, want %q", err, c.why)
		}
	}
	busy.onWriter(t, "UPDATE nodes SET beat_at = beat_at - 10000")
	if _, err := busy.Distribute(ctx, 0); err != nil {
		t.Errorf("a dead node's row stood in the way: %v", err)
	}
}

// What is printed is what is run.
func TestDistributionSQLIsWhatRuns(t *testing.T) {
	t.Parallel()
	s := citusLike(t)
	conn, err := s.writes.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, query := range DistributionSQL(0) {
		if _, err := conn.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
}
