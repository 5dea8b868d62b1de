package store

import (
	"context"
	"database/sql"
	"strings"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"
)

// statement is one that can be run again and again: prepared, as *sqlx.Stmt is, or not.
type statement interface {
	Exec(args ...any) (sql.Result, error)
	Get(dest any, args ...any) error
	Select(dest any, args ...any) error
	Queryx(args ...any) (*sqlx.Rows, error)
	QueryRow(args ...any) *sql.Row
}

// source is what statements run on: a pool, or one connection.
type source interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	GetContext(ctx context.Context, dest any, query string, args ...any) error
	SelectContext(ctx context.Context, dest any, query string, args ...any) error
	QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// unprepared is a statement that is sent anew each time. If ctx ends, so does what is under way.
type unprepared struct {
	ctx   context.Context
	on    source
	query string
}

func (u unprepared) Exec(args ...any) (sql.Result, error) {
	return u.on.ExecContext(u.ctx, u.query, storable(args)...)
}

func (u unprepared) Get(dest any, args ...any) error {
	return u.on.GetContext(u.ctx, dest, u.query, storable(args)...)
}

func (u unprepared) Select(dest any, args ...any) error {
	return u.on.SelectContext(u.ctx, dest, u.query, storable(args)...)
}

func (u unprepared) Queryx(args ...any) (*sqlx.Rows, error) {
	return u.on.QueryxContext(u.ctx, u.query, storable(args)...)
}

func (u unprepared) QueryRow(args ...any) *sql.Row {
	return u.on.QueryRowContext(u.ctx, u.query, storable(args)...)
}

// storable returns args as every engine takes them: 0 and 1 for false and true, and text without what PostgreSQL refuses. That is
// replaced and not refused: it may be a provider's, and one text must not cost a whole batch.
func storable(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case bool:
			a = 0
			if v {
				a = 1
			}
		case string:
			a = plainText(v)
		}
		out[i] = a
	}
	return out
}

func plainText(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
