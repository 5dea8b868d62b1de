package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"rouse/client"
	"rouse/providers/sim"
)

// secretWords travels in every message of the demo, and must not be in any push.
const secretWords = "meet me at the harbour"

func (d *demo) iphone(ctx context.Context) error {
	p, err := d.enrol(ctx, "iPhone (APNs)", "apns")
	if err != nil {
		return err
	}
	return d.sleepAndWake(ctx, p)
}

func (d *demo) androidPhone(ctx context.Context) (err error) {
	if d.android, err = d.enrol(ctx, "Android (FCM)", "fcm"); err != nil {
		return err
	}
	return d.sleepAndWake(ctx, d.android)
}

// sleepAndWake sends one message to a sleeping phone and follows it to its end.
func (d *demo) sleepAndWake(ctx context.Context, p *demoPhone) error {
	r := row{name: p.name}
	begun := time.Now()
	sent, err := d.send(ctx, p, 0)
	if err != nil {
		return err
	}
	accepted := time.Now()
	push, err := d.sim.NextPush(ctx, p.token, 0)
	if err != nil {
		return fmt.Errorf("no push reached the phone: %w", err)
	}
	if bytes.Contains(push.Body, []byte("harbour")) || bytes.Contains(push.Body, []byte(sent.Id)) {
		return fmt.Errorf("the push tells of the message: %s", push.Body)
	}
	woken := time.Now()
	if r, err = d.fetchOne(ctx, p, sent.Id, r); err != nil {
		return err
	}
	r.accepted, r.woken = accepted.Sub(begun), max(woken.Sub(accepted), time.Microsecond)
	r.remark = fmt.Sprintf("%s push, %d bytes, no word of the message", push.Kind, len(push.Body))
	d.rows = append(d.rows, r)
	return d.wantTimeline(ctx, sent.Id, "accepted", "wake_sent", "fetched", "acked")
}

// fetchOne reads the one message that waits and acks it.
func (d *demo) fetchOne(ctx context.Context, p *demoPhone, id string, r row) (row, error) {
	begun := time.Now()
	page, err := p.page(ctx, "", maxPage, 0)
	if err != nil {
		return r, fmt.Errorf("fetching: %w", err)
	}
	r.fetched = time.Since(begun)
	if err := wantOne(page, id); err != nil {
		return r, err
	}
	begun = time.Now()
	acked, err := p.ackAll(ctx, page.Cursor)
	if err != nil || acked != 1 {
		return r, fmt.Errorf("acking: %d acked, want 1: %w", acked, err)
	}
	r.acked = time.Since(begun)
	return r, nil
}

func wantOne(page client.InboxPage, id string) error {
	if len(page.Messages) != 1 || page.Messages[0].Id != id || !strings.Contains(string(page.Messages[0].Data), secretWords) {
		return fmt.Errorf("the inbox does not hold the one message: %d messages", len(page.Messages))
	}
	return nil
}

// wantTimeline checks that a message's only delivery goes through the events, in order. A wake is written
// down after the provider has answered, so the phone may be quicker than the record.
func (d *demo) wantTimeline(ctx context.Context, id string, events ...string) error {
	want := strings.Join(events, " ")
	var have []string
	err := d.until(ctx, "the timeline "+want, func() (bool, error) {
		t, err := trace(ctx, d.backend, id)
		if err != nil || len(t.Deliveries) != 1 {
			return false, errors.Join(err, fmt.Errorf("%d deliveries, want 1", len(t.Deliveries)))
		}
		have = nil
		for _, m := range t.Deliveries[0].Timeline {
			have = append(have, m.Event)
		}
		return strings.Join(have, " ") == want, nil
	})
	if err != nil {
		return fmt.Errorf("tracing: the message went through %v: %w", have, err)
	}
	return nil
}

func (d *demo) send(ctx context.Context, p *demoPhone, n int) (client.MessageAccepted, error) {
	body := client.MessageSend{
		To:   client.Recipient{DeviceId: &p.device},
		Data: fmt.Appendf(nil, `{"text":%q,"n":%d}`, secretWords, n),
	}
	m, err := answer[client.MessageAccepted](d.backend.SendMessage(ctx, &client.SendMessageParams{}, body))
	if err != nil {
		return m, fmt.Errorf("sending: %w", err)
	}
	return m, nil
}

// box is a device that no provider can wake: it waits on its long poll.
func (d *demo) box(ctx context.Context) error {
	p, err := d.enrol(ctx, "box (long poll)", "none")
	if err != nil {
		return err
	}
	d.bell = p
	type polled struct {
		page client.InboxPage
		at   time.Time
		err  error
	}
	got := make(chan polled, 1)
	go func() {
		page, err := p.page(ctx, "", maxPage, 20)
		got <- polled{page, time.Now(), err}
	}()
	if err := d.waitForPoll(ctx); err != nil {
		return err
	}
	begun := time.Now()
	sent, err := d.send(ctx, p, 0)
	if err != nil {
		return err
	}
	accepted := time.Now()
	answered := <-got
	if answered.err != nil {
		return fmt.Errorf("polling: %w", answered.err)
	}
	if err := wantOne(answered.page, sent.Id); err != nil {
		return err
	}
	acking := time.Now()
	if n, err := p.ackAll(ctx, answered.page.Cursor); err != nil || n != 1 {
		return fmt.Errorf("acking: %d acked, want 1: %w", n, err)
	}
	d.rows = append(d.rows, row{
		name: p.name, accepted: accepted.Sub(begun), fetched: answered.at.Sub(begun), acked: time.Since(acking),
		remark: "it was waiting; nobody had to wake it",
	})
	return d.wantTimeline(ctx, sent.Id, "accepted", "fetched", "acked")
}

// waitForPoll returns once the node has a parked poll, by its own account.
func (d *demo) waitForPoll(ctx context.Context) error {
	return d.until(ctx, "a parked poll", func() (bool, error) {
		n, err := metric(ctx, d.stage.at.ops, "rouse_waiters")
		return n >= 1, err
	})
}

// until asks again and again, 5 ms apart, until the answer is yes.
func (d *demo) until(ctx context.Context, what string, yes func() (bool, error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := yes()
		if ok || (err != nil && ctx.Err() == nil) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
}

// burstSize is how many messages go to one sleeping phone, burstPushes how many pushes they may cost.
const (
	burstSize   = 100
	burstPushes = 3
)

// burst sends many messages to one sleeping phone at once; a new one, for the other was woken so often that the next push would be held back.
func (d *demo) burst(ctx context.Context) (err error) {
	if d.android, err = d.enrol(ctx, "another Android", "fcm"); err != nil {
		return err
	}
	before := len(d.sim.Pushes(d.android.token))
	begun := time.Now()
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for n := range burstSize {
		group.Go(func() error { _, err := d.send(inner, d.android, n); return err })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	accepted := time.Now()
	push, err := d.sim.NextPush(ctx, d.android.token, before)
	if err != nil {
		return fmt.Errorf("no push reached the phone: %w", err)
	}
	fetching := time.Now()
	read, err := d.readBurst(ctx)
	if err != nil {
		return err
	}
	took := time.Since(fetching)
	pushes := len(d.sim.Pushes(d.android.token)) - before
	if read != burstSize || pushes > burstPushes {
		return fmt.Errorf("%d of %d messages read, %d pushes (at most %d are meant)", read, burstSize, pushes, burstPushes)
	}
	d.rows = append(d.rows, row{
		name: fmt.Sprintf("Android, %d messages", burstSize), accepted: accepted.Sub(begun), woken: max(push.At.Sub(begun), time.Microsecond), fetched: took,
		remark: fmt.Sprintf("pushes in all: %d; each read once, in order, in pages of 25", pushes),
	})
	return nil
}

// readBurst reads everything in pages of 25, acking each with the next request.
func (d *demo) readBurst(ctx context.Context) (int, error) {
	seen, last, ack := map[string]bool{}, "", ""
	for {
		page, err := d.android.page(ctx, ack, 25, 0)
		if err != nil {
			return len(seen), fmt.Errorf("fetching: %w", err)
		}
		if len(page.Messages) == 0 {
			return len(seen), nil
		}
		for _, m := range page.Messages {
			if seen[m.Id] {
				return len(seen), fmt.Errorf("%s came twice", m.Id)
			}
			seen[m.Id], last = true, m.Id
		}
		if page.Cursor == ack {
			return len(seen), fmt.Errorf("the cursor stands still at %s", last)
		}
		ack = page.Cursor
	}
}

// restart sends a message while Google answers nobody, stops the node, and sees that the next one wakes the
// phone without being asked.
func (d *demo) restart(ctx context.Context) error {
	before := len(d.sim.Pushes(d.android.token))
	recovered := d.sim.AddRule(sim.Rule{Provider: sim.FCM, Action: sim.Action{Status: http.StatusServiceUnavailable}})
	sent, err := d.send(ctx, d.android, 0)
	if err != nil {
		return err
	}
	if err := d.stage.down(); err != nil {
		return fmt.Errorf("stopping the node: %w", err)
	}
	recovered()
	begun := time.Now()
	if err := d.reopen(ctx); err != nil {
		return err
	}
	push, err := d.sim.NextPush(ctx, d.android.token, before)
	if err != nil {
		return fmt.Errorf("after the restart no push reached the phone: %w", err)
	}
	r, err := d.fetchOne(ctx, d.android, sent.Id, row{name: "Android, after a restart"})
	if err != nil {
		return err
	}
	r.woken, r.remark = max(push.At.Sub(begun), time.Microsecond), "from the start of the new process; nobody asked it to"
	d.rows = append(d.rows, r)
	return nil
}

// reopen starts the node again; its address is another one now.
func (d *demo) reopen(ctx context.Context) error {
	at, err := d.stage.up(context.WithoutCancel(ctx)) // it outlives this act, until it is taken down
	if err != nil {
		return err
	}
	d.app.URL = at.api
	if d.backend, err = newClient(at.api, d.app.SecretKey); err != nil {
		return err
	}
	for _, p := range d.phones {
		if p.phone, err = knownPhone(at.api, p.device, p.secret); err != nil {
			return err
		}
	}
	return nil
}
