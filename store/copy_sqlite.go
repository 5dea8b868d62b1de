package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/jmoiron/sqlx"
)

var copySQLite = copyEngine{
	columns: `SELECT m.name AS tab, c.name AS col, c.type AS typ, c.pk AS prim
		FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'`,
	reading: "BEGIN", writing: "BEGIN IMMEDIATE",
	put:       insertSQLite,
	lastEvent: `SELECT MAX(COALESCE((SELECT MAX(seq) FROM sqlite_sequence WHERE name = 'events'), 0), COALESCE((SELECT MAX(seq) FROM events), 0))`,
	give: func(g given) (list []string) { // wakes are numbered from the highest on
		if g.place != absent {
			list = append(list, fmt.Sprintf("UPDATE counters SET value = %d WHERE name = 'seq'", g.place))
		}
		if g.event != absent {
			list = append(list, "DELETE FROM sqlite_sequence WHERE name = 'events'",
				fmt.Sprintf("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', %d)", g.event))
		}
		return list
	},
}

// openToCopy opens the file of a source that is there, or of a target.
func openToCopy(ctx context.Context, dsn string, reads bool) (copyEngine, *sqlx.DB, error) {
	file, err := parseSQLite(dsn)
	if err != nil {
		return copyEngine{}, nil, err
	}
	info, err := os.Stat(file.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return copyEngine{}, nil, fmt.Errorf("there is no database at %s", file.path)
	case err != nil:
		return copyEngine{}, nil, fmt.Errorf("open the database: %w", err)
	case !info.Mode().IsRegular():
		return copyEngine{}, nil, fmt.Errorf("%s is not a file", file.path)
	}
	settings := []string{"query_only(1)"}
	if !reads {
		settings = []string{"journal_mode(wal)", "synchronous(full)", fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages)}
	}
	db, err := file.pool(ctx, 1, settings...)
	return copySQLite, db, err
}

func insertSQLite(ctx context.Context, conn *sqlx.Conn, t *table, rows [][]any) error {
	stmt, err := conn.PreparexContext(ctx, t.inserting())
	if err != nil {
		return err
	}
	defer func() { _ = stmt.Close() }() // it goes with the connection
	for _, row := range rows {
		if _, err := stmt.ExecContext(ctx, row...); err != nil {
			return err
		}
	}
	return nil
}
