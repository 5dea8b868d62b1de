package store

import (
	"context"
	"errors"
	"sync"

	"github.com/jmoiron/sqlx"
)

// reader is the read-only pool with its prepared statements. A statement that has begun is not
// interrupted by the caller's context: all are short, and watching costs a goroutine each. But a server may be cut off, and
// then a caller's deadline, if it has one, ends it.
type reader struct {
	db      *sqlx.DB
	dialect dialect

	mu      sync.RWMutex
	stmts   map[string]statement // guarded by mu, as the next
	closers []func() error
}

func newReader(db *sqlx.DB, d dialect) *reader {
	return &reader{db: db, dialect: d, stmts: map[string]statement{}}
}

func (r *reader) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, close := range r.closers {
		errs = append(errs, close())
	}
	clear(r.stmts)
	return errors.Join(append(errs, r.db.Close())...)
}

func (r *reader) stmt(query string) (statement, error) {
	r.mu.RLock()
	stmt := r.stmts[query]
	r.mu.RUnlock()
	if stmt != nil {
		return stmt, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if stmt := r.stmts[query]; stmt != nil {
		return stmt, nil
	}
	bound := r.dialect.rebind(query)
	if !r.dialect.prepares {
		r.stmts[query] = unprepared{context.Background(), r.db, bound}
		return r.stmts[query], nil
	}
	prepared, err := r.db.Preparex(bound)
	if err != nil {
		return nil, err
	}
	r.stmts[query], r.closers = prepared, append(r.closers, prepared.Close)
	return prepared, nil
}

// get reads one row into dest; sql.ErrNoRows if there is none.
func (r *reader) get(ctx context.Context, dest any, query string, args ...any) error {
	stmt, err := r.ready(ctx, query)
	if err != nil {
		return err
	}
	return stmt.Get(dest, args...)
}

// scan reads one row into fields; sql.ErrNoRows if there is none.
func (r *reader) scan(ctx context.Context, fields []any, query string, args ...any) error {
	stmt, err := r.ready(ctx, query)
	if err != nil {
		return err
	}
	return stmt.QueryRow(args...).Scan(fields...)
}

// list reads all rows into dest, a pointer to a slice.
func (r *reader) list(ctx context.Context, dest any, query string, args ...any) error {
	stmt, err := r.ready(ctx, query)
	if err != nil {
		return err
	}
	return stmt.Select(dest, args...)
}

// rows starts reading; the caller closes what it gets.
func (r *reader) rows(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	stmt, err := r.ready(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.Queryx(args...)
}

func (r *reader) ready(ctx context.Context, query string) (statement, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	stmt, err := r.stmt(query)
	if _, timed := ctx.Deadline(); !timed {
		return stmt, err
	}
	if u, ok := stmt.(unprepared); ok {
		u.ctx = ctx
		return u, err
	}
	return stmt, err
}
