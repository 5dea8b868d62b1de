package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"rouse/client"
	"rouse/messages"
	"rouse/tokens"
)

type eventsCmd struct {
	List eventsListCmd `cmd:"" default:"withargs" help:"List what happened, oldest first, to the end."`
}

type eventsListCmd struct {
	appAccess
	output
	Since string   `xor:"from" placeholder:"TIME" help:"Only what happened since then: a time, or 2h for two hours ago. A few from up to 5 seconds before may come as well."`
	After string   `xor:"from" help:"Only what came behind this cursor, which -o json prints with the events." placeholder:"CURSOR"`
	Types []string `placeholder:"TYPE" help:"Only these types, or families as in message.*"`
	Limit int      `default:"0" placeholder:"N" help:"How many at most. Left out, all that are kept."`
	All   bool     `help:"With -o json, a line each instead of one document."`
}

// Run lists what happened to the app, oldest first, to the end.
func (c *eventsListCmd) Run(ctx context.Context, term *terminal) error {
	if c.Limit < 0 || c.All && c.Limit > 0 {
		return mistake("--limit is 1 or more, and does not go with --all")
	}
	since, err := pastIf("--since", c.Since, time.Now())
	if err != nil {
		return err
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	var failing failures
	l := c.list(api, since)
	l.line = func(w io.Writer, e client.Event) {
		failing.note(e)
		writeEvent(w, e)
	}
	if err := l.print(ctx, term); err != nil || c.Output == "json" {
		return err
	}
	for _, hint := range failing.hints() {
		fmt.Fprintln(term.out, hint)
	}
	return nil
}

// list is all of the events, or the first of them. As one document it is to the end, too.
func (c *eventsListCmd) list(api *client.Client, since *time.Time) list[client.Event] {
	l := list[client.Event]{
		listing: listing{After: c.After, Limit: c.Limit, All: c.All}, output: c.output, name: "events", none: "no events",
		ask: func(ctx context.Context, after *string, limit *int) (page[client.Event], error) {
			params := client.ListEventsParams{After: after, Limit: limit, Types: joined(c.Types)}
			if after == nil {
				params.Since = sinceWords(since)
			}
			got, err := answer[client.EventList](api.ListEvents(ctx, &params))
			return page[client.Event]{got.Events, got.Cursor, got.More}, during("listing events", err)
		},
	}
	switch {
	case l.Limit == 0 && c.Output == "json" && !c.All:
		l.Limit = math.MaxInt
	case l.Limit == 0:
		l.Limit, l.All = 1, true
	}
	return l
}

// sinceWords is a time as the parameter wants it, nil for none.
func sinceWords(since *time.Time) *string {
	if since == nil {
		return nil
	}
	return new(since.UTC().Format(time.RFC3339Nano))
}

// joined is what a parameter of several words wants, nil for none.
func joined(words []string) *string { return given(strings.Join(words, ",")) }

// writeEvent tells of an event in a line, at its end the id to have it posted again by.
func writeEvent(w io.Writer, e client.Event) {
	fmt.Fprintf(w, "%s  %-19s  %s  %s\n", at(e.CreatedAt), e.Type, eventWords(e, time.Now()), e.Id)
}

// eventData is what the events known here tell.
type eventData struct {
	MessageID      *string    `json:"message_id"`
	DeviceID       *string    `json:"device_id"`
	WebhookID      *string    `json:"webhook_id"`
	CorrelationID  *string    `json:"correlation_id"`
	ReplacedBy     *string    `json:"replaced_by"`
	InstallationID *string    `json:"installation_id"`
	Provider       *string    `json:"provider"`
	Environment    *string    `json:"environment"`
	Onward         *string    `json:"onward"`
	Cause          *string    `json:"cause"`
	Reason         *string    `json:"reason"`
	RetryAt        *time.Time `json:"retry_at"`
	ExpiresAt      *time.Time `json:"expires_at"`
}

const (
	circuitOpened = string(messages.CircuitOpened)
	circuitClosed = string(messages.CircuitClosed)
)

// failures is how to find out about the circuits that a credential opened and that did not close since.
type failures map[string]string

func (f *failures) note(e client.Event) {
	var d eventData
	if json.Unmarshal(e.Data, &d) != nil || d.Cause == nil || *d.Cause != string(tokens.CauseCredential) || d.Provider == nil {
		return
	}
	if *f == nil {
		*f = failures{}
	}
	which := strings.Join(some(d.Provider, d.Environment, d.Onward), " ")
	switch {
	case e.Type == circuitOpened && d.Reason != nil:
		(*f)[which] = askWhy("APP", *d.Provider, *d.Reason)
	case e.Type == circuitClosed:
		delete(*f, which)
	}
}

func (f failures) hints() []string { return slices.Compact(slices.Sorted(maps.Values(f))) }

// eventWords tells an event's data in words; what is not known here is shown as it came.
func eventWords(e client.Event, now time.Time) string {
	var d eventData
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return string(e.Data)
	}
	words := some(d.MessageID, d.DeviceID, d.WebhookID, d.InstallationID, d.Provider, d.Environment, d.Onward, d.Cause, d.Reason)
	if e.Type == circuitClosed && d.Reason != nil && *d.Reason != "" {
		return strings.Join(words[:len(words)-1], ", ") + " (was " + *d.Reason + ")"
	}
	if d.ReplacedBy != nil {
		words = append(words, "replaced by "+*d.ReplacedBy)
	}
	if d.CorrelationID != nil {
		words = append(words, "correlation id "+*d.CorrelationID)
	}
	if d.RetryAt != nil {
		words = append(words, "tried next "+at(*d.RetryAt))
	}
	switch {
	case d.ExpiresAt != nil && now.Before(*d.ExpiresAt):
		words = append(words, "expires "+at(*d.ExpiresAt))
	case d.ExpiresAt != nil:
		words = append(words, "has run out "+at(*d.ExpiresAt))
	}
	if len(words) == 0 {
		return string(e.Data)
	}
	return strings.Join(words, ", ")
}
