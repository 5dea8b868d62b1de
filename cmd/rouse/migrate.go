package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"rouse/config"
	"rouse/store"
	"rouse/tokens"
)

type migrateCmd struct {
	Status migrateStatusCmd `cmd:"" help:"Show the version of the schema and the one this binary wants. Exits 1 if it is behind, if there is no database, or if a copy into it is not finished."`
	Up     migrateUpCmd     `cmd:"" help:"Bring the schema up to date. rouse serve does it by itself at start."`

	Distribute migrateDistributeCmd `cmd:"" default:"withargs" help:"Spread the tables over several machines. The word may be left out: rouse migrate --distribute citus [--dry-run] [--shards 64]."`
}

// database is which database a subcommand means.
type database struct {
	DB         string        `name:"db" default:"sqlite:rouse.db" help:"sqlite:PATH, or postgres://user:password@host:5432/name." placeholder:"DSN" setting:"ROUSE_DB"`
	MasterKeys config.Hidden `help:"id:base64 of 32 bytes, comma separated. Left out, the key file beside a SQLite database; PostgreSQL needs none for this." placeholder:"KEYS" setting:"ROUSE_MASTER_KEYS"`
}

// with opens the database for f and closes it again.
func (d database) with(ctx context.Context, f func(*store.Store) error) error {
	dsn, path, err := config.CheckDB(d.DB)
	if err != nil {
		return &usageError{err}
	}
	ring := &tokens.Ring{} // a schema seals nothing; but a new file has its keys beside it
	if path != "" || d.MasterKeys != "" {
		if ring, _, err = config.Ring(d.MasterKeys, path); err != nil {
			return &usageError{err}
		}
	}
	return open(ctx, dsn, ring, f)
}

// withPresent is with for a database that is there already: it makes none, and asks for no keys.
func (d database) withPresent(ctx context.Context, f func(*store.Store) error) error {
	dsn, path, err := config.CheckDB(d.DB)
	if err != nil {
		return &usageError{err}
	}
	if err := mustBeThere(path, "rouse serve or rouse migrate up makes one"); err != nil {
		return err
	}
	return open(ctx, dsn, &tokens.Ring{}, f)
}

func open(ctx context.Context, dsn string, ring *tokens.Ring, f func(*store.Store) error) (err error) {
	s, err := store.Open(ctx, store.Options{DSN: dsn, Ring: ring})
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f(s)
}

type migrateStatusCmd struct {
	database
	output
}

// schema is what the migrate commands print.
type schema struct {
	Have    int64    `json:"have"`
	Want    int64    `json:"want"`
	Pending []string `json:"pending"`
	Applied []string `json:"applied,omitempty"`
}

func readSchema(ctx context.Context, s *store.Store) (x schema, err error) {
	if x.Have, x.Want, err = s.MigrationStatus(ctx); err == nil {
		x.Pending, err = s.PendingMigrations(ctx)
	}
	if err != nil {
		return x, fmt.Errorf("reading the schema's version: %w", err)
	}
	return x, nil
}

// Run shows where the schema stands.
func (c *migrateStatusCmd) Run(ctx context.Context, term *terminal) error {
	return c.withPresent(ctx, func(s *store.Store) error {
		x, err := readSchema(ctx, s)
		if err != nil {
			return err
		}
		err = c.print(term, x, func(w io.Writer) {
			fmt.Fprintf(w, "schema %d, this binary wants %d\n", x.Have, x.Want)
			for _, name := range x.Pending {
				fmt.Fprintf(w, "pending: %s\n", name)
			}
		})
		switch {
		case err != nil:
			return fmt.Errorf("writing the status: %w", err)
		case x.Have > x.Want:
			return errors.New("a newer rouse has migrated this database; run that one")
		case x.Have < x.Want:
			return errors.New("the schema is older than this binary wants; rouse migrate up brings it up to date, and so does rouse serve")
		}
		return s.Whole(ctx)
	})
}

type migrateUpCmd struct {
	database
	output
}

// Run brings the schema up to date; if it is, nothing happens.
func (c *migrateUpCmd) Run(ctx context.Context, term *terminal) error {
	return c.with(ctx, func(s *store.Store) error {
		before, err := readSchema(ctx, s)
		if err != nil {
			return err
		}
		if err := s.Migrate(ctx); err != nil {
			return fmt.Errorf("migrating: %w", err)
		}
		x, err := readSchema(ctx, s)
		if err != nil {
			return err
		}
		x.Applied = before.Pending
		return c.print(term, x, func(w io.Writer) {
			for _, name := range x.Applied {
				fmt.Fprintf(w, "applied: %s\n", name)
			}
			fmt.Fprintf(w, "schema %d\n", x.Have)
		})
	})
}
