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
	send, err := n.compose(app, r)
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
	n.hint(news(app, receipt)...)
	answer := contract.SendMessage202JSONResponse{Body: contract.MessageAccepted{
		Id: string(receipt.ID), Status: string(receipt.Status), Recipients: receipt.Recipients,
		CreatedAt: stamp(receipt.CreatedAt), ExpiresAt: stamp(receipt.ExpiresAt),
	}}
	answer.Headers.Location = "/v1/messages/" + string(receipt.ID)
	if receipt.Replayed {
		replayed := "true"
		answer.Headers.IdempotentReplayed = &replayed
	}
	return answer, nil
}

// news is one hint a device.
func news(app ident.App, receipt messages.Receipt) []messages.Hint {
	if receipt.Replayed {
		return nil
	}
	hints := make([]messages.Hint, len(receipt.Pending))
	for i, p := range receipt.Pending {
		hints[i] = messages.Hint{Kind: messages.HintNew, App: app, Device: p.Device, Class: p.Class, Seq: p.Seq}
	}
	return hints
}

// compose makes a message of a request.
func (a *API) compose(app ident.App, r contract.SendMessageRequestObject) (messages.Send, error) {
	b := r.Body
	send := messages.Send{
		App: app, Data: b.Data, TTL: messages.DefaultTTL,
		To:          messages.Target{Device: ident.Device(or(b.To.DeviceId)), User: or(b.To.UserId)},
		CollapseKey: or(b.CollapseKey), CorrelationID: or(b.CorrelationId),
		CreatedAt: stamp(time.Now()), Present: a.present,
	}
	if send.To.User != "" {
		if err := tokens.CheckUser(send.To.User); err != nil {
			return send, fault.From(err).At("/to/user_id", "1 to 256 bytes of UTF-8 without control characters")
		}
	}
	if err := errors.Join(storable("/collapse_key", send.CollapseKey), storable("/correlation_id", send.CorrelationID)); err != nil {
		return send, err
	}
	if b.Ttl != nil {
		send.TTL = time.Duration(*b.Ttl) * time.Second
	}
	if b.Notification != nil {
		send.Notification = &messages.Notification{Title: or(b.Notification.Title), Body: or(b.Notification.Body)}
	}
	urgency, err := messages.ParseUrgency(string(or(b.Urgency)))
	if err != nil {
		return send, invalidBody().At("/urgency", err.Error())
	}
	send.Urgency = urgency
	if r.Params.IdempotencyKey != nil {
		if send.Idempotency, err = idempotency(*r.Params.IdempotencyKey, b); err != nil {
			return send, err
		}
	}
	return messages.New(send)
}

// idempotency ties the key to what is asked: the body in one canonical spelling, so
// that spaces and the order of fields make no difference.
func idempotency(key string, b *contract.MessageSend) (messages.Idempotency, error) {
	if key == "" || len(key) > messages.MaxIdempotencyKey {
		return messages.Idempotency{}, badIdempotencyKey()
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return messages.Idempotency{}, badIdempotencyKey()
		}
	}
	canonical, err := json.Marshal(b)
	if err != nil {
		return messages.Idempotency{}, fmt.Errorf("canonical form of a message: %w", err)
	}
	return messages.Idempotency{Key: key, Request: sha256.Sum256(canonical)}, nil
}

func badIdempotencyKey() error {
	return fault.New(fault.Malformed, "bad_header", "Idempotency-Key: 1 to %d printable ASCII characters, once", messages.MaxIdempotencyKey)
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
	summary, err := n.deps.Messages.Cancel(ctx, callerOf(ctx).app, id, time.Now())
	if err != nil {
		return nil, err
	}
	return contract.CancelMessage200JSONResponse(wireMessage(summary)), nil
}

func wireMessage(m messages.Summary) contract.Message {
	return contract.Message{
		Id: string(m.ID), Status: string(m.Status), To: contract.MessageRecipient{DeviceId: some(m.To.Device), UserId: some(m.To.User)},
		Urgency: m.Urgency.String(), CollapseKey: some(m.CollapseKey), CorrelationId: some(m.CorrelationID),
		Recipients: m.Recipients, CreatedAt: stamp(m.CreatedAt), ExpiresAt: stamp(m.ExpiresAt),
		Counters: contract.Counters{
			Queued: m.Counters[messages.Queued], Woken: m.Counters[messages.Woken], Fetched: m.Counters[messages.Fetched],
			Acked: m.Counters[messages.Acked], Expired: m.Counters[messages.Expired], Replaced: m.Counters[messages.Replaced],
			Canceled: m.Counters[messages.Canceled], Dropped: m.Counters[messages.Dropped],
		},
	}
}
