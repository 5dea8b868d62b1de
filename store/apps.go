package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"

	"rouse/ident"
	"rouse/tokens"
)

const appColumns = "id, name, inbox_overflow, created_at, registration, broadcast_rate, event_types, rate_milli, rate_burst"

type appRow struct {
	ID            ident.App       `db:"id"`
	Name          string          `db:"name"`
	InboxOverflow tokens.Overflow `db:"inbox_overflow"`
	CreatedAt     int64           `db:"created_at"`

	Registration  tokens.RegistrationMode `db:"registration"`
	BroadcastRate int                     `db:"broadcast_rate"`
	EventTypes    *string                 `db:"event_types"`
	RateMilli     int64                   `db:"rate_milli"`
	RateBurst     int                     `db:"rate_burst"`
}

func (r appRow) app() tokens.App {
	app := tokens.App{ID: r.ID, Name: r.Name, InboxOverflow: r.InboxOverflow, Registration: r.Registration, BroadcastRate: r.BroadcastRate,
		Rate: rateOf(r.RateMilli, r.RateBurst), CreatedAt: fromMillis(r.CreatedAt)}
	if r.EventTypes != nil {
		app.EventTypes = append([]string{}, strings.Fields(*r.EventTypes)...)
	}
	return app
}

// wordsOrNull is a list of words as it is stored; nil, which is not the same as an empty list, is NULL.
func wordsOrNull(list []string) any {
	if list == nil {
		return nil
	}
	return strings.Join(list, " ")
}

// rateOf is a rate limit as it is stored: calls in 1000 seconds.
func rateOf(milli int64, burst int) tokens.RateLimit {
	return tokens.RateLimit{PerSecond: float64(milli) / 1000, Burst: burst}
}

func milliOf(r tokens.RateLimit) int64 { return int64(math.Round(r.PerSecond * 1000)) }

// CreateApp stores an app and its first keys together. What is empty of its settings takes its default. That its event types are
// known words is the caller's to check, here as in PatchApp.
func (s *Store) CreateApp(ctx context.Context, app tokens.App, keys []tokens.Key) error {
	app = withDefaults(app)
	return s.write(ctx, "create an app", newOp(func(t *tx) error {
		const query = "INSERT INTO apps (" + appColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
		_, err := t.exec(query, string(app.ID), app.Name, string(app.InboxOverflow), millis(app.CreatedAt), string(app.Registration),
			app.BroadcastRate, wordsOrNull(app.EventTypes), milliOf(app.Rate), app.Rate.Burst)
		if err != nil {
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

func withDefaults(app tokens.App) tokens.App {
	if app.InboxOverflow == "" {
		app.InboxOverflow = tokens.OverflowReject
	}
	if app.Registration == "" {
		app.Registration = tokens.RegistrationOpen
	}
	if app.BroadcastRate == 0 {
		app.BroadcastRate = tokens.DefaultBroadcastRate
	}
	return app
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

// PatchApp changes an app and returns what it is now; event types of nil are all. NotFound "app_not_found".
func (s *Store) PatchApp(ctx context.Context, id ident.App, p tokens.AppPatch) (tokens.App, error) {
	var app tokens.App
	err := s.write(ctx, "change an app", newOp(func(t *tx) (err error) {
		if app, err = t.needApp(id); err != nil {
			return err
		}
		set(&app.Name, p.Name)
		set(&app.InboxOverflow, p.InboxOverflow)
		set(&app.Registration, p.Registration)
		set(&app.BroadcastRate, p.BroadcastRate)
		set(&app.EventTypes, p.EventTypes)
		set(&app.Rate, p.Rate)
		app = withDefaults(app)
		const query = `UPDATE apps SET name = ?, inbox_overflow = ?, registration = ?, broadcast_rate = ?, event_types = ?, rate_milli = ?,
			rate_burst = ? WHERE id = ?`
		_, err = t.exec(query, app.Name, string(app.InboxOverflow), string(app.Registration), app.BroadcastRate, wordsOrNull(app.EventTypes),
			milliOf(app.Rate), app.Rate.Burst, string(id))
		return err
	}))
	if err != nil {
		return tokens.App{}, err
	}
	s.types.Store(nil)
	return app, nil
}
