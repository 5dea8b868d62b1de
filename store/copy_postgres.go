package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
)

// copyBounds are set with each transaction: nothing is left in a session. A copy waits for its other side.
const copyBounds = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"

var copyPostgres = copyEngine{
	columns: `SELECT c.relname AS tab, a.attname AS col, upper(format_type(a.atttypid, NULL)) AS typ,
			COALESCE(array_position(i.indkey::int2[], a.attnum) + 1, 0) AS prim
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
			LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
		WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = current_schema()::regnamespace`,
	reading: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; " + copyBounds, writing: "BEGIN; " + copyBounds,
	put:       insertPostgres,
	lastEvent: "SELECT COALESCE(pg_sequence_last_value(pg_get_serial_sequence('events', 'seq')::regclass), 0)",
	give: func(g given) (list []string) {
		for _, s := range []struct {
			name string
			n    int64
		}{{"'places'", g.place}, {"pg_get_serial_sequence('events', 'seq')", g.event}, {"pg_get_serial_sequence('wakes', 'id')", g.wake}} {
			if s.n > 0 {
				list = append(list, fmt.Sprintf("SELECT setval(%s, %d)", s.name, s.n))
			}
		}
		return list
	},
	living: selectAlive,
}

func insertPostgres(ctx context.Context, conn *sqlx.Conn, t *table, rows [][]any) error {
	return conn.Raw(func(c any) error {
		_, err := c.(*stdlib.Conn).Conn().CopyFrom(ctx, pgx.Identifier{t.name}, t.columns, pgx.CopyFromRows(rows))
		return err
	})
}
