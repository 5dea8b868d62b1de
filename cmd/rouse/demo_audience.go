package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"rouse/client"
)

// everyone sends one message to all devices of the app, and follows it to each.
func (d *demo) everyone(ctx context.Context) error {
	heard := make(map[*demoPhone]int, len(d.phones))
	for _, p := range d.phones {
		heard[p] = len(d.sim.Pushes(p.token))
	}
	begun := time.Now()
	sent, err := d.sendTo(ctx, client.Recipient{Broadcast: new(client.True)}, nil)
	if err != nil {
		return err
	}
	accepted := time.Now()
	r := row{name: fmt.Sprintf("everyone, %d devices", len(d.phones)), accepted: accepted.Sub(begun), remark: "one body, reached page by page"}
	for _, p := range d.phones {
		if p.provider != "none" {
			if _, err := d.sim.NextPush(ctx, p.token, heard[p]); err != nil {
				return fmt.Errorf("no push reached %s: %w", p.name, err)
			}
			r.woken = time.Since(accepted)
		}
	}
	fetching := time.Now()
	for _, p := range d.phones {
		page, err := p.page(ctx, "", maxPage, 5)
		if err != nil {
			return fmt.Errorf("fetching: %w", err)
		}
		if err := wantOne(page, sent.Id); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if n, err := p.ackAll(ctx, page.Cursor); err != nil || n != 1 {
			return fmt.Errorf("acking: %d acked, want 1: %w", n, err)
		}
	}
	r.fetched = time.Since(fetching)
	d.rows = append(d.rows, r)
	return d.wantCounted(ctx, sent.Id)
}

// wantCounted checks that a message's counters say that every device has it.
func (d *demo) wantCounted(ctx context.Context, id string) error {
	m, err := answer[client.Message](d.backend.GetMessage(ctx, id))
	if err == nil && (m.Recipients != len(d.phones) || m.Counters.Acked != len(d.phones)) {
		err = fmt.Errorf("%d recipients and %d acked, want %d", m.Recipients, m.Counters.Acked, len(d.phones))
	}
	return during("counting", err)
}

// ahead is how far ahead the demo schedules.
const ahead = 500 * time.Millisecond

// later schedules a message for the box, which waits for it on its poll: it comes at its time and not before.
func (d *demo) later(ctx context.Context) error {
	begun := time.Now()
	due := begun.Add(ahead).UTC()
	sent, err := d.sendTo(ctx, client.Recipient{DeviceId: &d.bell.device}, &due)
	if err != nil {
		return err
	}
	r := row{name: "box, scheduled", accepted: time.Since(begun)}
	page, err := d.bell.page(ctx, "", maxPage, 5)
	if err != nil {
		return fmt.Errorf("polling: %w", err)
	}
	r.fetched = time.Since(begun)
	if err := wantOne(page, sent.Id); err != nil {
		return err
	}
	if r.fetched < ahead {
		return fmt.Errorf("it came %v too early", ahead-r.fetched)
	}
	if n, err := d.bell.ackAll(ctx, page.Cursor); err != nil || n != 1 {
		return fmt.Errorf("acking: %d acked, want 1: %w", n, err)
	}
	r.remark = fmt.Sprintf("meant for %.1f s after it was sent", ahead.Seconds())
	d.rows = append(d.rows, r)
	return nil
}

// sendTo sends to whomever, at once or at a time.
func (d *demo) sendTo(ctx context.Context, to client.Recipient, when *time.Time) (client.MessageAccepted, error) {
	m, err := answer[client.MessageAccepted](d.backend.SendMessage(ctx, &client.SendMessageParams{}, client.MessageSend{
		To: to, SendAt: when, Data: fmt.Appendf(nil, `{"text":%q}`, secretWords),
	}))
	return m, during("sending", err)
}

// told counts what the backend was told meanwhile.
func (d *demo) told(ctx context.Context) error {
	kinds := map[string]int{}
	events := list[client.Event]{listing: listing{Limit: 1, All: true}, ask: func(ctx context.Context, after *string, limit *int) (page[client.Event], error) {
		got, err := answer[client.EventList](d.backend.ListEvents(ctx, &client.ListEventsParams{After: after, Limit: limit}))
		return page[client.Event]{got.Events, got.Cursor, got.More}, during("listing events", err)
	}}
	_, err := events.read(ctx, func(list []client.Event) error {
		for _, e := range list {
			kinds[e.Type]++
		}
		return nil
	})
	d.events = "Its backend was told of it in events: " + kindsOf(kinds) + " (rouse tail, webhooks)."
	if err == nil && (kinds["device.registered"] != len(d.phones) || kinds["message.acked"] < burstSize) {
		err = fmt.Errorf("what happened was not told: %s", d.events)
	}
	return err
}

// kindsOf names what there is of each kind.
func kindsOf(kinds map[string]int) string {
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		words = append(words, fmt.Sprintf("%d %s", kinds[kind], kind))
	}
	return strings.Join(words, ", ")
}
