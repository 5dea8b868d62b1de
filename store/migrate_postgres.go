package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
)

const (
	// migrateLook is how often a node that waits for another's migration asks whether it is done.
	migrateLook = 200 * time.Millisecond
	// migrateAgain is the pause after a migration did not get a table's lock. It gives up after migrateTries of them.
	migrateAgain = 500 * time.Millisecond
	migrateTries = 240
	// lockNotAvailable is what a statement says that waited for a lock longer than its lock_timeout.
	lockNotAvailable = "55P03"
)

// patient is dialect.patient.
func (p postgres) patient(size int) *sqlx.DB {
	db := sqlx.NewDb(stdlib.OpenDB(*p.config), "pgx")
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db
}

// tryMigrateLock is asked in the simple protocol: in the other one its portal would keep a snapshot until the transaction's end.
var tryMigrateLock = fmt.Sprintf("SELECT pg_try_advisory_xact_lock(%d, 0)", migrateLocks)

// lockMigrations holds a lock as long as a transaction, which works through a pooler as well. Who has to wait for it asks again
// and again: one that waited inside a statement would have a snapshot, and CREATE INDEX CONCURRENTLY waits for every
// snapshot to end.
func lockMigrations(ctx context.Context, db *sqlx.DB) (unlock func(), err error) {
	tx, err := db.BeginTxx(context.WithoutCancel(ctx), &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return nil, fmt.Errorf("lock: %w", plainly(err))
	}
	unlock = func() { _ = tx.Rollback() } // it holds a lock and nothing else
	const bounds = "SELECT set_config('idle_in_transaction_session_timeout', '0', true), set_config('statement_timeout', '0', true)"
	if _, err := tx.ExecContext(ctx, bounds); err != nil {
		unlock()
		return nil, fmt.Errorf("lock: %w", err)
	}
	look := time.NewTicker(migrateLook)
	defer look.Stop()
	for {
		var mine bool
		if err := tx.GetContext(ctx, &mine, tryMigrateLock, pgx.QueryExecModeSimpleProtocol); err != nil {
			unlock()
			return nil, fmt.Errorf("lock: %w", err)
		}
		if mine {
			return unlock, nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			unlock()
			return nil, fmt.Errorf("wait for the migration that another node does: %w", ctx.Err())
		}
	}
}
