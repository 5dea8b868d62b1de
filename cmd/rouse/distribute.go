package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"rouse/config"
	"rouse/store"
)

// migrateDistributeCmd is rouse migrate --distribute citus.
type migrateDistributeCmd struct {
	database
	output
	Distribute string `help:"citus: spread the tables over the machines of a Citus cluster, devices by their ids. The nodes must be stopped." enum:"citus," default:"" placeholder:"citus"`
	Shards     int    `help:"In how many pieces; a multiple of the machines there will ever be." default:"64"`
	DryRun     bool   `help:"Print the statements and run nothing; needs no database."`
}

// Run distributes the database, or prints how.
func (c *migrateDistributeCmd) Run(ctx context.Context, term *terminal) error {
	if c.Distribute == "" {
		return &usageError{errors.New("say what to do: rouse migrate status, rouse migrate up, or rouse migrate --distribute citus")}
	}
	if c.Shards < 1 {
		return mistake("--shards is %d; it is 1 or more, and %d if left out", c.Shards, store.DefaultDistributionShards)
	}
	if c.DryRun {
		statements := store.DistributionSQL(c.Shards)
		if c.Output == "json" {
			return c.print(term, map[string]any{"statements": statements}, nil)
		}
		fmt.Fprintln(term.out, strings.Join(statements, ";\n")+";")
		return nil
	}
	if _, path, err := config.CheckDB(c.DB); err == nil && path != "" {
		if c.DB == defaultDB {
			return mistake("say which database: --db (ROUSE_DB) postgres://...; left out it is the SQLite file rouse.db, and only PostgreSQL with Citus can be distributed")
		}
		return mistake("only PostgreSQL with Citus can be distributed: --db (ROUSE_DB) names a SQLite file; rouse copy moves it there")
	}
	return c.with(ctx, func(s *store.Store) error {
		done, err := s.Distribute(ctx, c.Shards)
		if err != nil {
			return fmt.Errorf("distributing: %w", err)
		}
		return c.print(term, map[string]any{"distributed": done}, func(w io.Writer) {
			if len(done) == 0 {
				fmt.Fprintln(w, "everything is distributed already")
				return
			}
			fmt.Fprintf(w, "distributed: %s\n", strings.Join(done, ", "))
		})
	})
}
