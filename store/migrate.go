package store

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

// Migrate brings the schema to the newest this program knows. Call it before Run. It refuses a
// database that a newer program has migrated already.
func (s *Store) Migrate(ctx context.Context) error {
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
	unlock, err := s.dialect.lockMigrations(ctx, s.writes)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	defer unlock()
	p, err := goose.NewProvider(s.dialect.goose, s.writes.DB, s.dialect.files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}

// MigrationStatus returns the schema the database has, 0 for an empty one, and the one this program wants.
func (s *Store) MigrationStatus(ctx context.Context) (have, want int64, err error) {
	var tables int
	if err := s.reads.db.GetContext(ctx, &tables, s.dialect.rebind(s.dialect.hasTable), goose.DefaultTablename); err != nil {
		return 0, 0, s.readError("read the schema's version", err)
	}
	if tables == 0 {
		return 0, s.want, nil
	}
	const query = "SELECT COALESCE(MAX(version_id), 0) FROM " + goose.DefaultTablename
	if err := s.reads.db.GetContext(ctx, &have, query); err != nil {
		return 0, 0, s.readError("read the schema's version", err)
	}
	return have, s.want, nil
}

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
	return nil
}

func olderSchema(have, want int64) error {
	return fmt.Errorf("the database has schema %d, this program needs %d: run rouse migrate", have, want)
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
		number, _, _ := strings.Cut(name, "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("migration %s does not start with a number: %w", name, err)
		}
		newest = max(newest, n)
	}
	return newest, nil
}
