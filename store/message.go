package store

import (
	"context"
	"database/sql"
	"errors"
	"maps"

	"rouse/ident"
	"rouse/messages"
)

// summaryRow is a send, from its row in messages or from its one delivery.
type summaryRow struct {
	ID            ident.Message `db:"id"`
	App           ident.App     `db:"app"`
	Audience      string        `db:"audience"`
	Name          string        `db:"user_id"`
	Urgency       int           `db:"urgency"`
	Recipients    int           `db:"recipients"`
	Pending       int           `db:"pending"`
	CreatedAt     int64         `db:"created_at"`
	ExpiresAt     int64         `db:"expires_at"`
	CanceledAt    *int64        `db:"canceled_at"`
	SendAt        *int64        `db:"send_at"`
	DueAt         *int64        `db:"due_at"`
	Begun         bool          `db:"begun"`
	CollapseKey   string        `db:"collapse_key"`
	CorrelationID string        `db:"correlation_id"`
	Acked         int           `db:"acked"`
	Expired       int           `db:"expired"`
	Replaced      int           `db:"replaced"`
	Canceled      int           `db:"canceled"`
	Dropped       int           `db:"dropped"`
	Displayed     int           `db:"displayed"`
	Opened        int           `db:"opened"`
	Dismissed     int           `db:"dismissed"`
}

const (
	postFields = `id, app, audience, user_id, urgency, recipients, ` + postPending + ` AS pending, created_at, expires_at, canceled_at, send_at, due_at,
		fan_cursor IS NOT NULL AS begun, COALESCE(collapse_key, '') AS collapse_key, COALESCE(correlation_id, '') AS correlation_id,
		acked, expired, replaced, canceled, dropped, displayed, opened, dismissed`
	selectPost = "SELECT " + postFields + " FROM messages WHERE id = ?"
)

func (r summaryRow) summary() messages.Summary {
	sum := messages.Summary{ID: r.ID, Status: r.status(), To: r.to(), Urgency: messages.Urgency(r.Urgency), CollapseKey: r.CollapseKey,
		CorrelationID: r.CorrelationID, Recipients: r.Recipients, CreatedAt: fromMillis(r.CreatedAt), ExpiresAt: fromMillis(r.ExpiresAt),
		SendAt: fromNull(r.SendAt), Counters: messages.Counters{},
		Reports: map[messages.ReportKind]int{messages.Displayed: r.Displayed, messages.Opened: r.Opened, messages.Dismissed: r.Dismissed}}
	for _, state := range messages.States() {
		sum.Counters[state] = 0
	}
	return sum
}

func (r summaryRow) to() messages.Target {
	switch r.Audience {
	case toDevice:
		return messages.Target{Device: ident.Device(r.Name)}
	case toTopic:
		return messages.Target{Topic: r.Name}
	case toAll:
		return messages.Target{Broadcast: true}
	}
	return messages.Target{User: r.Name}
}

func (r summaryRow) status() messages.Status {
	switch {
	case r.CanceledAt != nil:
		return messages.CanceledStatus
	case r.DueAt != nil && r.SendAt != nil && !r.Begun:
		return messages.Scheduled
	case r.DueAt != nil:
		return messages.FanningOut
	case r.Recipients == 0:
		return messages.NoRecipients
	}
	return messages.Accepted
}

// ended returns how many deliveries have ended, by state. whole is false if not all were counted: by nodes of a version that did not,
// which ended them while they ran beside this one, or before it. If there are too many to be looked at, those count as acked.
func (r summaryRow) ended(many bool) (c messages.Counters, whole bool) {
	missing := r.Recipients - r.Pending - r.Acked - r.Expired - r.Replaced - r.Canceled - r.Dropped
	if many {
		r.Acked, missing = r.Acked+max(0, missing), 0
	}
	return messages.Counters{messages.Acked: r.Acked, messages.Expired: r.Expired, messages.Replaced: r.Replaced, messages.Canceled: r.Canceled,
		messages.Dropped: r.Dropped}, missing == 0
}

// selectDeliveries reads deliveries of a message with what their states follow from, selectPendingOf those that are pending.
const (
	deliveryFields = `d.device, d.app, d.seq, d.class, d.urgency, d.created_at, d.expires_at, d.fetched_at, d.ended_at,
	COALESCE(d.ended, '') AS ended, COALESCE(d.reason, '') AS reason, COALESCE(d.to_user, '') AS to_user,
	COALESCE(d.collapse_key, '') AS collapse_key, COALESCE(d.correlation_id, '') AS correlation_id,
	COALESCE(i.seen, 0) AS seen, COALESCE(i.woken_normal, 0) AS woken_normal, COALESCE(i.woken_high, 0) AS woken_high,
	d.displayed_at, d.opened_at, d.dismissed_at
	FROM deliveries d LEFT JOIN inboxes i ON i.device = d.device `
	// deliveriesOf says of inboxes, too, where they begin: PostgreSQL may read them in their order beside the deliveries, from the first one on.
	deliveriesOf     = "SELECT " + deliveryFields + "AND i.device > ?2 WHERE d.message = ?1 AND d.device > ?2 "
	byDevice         = "ORDER BY d.device LIMIT 0 + ?3"
	selectDeliveries = deliveriesOf + byDevice
	selectPendingOf  = deliveriesOf + "AND d.ended_at IS NULL " + byDevice
)

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
	DisplayedAt   *int64         `db:"displayed_at"`
	OpenedAt      *int64         `db:"opened_at"`
	DismissedAt   *int64         `db:"dismissed_at"`
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
func (r messageDelivery) asSummary(id ident.Message, e laneEntry) messages.Summary {
	row := summaryRow{ID: id, Audience: toUser, Name: r.User, Urgency: r.Urgency, Recipients: 1, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt,
		CollapseKey: r.CollapseKey, CorrelationID: r.CorrelationID}
	row.Displayed, row.Opened, row.Dismissed = int(bit(r.DisplayedAt != nil)), int(bit(r.OpenedAt != nil)), int(bit(r.DismissedAt != nil))
	if r.User == "" {
		row.Audience, row.Name = toDevice, string(r.Device)
	}
	if r.Ended == messages.Canceled {
		row.CanceledAt = r.EndedAt
	}
	sum := row.summary()
	sum.Counters[r.state(e)] = 1
	return sum
}

const (
	// pageOfDeliveries bounds one read of a message's deliveries.
	pageOfDeliveries = 1000
	// lookedAt is up to how many recipients a message's pending deliveries are looked at one by one.
	lookedAt = 10_000
)

// Message returns what became of a send, with its counters; NotFound "message_not_found". With more than 10,000 recipients, whatever is
// pending counts as queued.
func (s *Store) Message(ctx context.Context, app ident.App, id ident.Message) (messages.Summary, error) {
	var post summaryRow
	err := s.reads.get(ctx, &post, selectPost, string(id))
	if errors.Is(err, sql.ErrNoRows) {
		return s.messageOfOne(ctx, app, id)
	}
	if err != nil {
		return messages.Summary{}, s.readError("read a message", err)
	}
	if post.App != app {
		return messages.Summary{}, messageNotFound()
	}
	return s.summed(ctx, post, lookedAt)
}

// messageOfOne is Message for one that has no row of its own.
func (s *Store) messageOfOne(ctx context.Context, app ident.App, id ident.Message) (messages.Summary, error) {
	var rows []messageDelivery
	if err := s.reads.list(ctx, &rows, selectDeliveries, string(id), "", 1); err != nil {
		return messages.Summary{}, s.readError("read a message", err)
	}
	if len(rows) == 0 || rows[0].App != app {
		return messages.Summary{}, messageNotFound()
	}
	e, _ := s.laneOf(rows[0].Device).view(rows[0].Device)
	return rows[0].asSummary(id, e), nil
}

// summed is the summary of a post; of more than most recipients it looks at none.
func (s *Store) summed(ctx context.Context, post summaryRow, most int) (messages.Summary, error) {
	sum := post.summary()
	ended, whole := post.ended(post.Recipients > most)
	query, left := selectPendingOf, post.Pending
	if !whole { // of some nobody knows how they ended but they themselves
		query, left = selectDeliveries, 0
	} else {
		maps.Copy(sum.Counters, ended)
	}
	if left == 0 && whole || post.Recipients > most {
		sum.Counters[messages.Queued] += left
		return sum, nil
	}
	for after := ident.Device(""); ; {
		var rows []messageDelivery
		if err := s.reads.list(ctx, &rows, query, string(post.ID), string(after), pageOfDeliveries); err != nil {
			return messages.Summary{}, s.readError("count a message's deliveries", err)
		}
		for _, r := range rows {
			e, _ := s.laneOf(r.Device).view(r.Device)
			if state := r.state(e); !whole || state == messages.Woken || state == messages.Fetched {
				sum.Counters[state]++
				left--
			}
			after = r.Device
		}
		if len(rows) < pageOfDeliveries {
			sum.Counters[messages.Queued] += max(0, left) // of the instant of the post
			return sum, nil
		}
	}
}
