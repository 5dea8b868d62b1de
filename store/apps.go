package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"rouse/ident"
	"rouse/tokens"
)

const appColumns = "id, name, inbox_overflow, created_at"

type appRow struct {
	ID            ident.App       `db:"id"`
	Name          string          `db:"name"`
	InboxOverflow tokens.Overflow `db:"inbox_overflow"`
	CreatedAt     int64           `db:"created_at"`
}

func (r appRow) app() tokens.App {
	return tokens.App{ID: r.ID, Name: r.Name, InboxOverflow: r.InboxOverflow, CreatedAt: fromMillis(r.CreatedAt)}
}

// CreateApp stores an app and its first keys together. An empty InboxOverflow is OverflowReject.
func (s *Store) CreateApp(ctx context.Context, app tokens.App, keys []tokens.Key) error {
	if app.InboxOverflow == "" {
		app.InboxOverflow = tokens.OverflowReject
	}
	return s.write(ctx, "create an app", newOp(func(t *tx) error {
		const query = "INSERT INTO apps (" + appColumns + ") VALUES (?, ?, ?, ?)"
		if _, err := t.exec(query, string(app.ID), app.Name, string(app.InboxOverflow), millis(app.CreatedAt)); err != nil {
			return err
		}
		for _, k := range keys {
			if err := t.insertKey(k); err != nil {
				return err
			}
		}
		return nil
	}))
}

// Apps returns up to limit apps whose ids follow after, in the order of their ids.
func (s *Store) Apps(ctx context.Context, after ident.App, limit int) ([]tokens.App, error) {
	const query = "SELECT " + appColumns + " FROM apps WHERE id > ? AND deleting = 0 ORDER BY id LIMIT 0 + ?"
	var rows []appRow
	if err := s.reads.list(ctx, &rows, query, string(after), limit); err != nil {
		return nil, s.readError("list apps", err)
	}
	list := make([]tokens.App, 0, len(rows))
	for _, r := range rows {
		list = append(list, r.app())
	}
	return list, nil
}

const selectApp = "SELECT " + appColumns + " FROM apps WHERE id = ? AND deleting = 0"

// App returns one app; NotFound "app_not_found".
func (s *Store) App(ctx context.Context, id ident.App) (tokens.App, error) {
	var r appRow
	err := s.reads.get(ctx, &r, selectApp, string(id))
	if errors.Is(err, sql.ErrNoRows) {
		return tokens.App{}, appNotFound()
	}
	if err != nil {
		return tokens.App{}, s.readError("read an app", err)
	}
	return r.app(), nil
}

// needApp returns the app, or NotFound "app_not_found".
func (t *tx) needApp(id ident.App) (tokens.App, error) {
	var r appRow
	err := t.get(&r, selectApp, string(id))
	if errors.Is(err, sql.ErrNoRows) {
		return tokens.App{}, appNotFound()
	}
	if err != nil {
		return tokens.App{}, fmt.Errorf("read an app: %w", err)
	}
	return r.app(), nil
}

// PatchApp changes an app and returns what it is now; NotFound "app_not_found".
func (s *Store) PatchApp(ctx context.Context, id ident.App, p tokens.AppPatch) (tokens.App, error) {
	var app tokens.App
	err := s.write(ctx, "change an app", newOp(func(t *tx) (err error) {
		if app, err = t.needApp(id); err != nil {
			return err
		}
		if p.Name != nil {
			app.Name = *p.Name
		}
		if p.InboxOverflow != nil {
			app.InboxOverflow = *p.InboxOverflow
		}
		_, err = t.exec("UPDATE apps SET name = ?, inbox_overflow = ? WHERE id = ?", app.Name, string(app.InboxOverflow), string(id))
		return err
	}))
	if err != nil {
		return tokens.App{}, err
	}
	return app, nil
}
