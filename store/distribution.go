package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jmoiron/sqlx"
)

// Where one machine is not enough, Citus spreads the tables over several: the schema stays, and so does every statement.
// docs/decisions/0012-distribution.md has the reasons for each table.

const (
	// DefaultDistributionShards is how many pieces the devices are spread in; a multiple of the machines there will ever be.
	DefaultDistributionShards = 64
	maxDistributionShards     = 64_000 // Citus takes no more
)

// placement says where the rows of a table lie in a distributed database.
type placement struct {
	table string
	// column's hash says on which machine a row lies; empty for a table of which every machine has a copy.
	column string
	// beside is the table whose rows with the same hash lie on the same machine; empty for a table of its own.
	beside string
}

// placements are all tables that do not stay where they are. The first is the one the others lie beside. What is not here - keys,
// circuits, topics, webhooks, sweeps, nodes and the like - is small, or written rarely, and stays on the coordinator, as do events, a row a
// commit and app.
var placements = []placement{
	{table: "inboxes", column: "device"},
	{table: "devices", column: "id", beside: "inboxes"},
	{table: "deliveries", column: "device", beside: "inboxes"},
	{table: "gaps", column: "device", beside: "inboxes"},
	{table: "wakes", column: "device", beside: "inboxes"},
	{table: "subscriptions", column: "device", beside: "inboxes"},
	// Found by their own ids, which no device knows.
	{table: "messages", column: "id"},
	{table: "idempotency", column: "key"},
	// Read beside a device's row, and hardly ever written.
	{table: "apps"},
	{table: "credentials"},
}

// A unique index of a distributed table has to hold the column it is distributed by. What these two forbid is forbidden by locks as
// well (claim); they stay, to find rows by.
var nowOrdinary = []struct{ drop, create string }{
	{"DROP INDEX IF EXISTS devices_installation",
		"CREATE INDEX devices_installation ON devices (app, installation) WHERE unregistered_at IS NULL"},
	{"DROP INDEX IF EXISTS devices_token",
		"CREATE INDEX devices_token ON devices (token_hash) WHERE token_hash IS NOT NULL"},
}

// commutative lets batches that touch many machines run beside each other: Citus keeps them apart so that they cannot
// deadlock over the same rows, and no two of ours have the same rows, by the locks of their shards.
const commutative = `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET citus.enable_deadlock_prevention = off', current_database()); END $$`

// distributionStep is one statement, and the table that it moves, if it does.
type distributionStep struct{ table, query string }

// distributionSteps are the statements that distribute a database, in order.
func distributionSteps(shards int) []distributionStep {
	steps := []distributionStep{{query: "SET LOCAL citus.multi_shard_modify_mode = 'sequential'"}}
	for _, index := range nowOrdinary {
		steps = append(steps, distributionStep{"devices", index.drop}, distributionStep{"devices", index.create})
	}
	for _, p := range placements {
		steps = append(steps, distributionStep{p.table, p.call(shards)})
	}
	return append(steps, distributionStep{query: commutative})
}

func (p placement) call(shards int) string {
	switch {
	case p.column == "":
		return fmt.Sprintf("SELECT create_reference_table('%s')", p.table)
	case p.beside != "":
		return fmt.Sprintf("SELECT create_distributed_table('%s', '%s', colocate_with => '%s')", p.table, p.column, p.beside)
	}
	return fmt.Sprintf("SELECT create_distributed_table('%s', '%s', colocate_with => 'none', shard_count => %d)", p.table, p.column, shards)
}

// DistributionSQL returns the statements that Distribute runs on a database that is not distributed yet, in order, one
// transaction. shards is the number of pieces; 0 is DefaultDistributionShards.
func DistributionSQL(shards int) []string {
	list := []string{"BEGIN"}
	for _, s := range distributionSteps(orDefault(shards, DefaultDistributionShards)) {
		list = append(list, s.query)
	}
	return append(list, "COMMIT")
}

// Distribute spreads the tables of a migrated PostgreSQL database over the machines of its Citus cluster, in one transaction: devices
// and all that is theirs by device, in so many shards, 0 for DefaultDistributionShards. What is distributed already is passed over; done
// lists the tables that were not. No node may run meanwhile. Errors are sentences for the operator: no Citus, a
// schema that is not this program's, nodes that are alive, a number of shards that cannot be.
func (s *Store) Distribute(ctx context.Context, shards int) (done []string, err error) {
	if err := s.mayDistribute(ctx, shards); err != nil {
		return nil, err
	}
	db := s.writes
	if s.dialect.patient != nil {
		db = s.dialect.patient(1)
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return nil, s.readError("distribute the database", err)
	}
	defer func() { _ = tx.Rollback() }() // of no effect after the commit
	if done, err = distribute(ctx, tx, orDefault(shards, DefaultDistributionShards)); err != nil {
		return nil, fmt.Errorf("distribute the database: %w; nothing was changed", err)
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("distribute the database: %w", err)
	}
	return done, nil
}

const (
	hasCitus    = "SELECT to_regproc('create_distributed_table') IS NOT NULL AND to_regclass('pg_dist_partition') IS NOT NULL"
	distributed = "SELECT CAST(logicalrelid AS TEXT) FROM pg_dist_partition"
)

// mayDistribute says what stands in the way.
func (s *Store) mayDistribute(ctx context.Context, shards int) error {
	if !s.dialect.shared {
		return errors.New("only PostgreSQL with Citus can be distributed; rouse copy moves a SQLite database there")
	}
	if shards < 0 || shards > maxDistributionShards {
		return fmt.Errorf("%d shards cannot be: take 1 to %d, or leave it out for %d", shards, maxDistributionShards, DefaultDistributionShards)
	}
	if err := s.checkSchema(ctx); err != nil {
		return err
	}
	var citus bool
	if err := s.reads.get(ctx, &citus, hasCitus); err != nil {
		return s.readError("look for Citus", err)
	}
	if !citus {
		return errors.New("this database has no Citus: put citus into shared_preload_libraries of every machine, restart them, run " +
			"CREATE EXTENSION citus in the database, and citus_set_coordinator_host and citus_add_node on the coordinator; then come again")
	}
	var alive int
	if err := s.reads.get(ctx, &alive, selectAlive); err != nil {
		return s.readError("look for nodes", err)
	}
	if alive > 0 {
		return fmt.Errorf("%d nodes run on this database: stop them first, since tables are locked while their rows move", alive)
	}
	return nil
}

func distribute(ctx context.Context, tx *sqlx.Tx, shards int) (done []string, err error) {
	if _, err := tx.ExecContext(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
		return nil, fmt.Errorf("lift the bound of a statement: %w", err)
	}
	var list []string
	if err := tx.SelectContext(ctx, &list, distributed); err != nil {
		return nil, fmt.Errorf("ask what is distributed: %w", err)
	}
	already := map[string]bool{}
	for _, name := range list {
		already[strings.TrimPrefix(name, "public.")] = true
	}
	for _, s := range distributionSteps(shards) {
		if already[s.table] {
			continue
		}
		if _, err := tx.ExecContext(ctx, s.query); err != nil {
			return nil, fmt.Errorf("%s: %w", s.query, err)
		}
		if strings.HasPrefix(s.query, "SELECT") {
			done = append(done, s.table)
		}
	}
	return done, nil
}
