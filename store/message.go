package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// summaryRow is a send, from its row in messages or from its one delivery.
type summaryRow struct {
	ID            ident.Message `db:"id"`
	App           ident.App     `db:"app"`
	User          string        `db:"user_id"`
	Urgency       int           `db:"urgency"`
	Recipients    int           `db:"recipients"`
	CreatedAt     int64         `db:"created_at"`
	ExpiresAt     int64         `db:"expires_at"`
	CanceledAt    *int64        `db:"canceled_at"`
	CollapseKey   string        `db:"collapse_key"`
	CorrelationID string        `db:"correlation_id"`
}

func (r summaryRow) summary() messages.Summary {
	return messages.Summary{ID: r.ID, Status: messages.Accepted, To: messages.Target{User: r.User}, Urgency: messages.Urgency(r.Urgency),
		CollapseKey: r.CollapseKey, CorrelationID: r.CorrelationID, Recipients: r.Recipients,
		CreatedAt: fromMillis(r.CreatedAt), ExpiresAt: fromMillis(r.ExpiresAt)}
}

const selectPost = `SELECT id, app, user_id, urgency, recipients, created_at, expires_at, canceled_at,
	COALESCE(collapse_key, '') AS collapse_key, COALESCE(correlation_id, '') AS correlation_id FROM messages WHERE id = ?`

// selectDeliveries reads deliveries of a message with what their states follow from.
const selectDeliveries = `SELECT d.device, d.app, d.seq, d.class, d.urgency, d.created_at, d.expires_at, d.fetched_at, d.ended_at,
	COALESCE(d.ended, '') AS ended, COALESCE(d.reason, '') AS reason, COALESCE(d.to_user, '') AS to_user,
	COALESCE(d.collapse_key, '') AS collapse_key, COALESCE(d.correlation_id, '') AS correlation_id,
	COALESCE(i.seen, 0) AS seen, COALESCE(i.woken_normal, 0) AS woken_normal, COALESCE(i.woken_high, 0) AS woken_high
	FROM deliveries d LEFT JOIN inboxes i ON i.device = d.device
	WHERE d.message = ? AND d.device > ? ORDER BY d.device LIMIT 0 + ?`

type messageDelivery struct {
	Device        ident.Device   `db:"device"`
	App           ident.App      `db:"app"`
	Seq           messages.Seq   `db:"seq"`
	Class         messages.Class `db:"class"`
	Urgency       int            `db:"urgency"`
	CreatedAt     int64          `db:"created_at"`
	ExpiresAt     int64          `db:"expires_at"`
	FetchedAt     *int64         `db:"fetched_at"`
	EndedAt       *int64         `db:"ended_at"`
	Ended         messages.State `db:"ended"`
	Reason        string         `db:"reason"`
	User          string         `db:"to_user"`
	CollapseKey   string         `db:"collapse_key"`
	CorrelationID string         `db:"correlation_id"`
	Seen          messages.Seq   `db:"seen"`
	WokenNormal   messages.Seq   `db:"woken_normal"`
	WokenHigh     messages.Seq   `db:"woken_high"`
}

// state derives where the delivery stands; e is what the lane holds of its device.
func (r messageDelivery) state(e laneEntry) messages.State {
	woken, _, _ := e.woken()
	_, times := e.fetched(r.Seq)
	switch {
	case r.EndedAt != nil:
		return r.Ended
	case r.FetchedAt != nil, times > 0, r.Seen >= r.Seq, e.seen >= r.Seq:
		return messages.Fetched
	case max(r.WokenNormal, r.WokenHigh, woken.Max()) >= r.Seq:
		return messages.Woken
	}
	return messages.Queued
}

// asSummary is the send of a message that has this delivery alone.
func (r messageDelivery) asSummary(id ident.Message) messages.Summary {
	sum := summaryRow{ID: id, User: r.User, Urgency: r.Urgency, Recipients: 1, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt,
		CollapseKey: r.CollapseKey, CorrelationID: r.CorrelationID}.summary()
	if r.User == "" {
		sum.To.Device = r.Device
	}
	return sum
}

// pageOfDeliveries bounds one read of a message's deliveries.
const pageOfDeliveries = 1000

// Message returns what became of a send, with its counters; NotFound "message_not_found".
func (s *Store) Message(ctx context.Context, app ident.App, id ident.Message) (messages.Summary, error) {
	var post summaryRow
	err := s.reads.get(ctx, &post, selectPost, string(id))
	fanned := err == nil
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return messages.Summary{}, s.readError("read a message", err)
	}
	if fanned && post.App != app {
		return messages.Summary{}, messageNotFound()
	}
	counters := messages.Counters{}
	for _, state := range messages.States() {
		counters[state] = 0
	}
	sum := post.summary()
	var after ident.Device
	for {
		var rows []messageDelivery
		if err := s.reads.list(ctx, &rows, selectDeliveries, string(id), string(after), pageOfDeliveries); err != nil {
			return messages.Summary{}, s.readError("count a message's deliveries", err)
		}
		for _, r := range rows {
			e, _ := s.laneOf(r.Device).view(r.Device)
			counters[r.state(e)]++
			after = r.Device
		}
		if !fanned && (len(rows) == 0 || rows[0].App != app) {
			return messages.Summary{}, messageNotFound()
		}
		if !fanned {
			sum = rows[0].asSummary(id)
			sum.Counters = counters
			return withStatus(sum, rows[0].Ended == messages.Canceled), nil
		}
		if len(rows) < pageOfDeliveries {
			break
		}
	}
	sum.Counters = counters
	return withStatus(sum, post.CanceledAt != nil), nil
}

func withStatus(sum messages.Summary, canceled bool) messages.Summary {
	switch {
	case canceled:
		sum.Status = messages.CanceledStatus
	case sum.Recipients == 0:
		sum.Status = messages.NoRecipients
	}
	return sum
}

// Cancel takes a message back wherever it is still pending and returns what it is then. One that is over
// everywhere stays as it is. NotFound "message_not_found".
func (s *Store) Cancel(ctx context.Context, app ident.App, id ident.Message, now time.Time) (messages.Summary, error) {
	err := s.write(ctx, "cancel a message", newOp(func(t *tx) error { return t.cancel(app, id, now) }))
	if err != nil {
		return messages.Summary{}, err
	}
	return s.Message(ctx, app, id)
}

func (t *tx) cancel(app ident.App, id ident.Message, now time.Time) error {
	var known int
	const exists = `SELECT (SELECT COUNT(*) FROM messages WHERE id = ? AND app = ?) + (SELECT COUNT(*) FROM deliveries WHERE message = ? AND app = ?)`
	if err := t.get(&known, exists, string(id), string(app), string(id), string(app)); err != nil {
		return fmt.Errorf("look a message up: %w", err)
	}
	if known == 0 {
		return messageNotFound()
	}
	var pending []ending
	const query = "SELECT " + endingColumns + " FROM deliveries WHERE message = ? AND ended_at IS NULL"
	if err := t.list(&pending, query, string(id)); err != nil {
		return fmt.Errorf("list what is pending: %w", err)
	}
	if err := t.lockEnding(pending); err != nil {
		return err
	}
	for _, p := range pending {
		if _, err := t.end(p, messages.Canceled, "", millis(now)); err != nil {
			return err
		}
	}
	if len(pending) == 0 {
		return nil
	}
	if _, err := t.exec("UPDATE messages SET canceled_at = ? WHERE id = ?", millis(now), string(id)); err != nil {
		return fmt.Errorf("cancel a message: %w", err)
	}
	return nil
}
