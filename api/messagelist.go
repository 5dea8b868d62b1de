package api

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"rouse/api/contract"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// ListMessages lists an app's messages, newest first.
func (n nouns) ListMessages(ctx context.Context, r contract.ListMessagesRequestObject) (contract.ListMessagesResponseObject, error) {
	query, err := listQuery(r.Params)
	if err != nil {
		return nil, err
	}
	query.App = callerOf(ctx).app
	list, err := n.deps.Messages.Messages(ctx, query)
	if err != nil {
		return nil, err
	}
	answer := contract.ListMessages200JSONResponse{Messages: []contract.Message{}, Cursor: r.Params.After, More: list.More}
	for _, m := range list.Messages {
		answer.Messages = append(answer.Messages, wireMessage(m))
	}
	if list.Next != "" {
		answer.Cursor = some(list.Next)
	}
	return answer, nil
}

// listQuery checks what is asked for, all but the app.
func listQuery(p contract.ListMessagesParams) (q messages.ListQuery, err error) {
	if q.Limit, err = limitOf(p.Limit); err != nil {
		return q, err
	}
	if p.After != nil {
		if q.Before, err = ident.ParseMessage(*p.After); err != nil {
			return q, badCursor()
		}
	}
	if q.To, err = listedTarget(p); err != nil {
		return q, err
	}
	if q.CorrelationID, err = listedCorrelation(p.CorrelationId); err != nil {
		return q, err
	}
	if q.Status, err = listedStatus(p.Status); err != nil {
		return q, err
	}
	q.From, q.Until = listedTime(p.CreatedAfter), listedTime(p.CreatedBefore)
	return q, nil
}

// listedTarget is to whom, if that is asked for: a message goes to one, so that two fit nothing.
func listedTarget(p contract.ListMessagesParams) (to messages.Target, err error) {
	given := 0
	if p.DeviceId != nil {
		given++
		if to.Device, err = ident.ParseDevice(*p.DeviceId); err != nil {
			return to, badQuery("device_id: the id of a device, dev_...")
		}
	}
	if p.UserId != nil {
		given++
		if to.User = *p.UserId; tokens.CheckUser(to.User) != nil {
			return to, badQuery("user_id: " + tokens.UserForm)
		}
	}
	if p.Topic != nil {
		given++
		if to.Topic = *p.Topic; messages.CheckTopic(to.Topic) != nil {
			return to, badQuery("topic: " + messages.TopicForm)
		}
	}
	if given > 1 {
		return to, badQuery("give one of device_id, user_id and topic: a message goes to one of them")
	}
	return to, nil
}

func listedCorrelation(p *string) (string, error) {
	if p == nil {
		return "", nil
	}
	if *p == "" || len(*p) > messages.MaxCorrelationID || !utf8.ValidString(*p) || strings.IndexByte(*p, 0) >= 0 {
		return "", badQuery("correlation_id: 1 to 128 bytes of UTF-8")
	}
	return *p, nil
}

func listedStatus(p *string) (messages.Status, error) {
	if p == nil {
		return "", nil
	}
	switch s := messages.Status(*p); s {
	case messages.Accepted, messages.NoRecipients, messages.Scheduled, messages.FanningOut, messages.CanceledStatus:
		return s, nil
	}
	return "", badQuery("status: accepted, no_recipients, scheduled, fanning_out or canceled")
}

// listedTime rounds up to what is stored, whole milliseconds: a bound between two of them lies behind the first.
func listedTime(p *time.Time) time.Time {
	if p == nil {
		return time.Time{}
	}
	t := stamp(*p)
	if t.Before(*p) {
		t = t.Add(time.Millisecond)
	}
	return t
}
