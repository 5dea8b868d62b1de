package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"rouse/client"
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
			fmt.Fprintf(w, "%s\t%s\t%s\n", at(e.CreatedAt), e.Type, eventWords(e))
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

// eventWords tells an event's data in words; what is not known here is shown as it came.
func eventWords(e client.Event) string {
	var d struct {
		Provider, Environment, Onward, Cause, Reason *string
		RetryAt                                      *time.Time `json:"retry_at"`
		ExpiresAt                                    *time.Time `json:"expires_at"`
	}
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return string(e.Data)
	}
	words := some(d.Provider, d.Environment, d.Onward, d.Cause, d.Reason)
	if d.RetryAt != nil {
		words = append(words, "tried next "+at(*d.RetryAt))
	}
	if d.ExpiresAt != nil {
		words = append(words, "expires "+at(*d.ExpiresAt))
	}
	if len(words) == 0 {
		return string(e.Data)
	}
	return strings.Join(words, ", ")
}
