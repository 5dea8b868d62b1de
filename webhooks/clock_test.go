package webhooks_test

import (
	"context"
	"testing"
	"time"

	"rouse/messages"
)

// A node whose clock was a month ahead wrote down when to go on. Whoever takes over goes on within the longest wait there is.
func TestAClockThatWasAheadHoldsUpNothing(t *testing.T) {
	t.Parallel()
	inOffice(t, func(o *office) {
		o.stop()
		r := o.receiver()
		id := o.hook(r)
		first, second := o.device(), o.device()
		o.happen(first, 2)
		o.happen(second, 2)
		ctx := context.Background()
		desk, err := o.store.TakeWebhook(ctx, o.app, id)
		must(t, err)
		alone := o.events()[0]
		ahead := time.Now().AddDate(0, 1, 0)
		_, err = o.store.NotePosts(ctx, messages.WebhookNote{ID: id, App: o.app, Term: desk.Term, Place: alone.Seq, Now: ahead,
			Apart:        []messages.WebhookRetry{{Place: alone.Seq, Device: alone.Device, Attempts: 2, FirstAt: ahead, NextAt: ahead.Add(time.Hour)}},
			FailingSince: ahead, Attempts: 3, NextAt: ahead.Add(time.Minute), LastError: "answered 500"})
		must(t, err)
		o.start()
		o.pass(10 * time.Hour)
		r.complete(t, o.events())
		if h := o.webhook(id); !h.FailingSince.IsZero() || h.Retrying != 0 {
			t.Errorf("afterwards: %+v", h)
		}
	})
}
