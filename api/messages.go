package api

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// messageID reads an id from the path; what is not even of its form is unknown.
func messageID(s string) (ident.Message, error) {
	id, err := ident.ParseMessage(s)
	if err != nil {
		return "", fault.New(fault.NotFound, "message_not_found", "there is no such message")
	}
	return id, nil
}

// SendMessage accepts a message: the answer is given after the commit.
func (n nouns) SendMessage(ctx context.Context, r contract.SendMessageRequestObject) (contract.SendMessageResponseObject, error) {
	app := callerOf(ctx).app
	if r.Params.IdempotencyKey != nil {
		if err := checkIdempotencyKey(*r.Params.IdempotencyKey, messages.MaxIdempotencyKey); err != nil {
			return nil, err
		}
	}
	send, err := n.compose(app, r.Body, or(r.Params.IdempotencyKey))
	if err != nil {
		return nil, err
	}
	if send.Idempotency.Key != "" {
		release, err := n.sending.enter(ctx, string(app)+"/"+send.Idempotency.Key)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	receipt, err := n.deps.Messages.Accept(ctx, send)
	if err != nil {
		return nil, err
	}
	// Commit, then hint: who is told before may look and find nothing, and is not told again.
	n.hint(news(nil, send, receipt)...)
	answer := contract.SendMessage202JSONResponse{Body: wireAccepted(receipt)}
	answer.Headers.Location = "/v1/messages/" + string(receipt.ID)
	if receipt.Replayed {
		replayed := "true"
		answer.Headers.IdempotentReplayed = &replayed
	}
	return answer, nil
}

// wireAccepted is what a sender is told.
func wireAccepted(r messages.Receipt) contract.MessageAccepted {
	return contract.MessageAccepted{
		Id: string(r.ID), Status: string(r.Status), Recipients: r.Recipients,
		CreatedAt: stamp(r.CreatedAt), ExpiresAt: stamp(r.ExpiresAt), SendAt: stampIf(r.SendAt),
	}
}

// news adds what became new by a send: one hint a device, or one that there is something to fan out. A replay is no news.
func news(hints []messages.Hint, send messages.Send, receipt messages.Receipt) []messages.Hint {
	if receipt.Replayed {
		return hints
	}
	if send.Later() {
		return append(hints, messages.Hint{Kind: messages.HintFanout, App: send.App})
	}
	for _, p := range receipt.Pending {
		hints = append(hints, messages.Hint{Kind: messages.HintNew, App: send.App, Device: p.Device, Class: p.Class, Seq: p.Seq})
	}
	if send.CollapseKey != "" || len(receipt.Pending) < receipt.Recipients { // something was replaced, perhaps, or dropped
		hints = append(hints, messages.Hint{Kind: messages.HintEvents, App: send.App})
	}
	return hints
}

// compose makes a message of what was asked. key is the caller's Idempotency-Key, checked, or empty.
func (a *API) compose(app ident.App, b *contract.MessageSend, key string) (messages.Send, error) {
	send := messages.Send{
		App: app, To: recipient(b.To), Data: b.Data, TTL: messages.DefaultTTL,
		CollapseKey: or(b.CollapseKey), CorrelationID: or(b.CorrelationId),
		CreatedAt: stamp(time.Now()), Present: a.present,
	}
	if send.To.User != "" {
		if err := tokens.CheckUser(send.To.User); err != nil {
			return send, fault.From(err).At("/to/user_id", tokens.UserForm)
		}
	}
	if err := errors.Join(storable("/collapse_key", send.CollapseKey), storable("/correlation_id", send.CorrelationID)); err != nil {
		return send, err
	}
	if b.Ttl != nil {
		send.TTL = time.Duration(*b.Ttl) * time.Second
	}
	if b.SendAt != nil {
		send.SendAt = stamp(*b.SendAt)
	}
	if b.Notification != nil {
		send.Notification = &messages.Notification{Title: or(b.Notification.Title), Body: or(b.Notification.Body)}
	}
	urgency, err := messages.ParseUrgency(string(or(b.Urgency)))
	if err != nil {
		return send, invalidBody().At("/urgency", err.Error())
	}
	send.Urgency = urgency
	if key != "" {
		if send.Idempotency, err = idempotency(key, b); err != nil {
			return send, err
		}
	}
	return messages.New(send)
}

func recipient(to contract.Recipient) messages.Target {
	return messages.Target{Device: ident.Device(or(to.DeviceId)), User: or(to.UserId), Topic: or(to.Topic), Broadcast: to.Broadcast != nil}
}

// idempotency ties the key to what is asked: the body in one canonical spelling, so
// that spaces and the order of fields make no difference.
func idempotency(key string, b *contract.MessageSend) (messages.Idempotency, error) {
	canonical, err := json.Marshal(b)
	if err != nil {
		return messages.Idempotency{}, fmt.Errorf("canonical form of a message: %w", err)
	}
	return messages.Idempotency{Key: key, Request: sha256.Sum256(canonical)}, nil
}

// checkIdempotencyKey checks what the caller chose: 1 to most printable ASCII characters.
func checkIdempotencyKey(key string, most int) error {
	ok := key != "" && len(key) <= most
	for i := 0; ok && i < len(key); i++ {
		ok = key[i] >= ' ' && key[i] <= '~'
	}
	if !ok {
		return badIdempotencyKey(most)
	}
	return nil
}

func badIdempotencyKey(most int) error {
	return fault.New(fault.Malformed, "bad_header", "Idempotency-Key: 1 to %d printable ASCII characters, once", most)
}

// GetMessage says what became of a message.
func (n nouns) GetMessage(ctx context.Context, r contract.GetMessageRequestObject) (contract.GetMessageResponseObject, error) {
	id, err := messageID(r.MessageId)
	if err != nil {
		return nil, err
	}
	summary, err := n.deps.Messages.Message(ctx, callerOf(ctx).app, id)
	if err != nil {
		return nil, err
	}
	return contract.GetMessage200JSONResponse(wireMessage(summary)), nil
}

// CancelMessage takes a message back.
func (n nouns) CancelMessage(ctx context.Context, r contract.CancelMessageRequestObject) (contract.CancelMessageResponseObject, error) {
	id, err := messageID(r.MessageId)
	if err != nil {
		return nil, err
	}
	app := callerOf(ctx).app
	summary, err := n.deps.Messages.Cancel(ctx, app, id, time.Now())
	if err != nil {
		return nil, err
	}
	n.hint(messages.Hint{Kind: messages.HintEvents, App: app})
	return contract.CancelMessage200JSONResponse(wireMessage(summary)), nil
}

func wireMessage(m messages.Summary) contract.Message {
	return contract.Message{
		Id: string(m.ID), Status: string(m.Status), To: wireRecipient(m.To),
		Urgency: m.Urgency.String(), CollapseKey: some(m.CollapseKey), CorrelationId: some(m.CorrelationID),
		Recipients: m.Recipients, CreatedAt: stamp(m.CreatedAt), ExpiresAt: stamp(m.ExpiresAt), SendAt: stampIf(m.SendAt),
		Counters: contract.Counters{
			Queued: m.Counters[messages.Queued], Woken: m.Counters[messages.Woken], Fetched: m.Counters[messages.Fetched],
			Acked: m.Counters[messages.Acked], Expired: m.Counters[messages.Expired], Replaced: m.Counters[messages.Replaced],
			Canceled: m.Counters[messages.Canceled], Dropped: m.Counters[messages.Dropped],
			Displayed: new(m.Reports[messages.Displayed]), Opened: new(m.Reports[messages.Opened]), Dismissed: new(m.Reports[messages.Dismissed]),
		},
	}
}

func wireRecipient(to messages.Target) contract.MessageRecipient {
	wire := contract.MessageRecipient{DeviceId: some(to.Device), UserId: some(to.User), Topic: some(to.Topic)}
	if to.Broadcast {
		wire.Broadcast = new(true)
	}
	return wire
}
