package webhooks

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

const (
	// saveGap is how often a busy courier writes down what it posted: so much may come twice after a crash. idleGap is how often it
	// writes down that it passed over what nobody asked for.
	saveGap = 500 * time.Millisecond
	idleGap = 5 * time.Second
	// readGap is the least time between two looks for new events.
	readGap = 50 * time.Millisecond
	// slotGap is how often places for posts are asked for that are all taken.
	slotGap = 20 * time.Millisecond
	// troubleGap is how long a courier waits that cannot read or write.
	troubleGap = time.Second
	// lastPosts is how long posts under way may take once the courier is to end, lastNote how long it takes to write down what came of them.
	lastPosts = time.Second
	lastNote  = time.Second
)

// courier posts to one webhook. Its desk is touched by run's goroutine alone.
type courier struct {
	p     *Poster
	id    ident.Webhook
	app   ident.App
	share *slots // its app's
	log   *slog.Logger
	// cancel ends it; closed ended says that it has.
	cancel context.CancelFunc
	ended  chan struct{}
	// looks holds a token when there may be new events.
	looks chan struct{}
	// term is what it took, 0 before; newest up to where there are events, as far as the supervisor knows; oldest is when the first event
	// happened that waits, unix ms, 0 for none; paused says that it waits for the receiver. run writes all but newest.
	term, newest, oldest atomic.Int64
	paused               atomic.Bool

	desk     *desk
	results  chan result
	posts    context.Context // of what is under way
	running  sync.WaitGroup
	readAt   time.Time // not to read before
	savedAt  time.Time
	seen     int64 // of newest, when all was read
	short    bool  // of slots
	stuck    bool  // what came of posts could not be written down
	trouble  bool  // it could not read or write, and said so
	stricken bool  // the webhook takes nothing, and it said so
}

type result struct {
	job     *job
	outcome outcome
	// missing is true if there is nothing to post, failed if it could not be read.
	missing, failed bool
}

// look has the courier look for new events. It does not block.
func (c *courier) look() {
	select {
	case c.looks <- struct{}{}:
	default:
	}
}

// run posts until ctx is done, the webhook is disabled, or somebody else has taken it.
func (c *courier) run(ctx context.Context) {
	defer close(c.ended)
	hook, ok := c.begin(ctx)
	if !ok {
		return
	}
	c.term.Store(hook.Term)
	c.desk = newDesk(hook, time.Now())
	secrets := hook.Secrets
	posts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	c.posts = posts
	timer := time.NewTimer(0)
	defer timer.Stop()
	for c.round(ctx, secrets) {
		timer.Reset(c.rest(time.Now()))
		select {
		case <-ctx.Done():
			c.finish(cut)
			return
		case <-c.looks:
			c.desk.more = true
		case r := <-c.results:
			c.settle(r)
		case <-timer.C:
		}
		c.settleAll()
	}
	cut()
	c.running.Wait()
}

// begin takes the webhook; false if it cannot be had any more.
func (c *courier) begin(ctx context.Context) (messages.WebhookDesk, bool) {
	again := time.NewTimer(troubleGap)
	defer again.Stop()
	for {
		hook, err := c.p.o.Store.TakeWebhook(ctx, c.app, c.id)
		if err == nil || fault.KindOf(err) == fault.NotFound {
			return hook, err == nil
		}
		c.troubled(ctx, "cannot take a webhook", err)
		again.Reset(troubleGap)
		select {
		case <-ctx.Done():
			return hook, false
		case <-again.C:
		}
	}
}

// round writes, reads and posts what is to be; false if the courier is done.
func (c *courier) round(ctx context.Context, secrets messages.WebhookSecrets) bool {
	now := time.Now()
	if goesOn := c.save(ctx, now, false); !goesOn || c.stuck {
		return goesOn // what cannot be written down is not added to
	}
	c.read(ctx, now)
	c.desk.yield()
	c.post(now, secrets)
	c.show(now)
	return true
}

// rest is how long nothing is to be done unless something happens.
func (c *courier) rest(now time.Time) time.Duration {
	at := now.Add(time.Hour)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	sooner(c.desk.wake(now))
	if n, dirty := c.desk.note(now); dirty {
		sooner(c.saveAt(n))
	}
	if c.desk.more && c.desk.wants() > 0 {
		sooner(c.readAt)
	}
	if c.short {
		sooner(now.Add(slotGap))
	}
	if c.trouble {
		sooner(now.Add(troubleGap))
	}
	return max(at.Sub(now), 0)
}

// saveAt is when a note is to be written.
func (c *courier) saveAt(n messages.WebhookNote) time.Time {
	switch {
	case n.Disable != "" && !c.stuck:
		return time.Time{}
	case c.desk.status || !n.SucceededAt.IsZero() || len(n.Apart)+len(n.Again)+len(n.Done) > 0:
		return c.savedAt.Add(saveGap)
	}
	return c.savedAt.Add(idleGap)
}

// save writes what is due to be written, or, at once, anything. It reports false if the courier is not to go on.
func (c *courier) save(ctx context.Context, now time.Time, anything bool) bool {
	n, dirty := c.desk.note(now)
	if !dirty || !anything && now.Before(c.saveAt(n)) {
		return true
	}
	counts, err := c.p.o.Store.NotePosts(ctx, n)
	if err != nil {
		c.troubled(ctx, "cannot write down what came of posts to a webhook", err)
		c.savedAt, c.stuck = now.Add(troubleGap), true
		return true
	}
	c.savedAt, c.trouble, c.stuck = now, false, false
	if !counts {
		return false
	}
	c.desk.written(n)
	c.tell(n)
	return n.Disable == ""
}

// tell logs what a note changed.
func (c *courier) tell(n messages.WebhookNote) {
	if c.desk.lost > 0 {
		c.log.Warn("events were given up: the webhook did not take them for "+days(messages.EventPatience), "events", c.desk.lost, "error", n.LastError)
		c.p.metrics.lost.Add(float64(c.desk.lost))
		c.desk.lost = 0
	}
	switch {
	case n.Disable != "":
		c.log.Warn("a webhook is disabled: it took nothing for "+days(messages.WebhookPatience)+", or wants nothing any more", "error", n.LastError)
		c.p.metrics.disabled.Inc()
		c.p.o.Hints.Hint(messages.Hint{Kind: messages.HintEvents, App: c.app})
	case n.FailingSince.IsZero() && c.stricken:
		c.stricken = false
		c.log.Info("a webhook takes events again")
	case n.Attempts > 1 && !c.stricken: // once may be anything
		c.stricken = true
		c.log.Warn("a webhook takes nothing", "error", n.LastError, "next", n.NextAt)
	}
}

// read reads what there is room for.
func (c *courier) read(ctx context.Context, now time.Time) {
	newest := c.newest.Load()
	if newest > c.seen {
		c.desk.more = true
	}
	wants := c.desk.wants()
	if wants <= 0 || !c.desk.more || now.Before(c.readAt) {
		return
	}
	page, err := c.p.o.Store.EventPage(ctx, messages.EventQuery{App: c.app, After: c.desk.cursor, Limit: wants, Types: c.desk.hook.Events})
	if err != nil {
		c.troubled(ctx, "cannot read events for a webhook", err)
		c.readAt = now.Add(troubleGap)
		return
	}
	c.trouble = false
	c.desk.take(page)
	if !page.More {
		c.readAt, c.seen = now.Add(readGap), newest
	}
}

// post begins what is to be posted now.
func (c *courier) post(now time.Time, secrets messages.WebhookSecrets) {
	free := 0
	if c.desk.inFlight() == 0 {
		free = 1 // each may always have one under way, whatever others have
	}
	slots := c.take(max(c.desk.spare()-free, 0))
	c.short = free+slots == 0 && c.desk.spare() > 0
	jobs := c.desk.next(now, free+slots)
	for i, j := range jobs {
		j.slot = i >= free
		c.running.Go(func() { c.results <- c.attempt(j, secrets) })
	}
	c.give(slots - max(len(jobs)-free, 0))
}

// take takes up to n places, of its app's and of all, and returns how many.
func (c *courier) take(n int) int {
	n = c.share.take(n)
	got := c.p.slots.take(n)
	c.share.give(n - got)
	return got
}

func (c *courier) give(n int) {
	c.share.give(n)
	c.p.slots.give(n)
}

// attempt makes one post. It runs beside run, and touches of a job only what does not change.
func (c *courier) attempt(j *job, secrets messages.WebhookSecrets) result {
	e, found, err := c.event(j)
	switch {
	case err != nil:
		return result{job: j, failed: true}
	case !found:
		return result{job: j, missing: true}
	}
	body, err := bodyOf(e)
	if err != nil || len(body) > messages.MaxPost {
		c.log.Error("an event cannot be posted and is passed over", "event", e.ID, "bytes", len(body), "error", err)
		return result{job: j, missing: true}
	}
	o := c.p.mail.post(c.posts, letter{url: c.desk.hook.URL, id: string(e.ID), body: body, secrets: secrets})
	return result{job: j, outcome: o, failed: !o.taken && c.posts.Err() != nil}
}

// event is what a job is to post; found is false if it was purged.
func (c *courier) event(j *job) (e messages.Event, found bool, err error) {
	if j.parcel != nil {
		return j.parcel.event, true, nil
	}
	page, err := c.p.o.Store.EventPage(c.posts, messages.EventQuery{App: c.app, After: j.place - 1, Limit: 1})
	if err != nil || len(page.Events) == 0 || page.Events[0].Seq != j.place {
		return e, false, err
	}
	return page.Events[0], true, nil
}

func (c *courier) settle(r result) {
	if r.job.slot {
		c.give(1)
	}
	switch {
	case r.failed:
		c.desk.putBack(r.job, time.Now().Add(troubleGap))
		return
	case r.missing:
		c.desk.drop(r.job)
		return
	}
	c.p.metrics.posts.WithLabelValues(r.outcome.label()).Inc()
	c.desk.settle(r.job, r.outcome, time.Now())
}

// settleAll takes in what has come back by now.
func (c *courier) settleAll() {
	for {
		select {
		case r := <-c.results:
			c.settle(r)
		default:
			return
		}
	}
}

// finish lets posts under way end, if that is soon, and writes down what came of them.
func (c *courier) finish(cut context.CancelFunc) {
	defer time.AfterFunc(lastPosts, cut).Stop()
	c.running.Wait() // results has room for all
	c.settleAll()
	ctx, cancel := context.WithTimeout(context.Background(), lastNote)
	defer cancel()
	c.save(ctx, time.Now(), true)
}

// show tells the metrics how it stands.
func (c *courier) show(now time.Time) {
	oldest := int64(0)
	if len(c.desk.queue) > 0 {
		oldest = c.desk.queue[0].event.At.UnixMilli()
	}
	c.oldest.Store(oldest)
	c.paused.Store(c.desk.down || now.Before(c.desk.until))
}

// troubled logs trouble with the store once.
func (c *courier) troubled(ctx context.Context, what string, err error) {
	if ctx.Err() == nil && !c.trouble {
		c.log.Warn(what, "error", err)
	}
	c.trouble = true
}
