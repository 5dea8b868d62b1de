package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
)

// A session that is ours alone keeps prepared statements, and with them their plans: planning costs more than most reads. A pooler may
// give each transaction another session, so behind one nothing is left in any.

// pgStatements bounds the statements that one session keeps.
const pgStatements = 512

var errPooler = errors.New("there is a pooler before PostgreSQL now, and there was none when this node started: start it again")

// isOurs reports whether the session is that of the server process which answered when it began: a pooler names itself.
func isOurs(ctx context.Context, c *pgx.Conn) (bool, error) {
	var pid uint32
	err := c.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid)
	return pid == c.PgConn().PID(), err
}

// ownSession is isOurs for a connection of a pool.
func ownSession(ctx context.Context, conn *sqlx.Conn) (ours bool, err error) {
	err = conn.Raw(func(c any) (err error) {
		ours, err = isOurs(ctx, c.(*stdlib.Conn).Conn())
		return err
	})
	return ours, err
}

// preparing is the database with statements that are prepared, if its sessions are ours.
func (p postgres) preparing(ctx context.Context, db *sqlx.DB) (postgres, error) {
	conn, err := db.Connx(ctx)
	if err != nil {
		return p, err
	}
	ours, err := ownSession(ctx, conn)
	if err = errors.Join(err, conn.Close()); err != nil || !ours {
		return p, err
	}
	config := p.config.Copy()
	config.DefaultQueryExecMode, config.StatementCacheCapacity = pgx.QueryExecModeCacheStatement, pgStatements
	return postgres{config}, nil
}

// begun prepares a new connection. One that is no longer ours, where statements are prepared, is refused.
func (p postgres) begun(ctx context.Context, c *pgx.Conn) error {
	if err := setDeadline(c); err != nil || p.config.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		return err
	}
	ours, err := isOurs(ctx, c)
	if err != nil {
		return fmt.Errorf("ask whose session it is: %w", err)
	}
	if !ours {
		return errPooler
	}
	return nil
}
