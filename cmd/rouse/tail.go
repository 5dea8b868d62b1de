package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"rouse/client"
)

type tailCmd struct {
	appAccess
	output
	Types []string `placeholder:"TYPE" help:"Only these types, or families as in message.*"`
	Since string   `xor:"from" placeholder:"TIME" help:"Begin that far back: a time, or 2h for two hours ago. Left out, with what happens from now on."`
	After string   `xor:"from" placeholder:"CURSOR" help:"Begin behind this cursor, which is told at the end."`
}

// The pace of following.
const (
	// tailWait is how long one call waits for an event, in seconds.
	tailWait = 50
	// firstPause and lastPause bound the growing pause after failures in a row.
	firstPause = 200 * time.Millisecond
	lastPause  = 10 * time.Second
)

// Run follows events until ctx ends, which is no failure. A server that is away is waited for: nothing is missed while it keeps its events.
func (c *tailCmd) Run(ctx context.Context, term *terminal) error {
	since, err := pastIf("--since", c.Since, time.Now())
	if err != nil {
		return err
	}
	api, err := c.client(term)
	if err != nil {
		return err
	}
	f := &follower{api: api, term: term, types: joined(c.Types), since: since, cursor: given(c.After), show: c.show}
	err = f.follow(ctx)
	if ctx.Err() == nil {
		return fmt.Errorf("following events: %w", err)
	}
	if f.cursor != nil {
		fmt.Fprintf(term.err, "go on later with --after %s\n", *f.cursor)
	}
	return nil
}

// show prints a page of events at once.
func (c *tailCmd) show(term *terminal, events []client.Event) error {
	if c.Output == "json" {
		return lines(term.out, events)
	}
	for _, e := range events {
		writeEvent(harmless{term.out}, e)
	}
	return nil
}

// follower reads an app's events as they come.
type follower struct {
	api  *client.Client
	term *terminal
	show func(*terminal, []client.Event) error
	// types is as the call wants it. Events before since are passed over; nil is now.
	types *string
	since *time.Time
	// cursor is behind the last event that was shown; nil before the first answer.
	cursor *string
	// begun says that a call was accepted.
	begun bool
	// failures in a row.
	failures int
}

// follow shows what comes until ctx ends, or the server says what trying again cannot mend.
func (f *follower) follow(ctx context.Context) error {
	for {
		began, held := time.Now(), tailWait
		if !f.begun || f.failures > 0 {
			held = 0 // whether it is accepted shows at once
		}
		got, err := f.ask(ctx, held)
		if err != nil {
			if err := f.outlast(ctx, err); err != nil {
				return err
			}
			continue
		}
		f.accepted()
		if err := f.show(f.term, f.wanted(got.Events)); err != nil {
			return err
		}
		f.advance(got)
		if len(got.Events) == 0 && !got.More && held > 0 && time.Since(began) < tailWait*time.Second/2 {
			wait(ctx, firstPause/2+rand.N(firstPause)) // a server that is stopping answers early
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (f *follower) ask(ctx context.Context, held int) (client.EventList, error) {
	limit := maxAsk
	params := client.ListEventsParams{After: f.cursor, Limit: &limit, Wait: &held, Types: f.types}
	if f.cursor == nil {
		if params.Since = sinceWords(f.since); params.Since == nil {
			params.Since = new("now")
		}
	}
	return answer[client.EventList](f.api.ListEvents(ctx, &params))
}

func (f *follower) advance(got client.EventList) {
	if got.Cursor != nil {
		f.cursor = got.Cursor
	}
}

// wanted drops what happened before since.
func (f *follower) wanted(events []client.Event) []client.Event {
	for f.since != nil && len(events) > 0 && events[0].CreatedAt.Before(*f.since) {
		events = events[1:]
	}
	return events
}

// outlast waits a while after trouble that passes, and tells of it once; it returns what does not pass.
func (f *follower) outlast(ctx context.Context, trouble error) error {
	var refused *client.Error
	if ctx.Err() != nil || errors.As(trouble, &refused) && !refused.Temporary() {
		return trouble
	}
	f.failures++
	if f.failures == 1 {
		fmt.Fprintf(f.term.err, "%v; trying again\n", trouble)
	}
	pause := min(firstPause<<min(f.failures-1, 10), lastPause)
	if refused != nil {
		pause = max(pause, refused.RetryAfter)
	}
	wait(ctx, pause/2+rand.N(pause/2))
	return ctx.Err()
}

// accepted tells, once, that it follows, and that a trouble is over.
func (f *follower) accepted() {
	if f.failures > 0 {
		f.failures = 0
		fmt.Fprintln(f.term.err, "the server is back")
	}
	if !f.begun {
		f.begun = true
		fmt.Fprintln(f.term.err, "following; Ctrl-C ends it")
	}
}
