package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// sweepSpan bounds the places one Sweep looks at, acked ones included.
const sweepSpan = 20_000

// SweepCursor returns how far the named sweep has come, 0 if it never was moved.
func (s *Store) SweepCursor(ctx context.Context, name string) (messages.Seq, error) {
	var seq messages.Seq
	err := s.reads.get(ctx, &seq, "SELECT seq FROM sweeps WHERE name = ?", name)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, s.readError("read a sweep's cursor", err)
	}
	return seq, nil
}

// MoveSweepCursor notes how far the named sweep has come. It never goes back: a node that did not notice that another
// sweeps now does no harm.
func (s *Store) MoveSweepCursor(ctx context.Context, name string, to messages.Seq) error {
	return s.write(ctx, "move a sweep's cursor", newOp(func(t *tx) error {
		_, err := t.exec("INSERT INTO sweeps (name, seq) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = excluded.seq WHERE sweeps.seq < excluded.seq",
			name, int64(to))
		return err
	}))
}

// sweepRows reads a stretch of places: what is pending of the class, and whatever is too young, which ends the sweep. A
// silent device is due for what no accepted wake stood for yet.
const sweepRows = `SELECT d.seq, d.device, d.created_at, d.ended_at IS NULL AND d.class = ? AND d.expires_at > ?
	AND (i.contact_at > ? OR d.seq > CASE WHEN d.class = ? OR i.woken_high > i.woken_normal THEN i.woken_high ELSE i.woken_normal END)
	AND (? = '' OR d.app = ?) AS due
	FROM deliveries d LEFT JOIN inboxes i ON i.device = d.device
	WHERE d.seq > ? AND d.seq <= ? AND ((d.ended_at IS NULL AND d.class = ?) OR (d.created_at > ? AND d.created_at <= ?))
	ORDER BY d.seq`

// Sweep returns, in the order of their oldest such message, the devices with something un-acked and alive of the class that is older than
// q.Before, one Due a device: its newest such place, and the age of its oldest. Devices silent for
// messages.SilentAfter are left out once they were woken for it. next is where to go on: nothing due lies between q.After and next but what
// was returned. more says that next was not the end.
func (s *Store) Sweep(ctx context.Context, q messages.SweepQuery) (due []messages.Due, next messages.Seq, more bool, err error) {
	newest, err := s.settledPlace(ctx)
	if err != nil {
		return nil, q.After, false, s.readError("read the sequence counter", err)
	}
	end := min(newest, q.After+sweepSpan)
	if end <= q.After {
		return nil, q.After, false, nil
	}
	silent := millis(q.Now.Add(-messages.SilentAfter))
	if q.Unwoken {
		silent = math.MaxInt64 // as are all
	}
	rows, err := s.reads.rows(ctx, sweepRows, int(q.Class), millis(q.Now), silent, int(messages.HighWake),
		string(q.App), string(q.App), int64(q.After), int64(end), int(q.Class), millis(q.Before), millis(q.Now))
	if err != nil {
		return nil, q.After, false, s.readError("sweep", err)
	}
	defer rows.Close()
	sw := sweeping{q: q, found: map[ident.Device]int{}, next: q.After}
	empty := true
	for rows.Next() {
		empty = false
		done, err := sw.row(rows)
		if err != nil {
			return nil, q.After, false, s.readError("sweep", err)
		}
		if done {
			return sw.due, sw.next, sw.more, nil
		}
	}
	if err := rows.Err(); err != nil {
		return nil, q.After, false, s.readError("sweep", err)
	}
	if empty && end < newest {
		if end, err = s.skipEmpty(ctx, end, newest); err != nil {
			return nil, q.After, false, s.readError("sweep", err)
		}
	}
	return sw.due, end, end < newest, nil
}

// nextTaken asks for the first place after one at which there is a delivery, 0 if there is none.
const nextTaken = "SELECT COALESCE(MIN(seq), 0) FROM deliveries WHERE seq > ?"

// skipEmpty returns how far after may go, up to newest, without passing a delivery. What was purged, and what a restored
// database leaves out, are billions of places.
func (s *Store) skipEmpty(ctx context.Context, after, newest messages.Seq) (messages.Seq, error) {
	var first messages.Seq
	if err := s.reads.get(ctx, &first, nextTaken, int64(after)); err != nil {
		return after, err
	}
	if first == 0 || first > newest {
		return newest, nil
	}
	return first - 1, nil
}

// sweeping is one Sweep under way.
type sweeping struct {
	q     messages.SweepQuery
	due   []messages.Due
	found map[ident.Device]int // index in due
	next  messages.Seq
	more  bool
}

// row takes one row and reports whether the sweep ends before it.
func (sw *sweeping) row(rows interface{ Scan(...any) error }) (done bool, err error) {
	var seq messages.Seq
	var device ident.Device
	var created int64
	var isDue sql.NullBool
	if err := rows.Scan(&seq, &device, &created, &isDue); err != nil {
		return false, fmt.Errorf("read a delivery: %w", err)
	}
	// A row from the future is old: the clock went back, and it must not hide what follows it.
	if created > millis(sw.q.Before) && created <= millis(sw.q.Now) {
		sw.next = seq - 1
		return true, nil
	}
	i, known := sw.found[device]
	switch {
	case !isDue.Bool:
	case known:
		sw.due[i].Seq = seq
	case len(sw.due) == sw.q.Limit:
		sw.more = true
		return true, nil
	default:
		sw.found[device] = len(sw.due)
		age := max(0, sw.q.Now.Sub(fromMillis(created)))
		sw.due = append(sw.due, messages.Due{Device: device, Class: sw.q.Class, Seq: seq, Age: age})
	}
	sw.next = seq
	return false, nil
}

// expireAtATime bounds what one operation of Expire ends, so that no batch is held up by it.
const expireAtATime = 256

// Expire ends up to limit un-acked messages whose life is over at now, drops their bodies, leaves gaps, and returns how many that were.
func (s *Store) Expire(ctx context.Context, now time.Time, limit int) (int, error) {
	total := 0
	for total < limit {
		var n int
		want := min(limit-total, expireAtATime)
		err := s.write(ctx, "expire messages", newOp(func(t *tx) (err error) {
			n, err = t.expire(millis(now), want)
			return err
		}))
		if err != nil {
			return total, err
		}
		total += n
		if n < want {
			break
		}
	}
	return total, nil
}

func (t *tx) expire(now int64, limit int) (int, error) {
	var over []ending
	const query = "SELECT " + endingColumns + " FROM deliveries WHERE ended_at IS NULL AND expires_at <= ? ORDER BY expires_at LIMIT 0 + ?"
	if err := t.list(&over, query, now, limit); err != nil {
		return 0, fmt.Errorf("list what expired: %w", err)
	}
	if err := t.lockEnding(over); err != nil {
		return 0, err
	}
	for _, d := range over {
		ended, err := t.end(d, messages.Expired, "", now)
		if err != nil {
			return 0, err
		}
		if ended { // its device's own writer may have been faster with an ack
			t.change(d.Device).lose(d.Seq, lostToTTL)
		}
	}
	return len(over), nil
}

// Pending returns how many deliveries are un-acked in all inboxes.
func (s *Store) Pending(ctx context.Context) (int64, error) {
	var n int64
	if err := s.reads.get(ctx, &n, "SELECT CAST(COALESCE(SUM(pending), 0) AS BIGINT) FROM inboxes"); err != nil {
		return 0, s.readError("count what is pending", err)
	}
	return n, nil
}
