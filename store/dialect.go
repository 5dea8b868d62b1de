package store

import (
	"context"
	"io/fs"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
)

// dialect is everything that differs between engines: how to open one, how its placeholders look, what
// its errors mean. Statements elsewhere in this package are written once, with "?".
type dialect struct {
	files fs.FS // migrations
	goose goose.Dialect

	// begin starts a transaction that will write. Where statements travel, it goes with the first of them.
	begin func(*writer) error
	// commit ends it. No error means that all of it is durable.
	commit func(*writer) error
	// travel sends statements together and reads their answers in order; nil where each is done at once.
	travel func(*writer, []errand) error
	// hasTable is the question whether one table exists.
	hasTable string
	// newest is the question for the newest place that was ever given, in any inbox.
	newest string
	// shared says that several nodes write to one database at once: places come from a sequence then, and a batch locks the
	// shards of its devices.
	shared bool
	// prepares says that a statement is prepared once a connection. Otherwise none leaves anything behind in its session, which
	// may be another one for each transaction.
	prepares bool

	// rebind adapts a statement's placeholders: "?", or "?1" and so on where one value is used several times.
	// Statements say "LIMIT 0 + ?": a bare "LIMIT ?" has SQLite plan
	// the statement anew for each value bound, which costs more than running it.
	rebind func(query string) string
	// writers is how many writers a node does best with.
	writers int
	// open returns what the writers take their connections from, and the pool that only reads.
	open func(ctx context.Context, writers, readers int) (writes, reads *sqlx.DB, err error)
	// check says why the writer must not work on a server as it is set up.
	check func(context.Context, *sqlx.Conn) error
	// lockMigrations keeps others from migrating at the same time, until unlock.
	lockMigrations func(context.Context, *sqlx.DB) (unlock func(), err error)
	// patient makes a pool for work that takes its time: nothing on it has a deadline. nil if the writer's pool has none either.
	patient func(size int) *sqlx.DB
	// claim makes this process the one that runs on the database, until release, if only one may.
	claim func() (release func(), err error)

	// storageTrouble reports whether err is the machine's trouble, which passes, and not a statement's.
	storageTrouble func(error) bool
	// lost reports whether the connection is of no use any more after err.
	lost func(*sqlx.Conn, error) bool
	// raced reports whether err is that of a transaction which met another one, and may well succeed when it is done again.
	raced func(error) bool
	// spoils reports whether err is one of a statement after which its transaction can only be rolled back.
	spoils func(error) bool
}

func parseDSN(dsn string) (dialect, error) {
	if isPostgres(dsn) {
		p, err := parsePostgres(dsn)
		if err != nil {
			return dialect{}, err
		}
		return p.dialect(), nil
	}
	d, err := parseSQLite(dsn)
	if err != nil {
		return dialect{}, err
	}
	return d.dialect(), nil
}

func isPostgres(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}
