package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// ackSet ends deliveries as acked and writes along, if it is still to be written, that the page
// between two places was fetched at a time. A message past its life that was never handed out is left to Expire: its device
// has a gap to be told of. Parameters: 1 now, 2 and 3 the page, 4 its time, 5 the device, 6 and on which.
const (
	ackSet = `UPDATE deliveries SET ended_at = ?1, ended = 'acked', body = NULL, notification = NULL,
		attempts = attempts + CASE WHEN seq >= ?2 AND seq <= ?3 THEN 1 ELSE 0 END,
		fetched_at = CASE WHEN fetched_at IS NULL AND seq >= ?2 AND seq <= ?3 THEN ?4 ELSE fetched_at END
		WHERE device = ?5 AND ended_at IS NULL
		AND (expires_at > ?1 OR fetched_at IS NOT NULL OR (seq >= ?2 AND seq <= ?3 AND expires_at > ?4)) AND `
	ackReturn = ` RETURNING seq, size, message, shared, created_at, app, COALESCE(correlation_id, '')`
	ackUpTo   = ackSet + `seq <= ?6` + ackReturn
	ackOne    = ackSet + `message = ?6` + ackReturn
)

// ackIDsAtATime is how many ids one statement takes.
const ackIDsAtATime = 16

var ackMany = func() string {
	ids := make([]string, ackIDsAtATime)
	for i := range ids {
		ids[i] = "?" + strconv.Itoa(6+i)
	}
	return ackSet + "message IN (" + strings.Join(ids, ", ") + ")" + ackReturn
}()

// AckUpTo acks everything un-acked up to and including seq and returns how many that were. Malformed
// "bad_cursor" if seq lies beyond anything this inbox held, NotFound "device_not_found".
func (s *Store) AckUpTo(ctx context.Context, device ident.Device, seq messages.Seq, now time.Time) (int, error) {
	return s.ack(ctx, &acking{device: device, upTo: seq, now: now}, func(t *tx) (int, error) { return t.ackUpTo(device, seq, now) })
}

// AckIDs acks those of the messages that are un-acked in the inbox and returns how many that were; other ids are
// ignored. NotFound "device_not_found".
func (s *Store) AckIDs(ctx context.Context, device ident.Device, ids []ident.Message, now time.Time) (int, error) {
	return s.ack(ctx, &acking{device: device, byIDs: true, ids: ids, now: now}, func(t *tx) (int, error) { return t.ackIDs(device, ids, now) })
}

// ack has a acked, or do called, which does the same.
func (s *Store) ack(ctx context.Context, a *acking, do func(*tx) (int, error)) (int, error) {
	o := newOp(func(t *tx) (err error) {
		a.n, err = do(t)
		return err
	})
	o.lands, o.ack, o.hurried = a.device, a, true
	if err := s.write(ctx, "ack messages", o); err != nil {
		return 0, err
	}
	return a.n, nil
}

func (t *tx) ackUpTo(device ident.Device, seq messages.Seq, now time.Time) (int, error) {
	page, err := t.lastPage(device)
	if err != nil {
		return 0, err
	}
	n, last, err := t.ack(device, page, now, ackUpTo, int64(seq))
	if err != nil {
		return 0, err
	}
	if n == 0 || last < seq {
		if err := t.everHeld(device, seq); err != nil {
			return 0, err
		}
	}
	t.ackedTo[device] = max(t.ackedTo[device], seq)
	return n, nil
}

func (t *tx) ackIDs(device ident.Device, ids []ident.Message, now time.Time) (int, error) {
	page, err := t.lastPage(device)
	if err != nil {
		return 0, err
	}
	total, last := 0, messages.Seq(0)
	for len(ids) > 0 {
		query, args := ackMany, make([]any, ackIDsAtATime)
		if len(ids) == 1 {
			query, args = ackOne, args[:1]
		}
		for i := range args {
			args[i] = string(ids[min(i, len(ids)-1)])
		}
		n, newest, err := t.ack(device, page, now, query, args...)
		if err != nil {
			return 0, err
		}
		total, last = total+n, max(last, newest)
		ids = ids[min(len(args), len(ids)):]
	}
	if total == 0 {
		return 0, t.everHeld(device, 0)
	}
	t.ackedIDs[device] = max(t.ackedIDs[device], last)
	return total, nil
}

// lastPage returns the page whose marks the ack may write; older ones that wait in the lane are written first.
func (t *tx) lastPage(device ident.Device) (handed, error) {
	none := handed{from: 1}
	e := t.lane[device]
	if e == nil || len(e.pages) == 0 {
		return none, nil
	}
	last := len(e.pages) - 1
	for t.marked[device] < last {
		if err := t.markPage(device, e.pages[t.marked[device]]); err != nil {
			return none, fmt.Errorf("record a fetch: %w", err)
		}
		t.marked[device]++
	}
	return e.pages[last], nil
}

// ack runs one of the statements above and returns how many it ended, and the newest of them.
func (t *tx) ack(device ident.Device, p handed, now time.Time, query string, which ...any) (n int, newest messages.Seq, err error) {
	args := append([]any{millis(now), int64(p.from), int64(p.to), p.at, string(device)}, which...)
	t.writes++
	rows, err := t.rows(query, args...)
	if err != nil {
		return 0, 0, fmt.Errorf("ack: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		d := ending{Device: device}
		var created int64
		if err := rows.Scan(&d.Seq, &d.Size, &d.Message, &d.Shared, &created, &d.App, &d.Correlation); err != nil {
			return 0, 0, fmt.Errorf("ack: %w", err)
		}
		t.left(d, messages.Acked)
		t.tellEnd(d, messages.Acked, "", millis(now))
		t.done.acked = append(t.done.acked, now.Sub(fromMillis(created)))
		n, newest = n+1, max(newest, d.Seq)
	}
	if err := rows.Err(); err != nil {
		return 0, 0, fmt.Errorf("ack: %w", err)
	}
	if n == 0 {
		t.writes--
	}
	return n, newest, nil
}

// everHeld returns NotFound "device_not_found" for an inbox that does not exist, and Malformed
// "bad_cursor" if it never held seq or anything newer.
func (t *tx) everHeld(device ident.Device, seq messages.Seq) error {
	var heads []messages.Seq
	if err := t.list(&heads, "SELECT head FROM inboxes WHERE device = ?", string(device)); err != nil {
		return fmt.Errorf("read an inbox: %w", err)
	}
	switch {
	case len(heads) == 0:
		return deviceNotFound()
	case seq > heads[0]:
		return badCursor()
	}
	return nil
}
