package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"rouse/migrations"
)

// dialect is everything that differs between engines: how to open one, how its placeholders look, what
// its errors mean. Statements elsewhere in this package are written once, with "?".
type dialect struct {
	path string
}

// Tuning of SQLite, each figure measured with bench/store.
const (
	readers = 4
	// A larger log lets a page that is written many times reach the file once: 4000 pages are 16 MB.
	checkpointPages = 4000
	cacheKiB        = 16384
	busyMillis      = 5000
)

func parseDSN(dsn string) (dialect, error) {
	path, ok := strings.CutPrefix(dsn, "sqlite:")
	if !ok {
		return dialect{}, errors.New(`the database is "sqlite:" and a path, such as "sqlite:rouse.db"`)
	}
	if path == "" || strings.HasPrefix(path, ":") {
		return dialect{}, errors.New("a database in memory would lose what it promised; name a file, such as sqlite:rouse.db")
	}
	return dialect{path: path}, nil
}

func (d dialect) migrations() fs.FS { return migrations.SQLite() }

func (d dialect) goose() goose.Dialect { return goose.DialectSQLite3 }

// rebind adapts a statement's placeholders: "?", or "?1" and so on where one value is used several times.
// Statements say "LIMIT 0 + ?": a bare "LIMIT ?" has SQLite plan
// the statement anew for each value bound, which costs more than running it.
func (d dialect) rebind(query string) string { return query }

// open makes the file if it is missing, readable by its owner alone, and returns the one writing
// connection and the pool that only reads.
func (d dialect) open(ctx context.Context) (writes, reads *sqlx.DB, err error) {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the database's folder: %w", err)
	}
	f, err := os.OpenFile(d.path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, nil, fmt.Errorf("open the database: %w", err)
	}
	writes, err = d.pool(ctx, 1, "journal_mode(wal)", "synchronous(full)", "secure_delete(fast)",
		fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages))
	if err != nil {
		return nil, nil, err
	}
	reads, err = d.pool(ctx, readers, "query_only(1)")
	if err != nil {
		return nil, nil, errors.Join(err, writes.Close())
	}
	return writes, reads, nil
}

func (d dialect) pool(ctx context.Context, size int, pragmas ...string) (*sqlx.DB, error) {
	q := url.Values{"_pragma": append([]string{
		fmt.Sprintf("busy_timeout(%d)", busyMillis), "foreign_keys(0)", "temp_store(memory)",
		fmt.Sprintf("cache_size(-%d)", cacheKiB),
	}, pragmas...)}
	file := &url.URL{Scheme: "file", Opaque: (&url.URL{Path: d.path}).EscapedPath(), RawQuery: q.Encode()}
	db, err := sqlx.Open("sqlite", file.String())
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the database: %w", err), db.Close())
	}
	return db, nil
}

// claim makes this process the one that runs on the database, until release.
func (d dialect) claim() (release func(), err error) {
	f, err := claim(d.path)
	if err != nil || f == nil {
		return func() {}, err
	}
	return func() { _ = f.Close() }, nil
}

// begin starts a transaction that will write: it takes the lock at once, so that it cannot fail half way.
func (d dialect) begin() string { return "BEGIN IMMEDIATE" }

// hasTable is the question whether one table exists.
func (d dialect) hasTable() string {
	return "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
}

// storageTrouble reports whether err is the machine's trouble, which passes, and not a statement's.
func (d dialect) storageTrouble(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
		sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB:
		return true
	}
	return false
}
