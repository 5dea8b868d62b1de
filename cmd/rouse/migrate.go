package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"rouse/config"
	"rouse/store"
)

type migrateCmd struct {
	Status migrateStatusCmd `cmd:"" help:"Show the version of the schema and the one this binary wants. Exits 1 if it is behind, or if there is no database."`
	Up     migrateUpCmd     `cmd:"" help:"Bring the schema up to date. rouse serve does it by itself at start."`

	Distribute migrateDistributeCmd `cmd:"" default:"withargs" hidden:"" help:"Spread the tables over several machines: rouse migrate --distribute citus."`
}

// database is which database a subcommand means.
type database struct {
	DB         string        `name:"db" default:"sqlite:rouse.db" help:"sqlite:PATH." setting:"ROUSE_DB"`
	MasterKeys config.Hidden `help:"id:base64 of 32 bytes, comma separated. Left out, the key file beside the database." placeholder:"KEYS" setting:"ROUSE_MASTER_KEYS"`
}

// with opens the database for f and closes it again.
func (d database) with(ctx context.Context, f func(*store.Store) error) error {
	dsn, path, err := config.CheckDB(d.DB)
	if err != nil {
		return &usageError{err}
	}
	return d.open(ctx, dsn, path, f)
}

// withPresent is with for a database that is there already: it makes none.
func (d database) withPresent(ctx context.Context, f func(*store.Store) error) error {
	dsn, path, err := config.CheckDB(d.DB)
	if err != nil {
		return &usageError{err}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no database at %s; rouse serve or rouse migrate up makes one", path)
	case err != nil:
		return fmt.Errorf("looking for the database: %w", err)
	case info.IsDir():
		return fmt.Errorf("%s is a folder, not a database", path)
	}
	return d.open(ctx, dsn, path, f)
}

func (d database) open(ctx context.Context, dsn, path string, f func(*store.Store) error) (err error) {
	ring, _, err := config.Ring(d.MasterKeys, path)
	if err != nil {
		return &usageError{err}
	}
	s, err := store.Open(ctx, store.Options{DSN: dsn, Ring: ring})
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f(s)
}

type migrateStatusCmd struct{ database }

// Run shows where the schema stands.
func (c *migrateStatusCmd) Run(ctx context.Context, term *terminal) error {
	return c.withPresent(ctx, func(s *store.Store) error {
		have, want, err := s.MigrationStatus(ctx)
		if err != nil {
			return fmt.Errorf("reading the schema's version: %w", err)
		}
		fmt.Fprintf(term.out, "schema %d, this binary wants %d\n", have, want)
		if have != want {
			return errors.New("the schema is not what this binary wants; rouse migrate up brings an older one up to date")
		}
		return nil
	})
}

type migrateUpCmd struct{ database }

// Run brings the schema up to date; if it is, nothing happens.
func (c *migrateUpCmd) Run(ctx context.Context, term *terminal) error {
	return c.with(ctx, func(s *store.Store) error {
		if err := s.Migrate(ctx); err != nil {
			return fmt.Errorf("migrating: %w", err)
		}
		have, _, err := s.MigrationStatus(ctx)
		if err != nil {
			return fmt.Errorf("reading the schema's version: %w", err)
		}
		fmt.Fprintf(term.out, "schema %d\n", have)
		return nil
	})
}
