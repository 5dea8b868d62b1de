package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// What posting to webhooks reads and writes.

const (
	// webhookTurns asks for the newest events of each app that has a webhook, which is a look at the end of an index.
	webhookTurns = `SELECT w.id, w.app, w.term, (SELECT COALESCE(MAX(e.seq), 0) FROM events e WHERE e.app = w.app) AS newest
		FROM webhooks w WHERE w.disabled_at IS NULL ORDER BY w.id`
	selectRetries = "SELECT place, device, attempts, first_at, next_at, last_error FROM webhook_retries WHERE webhook = ? ORDER BY place"
)

// WebhookTurns returns all webhooks that are enabled, of all apps.
func (s *Store) WebhookTurns(ctx context.Context) ([]messages.WebhookTurn, error) {
	var rows []struct {
		ID     ident.Webhook `db:"id"`
		App    ident.App     `db:"app"`
		Term   int64         `db:"term"`
		Newest int64         `db:"newest"`
	}
	if err := s.reads.list(ctx, &rows, webhookTurns); err != nil {
		return nil, s.readError("list webhooks", err)
	}
	list := make([]messages.WebhookTurn, 0, len(rows))
	for _, r := range rows {
		list = append(list, messages.WebhookTurn{ID: r.ID, App: r.App, Term: r.Term, Newest: endOfEvents(r.Newest)})
	}
	return list, nil
}

// Webhook returns a webhook of the app and what its posts are signed with, but not its retries. It ends nobody's term.
// NotFound "webhook_not_found".
func (s *Store) Webhook(ctx context.Context, app ident.App, id ident.Webhook) (messages.WebhookDesk, error) {
	var r webhookRow
	err := s.reads.get(ctx, &r, selectWebhook, string(id))
	if errors.Is(err, sql.ErrNoRows) || err == nil && r.App != app {
		return messages.WebhookDesk{}, webhookNotFound()
	}
	if err != nil {
		return messages.WebhookDesk{}, s.readError("read a webhook", err)
	}
	return s.desk(r, nil)
}

// TakeWebhook begins a term of posting to a webhook: what is noted under an earlier one does not count any more.
// NotFound "webhook_not_found", for one that is disabled too.
func (s *Store) TakeWebhook(ctx context.Context, app ident.App, id ident.Webhook) (messages.WebhookDesk, error) {
	var r webhookRow
	var retries []retryRow
	err := s.write(ctx, "take a webhook", newOp(func(t *tx) error {
		retries = nil
		n, err := t.exec(nextTerm+" AND app = ? AND disabled_at IS NULL", string(id), string(app))
		if err == nil && n == 0 {
			return webhookNotFound()
		}
		if err != nil {
			return err
		}
		if err := t.get(&r, selectWebhook, string(id)); err != nil {
			return err
		}
		return t.list(&retries, selectRetries, string(id))
	}))
	if err != nil {
		return messages.WebhookDesk{}, err
	}
	return s.desk(r, retries)
}

// desk opens a webhook's secrets.
func (s *Store) desk(r webhookRow, retries []retryRow) (d messages.WebhookDesk, err error) {
	d.Webhook = r.webhook()
	if d.Secrets.Current, err = s.ring.Open(webhookPlace(r.ID), r.Secret); err != nil {
		return d, fmt.Errorf("open the secret of %s: %w", r.ID, err)
	}
	if r.Previous != nil {
		d.Secrets.PreviousUntil = fromNull(r.PreviousUntil)
		if d.Secrets.Previous, err = s.ring.Open(webhookPlace(r.ID), r.Previous); err != nil {
			return d, fmt.Errorf("open the former secret of %s: %w", r.ID, err)
		}
	}
	for _, row := range retries {
		d.Retries = append(d.Retries, row.retry())
	}
	return d, nil
}

type retryRow struct {
	Place     messages.Seq `db:"place"`
	Device    ident.Device `db:"device"`
	Attempts  int          `db:"attempts"`
	FirstAt   int64        `db:"first_at"`
	NextAt    int64        `db:"next_at"`
	LastError string       `db:"last_error"`
}

func (r retryRow) retry() messages.WebhookRetry {
	return messages.WebhookRetry{Place: r.Place, Device: r.Device, Attempts: r.Attempts, FirstAt: fromMillis(r.FirstAt),
		NextAt: fromMillis(r.NextAt), LastError: r.LastError}
}

const (
	// noteWebhook does nothing for who has lost the webhook, however late it comes; and a place does not go back.
	noteWebhook = `UPDATE webhooks SET place = CASE WHEN place < ?1 THEN ?1 ELSE place END, failing_since = ?2, attempts = ?3, next_at = ?4,
		last_error = CASE WHEN CAST(?5 AS TEXT) = '' THEN last_error ELSE ?5 END, last_success_at = COALESCE(?6, last_success_at),
		disabled_at = ?7, disabled_reason = ?8
		WHERE id = ?9 AND term = ?10 AND disabled_at IS NULL`
	insertRetry = `INSERT INTO webhook_retries (webhook, place, device, attempts, first_at, next_at, last_error) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (webhook, place) DO NOTHING`
	updateRetry = "UPDATE webhook_retries SET attempts = ?, first_at = ?, next_at = ?, last_error = ? WHERE webhook = ? AND place = ?"
	deleteRetry = "DELETE FROM webhook_retries WHERE webhook = ? AND place = ?"
)

// NotePosts writes what came of posting, and, if that disables the webhook, the event of it. It reports false, and writes nothing, if
// the webhook has another term by now or is disabled or gone.
func (s *Store) NotePosts(ctx context.Context, n messages.WebhookNote) (bool, error) {
	var counts bool
	err := s.write(ctx, "note posts to a webhook", newOp(func(t *tx) error {
		var disabled any
		if n.Disable != "" {
			disabled = millis(n.Now)
		}
		changed, err := t.exec(noteWebhook, int64(n.Place), millisOrNull(n.FailingSince), n.Attempts, millisOrNull(n.NextAt), n.LastError,
			millisOrNull(n.SucceededAt), disabled, n.Disable, string(n.ID), n.Term)
		counts = changed == 1
		if err != nil || !counts {
			return err
		}
		if err := t.noteRetries(n); err != nil || n.Disable == "" {
			return err
		}
		return t.event(n.App, messages.WebhookDisabled, webhookData{ID: n.ID, Reason: n.Disable}, n.Now)
	}))
	return counts && err == nil, err
}

// webhookData is what an event tells of a webhook.
type webhookData struct {
	ID     ident.Webhook `json:"webhook_id"`
	Reason string        `json:"reason,omitempty"`
}

func (t *tx) noteRetries(n messages.WebhookNote) error {
	for _, r := range n.Apart {
		if err := t.later(insertRetry, string(n.ID), int64(r.Place), string(r.Device), r.Attempts, orNought(r.FirstAt), orNought(r.NextAt), r.LastError); err != nil {
			return fmt.Errorf("set an event apart: %w", err)
		}
	}
	for _, r := range n.Again {
		if err := t.later(updateRetry, r.Attempts, orNought(r.FirstAt), orNought(r.NextAt), r.LastError, string(n.ID), int64(r.Place)); err != nil {
			return fmt.Errorf("put off an event: %w", err)
		}
	}
	for _, place := range n.Done {
		if err := t.later(deleteRetry, string(n.ID), int64(place)); err != nil {
			return fmt.Errorf("let go of an event: %w", err)
		}
	}
	return nil
}

// orNought is a time as a column has it that is never NULL.
func orNought(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return millis(t)
}
