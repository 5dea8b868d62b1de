package store

import (
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// What is changed by hand is read before it is written, and another node may note meanwhile what came of posts: a change of the one
// does not undo the other's.
func TestAChangeOfAWebhookDoesNotUndoItsDisabling(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2)
	startAll(t, all)
	ctx, now := t.Context(), time.Now()
	app := ident.NewApp()
	if err := all[0].CreateApp(ctx, tokens.App{ID: app, Name: "app", InboxOverflow: tokens.OverflowReject, CreatedAt: now}, nil); err != nil {
		t.Fatal(err)
	}
	h := messages.Webhook{ID: ident.NewWebhook(), App: app, URL: "https://example.com/", Events: messages.EventFilter{"*"}, CreatedAt: now}
	if err := all[0].AddWebhook(ctx, h, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	d, err := all[1].TakeWebhook(ctx, app, h.ID)
	if err != nil {
		t.Fatal(err)
	}
	noted := make(chan error, 1)
	_, err = all[0].changeWebhook(ctx, app, h.ID, func(x *tx, r webhookRow) error {
		go func() {
			_, err := all[1].NotePosts(ctx, messages.WebhookNote{ID: h.ID, App: app, Term: d.Term, Place: d.Place, Disable: messages.WebhookFailing, Now: now})
			noted <- err
		}()
		waitFor(t, func() bool {
			var waits int
			const query = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
			err := all[1].reads.get(ctx, &waits, query)
			return err != nil || waits > 0 || len(noted) > 0 // it did not wait: what was read is old
		})
		_, err := x.exec(updateWebhook, r.URL, r.Events, "for the till", r.DisabledAt, r.DisabledReason, 0, string(h.ID))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-noted; err != nil {
		t.Fatal(err)
	}
	list, err := all[0].Webhooks(ctx, app)
	if err != nil || len(list) != 1 || list[0].DisabledAt.IsZero() || list[0].Description != "for the till" {
		t.Errorf("after both: %+v, %v", list, err)
	}
}
