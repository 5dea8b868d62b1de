package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// ErrLogWithoutIndex is a database with changes in its log and nothing that tells which: it cannot be read without
// being repaired, which the next node does by itself.
var ErrLogWithoutIndex = errors.New("the database's log (-wal) has no index (-shm) beside it")

// ErrDamaged is a database so damaged that it cannot even be opened.
var ErrDamaged = errors.New("the database is damaged")

// Inspection is a look at a database that another process may be running on. It claims nothing, migrates nothing,
// makes no file and holds up no writer: a checkpoint may come later by as long as a question takes. Its methods
// are safe for concurrent use.
type Inspection struct {
	store *Store // its reads alone
	files inspected
}

// inspected is what the files looked like when the inspection began.
type inspected struct {
	path string
	// alone is set if nobody had the database open: its one file is read as if it could not change.
	alone bool
	size  int64
	at    time.Time
}

// InspectOptions is what Inspect needs.
type InspectOptions struct {
	// DSN is "sqlite:" and the path of a file, or PostgreSQL's.
	DSN string
	// Ring opens credentials; nil where the master keys are not known, and then none opens.
	Ring *tokens.Ring
}

// Inspect opens a database to look at it. The error is fs.ErrNotExist if there is none, ErrLogWithoutIndex, ErrDamaged, on PostgreSQL
// ErrUnreachable, ErrNotAdmitted, ErrNoDatabase or ErrFull, or says why it cannot be opened. It does not look at the schema: ask Schema before anything that needs tables.
func Inspect(ctx context.Context, o InspectOptions) (*Inspection, error) {
	if isPostgres(o.DSN) {
		return inspectPostgres(ctx, o)
	}
	d, err := parseSQLite(o.DSN)
	if err != nil {
		return nil, err
	}
	engine := d.dialect()
	want, err := newestMigration(engine.files)
	if err != nil {
		return nil, err
	}
	files, err := d.inspectFiles()
	if err != nil {
		return nil, err
	}
	db, err := d.openToLook(ctx, files.alone)
	if err != nil {
		return nil, err
	}
	s := &Store{dialect: engine, ring: o.Ring, want: want, reads: newReader(db, engine)}
	s.newWriters(1, 1) // which nobody runs
	return &Inspection{store: s, files: files}, nil
}

// inspectFiles finds out how the database must be read. A process that has it open has a log and its index beside it; one
// that was killed left them. Without them a reader would make them, and so it is told that nothing changes.
func (d sqliteFile) inspectFiles() (inspected, error) {
	info, err := os.Stat(d.path)
	if err != nil {
		return inspected{}, fmt.Errorf("look for the database: %w", err)
	}
	if !info.Mode().IsRegular() {
		return inspected{}, fmt.Errorf("look for the database: %s is not a file", d.path)
	}
	log, err := sizeOf(d.path + "-wal")
	if err != nil {
		return inspected{}, err
	}
	index, err := sizeOf(d.path + "-shm")
	if err != nil {
		return inspected{}, err
	}
	if log > 0 && index < 0 {
		return inspected{}, ErrLogWithoutIndex
	}
	return inspected{path: d.path, alone: log < 0 || index < 0, size: info.Size(), at: info.ModTime()}, nil
}

// sizeOf returns the size of a file in bytes, -1 if there is none.
func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return -1, nil
	case err != nil:
		return 0, fmt.Errorf("look beside the database: %w", err)
	}
	return info.Size(), nil
}

// openToLook opens the file for reading alone; alone says that nobody else has it open.
func (d sqliteFile) openToLook(ctx context.Context, alone bool) (*sqlx.DB, error) {
	q := url.Values{"mode": {"ro"}, "_pragma": {fmt.Sprintf("busy_timeout(%d)", lookMillis), "query_only(1)", "temp_store(memory)"}}
	if alone {
		q.Set("immutable", "1")
	}
	file := &url.URL{Scheme: "file", Opaque: (&url.URL{Path: d.path}).EscapedPath(), RawQuery: q.Encode()}
	db, err := sqlx.Open("sqlite", file.String())
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db.SetMaxOpenConns(lookers)
	db.SetMaxIdleConns(lookers)
	var tables int // what is no database is found out by the first statement
	if err := db.GetContext(ctx, &tables, "SELECT COUNT(*) FROM sqlite_master"); err != nil {
		if corrupt(err) {
			err = errors.Join(ErrDamaged, err)
		}
		return nil, errors.Join(fmt.Errorf("open the database: %w", err), db.Close())
	}
	return db, nil
}

const (
	lookers    = 2
	lookMillis = 2000
)

// Close lets go of the file.
func (i *Inspection) Close() error { return i.store.reads.close() }

// Undisturbed reports whether what was read can be believed: false if somebody began to use a database that was read
// as one that nobody uses. Ask it last, and inspect anew if it is false.
func (i *Inspection) Undisturbed() bool {
	if !i.files.alone {
		return true
	}
	now, err := sqliteFile{path: i.files.path}.inspectFiles()
	return err == nil && now == i.files
}

// Sizes returns the bytes of the database and of its log, which is what was committed and not yet moved into the database.
func (i *Inspection) Sizes() (database, log int64, err error) {
	if database, err = sizeOf(i.files.path); err != nil {
		return 0, 0, err
	}
	log, err = sizeOf(i.files.path + "-wal")
	return max(database, 0), max(log, 0), err
}

// Schema returns the schema the database has, 0 for an empty one, and the one this program wants.
func (i *Inspection) Schema(ctx context.Context) (have, want int64, err error) {
	return i.store.MigrationStatus(ctx)
}

// Whole is Store.Whole.
func (i *Inspection) Whole(ctx context.Context) error { return i.store.Whole(ctx) }

// Damage has the engine look at every page and returns what it finds wrong, up to ten sentences; none if all is well.
// It takes time in proportion to the database and ends with ctx, whose error it then returns.
func (i *Inspection) Damage(ctx context.Context) ([]string, error) {
	var found []string
	err := i.store.reads.db.SelectContext(ctx, &found, "PRAGMA quick_check(10)")
	if ended := ctx.Err(); ended != nil {
		return nil, ended
	}
	if err != nil && corrupt(err) { // so much that the check itself stumbles
		return append(found, err.Error()), nil
	}
	if err != nil {
		return nil, fmt.Errorf("check the database: %w", err)
	}
	return slices.DeleteFunc(found, func(s string) bool { return s == "ok" }), nil
}

// corrupt reports whether err says that the file is not what the engine wrote.
func corrupt(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_CORRUPT
}

// Sealers returns the ids of the master keys that ever sealed here, and those of them that ring does not open.
func (i *Inspection) Sealers(ctx context.Context, ring *tokens.Ring) (all, shut []string, err error) {
	s := i.store
	var tables int
	if err := s.reads.get(ctx, &tables, s.dialect.hasTable, "rings"); err != nil || tables == 0 {
		return nil, nil, s.readError("look for the proofs of the master keys", err)
	}
	var proofs []ringProof
	if err := s.reads.list(ctx, &proofs, selectRings); err != nil {
		return nil, nil, s.readError("read the proofs of the master keys", err)
	}
	for _, p := range proofs {
		all = append(all, p.ID)
		if _, err := ring.Open(ringPlace(p.ID), p.Sealed); err != nil {
			shut = append(shut, p.ID)
		}
	}
	return all, shut, nil
}

type ringProof struct {
	ID     string `db:"id"`
	Sealed []byte `db:"sealed"`
}

// Apps is Store.Apps.
func (i *Inspection) Apps(ctx context.Context, after ident.App, limit int) ([]tokens.App, error) {
	return i.store.Apps(ctx, after, limit)
}

// Credentials is Store.Credentials.
func (i *Inspection) Credentials(ctx context.Context, app ident.App) ([]tokens.Credential, error) {
	return i.store.Credentials(ctx, app)
}

// Credential is Store.Credential; without a ring nothing opens.
func (i *Inspection) Credential(ctx context.Context, app ident.App, p tokens.Provider) (tokens.Credential, error) {
	if i.store.ring == nil {
		return tokens.Credential{}, tokens.ErrSealed
	}
	return i.store.Credential(ctx, app, p)
}

// Circuits is Store.Circuits.
func (i *Inspection) Circuits(ctx context.Context, app ident.App) ([]tokens.Circuit, error) {
	return i.store.Circuits(ctx, app)
}

// Webhooks is Store.Webhooks.
func (i *Inspection) Webhooks(ctx context.Context, app ident.App) ([]messages.Webhook, error) {
	return i.store.Webhooks(ctx, app)
}

// IdentityKeys is Store.IdentityKeys; without a ring nothing opens.
func (i *Inspection) IdentityKeys(ctx context.Context, app ident.App) ([]tokens.IdentityKey, error) {
	if i.store.ring == nil {
		return nil, tokens.ErrSealed
	}
	return i.store.IdentityKeys(ctx, app)
}

// TokenStates counts the app's registered devices of a provider by what is known of their tokens. It reads each of the
// app's devices and ends with ctx.
func (i *Inspection) TokenStates(ctx context.Context, app ident.App, p tokens.Provider) (map[tokens.TokenState]int, error) {
	var rows []struct {
		State tokens.TokenState `db:"token_state"`
		N     int               `db:"n"`
	}
	const query = `SELECT token_state, COUNT(*) AS n FROM devices WHERE app = ? AND provider = ? AND unregistered_at IS NULL GROUP BY token_state`
	if err := i.store.reads.db.SelectContext(ctx, &rows, i.store.dialect.rebind(query), string(app), string(p)); err != nil {
		return nil, i.store.readError("count tokens", err)
	}
	states := map[tokens.TokenState]int{}
	for _, r := range rows {
		states[r.State] = r.N
	}
	return states, nil
}
