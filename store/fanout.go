package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// What is for later, for a topic or for everyone is one row of messages until FanOut reaches its devices, page by page. Where it
// stands is in that row, and moves in the transaction of the page: whatever dies, no device is passed over and none is reached twice.

// dueBefore is how long before now what is to be stored at once is due: whose turn it is, another node says, by its own clock.
const dueBefore = 24 * time.Hour

// audienceSlack is how long after a send its audience is settled. Whoever came before it is in, as long as the clock of the node they came
// to is ahead of the sender's by no more than this.
const audienceSlack = 5 * time.Second

// maxFanPage bounds the devices of one page, so that no batch is held up by it.
const maxFanPage = 1000

const (
	// selectDueApps goes from app to app by the index, and does not read what lies between.
	selectDueApps = `WITH RECURSIVE a (app) AS (SELECT MIN(app) FROM messages WHERE due_at IS NOT NULL
		UNION ALL SELECT (SELECT MIN(m.app) FROM messages m WHERE m.due_at IS NOT NULL AND m.app > a.app) FROM a WHERE a.app IS NOT NULL)
		SELECT a.app, (SELECT MIN(m.due_at) FROM messages m WHERE m.app = a.app AND m.due_at IS NOT NULL) AS due_at FROM a WHERE a.app IS NOT NULL`
	selectDue = `SELECT m.id, COALESCE(m.canceled_at, m.send_at, m.created_at) AS since, m.urgency, m.expires_at, m.canceled_at IS NOT NULL AS canceled, COALESCE(a.broadcast_rate, 0) AS rate
		FROM messages m LEFT JOIN apps a ON a.id = m.app WHERE m.app = ? AND m.due_at IS NOT NULL AND m.due_at <= ?
		ORDER BY m.due_at LIMIT 0 + ?`
)

// FanJobs returns up to limit sends of which a page is to be stored now, or which are canceled and still to be taken back, oldest due
// first. If there are more, each app has its share, and up to limit apps have one.
//
// What is for later is due by the database's clock, if it has one.
func (s *Store) FanJobs(ctx context.Context, now time.Time, limit int) ([]messages.FanJob, error) {
	now = now.Add(-s.ahead())
	apps, err := s.dueApps(ctx, now, limit)
	if err != nil || len(apps) == 0 {
		return nil, err
	}
	var jobs []messages.FanJob
	share := (limit + len(apps) - 1) / len(apps)
	for i, app := range apps {
		some, err := s.dueOf(ctx, app, now, min(share, limit-len(jobs)-(len(apps)-1-i)))
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, some...)
	}
	slices.SortStableFunc(jobs, func(a, b messages.FanJob) int { return a.Due.Compare(b.Due) })
	return jobs, nil
}

// dueApp is an app, and when the first of what it has to store was due.
type dueApp struct {
	App ident.App `db:"app"`
	Due int64     `db:"due_at"`
}

// dueApps returns the apps with something due, that which has waited longest first.
func (s *Store) dueApps(ctx context.Context, now time.Time, limit int) ([]ident.App, error) {
	var rows []dueApp
	if err := s.reads.list(ctx, &rows, selectDueApps); err != nil {
		return nil, s.readError("look for fan-outs", err)
	}
	slices.SortFunc(rows, func(a, b dueApp) int { return cmp.Compare(a.Due, b.Due) })
	var apps []ident.App
	for _, r := range rows {
		if r.Due <= millis(now) && len(apps) < limit {
			apps = append(apps, r.App)
		}
	}
	return apps, nil
}

func (s *Store) dueOf(ctx context.Context, app ident.App, now time.Time, limit int) ([]messages.FanJob, error) {
	var rows []struct {
		ID       ident.Message `db:"id"`
		Since    int64         `db:"since"`
		Urgency  int           `db:"urgency"`
		Expires  int64         `db:"expires_at"`
		Canceled bool          `db:"canceled"`
		Rate     int           `db:"rate"`
	}
	if err := s.reads.list(ctx, &rows, selectDue, string(app), millis(now), limit); err != nil {
		return nil, s.readError("look for fan-outs", err)
	}
	jobs := make([]messages.FanJob, 0, len(rows))
	for _, r := range rows {
		// An app that is gone has no rate, and its fan-outs only end.
		rate := orDefault(r.Rate, tokens.DefaultBroadcastRate)
		wakes := messages.Urgency(r.Urgency).Class() != messages.NoWake && !r.Canceled && r.Expires > millis(now)
		jobs = append(jobs, messages.FanJob{Message: r.ID, App: app, Due: fromMillis(r.Since), Rate: rate, Wakes: wakes})
	}
	return jobs, nil
}

// fanRow is a send that is being stored for its audience.
type fanRow struct {
	ID            ident.Message `db:"id"`
	App           ident.App     `db:"app"`
	Audience      string        `db:"audience"`
	Name          string        `db:"user_id"`
	Urgency       int           `db:"urgency"`
	CreatedAt     int64         `db:"created_at"`
	ExpiresAt     int64         `db:"expires_at"`
	CanceledAt    *int64        `db:"canceled_at"`
	SendAt        *int64        `db:"send_at"`
	DueAt         *int64        `db:"due_at"`
	Cursor        string        `db:"fan_cursor"`
	CollapseKey   string        `db:"collapse_key"`
	CorrelationID string        `db:"correlation_id"`
	Note          *string       `db:"notification"`
	Size          int64         `db:"size"`
	Orphan        bool          `db:"orphan"`
}

const selectFan = `SELECT m.id, m.app, m.audience, m.user_id, m.urgency, m.created_at, m.expires_at, m.canceled_at, m.send_at, m.due_at,
	COALESCE(m.fan_cursor, '') AS fan_cursor, COALESCE(m.collapse_key, '') AS collapse_key, COALESCE(m.correlation_id, '') AS correlation_id,
	m.notification, COALESCE(LENGTH(m.body), 0) AS size, COALESCE(a.deleting, 1) = 1 AS orphan
	FROM messages m LEFT JOIN apps a ON a.id = m.app WHERE m.id = ?`

// FanOut stores the next page of a send, up to limit devices (at most 1,000), in one transaction with where it stands then. One that is
// canceled is taken back where it was stored, a page at a time. What is not due, or goes on elsewhere at this moment, comes to nothing.
// Nobody's device is reached twice, whoever calls it how often on however many nodes.
//
// A device is reached if it was registered, and subscribed, when the message was sent, or, with a time to be sent at, by then; those of
// a user, if they are that user's now. Where the inbox is full, the delivery is dropped, with a gap, unless the app drops the oldest. A
// message past its life is stored as expired, with a gap.
func (s *Store) FanOut(ctx context.Context, id ident.Message, limit int, now time.Time) (messages.FanPage, error) {
	var j fanRow
	err := s.reads.get(ctx, &j, selectFan, string(id))
	limit = max(1, min(limit, maxFanPage))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return messages.FanPage{Done: true}, nil
	case err != nil:
		return messages.FanPage{}, s.readError("read a fan-out", err)
	case j.DueAt == nil:
		return messages.FanPage{Done: true}, nil
	case j.Orphan:
		return messages.FanPage{Done: true}, s.endFan(ctx, j, now)
	case *j.DueAt > millis(now.Add(-s.ahead())):
		return messages.FanPage{}, nil
	case j.CanceledAt != nil:
		return s.takeBack(ctx, j, limit, now)
	}
	f := fanning{job: j, now: fromMillis(millis(now))}
	if f.audience, err = s.nextAudience(ctx, j, limit); err != nil {
		return messages.FanPage{}, s.readError("list an audience", err)
	}
	defer s.readAhead(ctx, j, f.audience, limit)()
	if err := s.write(ctx, "store a page of a fan-out", newOp(f.store).locking(f.devices...)); err != nil {
		return messages.FanPage{}, err
	}
	return f.page, nil
}

const endDue = `UPDATE messages SET due_at = NULL, pending = pending - 1, canceled_at = COALESCE(canceled_at, ?), notification = NULL, body = NULL
	WHERE id = ? AND due_at IS NOT NULL`

// endFan ends a fan-out whose app is going, or gone.
func (s *Store) endFan(ctx context.Context, j fanRow, now time.Time) error {
	return s.write(ctx, "end a fan-out", newOp(func(t *tx) error {
		_, err := t.exec(endDue, millis(now), string(j.ID))
		return err
	}))
}

// until is when the audience is settled: who comes later is not reached.
func (j fanRow) until() int64 {
	sent := j.CreatedAt
	if j.SendAt != nil {
		sent = *j.SendAt
	}
	return sent + audienceSlack.Milliseconds()
}

// send is the message as it comes into an inbox now. Of its data only the size is true: that lies in its row.
func (j fanRow) send(now time.Time) (*messages.Send, error) {
	m := &messages.Send{ID: j.ID, App: j.App, Data: make([]byte, j.Size), Urgency: messages.Urgency(j.Urgency), CollapseKey: j.CollapseKey,
		CorrelationID: j.CorrelationID, CreatedAt: now, TTL: fromMillis(j.ExpiresAt).Sub(now)}
	if j.Audience == toUser {
		m.To.User = j.Name
	}
	if j.Note == nil {
		return m, nil
	}
	m.Notification = &messages.Notification{}
	if err := json.Unmarshal([]byte(*j.Note), m.Notification); err != nil {
		return nil, fmt.Errorf("read a stored notification: %w", err)
	}
	return m, nil
}

const (
	audienceAll   = "SELECT d.id, d.created_at <= ? AND d.unregistered_at IS NULL AS early FROM devices d WHERE d.app = ? AND d.id > ? ORDER BY d.id LIMIT 0 + ?"
	audienceTopic = "SELECT s.device AS id, 1 = 1 AS early FROM subscriptions s WHERE s.app = ? AND s.topic = ? AND s.device > ? ORDER BY s.device LIMIT 0 + ?"
	audienceUser  = "SELECT d.id, 1 = 1 AS early FROM devices d WHERE d.app = ? AND d.user_id = ? AND d.user_id <> '' AND d.id > ? ORDER BY d.id LIMIT 0 + ?"
)

// audience returns the devices that the next page may reach. It reads up to limit rows, whoever of them is to be reached.
func (s *Store) audience(ctx context.Context, j fanRow, limit int) (a audience, err error) {
	var query string
	var args []any
	switch j.Audience {
	case toDevice:
		return audience{[]ident.Device{ident.Device(j.Name)}, j.Name, true}, nil
	case toTopic:
		query, args = audienceTopic, []any{string(j.App), j.Name, j.Cursor, limit}
	case toUser:
		query, args = audienceUser, []any{string(j.App), j.Name, j.Cursor, limit}
	default:
		query, args = audienceAll, []any{j.until(), string(j.App), j.Cursor, limit}
	}
	var rows []struct {
		ID    ident.Device `db:"id"`
		Early bool         `db:"early"`
	}
	if err := s.reads.list(ctx, &rows, query, args...); err != nil {
		return a, err
	}
	a.cursor, a.last = j.Cursor, len(rows) < limit
	for _, r := range rows {
		if a.cursor = string(r.ID); r.Early {
			a.devices = append(a.devices, r.ID)
		}
	}
	a.devices = slices.Compact(a.devices) // a device may have a topic for several reasons
	return a, nil
}
