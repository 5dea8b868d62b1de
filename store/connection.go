package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// A batch is nobody's alone: no caller's context may end it, so statements run in the background one.

func (w *writer) connect() error {
	conn, err := w.store.writes.Connx(context.Background())
	if err != nil {
		return fmt.Errorf("connect the writer: %w", err)
	}
	w.conn = conn
	return nil
}

func (w *writer) disconnect() error {
	for _, stmt := range w.stmts {
		_ = stmt.Close() // the connection it belongs to goes with it
	}
	clear(w.stmts)
	if w.conn == nil {
		return nil
	}
	err := w.conn.Close()
	w.conn = nil
	return err
}

func (w *writer) begin() error {
	_, err := w.exec(w.store.dialect.begin())
	return err
}

func (w *writer) rollback() {
	// It fails where the engine has rolled back by itself, as SQLite does on a full disk.
	_, _ = w.exec("ROLLBACK")
}

func (w *writer) stmt(query string) (*sqlx.Stmt, error) {
	if stmt := w.stmts[query]; stmt != nil {
		return stmt, nil
	}
	if w.conn == nil {
		return nil, driver.ErrBadConn
	}
	stmt, err := w.conn.PreparexContext(context.Background(), w.store.dialect.rebind(query))
	if err != nil {
		return nil, err
	}
	w.stmts[query] = stmt
	return stmt, nil
}

func (w *writer) exec(query string, args ...any) (sql.Result, error) {
	stmt, err := w.stmt(query)
	if err != nil {
		return nil, err
	}
	return stmt.Exec(args...)
}
