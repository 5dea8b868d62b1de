package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

// Where an app's events of some time are, or one of them.

// eventSlack is how far the clocks of those who write events may differ for none to be missed.
const eventSlack = 5 * time.Second

const (
	oldestEvents  = "SELECT COALESCE(MIN(seq), 0) FROM events WHERE app = ?"
	nextEventsRow = "SELECT seq, created_at FROM events WHERE app = ? AND seq >= ? ORDER BY seq LIMIT 1"
)

// rowBefore returns a row's number: the app's events behind it are those since a time. Their times grow with their numbers,
// but for what the clocks of nodes differ by.
func (s *Store) rowBefore(ctx context.Context, app ident.App, since time.Time) (int64, error) {
	var low, high int64 // it lies in [low, high]
	if err := s.reads.get(ctx, &low, oldestEvents, string(app)); err != nil {
		return 0, s.readError("look for events", err)
	}
	if err := s.reads.get(ctx, &high, newestEvents, string(app)); err != nil {
		return 0, s.readError("look for events", err)
	}
	for low = max(low-1, 0); low < high; {
		middle := low + (high-low)/2
		var seq, at int64
		err := s.reads.scan(ctx, []any{&seq, &at}, nextEventsRow, string(app), middle+1)
		switch {
		case errors.Is(err, sql.ErrNoRows): // purged meanwhile
			high = middle
		case err != nil:
			return 0, s.readError("look for events", err)
		case at < millis(since):
			low = seq
		default:
			high = middle
		}
	}
	return low, nil
}

// findSpan is how many events findEvent reads at once: a whole row, since each row that is read is unpacked. findLate is how much later
// than it an event may be that stands before it.
const (
	findSpan = 1 << eventBits
	findLate = time.Minute
)

// findEvent looks for an event by its id, which tells when it was made. NotFound "event_not_found".
func (s *Store) findEvent(ctx context.Context, app ident.App, id ident.Event) (messages.Event, error) {
	made, err := id.Time()
	if err != nil {
		return messages.Event{}, eventNotFound()
	}
	row, err := s.rowBefore(ctx, app, made.Add(-findLate))
	if err != nil {
		return messages.Event{}, err
	}
	for page := (messages.EventPage{Next: endOfEvents(row), More: true}); page.More; {
		if page, err = s.EventPage(ctx, messages.EventQuery{App: app, After: page.Next, Limit: findSpan}); err != nil {
			return messages.Event{}, err
		}
		for _, e := range page.Events {
			if e.ID == id {
				return e, nil
			}
			if e.At.After(made.Add(findLate)) {
				return messages.Event{}, eventNotFound()
			}
		}
	}
	return messages.Event{}, eventNotFound()
}

func eventNotFound() *fault.Error {
	return fault.New(fault.NotFound, "event_not_found", "there is no such event any more, or never was")
}
