package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jmoiron/sqlx"

	"rouse/messages"
	"rouse/tokens"
)

// end is one of the two databases of a copy. All that is asked of it goes over one connection, on which nothing has a deadline.
// Only the goroutine of the copy uses it.
type end struct {
	dialect dialect
	copyEngine
	db      *sqlx.DB
	conn    *sqlx.Conn
	release func() // gives the claim up
}

// copyEngine is what differs between engines when one is copied.
type copyEngine struct {
	// columns asks for every column of every table.
	columns string
	// reading begins a transaction that sees one moment of the database, writing one that is durable once committed.
	reading, writing string
	// put writes rows of a table.
	put func(context.Context, *sqlx.Conn, *table, [][]any) error
	// lastEvent asks for the highest number an event ever had.
	lastEvent string
	// give are the statements after which no number up to those given is given again.
	give func(given) []string
	// living counts the nodes that run on it; empty where a claim keeps them away.
	living string
}

// given is the highest of what is given once only; absent where a schema does not have it yet.
type given struct {
	place, event, wake int64
}

const absent = -1

// openSource opens a database that is there, to be read. unfit says why its schema is of no use, if it is.
func openSource(ctx context.Context, dsn string, unfit func(d dialect, have, want int64) error) (*end, error) {
	e, err := newEnd(ctx, dsn, true)
	if err != nil {
		return nil, err
	}
	have, want, err := e.schema(ctx)
	if err == nil {
		err = unfit(e.dialect, have, want)
	}
	if err == nil {
		err = whole(e.asking(ctx), e.dialect.hasTable)
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// unfitToCopy is for a source whose rows the target must be able to hold.
func unfitToCopy(_ dialect, have, want int64) error {
	switch {
	case have > want:
		return otherSchema(have, want)
	case have < want:
		return fmt.Errorf("%w: run rouse migrate up on it first", otherSchema(have, want))
	}
	return nil
}

// unfitToBackUp lets older schemas pass where the engine itself writes the backup: one is taken before a migration.
func unfitToBackUp(d dialect, have, want int64) error {
	switch {
	case have > want:
		return fmt.Errorf("%w: take the backup with the newer program", otherSchema(have, want))
	case have == 0:
		return errors.New("it has no schema yet, so there is nothing to back up")
	case have < want && d.shared:
		return fmt.Errorf("%w: take the backup with the rouse that ran on it, or with pg_dump", otherSchema(have, want))
	}
	return nil
}

func otherSchema(have, want int64) error {
	return fmt.Errorf("its schema is %d, and this program's is %d", have, want)
}

// openTarget makes the database if need be, brings its schema up to date, and opens it.
func openTarget(ctx context.Context, dsn string, ring *tokens.Ring, from *end) (*end, error) {
	if err := from.differs(dsn); err != nil {
		return nil, err
	}
	return newTarget(ctx, dsn, ring)
}

// newTarget is openTarget without a look at the source.
func newTarget(ctx context.Context, dsn string, ring *tokens.Ring) (*end, error) {
	s, err := Open(ctx, Options{DSN: dsn, Ring: ring})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.Migrate(ctx), s.Close()); err != nil {
		return nil, err
	}
	return newEnd(ctx, dsn, false)
}

func newEnd(ctx context.Context, dsn string, reads bool) (*end, error) {
	d, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	e := &end{dialect: d, release: func() {}}
	if d.shared {
		e.copyEngine, e.db = copyPostgres, d.patient(1)
	} else if e.copyEngine, e.db, err = openToCopy(ctx, dsn, reads); err != nil {
		return nil, err
	}
	if e.conn, err = e.db.Connx(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the database: %w", plainly(err)), e.db.Close())
	}
	return e, nil
}

// close lets go of the database. A transaction that was not committed is gone.
func (e *end) close() error {
	_, _ = e.conn.ExecContext(context.Background(), "ROLLBACK") // there may be none
	_ = e.conn.Close()                                          // it may be lost
	e.release()
	return e.db.Close()
}

// alone makes sure that no node runs on the database, and on SQLite that none begins to.
func (e *end) alone(ctx context.Context) error {
	release, err := e.dialect.claim()
	if err != nil {
		return fmt.Errorf("%w; stop it first", err)
	}
	e.release = release
	if e.living == "" {
		return nil
	}
	var nodes int
	if err := e.get(ctx, &nodes, e.living); err != nil {
		return fmt.Errorf("ask for the nodes that run on it: %w", err)
	}
	if nodes > 0 {
		return fmt.Errorf("%d of its nodes run, or were killed within %.0f s: stop them first", nodes, messages.NodeLife.Seconds())
	}
	return nil
}

// differs refuses a copy of a file into itself.
func (e *end) differs(dsn string) error {
	target, isFile := strings.CutPrefix(dsn, "sqlite:")
	if !isFile || e.dialect.shared {
		return nil // on PostgreSQL it is found out by what is in it
	}
	var path string
	if err := e.conn.GetContext(context.Background(), &path, "SELECT file FROM pragma_database_list WHERE name = 'main'"); err != nil {
		return fmt.Errorf("ask for the source's file: %w", err)
	}
	a, errA := os.Stat(path)
	b, errB := os.Stat(target)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return errors.New("it is the same file as the source")
	}
	return nil
}

// schema is Store.MigrationStatus.
func (e *end) schema(ctx context.Context) (have, want int64, err error) {
	if want, err = newestMigration(e.dialect.files); err != nil {
		return 0, 0, err
	}
	if have, err = schemaOf(e.asking(ctx), e.dialect.hasTable); err != nil {
		return 0, 0, fmt.Errorf("read its schema's version: %w", err)
	}
	return have, want, nil
}

// has reports whether there is such a table.
func (e *end) has(ctx context.Context, table string) (bool, error) {
	var n int
	err := e.get(ctx, &n, e.dialect.hasTable, table)
	return n > 0, err
}

// catalogue is every table with its columns.
func (e *end) catalogue(ctx context.Context) (map[string][]column, error) {
	var list []column
	if err := e.list(ctx, &list, e.columns); err != nil {
		return nil, err
	}
	tables := map[string][]column{}
	for _, c := range list {
		tables[c.Table] = append(tables[c.Table], c)
	}
	return tables, nil
}

// proveKeys checks that everything sealed here opens.
func (e *end) proveKeys(ctx context.Context, ring *tokens.Ring) error {
	var proofs []ringProof
	if err := e.list(ctx, &proofs, selectRings); err != nil {
		return fmt.Errorf("read the proofs of the master keys: %w", err)
	}
	for _, p := range proofs {
		if _, err := ring.Open(ringPlace(p.ID), p.Sealed); err != nil {
			return fmt.Errorf("it holds secrets sealed with the master key %q, and the keys given do not open them: "+
				"the copy, and every node on it, needs the same master keys", p.ID)
		}
	}
	return nil
}

// mark tells this database, as it is now, from others. It changes when a node has run and accepted something, or told of something.
func (e *end) mark(ctx context.Context) (string, error) {
	g, err := e.given(ctx)
	if err != nil {
		return "", err
	}
	var proofs []ringProof
	if err := e.list(ctx, &proofs, selectRings); err != nil {
		return "", fmt.Errorf("read the proofs of the master keys: %w", err)
	}
	row := []any{g.place, g.event, g.wake}
	for _, p := range proofs {
		row = append(row, p.ID, p.Sealed)
	}
	h := sha256.Sum256(encode(nil, row))
	return hex.EncodeToString(h[:16]), nil
}

// given asks for the highest place, event and wake that were ever given.
func (e *end) given(ctx context.Context) (g given, err error) {
	const lastWake = `SELECT CASE WHEN a.n > b.n THEN a.n ELSE b.n END FROM
		(SELECT COALESCE(MAX(id), 0) AS n FROM wakes) AS a, (SELECT COALESCE(MAX(last_wake), 0) AS n FROM inboxes) AS b`
	for _, q := range []struct {
		to    *int64
		table string // it came with this one
		query string
	}{{&g.place, "deliveries", e.dialect.newest}, {&g.event, "events", e.lastEvent}, {&g.wake, "wakes", lastWake}} {
		*q.to = absent
		there, err := e.has(ctx, q.table)
		if err == nil && there {
			err = e.get(ctx, q.to, q.query)
		}
		if err != nil {
			return g, fmt.Errorf("ask for the newest numbers: %w", err)
		}
	}
	return g, nil
}

// giveAfter has the database go on above what another gave.
func (e *end) giveAfter(ctx context.Context, other given) error {
	own, err := e.given(ctx)
	if err != nil {
		return err
	}
	g := given{place: max(own.place, other.place), event: max(own.event, other.event), wake: max(own.wake, other.wake)}
	for _, query := range e.give(g) {
		if err := e.exec(ctx, query); err != nil {
			return fmt.Errorf("go on behind the highest numbers: %w", err)
		}
	}
	return nil
}

// snapshot begins a transaction that sees this moment until close.
func (e *end) snapshot(ctx context.Context) error {
	if _, err := e.conn.ExecContext(ctx, e.reading); err != nil {
		return fmt.Errorf("begin to read: %w", err)
	}
	return nil
}

// write does its work in one durable transaction.
func (e *end) write(ctx context.Context, do func() error) error {
	if _, err := e.conn.ExecContext(ctx, e.writing); err != nil {
		return fmt.Errorf("begin to write: %w", err)
	}
	err := do()
	if err == nil {
		_, err = e.conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, _ = e.conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") // it may be gone
	}
	return err
}

func (e *end) insert(ctx context.Context, t *table, rows [][]any) error {
	return e.put(ctx, e.conn, t, rows)
}

func (e *end) get(ctx context.Context, dest any, query string, args ...any) error {
	return e.conn.GetContext(ctx, dest, e.dialect.rebind(query), args...)
}

func (e *end) asking(ctx context.Context) getter {
	return func(dest any, query string, args ...any) error { return e.get(ctx, dest, query, args...) }
}

func (e *end) list(ctx context.Context, dest any, query string) error {
	return e.conn.SelectContext(ctx, dest, query)
}

func (e *end) rows(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	return e.conn.QueryxContext(ctx, e.dialect.rebind(query), args...)
}

func (e *end) exec(ctx context.Context, query string, args ...any) error {
	_, err := e.conn.ExecContext(ctx, e.dialect.rebind(query), args...)
	return err
}

// change is exec that tells how many rows it changed.
func (e *end) change(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := e.conn.ExecContext(ctx, e.dialect.rebind(query), args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// inserting is a statement with a value for each of the table's columns.
func (t *table) inserting() string {
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(t.columns)), ", ")
	return "INSERT INTO " + t.name + " (" + strings.Join(t.columns, ", ") + ") VALUES (" + marks + ")"
}
