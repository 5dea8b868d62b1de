package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// readWaiting reads a device, its inbox and what is pending there in one statement, which is one instant. The first three
// parameters are the place the lane knows as seen, and now twice.
const readWaiting = `SELECT ` + deviceColumns + `, i.seen, i.woken_normal, i.woken_high, i.woken_at, i.background_at, i.unanswered,
	COALESCE(MAX(CASE WHEN p.class = 1 THEN p.seq END), 0) AS head_normal,
	COALESCE(MAX(CASE WHEN p.class = 2 THEN p.seq END), 0) AS head_high,
	COALESCE(MIN(CASE WHEN p.class > 0 AND p.seq > i.seen AND p.seq > ? THEN p.seq END), MIN(CASE WHEN p.class > 0 THEN p.seq END), 0) AS oldest,
	MAX(p.expires_at) AS expires_at,
	(SELECT n.notification FROM deliveries n WHERE n.device = i.device AND n.ended_at IS NULL AND n.class > 0 AND n.expires_at > ?
		ORDER BY n.seq DESC LIMIT 1) AS notification
	FROM devices d JOIN inboxes i ON i.device = d.id
	LEFT JOIN deliveries p ON p.device = i.device AND p.ended_at IS NULL AND p.expires_at > ?
	WHERE d.id = ? GROUP BY d.id, i.device`

type waitingRow struct {
	deviceRow
	Seen         messages.Seq `db:"seen"`
	WokenNormal  messages.Seq `db:"woken_normal"`
	WokenHigh    messages.Seq `db:"woken_high"`
	WokenAt      *int64       `db:"woken_at"`
	BackgroundAt *int64       `db:"background_at"`
	Unanswered   int          `db:"unanswered"`
	HeadNormal   messages.Seq `db:"head_normal"`
	HeadHigh     messages.Seq `db:"head_high"`
	Oldest       messages.Seq `db:"oldest"`
	ExpiresAt    *int64       `db:"expires_at"`
	Notification *string      `db:"notification"`
}

// Waiting returns what is un-acked and alive in an inbox, and its device, read in one instant and
// brought up to what was handed out and sent since. The notification is that of the newest message that wakes. NotFound
// "device_not_found"; an unregistered device is returned as such, with nothing waiting.
func (s *Store) Waiting(ctx context.Context, device ident.Device, now time.Time) (messages.Waiting, tokens.Device, error) {
	var w messages.Waiting
	var d tokens.Device
	err := s.steady(device, func(e laneEntry) error {
		var r waitingRow
		at := millis(now)
		if err := s.reads.get(ctx, &r, readWaiting, int64(e.seen), at, at, string(device)); err != nil {
			return err
		}
		var err error
		if d, err = s.device(r.deviceRow); err != nil {
			return err
		}
		w, err = r.waiting(e)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return messages.Waiting{}, tokens.Device{}, deviceNotFound()
	}
	if err != nil {
		return messages.Waiting{}, tokens.Device{}, s.readError("read what waits for a device", err)
	}
	return w, d, nil
}

func (r waitingRow) waiting(e laneEntry) (messages.Waiting, error) {
	woken, wokenAt, background := e.woken()
	w := messages.Waiting{
		Device: r.ID, Head: messages.Marks{Normal: r.HeadNormal, High: r.HeadHigh}, Seen: max(r.Seen, e.seen),
		Woken:   messages.Marks{Normal: max(r.WokenNormal, woken.Normal), High: max(r.WokenHigh, woken.High)},
		WokenAt: later(fromNull(r.WokenAt), wokenAt), BackgroundAt: later(fromNull(r.BackgroundAt), background),
		Unanswered: e.unanswered, Oldest: r.Oldest, ExpiresAt: fromNull(r.ExpiresAt),
	}
	if !e.served {
		w.Unanswered += r.Unanswered
	}
	if r.Notification == nil {
		return w, nil
	}
	w.Notification = &messages.Notification{}
	if err := json.Unmarshal([]byte(*r.Notification), w.Notification); err != nil {
		return w, fmt.Errorf("read a stored notification: %w", err)
	}
	return w, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// RecordWake notes a push. It never waits; the record shows at once and is durable within half a second.
func (s *Store) RecordWake(w messages.Wake) {
	if !s.lane.wake(w) {
		s.log.Warn("too many wakes wait to be recorded; one is missing from a timeline", slog.String("device", string(w.Device)))
	}
}
