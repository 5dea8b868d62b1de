package api

import (
	"context"
	"encoding/json"
	"strconv"

	"rouse/api/contract"
	"rouse/messages"
)

// ListEvents lists what happened to the app, oldest first.
func (n nouns) ListEvents(ctx context.Context, r contract.ListEventsRequestObject) (contract.ListEventsResponseObject, error) {
	limit, err := limitOf(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	after, err := eventPlace(r.Params.After)
	if err != nil {
		return nil, err
	}
	list, more, err := n.deps.Events.Events(ctx, callerOf(ctx).app, after, limit)
	if err != nil {
		return nil, err
	}
	answer := contract.ListEvents200JSONResponse{Events: make([]contract.Event, 0, len(list)), More: more, Cursor: r.Params.After}
	for _, e := range list {
		answer.Events = append(answer.Events, contract.Event{Id: string(e.ID), Type: string(e.Type), CreatedAt: stamp(e.At), Data: json.RawMessage(e.Data)})
		cursor := eventCursor(e.Seq)
		answer.Cursor = &cursor
	}
	return answer, nil
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
