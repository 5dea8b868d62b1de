package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
)

// Migrate brings the schema to the newest this program knows. Call it before Run. It refuses a
// database that a newer program has migrated already.
func (s *Store) Migrate(ctx context.Context) (err error) {
	have, want, err := s.MigrationStatus(ctx)
	if err != nil {
		return err
	}
	if have > want {
		return newerSchema(have, want)
	}
	if s.running.Load() {
		return fmt.Errorf("migrate before the writer runs")
	}
	db := s.writes
	if s.dialect.patient != nil {
		db = s.dialect.patient(2) // one holds the lock
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	unlock, err := s.dialect.lockMigrations(ctx, db)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	defer unlock()
	return s.migrateTo(ctx, db, want)
}

// migrateTo applies what is missing up to a version. A migration that did not get a table's lock, because somebody else has it
// for long, stands back, so that callers are not held up behind it, and is tried again.
func (s *Store) migrateTo(ctx context.Context, db *sqlx.DB, version int64) error {
	p, err := goose.NewProvider(s.dialect.goose, db.DB, s.dialect.files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	pause := time.NewTicker(migrateAgain)
	defer pause.Stop()
	for tries := 1; ; tries++ {
		_, err := p.UpTo(ctx, version)
		if err == nil {
			return nil
		}
		if !codeIn(err, lockNotAvailable) || tries == migrateTries {
			return fmt.Errorf("migrate the database: %w", err)
		}
		s.log.Info("a migration waits for a lock that somebody else holds", slog.Any("error", err))
		select {
		case <-pause.C:
		case <-ctx.Done():
			return fmt.Errorf("migrate the database: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// PendingMigrations names what Migrate would apply, in order.
func (s *Store) PendingMigrations(ctx context.Context) ([]string, error) {
	have, _, err := s.MigrationStatus(ctx)
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(s.dialect.files, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("list the migrations: %w", err)
	}
	pending := []string{}
	for _, name := range names {
		if n, err := numberOf(name); err != nil {
			return nil, err
		} else if n > have {
			pending = append(pending, strings.TrimSuffix(name, ".sql"))
		}
	}
	return pending, nil
}

// MigrationStatus returns the schema the database has, 0 for an empty one, and the one this program wants.
func (s *Store) MigrationStatus(ctx context.Context) (have, want int64, err error) {
	if have, err = schemaOf(s.asking(ctx), s.dialect.hasTable); err != nil {
		return 0, 0, s.readError("read the schema's version", err)
	}
	return have, s.want, nil
}

// getter reads one value from a database, whatever way there is to ask it. The statement has "?".
type getter func(dest any, query string, args ...any) error

func (s *Store) asking(ctx context.Context) getter {
	return func(dest any, query string, args ...any) error {
		return s.reads.db.GetContext(ctx, dest, s.dialect.rebind(query), args...)
	}
}

// schemaOf returns the version of a database's schema, 0 for an empty one.
func schemaOf(get getter, hasTable string) (have int64, err error) {
	var tables int
	if err := get(&tables, hasTable, goose.DefaultTablename); err != nil || tables == 0 {
		return 0, err
	}
	err = get(&have, "SELECT COALESCE(MAX(version_id), 0) FROM "+goose.DefaultTablename)
	return have, err
}

// checkSchema says why no node may start on the database as it is.
func (s *Store) checkSchema(ctx context.Context) error {
	have, want, err := s.MigrationStatus(ctx)
	switch {
	case err != nil:
		return err
	case have > want:
		return newerSchema(have, want)
	case have < want:
		return olderSchema(have, want)
	}
	return s.Whole(ctx)
}

// ErrHalfCopied is a database into which a copy is not finished.
var ErrHalfCopied = errors.New("a copy into this database is not finished: run the same rouse copy again, which goes on where it was cut off")

// Whole returns ErrHalfCopied for a database that holds half of another. It knows every schema.
func (s *Store) Whole(ctx context.Context) error {
	return s.readError("look for an unfinished copy", whole(s.asking(ctx), s.dialect.hasTable))
}

// whole is Store.Whole.
func whole(get getter, hasTable string) error {
	var tables, unfinished int
	if err := get(&tables, hasTable, "copies"); err != nil || tables == 0 {
		return err
	}
	if err := get(&unfinished, "SELECT COUNT(*) FROM copies WHERE done_at IS NULL"); err != nil {
		return err
	}
	if unfinished > 0 {
		return ErrHalfCopied
	}
	return nil
}

func olderSchema(have, want int64) error {
	return fmt.Errorf("the database has schema %d, this program needs %d: run rouse migrate up", have, want)
}

func newerSchema(have, want int64) error {
	return fmt.Errorf("the database has schema %d, newer than the %d this program knows: run the newer program", have, want)
}

// newestMigration is the highest number among the files.
func newestMigration(files fs.FS) (int64, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("list the migrations: %w", err)
	}
	var newest int64
	for _, name := range names {
		n, err := numberOf(name)
		if err != nil {
			return 0, err
		}
		newest = max(newest, n)
	}
	return newest, nil
}

// numberOf is the number that a migration's name begins with.
func numberOf(name string) (int64, error) {
	number, _, _ := strings.Cut(name, "_")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("migration %s does not start with a number: %w", name, err)
	}
	return n, nil
}
