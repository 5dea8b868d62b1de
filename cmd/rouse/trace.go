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
	Limit   int    `default:"1000" help:"Of how many deliveries at most; messages deliveries lists them all."`
}

// traced is a message and its deliveries; More says that there are others.
type traced struct {
	Message    client.Message    `json:"message"`
	Deliveries []client.Delivery `json:"deliveries"`
	More       bool              `json:"more"`
}

// Run tells what became of a message.
func (c *traceCmd) Run(ctx context.Context, term *terminal) error {
	if c.Limit < 1 {
		return mistake("--limit is %d; it is 1 or more", c.Limit)
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	t, err := traceUpTo(ctx, api, c.Message, c.Limit)
	if err != nil {
		return fmt.Errorf("tracing %s: %w", c.Message, err)
	}
	return c.print(term, t, func(w io.Writer) { t.write(w) })
}

// trace reads a message and its deliveries, as many as one hears of without asking for more.
func trace(ctx context.Context, api *client.Client, id string) (traced, error) {
	return traceUpTo(ctx, api, id, traceLimit)
}

// traceLimit is the --limit of rouse trace where none is given.
const traceLimit = 1000

// traceUpTo reads a message and at most so many of its deliveries.
func traceUpTo(ctx context.Context, api *client.Client, id string, most int) (traced, error) {
	m, err := answer[client.Message](api.GetMessage(ctx, id))
	if err != nil {
		return traced{}, err
	}
	t := traced{Message: m, Deliveries: []client.Delivery{}}
	params := &client.ListDeliveriesParams{}
	for {
		params.Limit = new(min(most-len(t.Deliveries), maxAsk))
		page, err := answer[client.DeliveryList](api.ListDeliveries(ctx, id, params))
		if err != nil {
			return traced{}, err
		}
		t.Deliveries = append(t.Deliveries, page.Deliveries...)
		if t.More = page.More; !page.More || len(t.Deliveries) >= most {
			return t, nil
		}
		params.After = page.Cursor
	}
}

func (t traced) write(w io.Writer) {
	m := t.Message
	fmt.Fprintf(w, "%s  %s, to %s, urgency %s, %s, sent %s, expires %s\n", m.Id, m.Status, recipient(m.To), m.Urgency, recipients(m.Recipients), at(m.CreatedAt), at(m.ExpiresAt))
	if m.SendAt != nil {
		fmt.Fprintf(w, "scheduled for %s\n", at(*m.SendAt))
	}
	if words := counterWords(m.Counters); words != "" {
		fmt.Fprintln(w, words)
	}
	for _, d := range t.Deliveries {
		fmt.Fprintf(w, "%s  %s\n", d.DeviceId, d.State)
		for _, moment := range d.Timeline {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", moment.At.UTC().Format("2006-01-02 15:04:05.000Z"), since(t.Message.CreatedAt, moment.At), moment.Event, momentWords(moment))
		}
		if d.NotWoken != nil {
			fmt.Fprintf(w, "  not woken: %s (%s)\n", d.NotWoken.Detail, d.NotWoken.Code)
		}
	}
	if t.More {
		fmt.Fprintf(w, "there are more: %s messages deliveries %s --all\n", self(), m.Id)
	}
}

// counterWords says where the deliveries stand, and what devices reported, in a line.
func counterWords(c client.Counters) string {
	var words []string
	for _, state := range countersOf(c) {
		if state.n > 0 {
			words = append(words, fmt.Sprintf("%d %s", state.n, state.name))
		}
	}
	return strings.Join(words, ", ")
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

// momentWords tells of a moment what its name does not.
func momentWords(m client.Moment) string {
	if m.Provider == nil && m.Reason != nil {
		return *m.Reason
	}
	return wakeWords(m)
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
