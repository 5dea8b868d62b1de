package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// The pace of a Receiver.
const (
	// MaxWait is the longest wait the server takes.
	MaxWait = 55 * time.Second
	// slack is what a poll may take beyond its wait before the connection counts as dead.
	slack = 15 * time.Second
	// firstPause and lastPause bound the growing pause after failures in a row.
	firstPause = 500 * time.Millisecond
	lastPause  = time.Minute
	// farewell is how long a stopping Receiver tries to ack what it handled last.
	farewell = 5 * time.Second
)

// Receiver gets one device's messages over a long poll: it fetches, hands over, and
// acks with the next fetch, in one round trip.
type Receiver struct {
	// Client carries the device's own key; see WithKey. Its HTTP client must not have a timeout shorter than Wait.
	Client *ClientWithResponses
	// Wait is how long a poll waits, in whole seconds; 0 is MaxWait.
	Wait time.Duration
	// Limit is how many messages a page holds, 1 to 100; 0 leaves it to the server.
	Limit int
	// Trouble, if set, is told of each failure that is tried again.
	Trouble func(error)
}

// Run hands every page with messages, or with a gap not seen before, to handle, one at a time and oldest first, until ctx is done,
// handle fails, or the server says something that trying again cannot mend (a key revoked, a device unregistered). A page is acked once handle has
// returned nil for it; after a crash or a lost answer it comes again, so handle must take a message twice.
// The error is handle's, an *Error, or ctx's.
func (r *Receiver) Run(ctx context.Context, handle func(context.Context, InboxPage) error) error {
	var l loop
	for {
		began := time.Now()
		page, pause, err := r.fetch(ctx, l.acked)
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case err != nil:
			pause, err = r.failed(&l, pause, err)
		case l.news(page):
			pause, err = 0, l.handled(page, handle(ctx, *page))
		default:
			pause = l.quiet(pause, time.Since(began) < r.wait()/2)
		}
		if err == nil {
			err = sleep(ctx, pause)
		}
		if err != nil {
			r.settle(ctx, l.acked)
			return err
		}
	}
}

// loop is what one Run knows.
type loop struct {
	// acked is what was handled and is to be acked with the next fetch.
	acked string
	// gap is the end of the last gap that was handed over.
	gap string
	// failures in a row.
	failures int
}

// news reports whether there is something to hand over. The fetch succeeded, so what it acked is settled.
func (l *loop) news(page *InboxPage) bool {
	l.acked = ""
	return len(page.Messages) > 0 || page.Gap != nil && page.Gap.To != l.gap
}

// handled notes what came of handing a page over.
func (l *loop) handled(page *InboxPage, err error) error {
	if err != nil {
		return fmt.Errorf("handling a page: %w", err)
	}
	l.acked, l.failures = page.Cursor, 0
	if page.Gap != nil {
		l.gap = page.Gap.To
		if len(page.Messages) == 0 {
			l.acked = page.Gap.To // nothing is pending before it
		}
	}
	return nil
}

// quiet decides the pause after an empty page. One long before its time means that another poll with this key
// took the place: two receivers that did not slow down would take it from each other as fast as they can.
func (l *loop) quiet(asked time.Duration, early bool) time.Duration {
	if asked > 0 || !early {
		l.failures = 0
		return asked
	}
	l.failures++
	return backoff(l.failures)
}

// failed decides the pause after a failure, or returns what trying again cannot mend.
func (r *Receiver) failed(l *loop, asked time.Duration, err error) (time.Duration, error) {
	if hasCode(err, "bad_cursor") && l.acked != "" {
		l.acked = "" // the inbox was made anew: start with its oldest
		return 0, nil
	}
	if !temporary(err) {
		return 0, err
	}
	l.failures++
	r.tell(err)
	return max(asked, backoff(l.failures)), nil
}

// fetch makes one round trip. pause is what the server asks for, on success too.
func (r *Receiver) fetch(ctx context.Context, ack string) (page *InboxPage, pause time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.wait()+slack)
	defer cancel()
	wait := int(r.wait() / time.Second)
	params := &GetInboxParams{Wait: &wait}
	if r.Limit > 0 {
		params.Limit = &r.Limit
	}
	if ack != "" {
		params.Ack = &ack
	}
	answer, err := r.Client.GetInboxWithResponse(ctx, params)
	if err != nil {
		return nil, 0, err
	}
	pause = retryAfter(answer.HTTPResponse.Header)
	if err := Check(answer.HTTPResponse, answer.Body); err != nil {
		return nil, pause, err
	}
	if answer.JSON200 == nil {
		return nil, pause, &Error{Problem: Problem{Status: answer.StatusCode(), Title: "without a page"}}
	}
	return answer.JSON200, pause, nil
}

// settle acks what was handled although the loop is ending; a failure only means that it comes again.
func (r *Receiver) settle(ctx context.Context, acked string) {
	if acked == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	answer, err := r.Client.AckMessagesWithResponse(ctx, Acks{UpTo: &acked})
	if err == nil {
		err = Check(answer.HTTPResponse, answer.Body)
	}
	r.tell(err)
}

func (r *Receiver) wait() time.Duration {
	if r.Wait <= 0 || r.Wait > MaxWait {
		return MaxWait
	}
	return max(r.Wait.Truncate(time.Second), time.Second)
}

func (r *Receiver) tell(err error) {
	if err != nil && r.Trouble != nil {
		r.Trouble(err)
	}
}

// temporary reports whether to try again: the network's troubles, and those the server calls its own.
func temporary(err error) bool {
	var e *Error
	return !errors.As(err, &e) || e.Temporary() || e.Status == http.StatusOK
}

func hasCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// backoff doubles from firstPause to lastPause, and takes a random part of that, at least half.
func backoff(failures int) time.Duration {
	pause := firstPause
	for i := 1; i < failures && pause < lastPause; i++ {
		pause *= 2
	}
	pause = min(pause, lastPause)
	return pause/2 + rand.N(pause/2)
}

// sleep waits, or returns ctx's error.
func sleep(ctx context.Context, pause time.Duration) error {
	if pause <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
