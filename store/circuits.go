package store

import (
	"context"
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
		query, args = appsCircuits, []any{string(app)}
	}
	var rows []circuitRow
	if err := s.reads.list(ctx, &rows, query, args...); err != nil {
		return nil, s.readError("list circuits", err)
	}
	list := make([]tokens.Circuit, 0, len(rows))
	for _, r := range rows {
		list = append(list, shifted(r.circuit(), s.ahead()))
	}
	return list, nil
}

// NoteCircuit writes what a circuit is now, and the events of its opening and closing with it. A circuit goes on having
// opened when it first did, whatever a later note says; the same holds for its one event. Of several notes of one pause, whichever node they
// come from, the longest counts. A circuit of an app without that
// credential is written too: it says why nothing is sent. No error, and nothing written, is one of an app that is gone, and
// one that was not known to be open when, after now, the app put its credential: it says nothing of the new one.
func (s *Store) NoteCircuit(ctx context.Context, c tokens.Circuit, now time.Time) error {
	ahead := s.ahead()
	c, now = shifted(c, -ahead), now.Add(-ahead)
	return s.write(ctx, "note a circuit", newOp(func(t *tx) error { return t.noteCircuit(c, now) }))
}

// shifted is the circuit by another clock: the rows are by the database's, for other nodes read them, and what goes in and out is by
// this node's.
func shifted(c tokens.Circuit, by time.Duration) tokens.Circuit {
	for _, at := range []*time.Time{&c.OpenedAt, &c.RetryAt} {
		if !at.IsZero() {
			*at = at.Add(by)
		}
	}
	return c
}

const (
	whichCircuit   = " WHERE app = ? AND provider = ? AND environment = ? AND onward = ? AND cause = ?"
	selectCircuit  = "SELECT " + circuitColumns + " FROM circuits" + whichCircuit
	deleteCircuit  = "DELETE FROM circuits" + whichCircuit
	providersOpen  = "SELECT " + circuitColumns + " FROM circuits WHERE app = ? AND provider = ?"
	appsCircuits   = "SELECT " + circuitColumns + " FROM circuits WHERE app = ? ORDER BY provider, environment, onward, cause"
	insertCircuit  = "INSERT INTO circuits (" + circuitColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	mayOpenCircuit = `SELECT COUNT(*) FROM apps a WHERE a.id = ?1 AND a.deleting = 0 AND NOT EXISTS
		(SELECT 1 FROM credentials c WHERE c.app = ?1 AND c.provider = ?2 AND c.updated_at > ?3)`
)

// changeCircuit prolongs a pause and never shortens it: several nodes may write of one, and the last to come may be the one that
// knows least. Only a pause that is longer by hours than any is was written by a clock that was off.
var changeCircuit = fmt.Sprintf(`UPDATE circuits SET state = ?1, reason = ?2,
	retry_at = CASE WHEN state = ?1 AND retry_at > ?3 AND retry_at < ?3 + %d THEN retry_at ELSE ?3 END,
	pauses = CASE WHEN state = ?1 AND pauses > ?4 THEN pauses ELSE ?4 END
	WHERE app = ?5 AND provider = ?6 AND environment = ?7 AND onward = ?8 AND cause = ?9`, (2 * time.Hour).Milliseconds())

func (t *tx) noteCircuit(c tokens.Circuit, now time.Time) error {
	if err := t.lockApp(c.App); err != nil {
		return err
	}
	which := []any{string(c.App), string(c.Provider), string(c.Environment), string(c.Onward), string(c.Cause)}
	var open []circuitRow
	if err := t.list(&open, selectCircuit, which...); err != nil {
		return fmt.Errorf("read a circuit: %w", err)
	}
	var err error
	switch {
	case c.State != tokens.CircuitClosed && len(open) == 0:
		return t.openCircuit(c, now)
	case c.State != tokens.CircuitClosed:
		_, err = t.exec(changeCircuit, append([]any{string(c.State), c.Reason, millis(c.RetryAt), c.Pauses}, which...)...)
	case len(open) > 0:
		if _, err = t.exec(deleteCircuit, which...); err == nil {
			err = t.circuitEvent(messages.CircuitClosed, open[0].circuit(), now)
		}
	}
	if err != nil {
		return fmt.Errorf("note a circuit: %w", err)
	}
	return nil
}

func (t *tx) openCircuit(c tokens.Circuit, now time.Time) error {
	var may int
	err := t.get(&may, mayOpenCircuit, string(c.App), string(c.Provider), millis(now))
	if err != nil || may == 0 {
		return err
	}
	_, err = t.exec(insertCircuit, string(c.App), string(c.Provider), string(c.Environment), string(c.Onward), string(c.State),
		string(c.Cause), c.Reason, millis(c.OpenedAt), millis(c.RetryAt), c.Pauses)
	if err != nil {
		return fmt.Errorf("open a circuit: %w", err)
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
	if kind == messages.CircuitOpened && c.State == tokens.CircuitOpen {
		data.RetryAt = ref(fromMillis(millis(c.RetryAt)))
	}
	return t.event(c.App, kind, data, now)
}

// closeCircuits closes all of a provider's: the app has put its credential, or taken it away.
func (t *tx) closeCircuits(app ident.App, p tokens.Provider, now time.Time) error {
	var open []circuitRow
	if err := t.list(&open, providersOpen, string(app), string(p)); err != nil {
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
