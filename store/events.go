package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"rouse/ident"
	"rouse/messages"
)

const (
	selectEvents = "SELECT seq, id, type, created_at, count, data FROM events WHERE app = ? AND seq >= ? ORDER BY seq LIMIT 0 + ?"
	oldEvents    = "SELECT seq FROM events WHERE created_at < ? ORDER BY created_at LIMIT 0 + ?"
	appsEvents   = "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE app = ? LIMIT 0 + ?)"

	// One page of events reads a few rows first, since each may hold many, then more, and stops after eventEffort events even if
	// none was chosen.
	fewEventRows  = 4
	manyEventRows = 64
	eventEffort   = 8192
)

type eventRow struct {
	Seq   messages.Seq       `db:"seq"`
	ID    ident.Event        `db:"id"`
	Type  messages.EventType `db:"type"`
	At    int64              `db:"created_at"`
	Count int64              `db:"count"`
	Data  []byte             `db:"data"`
}

// events unpacks the row. One without a count is a single event, as all were before they were packed.
func (r eventRow) events() (list []packedEvent, err error) {
	if r.Count == 0 {
		return []packedEvent{{ID: r.ID, Type: r.Type, At: r.At, Data: r.Data}}, nil
	}
	if err := json.Unmarshal(r.Data, &list); err != nil {
		return nil, fmt.Errorf("unpack the events %d: %w", r.Seq, err)
	}
	return list, nil
}

// deviceOf returns whom an event speaks of, empty for none.
func deviceOf(data []byte) ident.Device {
	var about struct {
		Device ident.Device `json:"device_id"`
	}
	_ = json.Unmarshal(data, &about) // it was made here
	return about.Device
}

// Events returns the app's events after a place, up to limit, in the order of their commits, and whether there are more.
// A place is never given twice: after one that was purged comes what followed it.
func (s *Store) Events(ctx context.Context, app ident.App, after messages.Seq, limit int) (list []messages.Event, more bool, err error) {
	p, err := s.EventPage(ctx, messages.EventQuery{App: app, After: after, Limit: limit})
	return p.Events, p.More, err
}

// EventPage returns those of an app's events that the query chooses, in the order of their commits. It looks at some thousand at most:
// a page without any may have more behind it. A place that was given before events were packed means an earlier one now.
func (s *Store) EventPage(ctx context.Context, q messages.EventQuery) (messages.EventPage, error) {
	r := eventReading{q: q, page: messages.EventPage{Next: q.After}}
	for rows, seq := fewEventRows, q.After>>eventBits; !r.done; rows = min(4*rows, manyEventRows) {
		var list []eventRow
		if err := s.reads.list(ctx, &list, selectEvents, string(q.App), int64(seq), rows); err != nil {
			return messages.EventPage{}, s.readError("list events", err)
		}
		for _, row := range list {
			if err := r.row(row); err != nil {
				return messages.EventPage{}, s.readError("list events", err)
			}
			seq = row.Seq + 1
		}
		if len(list) < rows {
			break
		}
	}
	return r.page, nil
}

// EventPlace returns the place before the first of an app's events since a time, as far back as there are any; a zero time is now,
// behind all that are there. Of a time, a few from up to 5 s before may lie behind it, for nodes' clocks differ.
func (s *Store) EventPlace(ctx context.Context, app ident.App, since time.Time) (messages.Seq, error) {
	if !since.IsZero() {
		row, err := s.rowBefore(ctx, app, since.Add(-eventSlack))
		return endOfEvents(row), err
	}
	var newest int64
	if err := s.reads.get(ctx, &newest, newestEvents, string(app)); err != nil {
		return 0, s.readError("look for events", err)
	}
	return endOfEvents(newest), nil
}

// eventReading is a page that is being read.
type eventReading struct {
	q      messages.EventQuery
	page   messages.EventPage
	looked int
	done   bool
}

// row takes the next row, until the page is done.
func (r *eventReading) row(row eventRow) error {
	if r.done || row.Seq<<eventBits+messages.Seq(max(row.Count, 1))-1 <= r.q.After {
		return nil
	}
	list, err := row.events()
	if err != nil {
		return err
	}
	for i, e := range list {
		if place := row.Seq<<eventBits + messages.Seq(i); place > r.q.After && !r.done {
			r.take(place, e)
		}
	}
	return nil
}

func (r *eventReading) take(place messages.Seq, e packedEvent) {
	chosen := r.q.Types == nil || r.q.Types.Takes(e.Type)
	if r.looked++; chosen && len(r.page.Events) == r.q.Limit || r.looked > eventEffort {
		r.page.More, r.done = true, true
		return
	}
	r.page.Next = place
	if chosen {
		r.page.Events = append(r.page.Events, messages.Event{ID: e.ID, Seq: place, App: r.q.App, Type: e.Type, At: fromMillis(e.At),
			Device: deviceOf(e.Data), Data: e.Data})
	}
}
