package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"rouse/api/contract"
	"rouse/messages"
)

// ListEvents lists what happened to the app, oldest first, and waits for something to happen if it is asked to.
func (n nouns) ListEvents(ctx context.Context, r contract.ListEventsRequestObject) (contract.ListEventsResponseObject, error) {
	q, wait, err := eventQuery(r.Params)
	if err != nil {
		return nil, err
	}
	q.App = callerOf(ctx).app
	told := q.After // what the caller knows of
	if q.After, err = n.eventsSince(ctx, q, r.Params.Since); err != nil {
		return nil, err
	}
	page, err := n.awaitEvents(ctx, q, wait)
	if err != nil {
		return nil, err
	}
	answer := contract.ListEvents200JSONResponse{Events: make([]contract.Event, 0, len(page.Events)), More: page.More, Cursor: r.Params.After}
	for _, e := range page.Events {
		answer.Events = append(answer.Events, contract.Event{Id: string(e.ID), Type: string(e.Type), CreatedAt: stamp(e.At), Data: json.RawMessage(e.Data)})
	}
	if page.Next > told {
		answer.Cursor = some(eventCursor(page.Next))
	}
	return answer, nil
}

// eventsSince is the place to read behind: that of the cursor, or that of the time.
func (n nouns) eventsSince(ctx context.Context, q messages.EventQuery, since *string) (messages.Seq, error) {
	switch {
	case since == nil:
		return q.After, nil
	case *since == "now":
		return n.deps.Events.EventPlace(ctx, q.App, time.Time{})
	}
	when, err := time.Parse(time.RFC3339, *since)
	if err != nil || when.IsZero() {
		return 0, badQuery("since: now, or a time with its zone, such as 2030-01-02T08:00:00Z")
	}
	return n.deps.Events.EventPlace(ctx, q.App, when)
}

// eventQuery checks the parameters of listEvents.
func eventQuery(p contract.ListEventsParams) (q messages.EventQuery, wait time.Duration, err error) {
	if q.Limit, err = limitOf(p.Limit); err != nil {
		return q, 0, err
	}
	if q.After, err = eventPlace(p.After); err != nil {
		return q, 0, err
	}
	if p.After != nil && p.Since != nil {
		return q, 0, badQuery("since: a place to begin at instead of after, so only one of them")
	}
	if seconds := or(p.Wait); seconds < 0 || seconds > maxWait {
		return q, 0, badQuery(fmt.Sprintf("wait: a whole number from 0 to %d, once", maxWait))
	}
	if p.Types == nil {
		return q, time.Duration(or(p.Wait)) * time.Second, nil
	}
	q.Types = strings.Split(*p.Types, ",")
	for _, word := range q.Types {
		if !messages.IsEventWord(word) {
			return q, 0, badQuery("types: types of events such as message.acked, families such as message.*, or *, comma separated")
		}
	}
	return q, time.Duration(or(p.Wait)) * time.Second, nil
}

// checkEventWords checks what stands in a field of a body that chooses events.
func checkEventWords(field string, words []string) error {
	for i, word := range words {
		if !messages.IsEventWord(word) {
			return invalidBody().At(fmt.Sprintf("/%s/%d", field, i), "must be a type of event, such as message.acked, a family, such as message.*, or *")
		}
	}
	return nil
}

// eventCursor writes a place among events; eventPlace reads it.
func eventCursor(s messages.Seq) string { return "e" + strconv.FormatInt(int64(s), 36) }

func eventPlace(cursor *string) (messages.Seq, error) {
	if cursor == nil {
		return 0, nil
	}
	if len(*cursor) < 2 {
		return 0, badCursor()
	}
	n, err := strconv.ParseInt((*cursor)[1:], 36, 64)
	if err != nil || n < 0 || eventCursor(messages.Seq(n)) != *cursor {
		return 0, badCursor()
	}
	return messages.Seq(n), nil
}
