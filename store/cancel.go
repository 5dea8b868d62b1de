package store

import (
	"context"
	"fmt"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// A send is canceled in one short transaction, from which on nothing more of it is stored. What lies in inboxes ends page by page: a
// million of them would hold everybody up. A fan-out that is canceled stays due until that is done, so that whoever dies meanwhile, somebody
// goes on.

// Cancel ends by itself what is pending of up to cancelPages pages; FanOut has the rest.
const (
	cancelPages  = 10
	cancelAtOnce = 500
)

const (
	cancelPost = `UPDATE messages SET canceled_at = CAST(?1 AS BIGINT), notification = NULL, fan_cursor = NULL,
		pending = CASE WHEN ` + postPending + ` > 0 THEN ` + postPending + ` + 1 ELSE 0 END,
		due_at = CASE WHEN ` + postPending + ` > 0 THEN CAST(?4 AS BIGINT) END, body = CASE WHEN ` + postPending + ` > 0 THEN body END
		WHERE id = ?2 AND app = ?3 AND canceled_at IS NULL AND (pending > 0 OR due_at IS NOT NULL)`
	messageKnown = `SELECT (SELECT COUNT(*) FROM messages WHERE id = ? AND app = ?) AS posts,
		(SELECT COUNT(*) FROM (SELECT 1 FROM deliveries WHERE message = ? AND app = ? LIMIT 1) AS one) AS deliveries`
	pendingAlone = "SELECT " + endingColumns + " FROM deliveries WHERE message = ? AND shared = 0 AND ended_at IS NULL"
)

// Cancel takes a message back wherever it is still pending, and whatever of it is still to be stored, and returns what it is then. One
// that is over everywhere stays as it is. Of thousands of deliveries some are still pending when it returns; they end soon, and
// calling it again hurries them. NotFound "message_not_found".
func (s *Store) Cancel(ctx context.Context, app ident.App, id ident.Message, now time.Time) (messages.Summary, error) {
	var posted bool
	err := s.write(ctx, "cancel a message", newOp(func(t *tx) (err error) {
		posted, err = t.cancel(app, id, now)
		return err
	}))
	for range cancelPages {
		if err != nil || !posted {
			break
		}
		var page messages.FanPage
		page, err = s.FanOut(ctx, id, cancelAtOnce, now)
		posted = !page.Done
	}
	if err != nil {
		return messages.Summary{}, err
	}
	return s.Message(ctx, app, id)
}

// cancel cancels a message and reports whether FanOut is to take it back. The one delivery of a message without a row ends here.
func (t *tx) cancel(app ident.App, id ident.Message, now time.Time) (posted bool, err error) {
	n, err := t.exec(cancelPost, millis(now), string(id), string(app), millis(now.Add(-dueBefore)))
	if err != nil || n > 0 {
		return n > 0, err
	}
	var known struct{ Posts, Deliveries int }
	if err := t.get(&known, messageKnown, string(id), string(app), string(id), string(app)); err != nil {
		return false, fmt.Errorf("look a message up: %w", err)
	}
	if known.Posts > 0 {
		return true, nil
	}
	if known.Deliveries == 0 {
		return false, messageNotFound()
	}
	var pending []ending
	if err := t.list(&pending, pendingAlone, string(id)); err != nil {
		return false, fmt.Errorf("list what is pending: %w", err)
	}
	if err := t.lockEnding(pending); err != nil {
		return false, err
	}
	return false, t.endAll(pending, messages.Canceled, "", millis(now))
}

const (
	// takeBackPage reads what was stored for a page of devices, whether it is pending or not.
	takeBackPage = "SELECT " + endingColumns + ", ended_at IS NOT NULL AS over FROM deliveries WHERE message = ? AND device > ? ORDER BY device LIMIT 0 + ?"
	moveBack     = `UPDATE messages SET fan_cursor = ?1, pending = pending - CAST(?2 AS BIGINT),
		due_at = CASE WHEN CAST(?2 AS BIGINT) = 1 THEN NULL ELSE due_at END,
		body = CASE WHEN CAST(?2 AS BIGINT) = 1 AND pending <= 1 THEN NULL ELSE body END
		WHERE id = ?3 AND due_at IS NOT NULL AND canceled_at IS NOT NULL AND COALESCE(fan_cursor, '') = ?4`
)

// takeBack ends the next page of what a canceled send has pending. Who does it late does nothing: what has ended stays as it is.
func (s *Store) takeBack(ctx context.Context, j fanRow, limit int, now time.Time) (messages.FanPage, error) {
	var rows []struct {
		ending
		Over bool `db:"over"`
	}
	if err := s.reads.list(ctx, &rows, takeBackPage, string(j.ID), j.Cursor, limit); err != nil {
		return messages.FanPage{}, s.readError("list what is pending", err)
	}
	var pending []ending
	var devices []ident.Device
	cursor, last := j.Cursor, len(rows) < limit
	for _, r := range rows {
		if cursor = string(r.Device); !r.Over {
			pending, devices = append(pending, r.ending), append(devices, r.Device)
		}
	}
	err := s.write(ctx, "take a message back", newOp(func(t *tx) error {
		if err := t.endAll(pending, messages.Canceled, "", millis(now)); err != nil {
			return err
		}
		_, err := t.exec(moveBack, cursor, bit(last), string(j.ID), j.Cursor)
		return err
	}).locking(devices...))
	return messages.FanPage{Done: err == nil && last}, err
}

const endedAtOnce = endAtOnce + " RETURNING d.device, d.seq"

// endAll is end for many deliveries. The caller has the locks of their devices.
func (t *tx) endAll(list []ending, state messages.State, why string, at int64) error {
	if !t.w.travels() {
		for _, d := range list {
			if _, err := t.end(d, state, why, at); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		return nil
	}
	var devices, states []string
	var seqs, ats []int64
	var reasons []*string
	bySeq := make(map[messages.Seq]ending, len(list))
	for _, d := range list {
		bySeq[d.Seq] = d
		devices, seqs, ats = append(devices, string(d.Device)), append(seqs, int64(d.Seq)), append(ats, at)
		states, reasons = append(states, string(state)), append(reasons, textOrNull(why))
	}
	err := t.ask(func(r row) error {
		var device string
		var seq messages.Seq
		err := r.Scan(&device, &seq)
		t.left(bySeq[seq], state)
		t.tellEnd(bySeq[seq], state, why, at)
		return err
	}, endedAtOnce, devices, seqs, ats, states, reasons)
	if err == nil {
		err = t.w.travel()
	}
	if err != nil {
		return fmt.Errorf("end deliveries: %w", err)
	}
	return nil
}
