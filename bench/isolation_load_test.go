package bench_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"rouse/client"
)

// send posts one message to a device.
func (t *tenant) send(ctx context.Context, d *tenantDevice) error {
	got, err := t.api.SendMessageWithResponse(ctx, nil, client.MessageSend{To: client.Recipient{DeviceId: &d.id}, Data: []byte(`"a message"`)})
	if err != nil || got.JSON202 == nil {
		return failed("sending", err, got)
	}
	return nil
}

// sendToAll posts a message to each device, as fast as the server takes them.
func (t *tenant) sendToAll(ctx context.Context) error {
	return inParallel(ctx, len(t.devices), func(ctx context.Context, i int) error {
		return t.send(ctx, t.devices[i])
	})
}

// load posts messages to one device after the other at a steady pace until ctx ends.
func (t *tenant) load(ctx context.Context, aSecond int) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(32)
	tick := time.NewTicker(time.Second / time.Duration(aSecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d := t.devices[int(t.next.Add(1))%len(t.devices)]
			group.Go(func() error { return t.send(inner, d) })
		case <-inner.Done():
			return group.Wait()
		}
	}
}

// measure wakes one device after the other at a steady pace, each of which acks what it was woken for, and returns how
// long the pushes took from the beginning of the send until they were at the provider.
func (t *tenant) measure(ctx context.Context, d time.Duration) ([]time.Duration, error) {
	var mu sync.Mutex
	var took []time.Duration
	group, inner := errgroup.WithContext(ctx)
	tick := time.NewTicker(time.Second / neighbourRate)
	defer tick.Stop()
	end := time.NewTimer(d)
	defer end.Stop()
	for {
		select {
		case <-tick.C:
			device := t.devices[int(t.next.Add(1))%len(t.devices)]
			group.Go(func() error {
				one, err := t.wake(inner, device)
				mu.Lock()
				defer mu.Unlock()
				took = append(took, one)
				return err
			})
		case <-inner.Done():
			return nil, group.Wait()
		case <-end.C:
			err := group.Wait()
			return took, err
		}
	}
}

// wake sends a device a message and returns how long it took until the push was there. The device fetches and acks.
func (t *tenant) wake(ctx context.Context, d *tenantDevice) (time.Duration, error) {
	d.busy.Lock()
	defer d.busy.Unlock()
	began := time.Now()
	if err := t.send(ctx, d); err != nil {
		return 0, err
	}
	push, err := t.shared.sim.NextPush(ctx, d.token, d.heard)
	if err != nil {
		return 0, fmt.Errorf("waiting for a push: %w", err)
	}
	d.heard = push.N
	page, err := d.api.GetInboxWithResponse(ctx, &client.GetInboxParams{})
	if err != nil || page.JSON200 == nil {
		return 0, failed("fetching", err, page)
	}
	got, err := d.api.AckMessagesWithResponse(ctx, client.Acks{UpTo: &page.JSON200.Cursor})
	if err != nil || got.JSON200 == nil {
		return 0, failed("acking", err, got)
	}
	return push.At.Sub(began), nil
}
