package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

const (
	webhookColumns = `w.id, w.app, w.url, w.event_types, w.description, w.created_at, w.disabled_at, w.disabled_reason, w.place, w.term,
	w.failing_since, w.attempts, w.next_at, w.last_success_at, w.last_error, w.secret, w.secret_previous, w.previous_until,
	(SELECT COUNT(*) FROM webhook_retries r WHERE r.webhook = w.id) AS retrying`
	selectWebhooks = "SELECT " + webhookColumns + " FROM webhooks w WHERE w.app = ? ORDER BY w.id"
	selectWebhook  = "SELECT " + webhookColumns + " FROM webhooks w WHERE w.id = ?"
	insertWebhook  = `INSERT INTO webhooks (id, app, url, event_types, description, secret, created_at, place) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`
	newestEvents   = "SELECT COALESCE(MAX(seq), 0) FROM events WHERE app = ?"
)

type webhookRow struct {
	ID             ident.Webhook `db:"id"`
	App            ident.App     `db:"app"`
	URL            string        `db:"url"`
	Events         string        `db:"event_types"`
	Description    string        `db:"description"`
	CreatedAt      int64         `db:"created_at"`
	DisabledAt     *int64        `db:"disabled_at"`
	DisabledReason string        `db:"disabled_reason"`
	Place          messages.Seq  `db:"place"`
	Term           int64         `db:"term"`
	FailingSince   *int64        `db:"failing_since"`
	Attempts       int           `db:"attempts"`
	NextAt         *int64        `db:"next_at"`
	LastSuccessAt  *int64        `db:"last_success_at"`
	LastError      string        `db:"last_error"`
	Secret         []byte        `db:"secret"` // sealed, as the next
	Previous       []byte        `db:"secret_previous"`
	PreviousUntil  *int64        `db:"previous_until"`
	Retrying       int           `db:"retrying"`
}

func (r webhookRow) webhook() messages.Webhook {
	return messages.Webhook{
		ID: r.ID, App: r.App, URL: r.URL, Events: strings.Fields(r.Events), Description: r.Description, CreatedAt: fromMillis(r.CreatedAt),
		DisabledAt: fromNull(r.DisabledAt), DisabledReason: r.DisabledReason, Place: r.Place, Term: r.Term,
		FailingSince: fromNull(r.FailingSince), Attempts: r.Attempts, NextAt: fromNull(r.NextAt), LastSuccessAt: fromNull(r.LastSuccessAt),
		LastError: r.LastError, Retrying: r.Retrying,
	}
}

// webhookPlace binds a sealed secret to its row.
func webhookPlace(id ident.Webhook) string { return "webhook:" + string(id) }

func webhookNotFound() *fault.Error {
	return fault.New(fault.NotFound, "webhook_not_found", "there is no such webhook")
}

// AddWebhook stores a webhook that begins with what happens from now on. NotFound "app_not_found", Invalid "too_many_webhooks".
func (s *Store) AddWebhook(ctx context.Context, h messages.Webhook, secret []byte) error {
	sealed := s.ring.Seal(webhookPlace(h.ID), secret)
	return s.write(ctx, "add a webhook", newOp(func(t *tx) error {
		if err := t.lockApp(h.App); err != nil { // two nodes may add the last one
			return err
		}
		if _, err := t.needApp(h.App); err != nil {
			return err
		}
		var have, newest int64
		if err := t.get(&have, "SELECT COUNT(*) FROM webhooks WHERE app = ?", string(h.App)); err != nil {
			return err
		}
		if have >= messages.MaxWebhooks {
			return fault.New(fault.Invalid, "too_many_webhooks", "an app has at most %d webhooks; delete one first", messages.MaxWebhooks)
		}
		if err := t.get(&newest, newestEvents, string(h.App)); err != nil {
			return err
		}
		_, err := t.exec(insertWebhook, string(h.ID), string(h.App), h.URL, strings.Join(h.Events, " "), h.Description, sealed,
			millis(h.CreatedAt), int64(endOfEvents(newest)))
		return err
	}))
}

// endOfEvents is the place after all events of a row.
func endOfEvents(row int64) messages.Seq { return messages.Seq(row<<eventBits | (1<<eventBits - 1)) }

// Webhooks returns an app's webhooks, oldest first.
func (s *Store) Webhooks(ctx context.Context, app ident.App) ([]messages.Webhook, error) {
	var rows []webhookRow
	if err := s.reads.list(ctx, &rows, selectWebhooks, string(app)); err != nil {
		return nil, s.readError("list webhooks", err)
	}
	list := make([]messages.Webhook, 0, len(rows))
	for _, r := range rows {
		list = append(list, r.webhook())
	}
	return list, nil
}

// needWebhook returns a webhook of the app, or NotFound "webhook_not_found". Nobody notes posts to it until the transaction ends.
func (t *tx) needWebhook(app ident.App, id ident.Webhook) (webhookRow, error) {
	var r webhookRow
	query := selectWebhook
	if t.w.store.dialect.shared {
		query += " FOR UPDATE OF w"
	}
	err := t.get(&r, query, string(id))
	if errors.Is(err, sql.ErrNoRows) || err == nil && r.App != app {
		return r, webhookNotFound()
	}
	if err != nil {
		return r, fmt.Errorf("read a webhook: %w", err)
	}
	return r, nil
}

// changeWebhook runs change in a transaction of its own and returns what the webhook is then.
func (s *Store) changeWebhook(ctx context.Context, app ident.App, id ident.Webhook, change func(*tx, webhookRow) error) (messages.Webhook, error) {
	var after webhookRow
	err := s.write(ctx, "change a webhook", newOp(func(t *tx) error {
		if err := t.lockApp(app); err != nil {
			return err
		}
		r, err := t.needWebhook(app, id)
		if err != nil {
			return err
		}
		if err := change(t, r); err != nil {
			return err
		}
		after, err = t.needWebhook(app, id)
		return err
	}))
	return after.webhook(), err
}

const (
	updateWebhook  = "UPDATE webhooks SET url = ?, event_types = ?, description = ?, disabled_at = ?, disabled_reason = ?, term = term + ? WHERE id = ?"
	freshWebhook   = "UPDATE webhooks SET failing_since = NULL, attempts = 0, next_at = NULL WHERE id = ?"
	freshRetries   = "UPDATE webhook_retries SET attempts = 0, next_at = 0 WHERE webhook = ?"
	deleteRetries  = "DELETE FROM webhook_retries WHERE webhook = ?"
	rotateWebhook  = "UPDATE webhooks SET secret = ?, secret_previous = ?, previous_until = ?, term = term + 1 WHERE id = ?"
	rewindWebhook  = "UPDATE webhooks SET place = ?, term = term + 1 WHERE id = ?"
	rewoundRetries = "DELETE FROM webhook_retries WHERE webhook = ? AND place > ?"
	repeatEvent    = `INSERT INTO webhook_retries (webhook, place, device, attempts, first_at, next_at, last_error) VALUES (?, ?, ?, 0, 0, 0, '')
		ON CONFLICT (webhook, place) DO UPDATE SET attempts = 0, next_at = 0`
	nextTerm = "UPDATE webhooks SET term = term + 1 WHERE id = ?"

	// An app that is deleted: nothing is posted for it any more, and later the rows go, a piece at a time.
	stopWebhooks = "UPDATE webhooks SET disabled_at = created_at, term = term + 1 WHERE app = ?"
	appsRetries  = `DELETE FROM webhook_retries WHERE (webhook, place) IN (SELECT r.webhook, r.place FROM webhooks w
		JOIN webhook_retries r ON r.webhook = w.id WHERE w.app = ? LIMIT 0 + ?)`
	appsWebhooks = "DELETE FROM webhooks WHERE id IN (SELECT id FROM webhooks WHERE app = ? LIMIT 0 + ?)"
)

// PatchWebhook changes a webhook and returns what it is now. Another URL, and enabling it, begin with a clean sheet: what waits is
// posted at once. NotFound "webhook_not_found".
func (s *Store) PatchWebhook(ctx context.Context, app ident.App, id ident.Webhook, p messages.WebhookPatch, now time.Time) (messages.Webhook, error) {
	return s.changeWebhook(ctx, app, id, func(t *tx, r webhookRow) error {
		next, fresh := r, false
		if p.URL != nil {
			next.URL, fresh = *p.URL, *p.URL != r.URL
		}
		if p.Events != nil {
			next.Events = strings.Join(*p.Events, " ")
		}
		if p.Description != nil {
			next.Description = *p.Description
		}
		switch {
		case p.Enabled == nil:
		case *p.Enabled && r.DisabledAt != nil:
			next.DisabledAt, next.DisabledReason, fresh = nil, "", true
		case !*p.Enabled && r.DisabledAt == nil:
			next.DisabledAt, next.DisabledReason = ref(millis(now)), messages.WebhookManual
		}
		var terms int
		if fresh || next.Events != r.Events || next.DisabledAt != r.DisabledAt {
			terms = 1 // who posts has to look again
		}
		if _, err := t.exec(updateWebhook, next.URL, next.Events, next.Description, next.DisabledAt, next.DisabledReason, terms, string(id)); err != nil {
			return err
		}
		if !fresh {
			return nil
		}
		if _, err := t.exec(freshWebhook, string(id)); err != nil {
			return err
		}
		_, err := t.exec(freshRetries, string(id))
		return err
	})
}

// DeleteWebhook forgets a webhook; NotFound "webhook_not_found".
func (s *Store) DeleteWebhook(ctx context.Context, app ident.App, id ident.Webhook) error {
	return s.write(ctx, "delete a webhook", newOp(func(t *tx) error {
		n, err := t.exec("DELETE FROM webhooks WHERE id = ? AND app = ?", string(id), string(app))
		if err == nil && n == 0 {
			return webhookNotFound()
		}
		if err != nil {
			return err
		}
		_, err = t.exec(deleteRetries, string(id))
		return err
	}))
}

// RotateWebhookSecret gives a webhook another secret; until then the one it had signs too. NotFound "webhook_not_found".
func (s *Store) RotateWebhookSecret(ctx context.Context, app ident.App, id ident.Webhook, secret []byte, until time.Time) error {
	sealed := s.ring.Seal(webhookPlace(id), secret)
	_, err := s.changeWebhook(ctx, app, id, func(t *tx, r webhookRow) error {
		_, err := t.exec(rotateWebhook, sealed, r.Secret, millis(until), string(id))
		return err
	})
	return err
}

// Redeliver posts events again: one, or all since a time, by their own clocks, so that a few from up to 5 s before may come as well. NotFound "webhook_not_found", "event_not_found".
func (s *Store) Redeliver(ctx context.Context, app ident.App, id ident.Webhook, r messages.Redelivery) (messages.Webhook, error) {
	if r.Event != "" {
		return s.redeliverOne(ctx, app, id, r.Event)
	}
	row, err := s.rowBefore(ctx, app, r.Since.Add(-eventSlack))
	if err != nil {
		return messages.Webhook{}, err
	}
	place := endOfEvents(row)
	return s.changeWebhook(ctx, app, id, func(t *tx, r webhookRow) error {
		// Even if all of them are still to come: some may have been posted and not noted.
		if _, err := t.exec(rewindWebhook, int64(min(place, r.Place)), string(id)); err != nil {
			return err
		}
		_, err := t.exec(rewoundRetries, string(id), int64(place)) // they come on their way
		return err
	})
}

func (s *Store) redeliverOne(ctx context.Context, app ident.App, id ident.Webhook, event ident.Event) (messages.Webhook, error) {
	e, err := s.findEvent(ctx, app, event)
	if err != nil {
		return messages.Webhook{}, err
	}
	return s.changeWebhook(ctx, app, id, func(t *tx, r webhookRow) error {
		if e.Seq <= r.Place {
			if _, err := t.exec(repeatEvent, string(id), int64(e.Seq), string(e.Device)); err != nil {
				return err
			}
		}
		_, err := t.exec(nextTerm, string(id)) // if it is still to come it may have been posted and not noted
		return err
	})
}
