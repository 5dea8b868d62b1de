package api

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"time"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

const (
	// webhookSecretBytes is how long a webhook's secret is.
	webhookSecretBytes = 32
	// webhookOverlap is for how long a secret that was replaced signs too, if the caller does not say.
	webhookOverlap = 24 * time.Hour
)

func webhookNotFound() error {
	return fault.New(fault.NotFound, "webhook_not_found", "there is no such webhook")
}

// webhookID reads an id from the path; what is not even of its form is unknown.
func webhookID(s string) (ident.Webhook, error) {
	id, err := ident.ParseWebhook(s)
	if err != nil {
		return "", webhookNotFound()
	}
	return id, nil
}

// newWebhookSecret makes a secret, and how it is shown.
func newWebhookSecret() (raw []byte, shown string) {
	raw = make([]byte, webhookSecretBytes)
	_, _ = rand.Read(raw) // it never fails
	return raw, "whsec_" + base64.StdEncoding.EncodeToString(raw)
}

// CreateWebhook has events posted to a URL.
func (n nouns) CreateWebhook(ctx context.Context, r contract.CreateWebhookRequestObject) (contract.CreateWebhookResponseObject, error) {
	if err := n.deps.Poster.CheckURL(r.Body.Url); err != nil {
		return nil, err
	}
	if err := checkEventWords("events", r.Body.Events); err != nil {
		return nil, err
	}
	if err := storable("/description", or(r.Body.Description)); err != nil {
		return nil, err
	}
	hook := messages.Webhook{ID: ident.NewWebhook(), App: callerOf(ctx).app, URL: r.Body.Url, Events: r.Body.Events,
		Description: or(r.Body.Description), CreatedAt: stamp(time.Now())}
	raw, shown := newWebhookSecret()
	if err := n.deps.Webhooks.AddWebhook(ctx, hook, raw); err != nil {
		return nil, err
	}
	n.webhooksChanged(hook.App)
	return contract.CreateWebhook201JSONResponse{Id: string(hook.ID), Url: hook.URL, Events: hook.Events, Description: some(hook.Description),
		Enabled: true, CreatedAt: hook.CreatedAt, Secret: shown}, nil
}

// webhooksChanged has whoever posts look at once what there is to be done.
func (a *API) webhooksChanged(app ident.App) {
	a.hint(messages.Hint{Kind: messages.HintEvents, App: app})
}

// ListWebhooks lists where an app's events are posted.
func (n nouns) ListWebhooks(ctx context.Context, _ contract.ListWebhooksRequestObject) (contract.ListWebhooksResponseObject, error) {
	list, err := n.deps.Webhooks.Webhooks(ctx, callerOf(ctx).app)
	if err != nil {
		return nil, err
	}
	answer := contract.ListWebhooks200JSONResponse{Webhooks: make([]contract.Webhook, 0, len(list))}
	for _, h := range list {
		answer.Webhooks = append(answer.Webhooks, wireWebhook(h))
	}
	return answer, nil
}

// GetWebhook reads a webhook.
func (n nouns) GetWebhook(ctx context.Context, r contract.GetWebhookRequestObject) (contract.GetWebhookResponseObject, error) {
	list, err := n.deps.Webhooks.Webhooks(ctx, callerOf(ctx).app)
	if err != nil {
		return nil, err
	}
	for _, h := range list {
		if string(h.ID) == r.WebhookId {
			return contract.GetWebhook200JSONResponse(wireWebhook(h)), nil
		}
	}
	return nil, webhookNotFound()
}

// UpdateWebhook changes a webhook.
func (n nouns) UpdateWebhook(ctx context.Context, r contract.UpdateWebhookRequestObject) (contract.UpdateWebhookResponseObject, error) {
	id, err := webhookID(r.WebhookId)
	if err != nil {
		return nil, err
	}
	patch := messages.WebhookPatch{URL: r.Body.Url, Description: r.Body.Description, Enabled: r.Body.Enabled}
	if patch.URL != nil {
		if err := n.deps.Poster.CheckURL(*patch.URL); err != nil {
			return nil, err
		}
	}
	if r.Body.Events != nil {
		if err := checkEventWords("events", *r.Body.Events); err != nil {
			return nil, err
		}
		patch.Events = (*messages.EventFilter)(r.Body.Events)
	}
	if err := storable("/description", or(patch.Description)); err != nil {
		return nil, err
	}
	app := callerOf(ctx).app
	hook, err := n.deps.Webhooks.PatchWebhook(ctx, app, id, patch, time.Now())
	if err != nil {
		return nil, err
	}
	n.webhooksChanged(app)
	return contract.UpdateWebhook200JSONResponse(wireWebhook(hook)), nil
}

// DeleteWebhook has nothing posted any more.
func (n nouns) DeleteWebhook(ctx context.Context, r contract.DeleteWebhookRequestObject) (contract.DeleteWebhookResponseObject, error) {
	id, err := webhookID(r.WebhookId)
	if err != nil {
		return nil, err
	}
	app := callerOf(ctx).app
	if err := n.deps.Webhooks.DeleteWebhook(ctx, app, id); err != nil {
		return nil, err
	}
	n.webhooksChanged(app)
	return contract.DeleteWebhook204Response{}, nil
}

// RotateWebhookSecret gives a webhook another secret.
func (n nouns) RotateWebhookSecret(ctx context.Context, r contract.RotateWebhookSecretRequestObject) (contract.RotateWebhookSecretResponseObject, error) {
	id, err := webhookID(r.WebhookId)
	if err != nil {
		return nil, err
	}
	overlap := webhookOverlap
	if r.Body.Overlap != nil {
		overlap = time.Duration(*r.Body.Overlap) * time.Second
	}
	app := callerOf(ctx).app
	raw, shown := newWebhookSecret()
	if err := n.deps.Webhooks.RotateWebhookSecret(ctx, app, id, raw, time.Now().Add(overlap)); err != nil {
		return nil, err
	}
	n.webhooksChanged(app)
	return contract.RotateWebhookSecret200JSONResponse{Secret: shown}, nil
}

// TestWebhook makes one post, and waits for what comes of it.
func (n nouns) TestWebhook(ctx context.Context, r contract.TestWebhookRequestObject) (contract.TestWebhookResponseObject, error) {
	id, err := webhookID(r.WebhookId)
	if err != nil {
		return nil, err
	}
	t, err := n.deps.Poster.Test(ctx, callerOf(ctx).app, id)
	if err != nil {
		return nil, err
	}
	answer := contract.TestWebhook200JSONResponse{Ok: t.OK, Error: some(t.Error), DurationMs: t.Took.Milliseconds()}
	if t.Status != 0 {
		answer.Status = &t.Status
	}
	return answer, nil
}

// RedeliverEvents has events posted again.
func (n nouns) RedeliverEvents(ctx context.Context, r contract.RedeliverEventsRequestObject) (contract.RedeliverEventsResponseObject, error) {
	id, err := webhookID(r.WebhookId)
	if err != nil {
		return nil, err
	}
	app := callerOf(ctx).app
	hook, err := n.deps.Redeliveries.Redeliver(ctx, app, id, messages.Redelivery{Event: ident.Event(or(r.Body.EventId)), Since: or(r.Body.Since)})
	if err != nil {
		return nil, err
	}
	n.webhooksChanged(app)
	return contract.RedeliverEvents202JSONResponse(wireWebhook(hook)), nil
}

func wireWebhook(h messages.Webhook) contract.Webhook {
	w := contract.Webhook{
		Id: string(h.ID), Url: h.URL, Events: h.Events, Description: some(h.Description), Enabled: h.DisabledAt.IsZero(),
		DisabledReason: some(h.DisabledReason), CreatedAt: stamp(h.CreatedAt), FailingSince: stampIf(h.FailingSince),
		NextAttemptAt: stampIf(h.NextAt), LastSuccessAt: stampIf(h.LastSuccessAt), LastError: some(h.LastError),
	}
	if h.Retrying > 0 {
		w.Retrying = &h.Retrying
	}
	return w
}
