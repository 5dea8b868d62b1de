package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"rouse/tokens"
)

// BackupOptions is what Backup needs.
type BackupOptions struct {
	// DSN is as Options.DSN. The database must be there; nodes may run on it. SQLite's may have an older schema, which the backup has then.
	DSN string
	// To is the path of a file that is not there yet. Its folder is.
	To string
	// Progress is called now and then, from Backup's own goroutine. It may be nil. A backup of SQLite tells none.
	Progress func(CopyProgress)
}

// BackupReport is what a backup came to.
type BackupReport struct {
	// Schema is that of the database, Bytes the size of the file.
	Schema int64 `json:"schema"`
	Bytes  int64 `json:"bytes"`
	// Tables counts the rows of the backup, with checksums if it came from PostgreSQL.
	Tables []CopiedTable `json:"tables"`
}

// Backup writes what the database holds at one moment, after it was called, into a SQLite file with mode 0600, while nodes
// go on. Whatever was answered before is in it. The file appears under its name once it is whole, checked and on the disk;
// until then it is called To and ".partial", and an older one of that name is removed. A database that is restored from it gives places and
// events far above those that were given after the backup, so that cursors from then cannot pass anything. A file that is there is not touched: the error is
// fs.ErrExist then. What is sealed stays sealed: without the master keys a backup is of no use.
func Backup(ctx context.Context, o BackupOptions) (report BackupReport, err error) {
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = interrupted{"nothing is left of it", ctx.Err()}
		}
	}()
	if _, err := os.Lstat(o.To); !errors.Is(err, fs.ErrNotExist) {
		return report, fmt.Errorf("write a backup: %w", inTheWay(o.To, err))
	}
	partial := o.To + ".partial"
	if err := emptyFile(partial); err != nil {
		return report, fmt.Errorf("write a backup: %w", err)
	}
	defer func() { err = errors.Join(err, removeAll(partial, partial+"-wal", partial+"-shm", partial+".lock")) }()
	from, err := openSource(ctx, o.DSN, unfitToBackUp)
	if err != nil {
		return report, fmt.Errorf("open the database: %w", err)
	}
	defer func() { err = errors.Join(err, from.close()) }()
	before, err := from.given(ctx)
	if err != nil {
		return report, fmt.Errorf("read the database: %w", err)
	}
	write := backupSQLite
	if from.dialect.shared {
		write = backupPostgres
	}
	if report.Tables, err = write(ctx, from, partial, o.Progress); err != nil {
		return report, fmt.Errorf("write a backup: %w", err)
	}
	if err := leap(ctx, partial); err != nil {
		return report, fmt.Errorf("write a backup: %w", err)
	}
	if err := checkBackup(ctx, partial, &report, before); err != nil {
		return report, fmt.Errorf("check the backup: %w", err)
	}
	if report.Schema, _, err = from.schema(ctx); err != nil {
		return report, err
	}
	if report.Bytes, err = keep(partial, o.To); err != nil {
		return report, fmt.Errorf("keep the backup: %w", err)
	}
	return report, nil
}

// inTheWay is why a file cannot be made.
func inTheWay(path string, err error) error {
	if err != nil {
		return err
	}
	return taken(path)
}

// taken is the name of a file that is there. It is fs.ErrExist.
type taken string

func (t taken) Error() string { return string(t) + " is there already, and a backup replaces nothing" }

func (t taken) Is(target error) bool { return target == fs.ErrExist }

// emptyFile makes a file that only its owner reads, in the place of an older one.
func emptyFile(path string) error {
	if err := removeAll(path, path+"-wal", path+"-shm", path+"-journal"); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func removeAll(paths ...string) error {
	var errs []error
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// backupSQLite has SQLite write a compact copy: it reads one moment and holds up no writer, but for the log, which cannot be taken
// into the database meanwhile.
func backupSQLite(ctx context.Context, from *end, path string, _ func(CopyProgress)) ([]CopiedTable, error) {
	// SQLite takes this for writing to the database, which it is not.
	if err := from.exec(ctx, "PRAGMA query_only = 0"); err != nil {
		return nil, err
	}
	_, err := from.conn.ExecContext(ctx, "VACUUM INTO '"+strings.ReplaceAll(path, "'", "''")+"'")
	return nil, err
}

// backupPostgres copies one moment of the database, as Copy does, and compares both sides.
func backupPostgres(ctx context.Context, from *end, path string, tell func(CopyProgress)) (tables []CopiedTable, err error) {
	to, err := newTarget(ctx, "sqlite:"+path, &tokens.Ring{}) // nothing is sealed or opened
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.close()) }()
	c := &copying{from: from, to: to, tell: tell, pageRows: pageRows}
	report, err := c.run(ctx)
	return report.Tables, err
}

// leapBy is how many places and events a backup passes over.
const leapBy = 1 << 32

// leap is g, passed by far.
func (g given) leap() given {
	for _, n := range []*int64{&g.place, &g.event} {
		if *n != absent {
			*n += leapBy
		}
	}
	return g
}

// leap has whoever restores a backup go on far above whatever the database gave after it was written: a phone may have acked up to a
// place that the restored database has not given yet, and would ack with it what is given there then.
func leap(ctx context.Context, path string) (err error) {
	e, err := newEnd(ctx, "sqlite:"+path, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	g, err := e.given(ctx)
	if err != nil {
		return err
	}
	g = g.leap()
	if err := e.write(ctx, func() error { return e.giveAfter(ctx, g) }); err != nil {
		return err
	}
	return e.exec(ctx, "PRAGMA journal_mode = DELETE") // the log goes into the file, which is one file from now on
}

// checkBackup opens a backup as who restores it will, has SQLite look at every page, and counts. It must go on behind what was
// given before it began.
func checkBackup(ctx context.Context, path string, report *BackupReport, before given) (err error) {
	e, err := openSource(ctx, "sqlite:"+path, unfitToBackUp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	var found []string
	if err := e.list(ctx, &found, "PRAGMA integrity_check(3)"); err != nil {
		return err
	}
	if len(found) != 1 || found[0] != "ok" {
		return fmt.Errorf("the file is damaged: %s", strings.Join(found, "; "))
	}
	after, err := e.given(ctx)
	if err != nil {
		return err
	}
	if least := before.leap(); after.place < least.place || after.event < least.event {
		return fmt.Errorf("it ends at place %d, and %d had been given", after.place-leapBy, before.place)
	}
	return e.count(ctx, report)
}

// count counts the rows of a backup. Those that were written one by one must be all there.
func (e *end) count(ctx context.Context, report *BackupReport) error {
	written := len(report.Tables)
	for i, name := range copied {
		there, err := e.has(ctx, name)
		if err != nil {
			return err
		}
		if !there {
			continue // its schema is older
		}
		var rows int64
		if err := e.get(ctx, &rows, "SELECT COUNT(*) FROM "+name); err != nil {
			return err
		}
		switch {
		case i >= written:
			report.Tables = append(report.Tables, CopiedTable{Name: name, Rows: rows})
		case report.Tables[i].Rows != rows:
			return fmt.Errorf("%s has %d rows, of %d that were written", name, rows, report.Tables[i].Rows)
		}
	}
	return nil
}

// keep brings a file to the disk and gives it its name, which nobody has taken meanwhile.
func keep(partial, path string) (size int64, err error) {
	f, err := os.OpenFile(partial, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	if err := os.Link(partial, path); err != nil {
		return 0, err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return 0, err
	}
	return info.Size(), errors.Join(folder.Sync(), folder.Close())
}
