package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"rouse/ident"
	"rouse/messages"
)

const (
	insertEvent  = "INSERT INTO events (id, app, type, created_at, data) VALUES (?, ?, ?, ?, ?)"
	selectEvents = "SELECT seq, id, type, created_at, data FROM events WHERE app = ? AND seq > ? ORDER BY seq LIMIT 0 + ?"
	oldEvents    = "SELECT seq FROM events WHERE created_at < ? ORDER BY created_at LIMIT 0 + ?"
	appsEvents   = "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE app = ? LIMIT 0 + ?)"
)

// event writes an event with the change it tells of.
func (t *tx) event(app ident.App, kind messages.EventType, data any, now time.Time) error {
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode an event: %w", err)
	}
	if err := t.lockApp(app); err != nil {
		return err
	}
	if _, err := t.exec(insertEvent, string(ident.NewEvent()), string(app), string(kind), millis(now), text); err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	return nil
}

// Events returns the app's events after a place, up to limit, in the order of their commits, and whether there are more.
// A place is never given twice: after one that was purged comes what followed it.
func (s *Store) Events(ctx context.Context, app ident.App, after messages.Seq, limit int) (list []messages.Event, more bool, err error) {
	var rows []struct {
		Seq  messages.Seq       `db:"seq"`
		ID   ident.Event        `db:"id"`
		Type messages.EventType `db:"type"`
		At   int64              `db:"created_at"`
		Data []byte             `db:"data"`
	}
	if err := s.reads.list(ctx, &rows, selectEvents, string(app), int64(after), limit+1); err != nil {
		return nil, false, s.readError("list events", err)
	}
	if len(rows) > limit {
		rows, more = rows[:limit], true
	}
	for _, r := range rows {
		list = append(list, messages.Event{ID: r.ID, Seq: r.Seq, App: app, Type: r.Type, At: fromMillis(r.At), Data: r.Data})
	}
	return list, more, nil
}
