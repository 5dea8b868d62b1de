package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"rouse/config"
	"rouse/store"
)

type backupCmd struct {
	output
	DB       config.DSN `name:"db" default:"sqlite:rouse.db" help:"The database: sqlite:PATH or postgres://user:password@host:5432/name. Nodes may run on it." placeholder:"DSN" setting:"ROUSE_DB"`
	To       string     `required:"" type:"path" help:"The file to write. It must not be there yet." placeholder:"FILE"`
	WithKeys bool       `help:"Copy the key file of a SQLite database beside the backup. Whoever has both can read all secrets."`
}

// Run writes a backup.
func (c *backupCmd) Run(ctx context.Context, term *terminal) error {
	dsn, path, err := checkDatabase("db", c.DB)
	if err != nil {
		return err
	}
	if err := mustBeThere(path, "name the one to back up with --db (ROUSE_DB)"); err != nil {
		return err
	}
	keys, err := c.keys(path)
	if err != nil {
		return err
	}
	report, err := store.Backup(ctx, store.BackupOptions{DSN: dsn, To: c.To, Progress: tellProgress(term.err)})
	if err != nil {
		return fmt.Errorf("backing up %v: %w", c.DB, err)
	}
	if c.WithKeys {
		if err := config.CopyKeyFile(keys, config.KeyFile(c.To)); err != nil {
			return fmt.Errorf("copying the key file (the backup is whole): %w", err)
		}
	}
	err = c.print(term, report, func(w io.Writer) {
		var rows int64
		for _, t := range report.Tables {
			rows += t.Rows
		}
		fmt.Fprintf(w, "%s\tschema %d\t%d rows\t%d bytes\n", c.To, report.Schema, rows, report.Bytes)
	})
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	switch {
	case c.WithKeys:
		fmt.Fprintf(term.err, "The master keys are in %s.\n", config.KeyFile(c.To))
	case keys != "":
		fmt.Fprintf(term.err, "What is sealed in it opens with the keys in %s alone: keep them as well, in another place.\n", keys)
	default:
		fmt.Fprintf(term.err, "What is sealed in it opens with the master keys of the nodes alone (%s): keep them as well, in another place.\n", config.Env("master-keys"))
	}
	return nil
}

// keys returns the key file beside the database, empty if there is none.
func (c *backupCmd) keys(path string) (string, error) {
	file := config.KeyFile(path)
	_, err := os.Stat(file)
	if path != "" && err == nil {
		return file, nil
	}
	if c.WithKeys {
		return "", mistake("there is no key file beside the database: its master keys are in %s, and so --with-keys has nothing to copy", config.Env("master-keys"))
	}
	return "", nil
}
