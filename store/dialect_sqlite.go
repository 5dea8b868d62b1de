package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
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

// Tuning of SQLite, each figure measured with bench/store.
const (
	readers = 4
	// A larger log lets a page that is written many times reach the file once: 4000 pages are 16 MB.
	checkpointPages = 4000
	cacheKiB        = 16384
	busyMillis      = 5000
)

// sqliteFile is a database in a file.
type sqliteFile struct {
	path string
}

func parseSQLite(dsn string) (sqliteFile, error) {
	path, ok := strings.CutPrefix(dsn, "sqlite:")
	if !ok {
		return sqliteFile{}, errors.New(`the database is "sqlite:" and a path, such as "sqlite:rouse.db"`)
	}
	if path == "" || strings.HasPrefix(path, ":") {
		return sqliteFile{}, errors.New("a database in memory would lose what it promised; name a file, such as sqlite:rouse.db")
	}
	return sqliteFile{path: path}, nil
}

func (d sqliteFile) dialect() dialect {
	return dialect{
		files: migrations.SQLite(), goose: goose.DialectSQLite3,
		// It takes the lock at once, so that it cannot fail half way.
		begin:    func(w *writer) error { return w.run("BEGIN IMMEDIATE") },
		commit:   func(w *writer) error { return w.run("COMMIT") },
		hasTable: "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?",
		newest:   "SELECT value FROM counters WHERE name = 'seq'",
		prepares: true,
		rebind:   func(query string) string { return query },
		writers:  1,
		open:     d.open,
		check:    func(context.Context, *sqlx.Conn) error { return nil },
		claim:    d.claim,
		// One process at a time is the rule, and goose's transactions keep two from mixing.
		lockMigrations: func(context.Context, *sqlx.DB) (func(), error) { return func() {}, nil },

		storageTrouble: sqliteTrouble,
		lost: func(_ *sqlx.Conn, err error) bool {
			return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone)
		},
		raced:  func(error) bool { return false },
		spoils: func(error) bool { return false },
	}
}

// open makes the file if it is missing, readable by its owner alone, and returns the one writing
// connection and the pool that only reads.
func (d sqliteFile) open(ctx context.Context, _, _ int) (writes, reads *sqlx.DB, err error) {
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

func (d sqliteFile) pool(ctx context.Context, size int, pragmas ...string) (*sqlx.DB, error) {
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
func (d sqliteFile) claim() (release func(), err error) {
	f, err := claim(d.path)
	if err != nil || f == nil {
		return func() {}, err
	}
	return func() { _ = f.Close() }, nil
}

// sqliteTrouble is dialect.storageTrouble.
func sqliteTrouble(err error) bool {
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
