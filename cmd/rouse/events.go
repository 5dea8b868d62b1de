package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"rouse/client"
	"rouse/messages"
	"rouse/tokens"
)

type eventsCmd struct {
	appAccess
	output
	After string `help:"Only what came behind this cursor, which -o json prints with the events." placeholder:"CURSOR"`
}

// Run lists what happened to the app, oldest first, to the end.
func (c *eventsCmd) Run(ctx context.Context, term *terminal) error {
	api, err := c.client(term)
	if err != nil {
		return err
	}
	list, err := allEvents(ctx, api, c.After)
	if err != nil {
		return fmt.Errorf("listing events: %w", err)
	}
	return c.print(term, list, func(w io.Writer) {
		if len(list.Events) == 0 {
			fmt.Fprintln(w, "no events")
		}
		for _, e := range list.Events {
			fmt.Fprintf(w, "%s\t%s\t%s\n", at(e.CreatedAt), e.Type, eventWords(e, time.Now()))
		}
		for _, hint := range stillFailing(list.Events) {
			fmt.Fprintln(w, hint)
		}
	})
}

// allEvents reads every page behind the cursor as one; an empty cursor is the beginning.
func allEvents(ctx context.Context, api *client.Client, after string) (client.EventList, error) {
	all := client.EventList{Events: []client.Event{}}
	if after != "" {
		all.Cursor = &after
	}
	for {
		page, err := answer[client.EventList](api.ListEvents(ctx, &client.ListEventsParams{After: all.Cursor}))
		if err != nil {
			return all, err
		}
		all.Events = append(all.Events, page.Events...)
		all.Cursor = page.Cursor
		if !page.More {
			return all, nil
		}
	}
}

// eventData is what the events known here tell.
type eventData struct {
	Provider, Environment, Onward, Cause, Reason *string
	RetryAt                                      *time.Time `json:"retry_at"`
	ExpiresAt                                    *time.Time `json:"expires_at"`
}

const (
	circuitOpened = string(messages.CircuitOpened)
	circuitClosed = string(messages.CircuitClosed)
)

// stillFailing says how to find out about the circuits that a credential opened and that did not close since.
func stillFailing(list []client.Event) (hints []string) {
	open := map[string]string{}
	for _, e := range list {
		var d eventData
		if json.Unmarshal(e.Data, &d) != nil || d.Cause == nil || *d.Cause != string(tokens.CauseCredential) || d.Provider == nil {
			continue
		}
		which := strings.Join(some(d.Provider, d.Environment, d.Onward), " ")
		switch {
		case e.Type == circuitOpened && d.Reason != nil:
			open[which] = askWhy("APP", *d.Provider, *d.Reason)
		case e.Type == circuitClosed:
			delete(open, which)
		}
	}
	return slices.Compact(slices.Sorted(maps.Values(open)))
}

// eventWords tells an event's data in words; what is not known here is shown as it came.
func eventWords(e client.Event, now time.Time) string {
	var d eventData
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return string(e.Data)
	}
	words := some(d.Provider, d.Environment, d.Onward, d.Cause, d.Reason)
	if e.Type == circuitClosed && d.Reason != nil && *d.Reason != "" {
		words = some(d.Provider, d.Environment, d.Onward, d.Cause)
		return strings.Join(words, ", ") + " (was " + *d.Reason + ")"
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
