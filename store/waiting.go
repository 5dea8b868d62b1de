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

// readWaiting reads a device, its inbox and what is pending there in one statement, which is one instant. Parameters: 1 the
// device, 2 now.
const readWaiting = `SELECT ` + deviceColumns + `, i.seen, i.woken_normal, i.woken_high, i.woken_at, i.background_at, i.unanswered,
	p.head_normal, p.head_high, p.oldest, p.expires_at, p.notes
	FROM devices d JOIN inboxes i ON i.device = d.id
	CROSS JOIN (SELECT COALESCE(MAX(CASE WHEN class = 1 THEN seq END), 0) AS head_normal,
		COALESCE(MAX(CASE WHEN class = 2 THEN seq END), 0) AS head_high, COALESCE(MIN(CASE WHEN class > 0 THEN seq END), 0) AS oldest,
		MAX(expires_at) AS expires_at, COUNT(notification) AS notes
		FROM deliveries WHERE device = ?1 AND ended_at IS NULL AND expires_at > ?2) p
	WHERE d.id = ?1`

// What only some wakes need is asked for afterwards. It names and decorates a push: it may be of a later instant.
const (
	readUnseen = `SELECT COALESCE(MIN(seq), 0) FROM deliveries
		WHERE device = ? AND ended_at IS NULL AND expires_at > ? AND class > 0 AND seq > ?`
	readNote = `SELECT notification FROM deliveries WHERE device = ? AND ended_at IS NULL AND expires_at > ? AND class > 0
		ORDER BY seq DESC LIMIT 1`
)

type waitingRow struct {
	deviceRow
	seen, wokenNormal, wokenHigh messages.Seq
	wokenAt, backgroundAt        *int64
	unanswered                   int
	headNormal, headHigh, oldest messages.Seq
	expiresAt                    *int64
	notes                        int // pending messages with a notification
}

func (r *waitingRow) fields() []any {
	return append(r.deviceRow.fields(), &r.seen, &r.wokenNormal, &r.wokenHigh, &r.wokenAt, &r.backgroundAt, &r.unanswered,
		&r.headNormal, &r.headHigh, &r.oldest, &r.expiresAt, &r.notes)
}

// Waiting returns what is un-acked and alive in an inbox, and its device, read in one instant and
// brought up to what was handed out and sent since. The notification is that of the newest message that wakes. NotFound
// "device_not_found"; an unregistered device is returned as such, with nothing waiting.
func (s *Store) Waiting(ctx context.Context, device ident.Device, now time.Time) (messages.Waiting, tokens.Device, error) {
	var w messages.Waiting
	var d tokens.Device
	err := s.steady(device, func(e laneEntry) error {
		var r waitingRow
		if err := s.reads.scan(ctx, r.fields(), readWaiting, string(device), millis(now)); err != nil {
			return err
		}
		var err error
		if d, err = s.device(r.deviceRow); err != nil {
			return err
		}
		w = r.waiting(e)
		return s.nameWake(ctx, &w, r.notes, now)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return messages.Waiting{}, tokens.Device{}, deviceNotFound()
	}
	if err != nil {
		return messages.Waiting{}, tokens.Device{}, s.readError("read what waits for a device", err)
	}
	return w, d, nil
}

func (r *waitingRow) waiting(e laneEntry) messages.Waiting {
	woken, wokenAt, background := e.woken()
	w := messages.Waiting{
		Device: r.ID, Head: messages.Marks{Normal: r.headNormal, High: r.headHigh}, Seen: max(r.seen, e.seen),
		Woken:   messages.Marks{Normal: max(r.wokenNormal, woken.Normal), High: max(r.wokenHigh, woken.High)},
		WokenAt: later(fromNull(r.wokenAt), wokenAt), BackgroundAt: later(fromNull(r.backgroundAt), background),
		Unanswered: e.unanswered, Oldest: r.oldest, ExpiresAt: fromNull(r.expiresAt),
	}
	if !e.served {
		w.Unanswered += r.unanswered
	}
	return w
}

// nameWake finds the oldest message that was not handed out, if some were, and the notification to show, if there is one.
func (s *Store) nameWake(ctx context.Context, w *messages.Waiting, notes int, now time.Time) error {
	if w.Oldest != 0 && w.Oldest <= w.Seen {
		var unseen messages.Seq
		if err := s.reads.scan(ctx, []any{&unseen}, readUnseen, string(w.Device), millis(now), int64(w.Seen)); err != nil {
			return err
		}
		if unseen != 0 {
			w.Oldest = unseen
		}
	}
	if notes == 0 {
		return nil
	}
	var note *string
	err := s.reads.scan(ctx, []any{&note}, readNote, string(w.Device), millis(now))
	if errors.Is(err, sql.ErrNoRows) || err == nil && note == nil {
		return nil
	}
	if err != nil {
		return err
	}
	w.Notification = &messages.Notification{}
	if err := json.Unmarshal([]byte(*note), w.Notification); err != nil {
		return fmt.Errorf("read a stored notification: %w", err)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// RecordWake notes a push. It never waits; the record shows at once and is durable within half a second.
func (s *Store) RecordWake(w messages.Wake) {
	if !s.laneOf(w.Device).wake(w) {
		s.log.Warn("too many wakes wait to be recorded; one is missing from a timeline", slog.String("device", string(w.Device)))
	}
}
