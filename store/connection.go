package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"
)

// A batch is nobody's alone: no caller's context may end it, so statements run in the background one.

func (w *writer) connect() error {
	conn, err := w.store.writes.Connx(context.Background())
	if err != nil {
		return fmt.Errorf("connect the writer: %w", plainly(err))
	}
	w.conn = conn
	return nil
}

func (w *writer) disconnect() error {
	for _, close := range w.closers {
		_ = close() // the connection it belongs to goes with it
	}
	w.closers = nil
	clear(w.stmts)
	if w.conn == nil {
		return nil
	}
	err := w.conn.Close()
	w.conn = nil
	return err
}

// begin starts a transaction, on a new connection if the last was lost while nobody needed it.
func (w *writer) begin() error {
	err := w.store.dialect.begin(w)
	if err == nil || !w.store.dialect.shared || !w.lostConnection(err) {
		return err
	}
	_ = w.disconnect() // it is gone
	if err := w.connect(); err != nil {
		return err
	}
	return w.store.dialect.begin(w)
}

func (w *writer) rollback() {
	w.waiting = nil
	if w.travels() && w.trips == 0 {
		return // it never began
	}
	// It fails where the engine has rolled back by itself, as SQLite does on a full disk.
	_ = w.run("ROLLBACK")
}

func (w *writer) run(query string) error {
	_, err := w.exec(query)
	return err
}

// stmt returns a statement whose answer is needed now: whatever waits goes before it.
func (w *writer) stmt(query string) (statement, error) {
	if err := w.travel(); err != nil {
		return nil, err
	}
	w.spoke = time.Now()
	if stmt := w.stmts[query]; stmt != nil {
		return stmt, nil
	}
	if w.conn == nil {
		return nil, driver.ErrBadConn
	}
	bound := w.store.dialect.rebind(query)
	if !w.store.dialect.prepares {
		w.stmts[query] = unprepared{context.Background(), w.conn, bound}
		return w.stmts[query], nil
	}
	stmt, err := w.conn.PreparexContext(context.Background(), bound)
	if err != nil {
		return nil, err
	}
	w.stmts[query], w.closers = stmt, append(w.closers, stmt.Close)
	return stmt, nil
}

func (w *writer) exec(query string, args ...any) (sql.Result, error) {
	stmt, err := w.stmt(query)
	if err != nil {
		return nil, err
	}
	return stmt.Exec(args...)
}
