package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// maxWakesShown bounds the wakes of one timeline.
const maxWakesShown = 200

// clockSlack is how far wakes may lie before the message by the clock: places tell the order, clocks may go back.
const clockSlack = time.Hour

// Deliveries returns a message's deliveries with device ids after after, each with its timeline, and whether
// there are more than limit. NotFound "message_not_found".
func (s *Store) Deliveries(ctx context.Context, app ident.App, id ident.Message, after ident.Device, limit int) (list []messages.Delivery, more bool, err error) {
	if err := s.ownMessage(ctx, app, id); err != nil {
		return nil, false, s.readError("read a message", err)
	}
	var rows []messageDelivery
	if err := s.reads.list(ctx, &rows, selectDeliveries, string(id), string(after), limit+1); err != nil {
		return nil, false, s.readError("list deliveries", err)
	}
	if more = len(rows) > limit; more {
		rows = rows[:limit]
	}
	for _, r := range rows {
		d, err := s.delivery(ctx, r)
		if err != nil {
			return nil, false, s.readError("read a delivery", err)
		}
		list = append(list, d)
	}
	return list, more, nil
}

func (s *Store) ownMessage(ctx context.Context, app ident.App, id ident.Message) error {
	var n int
	const query = `SELECT (SELECT COUNT(*) FROM messages WHERE id = ? AND app = ?) +
		(SELECT COUNT(*) FROM (SELECT 1 FROM deliveries WHERE message = ? AND app = ? LIMIT 1) AS one)`
	if err := s.reads.get(ctx, &n, query, string(id), string(app), string(id), string(app)); err != nil {
		return err
	}
	if n == 0 {
		return messageNotFound()
	}
	return nil
}

type wakeRow struct {
	At         int64        `db:"at"`
	HeadNormal messages.Seq `db:"head_normal"`
	HeadHigh   messages.Seq `db:"head_high"`
	Accepted   bool         `db:"accepted"`
	Took       int64        `db:"took"`
	Provider   string       `db:"provider"`
	Verdict    string       `db:"verdict"`
	Reason     string       `db:"reason"`
}

// delivery tells one delivery's story. What the lane holds is part of it.
func (s *Store) delivery(ctx context.Context, r messageDelivery) (messages.Delivery, error) {
	var d messages.Delivery
	err := s.steady(r.Device, func(e laneEntry) error {
		wakes, err := s.wakesOf(ctx, r, e)
		if err != nil {
			return err
		}
		d = messages.Delivery{Device: r.Device, State: r.state(e), Timeline: timeline(r, wakes, e)}
		d.NotWoken, err = s.notWoken(ctx, r, d, e)
		return err
	})
	return d, err
}

// wakeChain names the wakes of a device (1), newest first. A row that was purged ends it; its number may have been given
// again since, to another device or to a later wake of this one.
const wakeChain = `WITH RECURSIVE chain (id) AS (SELECT last_wake FROM inboxes WHERE device = ?1
	UNION SELECT w.previous FROM chain c JOIN wakes w ON w.id = c.id AND w.device = ?1 AND w.previous < w.id AND w.previous > 0)`

// selectWakes reads those sent since (2) and until (3) that stood for a place (4).
const selectWakes = `WITH RECURSIVE chain (id) AS (SELECT last_wake FROM inboxes WHERE device = ?1
	UNION SELECT w.previous FROM chain c JOIN wakes w ON w.id = c.id AND w.device = ?1 AND w.previous < w.id AND w.at >= ?2)
	SELECT w.at, w.head_normal, w.head_high, w.accepted, w.took, w.provider, w.verdict, w.reason
	FROM chain c JOIN wakes w ON w.id = c.id AND w.device = ?1
	WHERE w.at >= ?2 AND w.at <= ?3 AND (w.head_normal >= ?4 OR w.head_high >= ?4) ORDER BY w.id DESC LIMIT 0 + ?5`

// wakesOf returns the pushes that stood for the delivery, oldest first.
func (s *Store) wakesOf(ctx context.Context, r messageDelivery, e laneEntry) ([]messages.Moment, error) {
	until := int64(1<<63 - 1)
	if r.EndedAt != nil {
		until = *r.EndedAt
	}
	var rows []wakeRow
	err := s.reads.list(ctx, &rows, selectWakes, string(r.Device), r.CreatedAt-clockSlack.Milliseconds(), until, int64(r.Seq), maxWakesShown)
	if err != nil {
		return nil, fmt.Errorf("list wakes: %w", err)
	}
	var list []messages.Moment
	for _, w := range slices.Backward(rows) {
		list = append(list, wakeMoment(fromMillis(w.At), w.Accepted, w.Provider, w.Verdict, w.Reason, time.Duration(w.Took)*time.Microsecond))
	}
	for _, w := range e.wakes {
		if w.Head.Max() >= r.Seq && millis(w.At) <= until {
			list = append(list, wakeMoment(fromMillis(millis(w.At)), w.Accepted, w.Provider, w.Verdict, w.Reason, w.Took.Truncate(time.Microsecond)))
		}
	}
	return list, nil
}

func wakeMoment(at time.Time, accepted bool, provider, verdict, reason string, took time.Duration) messages.Moment {
	event := "wake_failed"
	if accepted {
		event = "wake_sent"
	}
	return messages.Moment{At: at, Event: event, Provider: provider, Verdict: verdict, Reason: reason, Took: took}
}

// timeline puts the moments of a delivery in order: accepted first, its end last but for what was reported later, by the clock between.
func timeline(r messageDelivery, wakes []messages.Moment, e laneEntry) []messages.Moment {
	list := []messages.Moment{{At: fromMillis(r.CreatedAt), Event: "accepted"}}
	middle := wakes
	if at, times := e.fetched(r.Seq); r.FetchedAt != nil {
		middle = append(middle, messages.Moment{At: fromMillis(*r.FetchedAt), Event: "fetched"})
	} else if times > 0 && r.EndedAt == nil {
		middle = append(middle, messages.Moment{At: fromMillis(at), Event: "fetched"})
	}
	before, later := r.reports()
	middle = append(middle, before...)
	slices.SortStableFunc(middle, func(a, b messages.Moment) int { return a.At.Compare(b.At) })
	list = append(list, middle...)
	if r.EndedAt != nil {
		list = append(list, messages.Moment{At: fromMillis(*r.EndedAt), Event: string(r.Ended), Reason: r.Reason})
	}
	return append(list, later...)
}

// reports are what the device reported, up to the delivery's end and after it, by its clock.
func (r messageDelivery) reports() (before, later []messages.Moment) {
	for i, at := range [len(reportKinds)]*int64{r.DisplayedAt, r.OpenedAt, r.DismissedAt} {
		if at == nil {
			continue
		}
		m := messages.Moment{At: fromMillis(*at), Event: string(reportKinds[i])}
		if r.EndedAt != nil && *at >= *r.EndedAt {
			later = append(later, m)
		} else {
			before = append(before, m)
		}
	}
	slices.SortStableFunc(later, func(a, b messages.Moment) int { return a.At.Compare(b.At) })
	return before, later
}

// selectSleeper reads what decides whether a device can be woken, whether its app has a credential, and its last wake.
const selectSleeper = "SELECT " + deviceColumns + `, c.app IS NOT NULL, COALESCE(w.at, 0), COALESCE(w.accepted, 1), COALESCE(w.verdict, ''), COALESCE(w.reason, '')` +
	fromDevices + `LEFT JOIN credentials c ON c.app = d.app AND c.provider = d.provider
	LEFT JOIN wakes w ON w.id = i.last_wake AND w.device = d.id WHERE d.id = ?`

// notWoken says why no wake was accepted for the delivery; nil if one was.
func (s *Store) notWoken(ctx context.Context, r messageDelivery, d messages.Delivery, e laneEntry) (*messages.NotWoken, error) {
	if slices.ContainsFunc(d.Timeline, func(m messages.Moment) bool { return m.Event == "wake_sent" }) {
		return nil, nil
	}
	var row deviceRow
	var last wakeRow
	var credential bool
	err := s.reads.scan(ctx, append(row.fields(), &credential, &last.At, &last.Accepted, &last.Verdict, &last.Reason), selectSleeper, string(r.Device))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil // the device went with its app
	}
	if err != nil {
		return nil, fmt.Errorf("read why a device was not woken: %w", err)
	}
	row.Token = nil // one that does not open must not hide the reason
	device, err := s.device(row)
	if err != nil {
		return nil, err
	}
	pause, err := s.pauseOf(ctx, device)
	if err != nil {
		return nil, err
	}
	woken, _, _ := e.woken()
	why := messages.WhyNotWoken(messages.Sleeper{
		State: d.State, Class: r.Class, Provider: string(device.Provider), TokenState: string(device.TokenState), TokenReason: device.TokenReason,
		Quarantined: device.Quarantined(), HasCredential: credential, Pause: pause, Failed: lastFailure(d, last, e), RegisteredAt: device.RegisteredAt,
		Seen: max(r.Seen, e.seen), Woken: max(r.WokenNormal, r.WokenHigh, woken.Max()),
		LastContact: later(device.LastContact, fromMillis(e.contact)), Now: time.Now(),
	})
	return &why, nil
}

// lastFailure returns the last push for the delivery, or else the device's last one, if the provider did not take it: what an
// earlier message met holds back the later ones. last is the last wake in the database.
func lastFailure(d messages.Delivery, last wakeRow, e laneEntry) messages.FailedPush {
	for _, m := range slices.Backward(d.Timeline) {
		if m.Event == "wake_failed" {
			return messages.FailedPush{At: m.At, Verdict: m.Verdict, Reason: m.Reason}
		}
	}
	if n := len(e.wakes); n > 0 {
		w := e.wakes[n-1]
		last = wakeRow{At: millis(w.At), Accepted: w.Accepted, Verdict: w.Verdict, Reason: w.Reason}
	}
	if last.Accepted {
		return messages.FailedPush{}
	}
	return messages.FailedPush{At: fromMillis(last.At), Verdict: last.Verdict, Reason: last.Reason, Earlier: true}
}

// pauseOf returns what holds back pushes on the way to a device.
func (s *Store) pauseOf(ctx context.Context, d tokens.Device) (messages.Pause, error) {
	var open []circuitRow
	if err := s.reads.list(ctx, &open, providersOpen, string(d.App), string(d.Provider)); err != nil {
		return messages.Pause{}, fmt.Errorf("read what pauses a device's pushes: %w", err)
	}
	return pauseAmong(open, d), nil
}

// pauseAmong picks, of an app's circuits that hold back pushes on the way to a device, the most lasting, then the one tried last.
func pauseAmong(open []circuitRow, d tokens.Device) (p messages.Pause) {
	way := tokens.OutletOf(d)
	lasting := []tokens.CircuitCause{tokens.CauseThrottled, tokens.CauseMassDeath, tokens.CauseCredential}
	best := -1
	for _, r := range open {
		c := r.circuit()
		holds := c.Provider == way.Provider && c.State == tokens.CircuitOpen && (c.Environment == "" || c.Environment == way.Environment) &&
			(c.Onward == "" || c.Onward == way.Onward)
		rank := slices.Index(lasting, c.Cause)
		if !holds || rank < best || rank == best && !c.RetryAt.After(p.Until) {
			continue
		}
		best, p = rank, messages.Pause{Cause: string(c.Cause), Reason: c.Reason, Until: c.RetryAt}
	}
	return p
}
