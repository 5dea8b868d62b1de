package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

const circuitColumns = "app, provider, environment, onward, state, cause, reason, opened_at, retry_at, pauses"

type circuitRow struct {
	App         ident.App           `db:"app"`
	Provider    tokens.Provider     `db:"provider"`
	Environment tokens.Environment  `db:"environment"`
	Onward      tokens.Onward       `db:"onward"`
	State       tokens.CircuitState `db:"state"`
	Cause       tokens.CircuitCause `db:"cause"`
	Reason      string              `db:"reason"`
	OpenedAt    int64               `db:"opened_at"`
	RetryAt     int64               `db:"retry_at"`
	Pauses      int                 `db:"pauses"`
}

func (r circuitRow) circuit() tokens.Circuit {
	return tokens.Circuit{
		Outlet: tokens.Outlet{App: r.App, Provider: r.Provider, Environment: r.Environment, Onward: r.Onward},
		State:  r.State, Cause: r.Cause, Reason: r.Reason, OpenedAt: fromMillis(r.OpenedAt), RetryAt: fromMillis(r.RetryAt), Pauses: r.Pauses,
	}
}

// Circuits returns the circuits of one app that are not closed, or of all for an empty app.
func (s *Store) Circuits(ctx context.Context, app ident.App) ([]tokens.Circuit, error) {
	query := "SELECT " + circuitColumns + " FROM circuits ORDER BY app, provider, environment, onward, cause"
	var args []any
	if app != "" {
		query = "SELECT " + circuitColumns + " FROM circuits WHERE app = ? ORDER BY provider, environment, onward, cause"
		args = []any{string(app)}
	}
	var rows []circuitRow
	if err := s.reads.list(ctx, &rows, query, args...); err != nil {
		return nil, s.readError("list circuits", err)
	}
	list := make([]tokens.Circuit, 0, len(rows))
	for _, r := range rows {
		list = append(list, r.circuit())
	}
	return list, nil
}

// NoteCircuit writes what a circuit is now, and the events of its opening and closing with it. A circuit of an app without
// that credential is written too: it says why nothing is sent. One of an app that is gone is no error.
func (s *Store) NoteCircuit(ctx context.Context, c tokens.Circuit, now time.Time) error {
	return s.write(ctx, "note a circuit", newOp(func(t *tx) error { return t.noteCircuit(c, now) }))
}

func (t *tx) noteCircuit(c tokens.Circuit, now time.Time) error {
	const key = "app = ? AND provider = ? AND environment = ? AND onward = ? AND cause = ?"
	which := []any{string(c.App), string(c.Provider), string(c.Environment), string(c.Onward), string(c.Cause)}
	var before []circuitRow
	if err := t.list(&before, "SELECT "+circuitColumns+" FROM circuits WHERE "+key, which...); err != nil {
		return fmt.Errorf("read a circuit: %w", err)
	}
	if c.State == tokens.CircuitClosed {
		if len(before) == 0 {
			return nil
		}
		if _, err := t.exec("DELETE FROM circuits WHERE "+key, which...); err != nil {
			return fmt.Errorf("close a circuit: %w", err)
		}
		return t.circuitEvent(messages.CircuitClosed, before[0].circuit(), now)
	}
	var live int
	if err := t.get(&live, "SELECT COUNT(*) FROM apps WHERE id = ? AND deleting = 0", string(c.App)); err != nil || live == 0 {
		return err
	}
	const query = "INSERT INTO circuits (" + circuitColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (app, provider, environment, onward, cause) DO UPDATE SET state = excluded.state, reason = excluded.reason,
		retry_at = excluded.retry_at, pauses = excluded.pauses`
	_, err := t.exec(query, string(c.App), string(c.Provider), string(c.Environment), string(c.Onward), string(c.State), string(c.Cause), c.Reason,
		millis(c.OpenedAt), millis(c.RetryAt), c.Pauses)
	if err != nil || len(before) > 0 {
		return err
	}
	if err := t.circuitEvent(messages.CircuitOpened, c, now); err != nil || c.Cause != tokens.CauseCredential {
		return err
	}
	return t.event(c.App, messages.CredentialFailing, circuitData{Provider: c.Provider, Environment: c.Environment, Onward: c.Onward, Reason: c.Reason}, now)
}

// circuitData is what an event tells of a circuit.
type circuitData struct {
	Provider    tokens.Provider     `json:"provider"`
	Environment tokens.Environment  `json:"environment,omitempty"`
	Onward      tokens.Onward       `json:"onward,omitempty"`
	Cause       tokens.CircuitCause `json:"cause,omitempty"`
	Reason      string              `json:"reason,omitempty"`
	RetryAt     *time.Time          `json:"retry_at,omitempty"`
}

func (t *tx) circuitEvent(kind messages.EventType, c tokens.Circuit, now time.Time) error {
	data := circuitData{Provider: c.Provider, Environment: c.Environment, Onward: c.Onward, Cause: c.Cause, Reason: c.Reason}
	if kind == messages.CircuitOpened {
		at := fromMillis(millis(c.RetryAt)).UTC()
		data.RetryAt = &at
	}
	return t.event(c.App, kind, data, now)
}

// closeCircuits closes all of a provider's: the app has put its credential, or taken it away.
func (t *tx) closeCircuits(app ident.App, p tokens.Provider, now time.Time) error {
	var open []circuitRow
	if err := t.list(&open, "SELECT "+circuitColumns+" FROM circuits WHERE app = ? AND provider = ?", string(app), string(p)); err != nil {
		return fmt.Errorf("list circuits: %w", err)
	}
	for _, r := range open {
		c := r.circuit()
		c.State = tokens.CircuitClosed
		if err := t.noteCircuit(c, now); err != nil {
			return err
		}
	}
	return nil
}

// event writes an event with the change it tells of.
func (t *tx) event(app ident.App, kind messages.EventType, data any, now time.Time) error {
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode an event: %w", err)
	}
	const query = "INSERT INTO events (id, app, type, created_at, data) VALUES (?, ?, ?, ?, ?)"
	if _, err := t.exec(query, string(ident.NewEvent()), string(app), string(kind), millis(now), text); err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	return nil
}

// Events returns the app's events after a place, oldest first, and whether there are more.
func (s *Store) Events(ctx context.Context, app ident.App, after messages.Seq, limit int) (list []messages.Event, more bool, err error) {
	var rows []struct {
		Seq  messages.Seq       `db:"seq"`
		ID   ident.Event        `db:"id"`
		Type messages.EventType `db:"type"`
		At   int64              `db:"created_at"`
		Data []byte             `db:"data"`
	}
	const query = "SELECT seq, id, type, created_at, data FROM events WHERE app = ? AND seq > ? ORDER BY seq LIMIT 0 + ?"
	if err := s.reads.list(ctx, &rows, query, string(app), int64(after), limit+1); err != nil {
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
