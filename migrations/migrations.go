// Package migrations holds the schema, one folder an engine. A file of the same
// number means the same in each; files are only ever added.
package migrations

import (
	"embed"
	"io/fs"
)

//go:embed sqlite/*.sql postgres/*.sql
var files embed.FS

// SQLite returns the migrations of that engine.
func SQLite() fs.FS { return of("sqlite") }

// Postgres returns the migrations of PostgreSQL.
func Postgres() fs.FS { return of("postgres") }

func of(engine string) fs.FS {
	sub, err := fs.Sub(files, engine)
	if err != nil {
		panic(err) // the name is a constant that fs.Sub accepts
	}
	return sub
}
