package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// readInbox reads an inbox, its gap and a page of it in one statement, which is one instant. An empty page is
// one row without a delivery.
const readInbox = `SELECT i.gone_at IS NOT NULL AS gone, i.head, i.seen, g.from_seq, g.to_seq, g.lost, g.told, g.reason,
	d.seq, d.message, d.urgency, d.collapse_key, d.created_at, d.expires_at, d.attempts, d.size, d.shared, d.body
	FROM inboxes i
	LEFT JOIN gaps g ON g.device = i.device
	LEFT JOIN deliveries d ON d.device = i.device AND d.ended_at IS NULL AND d.seq > ? AND d.expires_at > ?
	WHERE i.device = ? ORDER BY d.seq LIMIT 0 + ?`

// inboxState is what a page's rows repeat.
type inboxState struct {
	gone       bool
	head, seen messages.Seq
	gap        *messages.Gap
	told       int64 // of the gap's count, what is written as told
}

// Inbox returns a page of what is un-acked and alive, oldest first, and the gap if there is one. What it
// hands out counts as fetched; that is written later, and shows at once. So is that the reader has come to the inbox's
// end, even if what it was woken for is gone: it answers the wake. An empty page's Last is a place all of whose
// predecessors were handed out or reported lost. Malformed "bad_cursor" if After lies beyond
// anything this inbox held; NotFound "device_not_found"; Gone "device_unregistered".
func (s *Store) Inbox(ctx context.Context, q messages.Query) (messages.Page, error) {
	var page messages.Page
	var told int
	err := s.steady(q.Device, func(e laneEntry) (err error) {
		page, told, err = s.readPage(ctx, q, e)
		return err
	})
	if err != nil {
		return messages.Page{}, s.readError("read an inbox", err)
	}
	var p handed
	if n := len(page.Items); n > 0 {
		p = handed{from: page.Items[0].Seq, to: page.Items[n-1].Seq, at: millis(q.Now)}
	}
	if p.to > 0 || told > 0 {
		s.laneOf(q.Device).hand(q.Device, p, told, false)
	}
	if page.Seen > p.to {
		s.laneOf(q.Device).caughtUp(q.Device, page.Seen)
	}
	return page, nil
}

// readable says why an inbox cannot be read on from after; nil if it can.
func (st *inboxState) readable(after messages.Seq) error {
	switch {
	case st == nil:
		return deviceNotFound()
	case st.gone:
		return deviceGone()
	case after > st.head:
		return badCursor()
	}
	return nil
}

// readPage reads a page with all bodies; telling is the gap's count, if the device has not been told of all of it yet.
func (s *Store) readPage(ctx context.Context, q messages.Query, e laneEntry) (page messages.Page, telling int, err error) {
	for tries := 1; ; tries++ {
		var shared []int
		if page, shared, telling, err = s.readRows(ctx, q, e); err != nil || len(shared) == 0 {
			return page, telling, err
		}
		whole, err := s.fillBodies(ctx, page.Items, shared)
		if err != nil || whole || tries == bodyTries {
			return page, telling, err
		}
	}
}

// readRows reads a page; shared are the items whose bodies lie in messages.
func (s *Store) readRows(ctx context.Context, q messages.Query, e laneEntry) (page messages.Page, shared []int, telling int, err error) {
	var after messages.Seq
	if q.After != nil {
		after = *q.After
	}
	rows, err := s.reads.rows(ctx, readInbox, int64(after), millis(q.Now), string(q.Device), q.Limit+1)
	if err != nil {
		return messages.Page{}, nil, 0, err
	}
	defer rows.Close()
	var state *inboxState
	size := 0
	for rows.Next() {
		var item *inboxItem
		if state, item, err = scanInbox(rows); err != nil {
			return messages.Page{}, nil, 0, err
		}
		if item == nil {
			break
		}
		size += item.size
		if len(page.Items) == q.Limit || size > messages.MaxPageBytes && len(page.Items) > 0 {
			page.More = true
			break
		}
		_, times := e.fetched(item.Seq)
		item.Attempt += times
		if item.shared {
			shared = append(shared, len(page.Items))
		}
		page.Items = append(page.Items, item.Item)
	}
	if err := rows.Err(); err != nil {
		return messages.Page{}, nil, 0, err
	}
	if err := state.readable(after); err != nil {
		return messages.Page{}, nil, 0, err
	}
	page.Gap, page.Last = state.gap, lastPlace(page, *state, q.After, e)
	if !page.More && state.head > max(state.seen, e.seen) {
		page.Seen = state.head // of the page's instant: whatever came later lies beyond
	}
	if page.Gap != nil && state.told < int64(page.Gap.Count) {
		telling = page.Gap.Count
	}
	return page, shared, telling, nil
}

// lastPlace is where the reader of page stands. With nothing more behind the page, the gap's end is passed too.
func lastPlace(page messages.Page, state inboxState, after *messages.Seq, e laneEntry) messages.Seq {
	var last messages.Seq
	switch n := len(page.Items); {
	case n > 0:
		last = page.Items[n-1].Seq
	case after != nil:
		last = *after
	default:
		last = max(state.seen, e.seen)
	}
	if state.gap != nil && !page.More {
		last = max(last, state.gap.To)
	}
	return last
}

// inboxItem is an item of a page, whose body may lie apart.
type inboxItem struct {
	messages.Item
	size   int
	shared bool
}

func scanInbox(rows interface{ Scan(...any) error }) (*inboxState, *inboxItem, error) {
	var st inboxState
	var from, to, count, told, seq, urgency, created, expires, attempts, size, shared sql.NullInt64
	var reason, message, collapse sql.NullString
	var body []byte
	err := rows.Scan(&st.gone, &st.head, &st.seen, &from, &to, &count, &told, &reason,
		&seq, &message, &urgency, &collapse, &created, &expires, &attempts, &size, &shared, &body)
	if err != nil {
		return nil, nil, err
	}
	if to.Valid {
		st.gap = &messages.Gap{From: messages.Seq(from.Int64), To: messages.Seq(to.Int64), Count: int(count.Int64), Reason: reason.String}
		st.told = told.Int64
	}
	if !seq.Valid {
		return &st, nil, nil
	}
	item := messages.Item{ID: ident.Message(message.String), Seq: messages.Seq(seq.Int64), Data: body,
		Urgency: messages.Urgency(urgency.Int64), CollapseKey: collapse.String, CreatedAt: fromMillis(created.Int64),
		ExpiresAt: fromMillis(expires.Int64), Attempt: int(attempts.Int64) + 1}
	return &st, &inboxItem{item, int(size.Int64), shared.Int64 == 1}, nil
}

const readItem = `SELECT d.seq, d.urgency, COALESCE(d.collapse_key, '') AS collapse_key, d.created_at, d.expires_at, d.attempts,
	d.shared, d.body
	FROM deliveries d WHERE d.message = ? AND d.device = ? AND d.ended_at IS NULL AND d.expires_at > ?`

// Item returns one un-acked, living message of the inbox, which counts as fetched. NotFound
// "message_not_found", for one that is acked or over as well.
func (s *Store) Item(ctx context.Context, device ident.Device, id ident.Message, now time.Time) (messages.Item, error) {
	var item messages.Item
	err := s.steady(device, func(e laneEntry) error {
		var r struct {
			Seq         messages.Seq `db:"seq"`
			Urgency     int          `db:"urgency"`
			CollapseKey string       `db:"collapse_key"`
			CreatedAt   int64        `db:"created_at"`
			ExpiresAt   int64        `db:"expires_at"`
			Attempts    int          `db:"attempts"`
			Shared      bool         `db:"shared"`
			Body        []byte       `db:"body"`
		}
		if err := s.reads.get(ctx, &r, readItem, string(id), string(device), millis(now)); err != nil {
			return err
		}
		if r.Shared {
			body, err := s.bodies(ctx, []string{string(id)})
			if err != nil {
				return err
			}
			if r.Body = body[id]; r.Body == nil {
				return sql.ErrNoRows // the message came to its end since the row was read
			}
		}
		_, times := e.fetched(r.Seq)
		item = messages.Item{ID: id, Seq: r.Seq, Data: r.Body, Urgency: messages.Urgency(r.Urgency), CollapseKey: r.CollapseKey,
			CreatedAt: fromMillis(r.CreatedAt), ExpiresAt: fromMillis(r.ExpiresAt), Attempt: r.Attempts + times + 1}
		return nil
	})
	if errors.Is(err, sql.ErrNoRows) {
		return messages.Item{}, messageNotFound()
	}
	if err != nil {
		return messages.Item{}, s.readError("read a message", err)
	}
	s.laneOf(device).hand(device, handed{from: item.Seq, to: item.Seq, at: millis(now)}, 0, true)
	return item, nil
}
