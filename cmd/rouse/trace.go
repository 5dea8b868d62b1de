package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"rouse/client"
)

type traceCmd struct {
	appAccess
	output
	Message string `arg:"" help:"The message's id, msg_..."`
}

// traced is a message and every delivery of it.
type traced struct {
	Message    client.Message    `json:"message"`
	Deliveries []client.Delivery `json:"deliveries"`
}

// Run tells what became of a message.
func (c *traceCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	t, err := trace(ctx, api, c.Message)
	if err != nil {
		return fmt.Errorf("tracing %s: %w", c.Message, err)
	}
	return c.print(term, t, func(w io.Writer) { t.write(w) })
}

// trace reads a message and every page of its deliveries.
func trace(ctx context.Context, api *client.Client, id string) (traced, error) {
	m, err := answer[client.Message](api.GetMessage(ctx, id))
	if err != nil {
		return traced{}, err
	}
	t := traced{Message: m, Deliveries: []client.Delivery{}}
	params := &client.ListDeliveriesParams{}
	for {
		page, err := answer[client.DeliveryList](api.ListDeliveries(ctx, id, params))
		if err != nil {
			return traced{}, err
		}
		t.Deliveries = append(t.Deliveries, page.Deliveries...)
		if !page.More {
			return t, nil
		}
		params.After = page.Cursor
	}
}

func (t traced) write(w io.Writer) {
	fmt.Fprintf(w, "%s  %s, urgency %s, %s, sent %s, expires %s\n", t.Message.Id, t.Message.Status, t.Message.Urgency, recipients(t.Message.Recipients), at(t.Message.CreatedAt), at(t.Message.ExpiresAt))
	for _, d := range t.Deliveries {
		fmt.Fprintf(w, "%s  %s\n", d.DeviceId, d.State)
		for _, moment := range d.Timeline {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", moment.At.UTC().Format("2006-01-02 15:04:05.000Z"), since(t.Message.CreatedAt, moment.At), moment.Event, wakeWords(moment))
		}
		if d.NotWoken != nil {
			fmt.Fprintf(w, "  not woken: %s (%s)\n", d.NotWoken.Detail, d.NotWoken.Code)
		}
	}
}

// recipients counts them in words.
func recipients(n int) string {
	if n == 1 {
		return "1 recipient"
	}
	return fmt.Sprintf("%d recipients", n)
}

// since is how long after the beginning something happened.
func since(begin, then time.Time) string {
	return "+" + then.Sub(begin).Round(time.Millisecond).String()
}

// wakeWords tells of a wake what the provider said; empty for other moments.
func wakeWords(m client.Moment) string {
	if m.Provider == nil {
		return ""
	}
	words := []string{"by " + *m.Provider}
	if m.Verdict != nil {
		words = append(words, *m.Verdict)
	}
	if m.Reason != nil && *m.Reason != "" {
		words = append(words, *m.Reason)
	}
	if m.DurationMs != nil {
		words = append(words, fmt.Sprintf("in %d ms", *m.DurationMs))
	}
	return strings.Join(words, ", ")
}
