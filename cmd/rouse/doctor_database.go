package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rouse/config"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
)

const (
	// integrityLimit is how long the database may be checked for damage: while it is, its log can only grow.
	integrityLimit = 5 * time.Second
	// readLimit is how long everything that is read from it may take besides.
	readLimit = 5 * time.Second
	// crowded and full are the bytes left on the disk.
	crowded = 1 << 30
	full    = 100 << 20
	// longLog is a log, in bytes, that something keeps from being emptied: usually it stays at 16 MB.
	longLog = 256 << 20
)

// restore is what helps a damaged database.
const restore = "Stop the server, keep the files, put back a backup as docs/operations.md says, and look at the disk."

// database looks at the files, the schema, the pages, the keys and the apps. It holds nothing open when it returns.
func (e examination) database(ctx context.Context) (all []found, tenants []tenant) {
	if e.cfg.DSN.IsPostgres() {
		return e.postgres(ctx)
	}
	ring, keys := e.keys()
	// A database that somebody began to use while it was read as nobody's is read once more.
	for range 2 {
		all, tenants = e.look(ctx, ring, keys)
		if all != nil {
			break
		}
	}
	if all == nil {
		all = []found{doubtful("database", "busy", "Servers start and stop on this database, so nothing could be read in peace.", "Run doctor again.")}
	}
	return append(all, diskSpace(filepath.Dir(e.cfg.Path))), tenants
}

// look opens the database once; no findings mean that it changed underneath.
func (e examination) look(ctx context.Context, ring *tokens.Ring, keys *found) (all []found, tenants []tenant) {
	i, err := store.Inspect(ctx, store.InspectOptions{DSN: string(e.cfg.DSN), Ring: ring})
	if err != nil {
		return e.unopened(err, keys), nil
	}
	defer func() { _ = i.Close() }() // it was only read
	all = append(all, fine("database", "%s can be read.", e.cfg.Path))
	all = append(all, e.permissions()...)
	schema, usable := e.schema(ctx, i)
	all = append(all, schema)
	if half := half(ctx, i); half != nil {
		all, usable = append(all, *half), false
	}
	all = append(all, damage(ctx, i), logSize(i))
	if keys == nil {
		f := proof(ctx, i, ring)
		keys = &f
	}
	all = append(all, *keys)
	if usable {
		tenants = e.tenants(ctx, i)
		if keys.Status == providers.FindingFail {
			tenants = gatherSealed(tenants)
		}
	}
	if !i.Undisturbed() {
		return nil, nil
	}
	return all, tenants
}

// unopened says why the database cannot be looked at.
func (e examination) unopened(err error, keys *found) []found {
	path := e.cfg.Path
	var all []found
	switch {
	case errors.Is(err, fs.ErrNotExist) && may(nearest(filepath.Dir(path)), mayWrite) != nil:
		all = append(all, broken("database", "read_only", fmt.Sprintf("There is no database at %s yet, and this user may not make one.", path),
			"Run doctor as the user that rouse serve runs as; if it does, give that user the folder with chown, or mount the disk for writing."))
	case errors.Is(err, fs.ErrNotExist):
		all = append(all, doubtful("database", "absent", fmt.Sprintf("There is no database at %s yet.", path), "Start rouse serve, which makes it; if there should be one, correct --db (ROUSE_DB)."))
	case errors.Is(err, fs.ErrPermission) || may(path, mayRead) != nil:
		all = append(all, broken("database", "unreadable", fmt.Sprintf("This user may not read %s.", path), "Run doctor as the user that rouse serve runs as, or give that user the file with chown."))
	case errors.Is(err, store.ErrLogWithoutIndex):
		all = append(all, doubtful("database", "needs_repair", fmt.Sprintf("%s-wal holds changes, and %s-shm is not there to tell which: it cannot be read without being changed.", path, path),
			"Start rouse serve, which puts that right; if this is a copy, copy all three files while the server is stopped."))
	case errors.Is(err, store.ErrDamaged):
		all = append(all, broken("database", "damaged", fmt.Sprintf("%s is so damaged that it cannot be opened.", path), restore))
	default:
		all = append(all, broken("database", "unusable", fmt.Sprintf("%s cannot be opened: %v.", path, err), "Correct --db (ROUSE_DB), or put a backup in its place as docs/operations.md says."))
	}
	if keys != nil {
		return append(all, *keys)
	}
	return append(all, fine("master_keys", "The master keys can be read."))
}

// keys reads the master keys as serve would, and makes none. It returns what is wrong with them, nil if nothing is known to be.
func (e examination) keys() (*tokens.Ring, *found) {
	file := config.KeyFile(e.cfg.Path)
	if e.cfg.MasterKeys == "" {
		info, err := os.Stat(file)
		_, noDatabase := os.Stat(e.cfg.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && errors.Is(noDatabase, fs.ErrNotExist):
			f := fine("master_keys", "There are none yet; rouse serve makes %s with the database.", file)
			return nil, &f
		case errors.Is(err, fs.ErrNotExist):
			f := broken("master_keys", "key_file_missing", fmt.Sprintf("The key file %s is not beside the database, and nothing sealed in it opens without.", file),
				"Put the file back from where you keep it, or give its content in ROUSE_MASTER_KEYS.")
			return nil, &f
		case err == nil && info.Mode().Perm()&0o077 != 0:
			f := broken("master_keys", "key_file_open", fmt.Sprintf("The key file %s can be used by others (mode %04o), so rouse serve refuses it.", file, info.Mode().Perm()), "chmod 600 "+file)
			return nil, &f
		}
	}
	ring, _, err := config.Ring(e.cfg.MasterKeys, e.cfg.Path)
	if err != nil {
		f := broken("master_keys", "keys_unreadable", sentence(err.Error()), "Let this user read the key file, or put it back from where you keep it.")
		return nil, &f
	}
	return ring, nil
}

// proof tries the keys on what they must open.
func proof(ctx context.Context, i *store.Inspection, ring *tokens.Ring) found {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	all, shut, err := i.Sealers(ctx, ring)
	switch {
	case err != nil:
		return broken("master_keys", "unreadable", "The proofs of the master keys cannot be read: "+err.Error()+".", "See the findings on the database.")
	case len(shut) > 0:
		return broken("master_keys", "key_missing", fmt.Sprintf("Secrets here are sealed with the master key %s, and the one given does not open them.", quoted(shut)),
			"Put that key back into ROUSE_MASTER_KEYS, or its key file beside the database; a new key goes before it.")
	case len(all) == 0:
		return fine("master_keys", "Nothing is sealed yet; the master keys can be read.")
	}
	return fine("master_keys", "Every master key that sealed here opens (%s).", quoted(all))
}

func quoted(names []string) string { return `"` + strings.Join(names, `", "`) + `"` }

// schema compares it with this program's; usable says whether the tables are those that this program knows.
func (e examination) schema(ctx context.Context, i *store.Inspection) (f found, usable bool) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	have, want, err := i.Schema(ctx)
	switch {
	case err != nil:
		return broken("schema", "unreadable", "The schema's version cannot be read: "+err.Error()+".", "See the findings on the database."), false
	case have > want:
		return broken("schema", "newer", fmt.Sprintf("The database has schema %d, and this program knows only %d.", have, want),
			"Run the newer rouse that migrated it, or put back the backup from before; apps were not looked at."), false
	case have < want:
		return doubtful("schema", "older", fmt.Sprintf("The database has schema %d, and this program wants %d.", have, want),
			e.backUp()+", then restart rouse serve with this program, which migrates by itself; apps were not looked at."), false
	}
	return fine("schema", "Schema %d is what this program wants.", have), true
}

// backUp is how a database with an older schema is backed up.
func (e examination) backUp() string {
	if e.cfg.DSN.IsPostgres() {
		return "Back up (pg_dump, or rouse backup of the program that ran on it)"
	}
	return "Back up (rouse backup)"
}

// half is what is wrong with a database that holds half a copy, nil if it does not.
func half(ctx context.Context, i *store.Inspection) *found {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	if err := i.Whole(ctx); !errors.Is(err, store.ErrHalfCopied) {
		return nil // what cannot be read has its finding
	}
	f := broken("copy", "not_finished", "A copy into this database is not finished, so no node starts on it; apps were not looked at.",
		"Run the same rouse copy again, which goes on where it was cut off; if its source ran again since, copy into an empty database.")
	return &f
}

// damage has the database checked, for as long as integrityLimit.
func damage(ctx context.Context, i *store.Inspection) found {
	limited, cancel := context.WithTimeout(ctx, integrityLimit)
	defer cancel()
	wrong, err := i.Damage(limited)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return doubtful("integrity", "not_finished", fmt.Sprintf("The database is too large to be checked within %v; nothing wrong was found so far.", integrityLimit),
			`Check a backup in peace: sqlite3 COPY "PRAGMA integrity_check".`)
	case err != nil:
		return broken("integrity", "unreadable", sentence(err.Error()), "Look at the disk (dmesg, smartctl), then put back a backup as docs/operations.md says.")
	case len(wrong) > 0:
		return broken("integrity", "damaged", fmt.Sprintf("The database is damaged: %s.", strings.ReplaceAll(strings.Join(wrong, "; "), "\n", " ")),
			restore)
	}
	return fine("integrity", "No page of the database is damaged.")
}

// logSize looks at the size of what is not yet moved into the database.
func logSize(i *store.Inspection) found {
	size, log, err := i.Sizes()
	switch {
	case err != nil:
		return broken("wal_size", "unreadable", sentence(err.Error()), "Run doctor as the user that rouse serve runs as.")
	case log > longLog:
		return doubtful("wal_size", "long_log", fmt.Sprintf("The log beside the database has grown to %s: something reads for so long that it cannot be emptied.", sized(log)),
			"End other programs that have the database open (backups, sqlite3), or restart the server.")
	}
	return fine("wal_size", "The database has %s, its log %s.", sized(size), sized(log))
}

// sized writes a size for people.
func sized(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", (n+1023)>>10)
}

// nearest returns the folder, or the nearest one above that is there.
func nearest(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// diskSpace looks at the disk that the folder is on, or will be.
func diskSpace(dir string) found {
	dir = nearest(dir)
	free, known := space(dir)
	if !known {
		return doubtful("disk_space", "unknown", fmt.Sprintf("This system does not tell how much room is left for %s.", dir), "Look yourself: 1 GiB should be free.")
	}
	return roomFor(dir, free)
}

func roomFor(dir string, free uint64) found {
	const cure = "Make room, or move the database to a larger disk: without any, sends are refused with 503."
	left := fmt.Sprintf("%s are left on the disk of %s.", sized(int64(min(free, 1<<62))), dir)
	switch {
	case free < full:
		return broken("disk_space", "full", "Only "+left, cure)
	case free < crowded:
		return doubtful("disk_space", "crowded", "Only "+left, cure)
	}
	return fine("disk_space", "%s", left)
}

// permissions looks at whether this user may write what serve writes, and whether others may read it.
func (e examination) permissions() []found {
	const check = "permissions"
	dir := filepath.Dir(e.cfg.Path)
	if err := errors.Join(may(e.cfg.Path, mayWrite), may(dir, mayWrite)); err != nil {
		return []found{broken(check, "read_only", fmt.Sprintf("This user may not write %s and its folder.", e.cfg.Path),
			"Run doctor as the user that rouse serve runs as; if it does, give that user both with chown, or mount the disk for writing.")}
	}
	var all []found
	owners := map[int]bool{}
	for _, path := range []string{e.cfg.Path, e.cfg.Path + "-wal", e.cfg.Path + "-shm", config.KeyFile(e.cfg.Path)} {
		info, err := os.Stat(path)
		if err != nil {
			continue // those that must be there have findings of their own
		}
		if uid, known := owner(info); known {
			owners[uid] = true
		}
		if info.Mode().Perm()&0o077 != 0 && path != config.KeyFile(e.cfg.Path) {
			all = append(all, doubtful(check, "open_to_others", fmt.Sprintf("%s can be used by others (mode %04o), and messages lie in it in clear.", path, info.Mode().Perm()), "chmod 600 "+path))
		}
	}
	if len(owners) > 1 {
		all = append(all, doubtful(check, "owners_differ", "The database and the files beside it belong to different users, so one of them may be shut to the server.",
			"Give all of them to the user that rouse serve runs as, with chown."))
	}
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		all = append(all, doubtful(check, "folder_open", fmt.Sprintf("Everybody may put files into %s, the database's folder.", dir), "chmod o-w "+dir))
	}
	if all == nil {
		all = append(all, fine(check, "The files are this user's to write and nobody else's to read."))
	}
	return all
}
