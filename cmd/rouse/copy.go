package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"rouse/config"
	"rouse/store"
)

type copyCmd struct {
	output
	From       config.DSN    `required:"" help:"What to copy: sqlite:PATH or postgres://user:password@host:5432/name. Stop its nodes first. A password is safer in the variable, or in PGPASSWORD: others see arguments." placeholder:"DSN" setting:"ROUSE_COPY_FROM"`
	To         config.DSN    `required:"" help:"Where to: a database that is empty, or is not there if it is a file." placeholder:"DSN" setting:"ROUSE_COPY_TO"`
	MasterKeys config.Hidden `help:"The source's master keys, id:base64 of 32 bytes, comma separated. Left out, the key file beside a SQLite file." placeholder:"KEYS" setting:"ROUSE_MASTER_KEYS"`
	PageRows   int           `hidden:"" help:"How many rows are one commit at most."`
}

// tellEvery is how often a copy says how far it is, at most.
const tellEvery = time.Second

// Run copies one database into another and compares them.
func (c *copyCmd) Run(ctx context.Context, term *terminal) error {
	from, path, err := checkDatabase("from", c.From)
	if err != nil {
		return err
	}
	to, target, err := checkDatabase("to", c.To)
	if err != nil {
		return err
	}
	if err := mustBeThere(path, "name the one to copy with --from (ROUSE_COPY_FROM)"); err != nil {
		return err
	}
	ring, file, err := config.Ring(c.MasterKeys, path)
	if err != nil {
		return &usageError{err}
	}
	report, err := store.Copy(ctx, store.CopyOptions{From: from, To: to, Ring: ring, PageRows: c.PageRows, Progress: tellProgress(term.err)})
	if err != nil {
		return fmt.Errorf("copying %v to %v: %w", c.From, c.To, err)
	}
	if err := c.print(term, report, func(w io.Writer) { writeCopy(w, report) }); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	fmt.Fprintln(term.err, keysNeeded(file, target))
	fmt.Fprintf(term.err, "Do not start a node on %v again: two databases would wake the same phones.\n", c.From)
	return nil
}

// checkDatabase checks one of a command's several databases.
func checkDatabase(flag string, db config.DSN) (dsn, path string, err error) {
	if dsn, path, err = config.CheckDB(string(db)); err != nil {
		return "", "", mistake("--%s names no database that can be: it is sqlite:PATH, such as sqlite:rouse.db, or postgres://user:password@host:5432/name", flag)
	}
	return dsn, path, nil
}

// mustBeThere makes sure that the file of a database is there; path is empty if it is not in a file, and cure what else to do.
func mustBeThere(path, cure string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no database at %s; %s", path, cure)
	case err != nil:
		return fmt.Errorf("looking for the database: %w", err)
	case info.IsDir():
		return fmt.Errorf("%s is a folder, not a database", path)
	}
	return nil
}

// tellProgress writes how far a copy is, now and then, and when a table is done.
func tellProgress(w io.Writer) func(store.CopyProgress) {
	var last time.Time
	return func(p store.CopyProgress) {
		if p.Rows < p.Of && time.Since(last) < tellEvery || p.Of == 0 {
			return
		}
		last = time.Now()
		doing := "copied"
		if p.Verifying {
			doing = "compared"
		}
		fmt.Fprintf(w, "%s: %d of %d %s\n", p.Table, p.Rows, p.Of, doing)
	}
}

func writeCopy(w io.Writer, r store.CopyReport) {
	if r.Finished {
		fmt.Fprintln(w, "This copy was finished before; nothing was done.")
		return
	}
	fmt.Fprintln(w, "TABLE\tROWS\tCHECKSUM, THE SAME ON BOTH SIDES")
	for _, t := range r.Tables {
		fmt.Fprintf(w, "%s\t%d\t%s\n", t.Name, t.Rows, t.Checksum)
	}
	if r.Altered > 0 {
		fmt.Fprintf(w, "%d texts hold characters that PostgreSQL does not take; each became U+FFFD.\n", r.Altered)
	}
}

// keysNeeded says which master keys a node on a copy needs. file is where they lie, if it is in a file; target the copy's, likewise.
func keysNeeded(file, target string) string {
	switch {
	case file == "":
		return "Every node on the copy needs the same " + config.Env("master-keys") + " as the source."
	case target == "":
		return fmt.Sprintf("Every node on the copy needs the master keys in %s: give them in %s.", file, config.Env("master-keys"))
	}
	return fmt.Sprintf("A node on the copy needs the master keys in %s: copy it to %s, or give them in %s.", file, config.KeyFile(target), config.Env("master-keys"))
}
