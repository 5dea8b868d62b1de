package worker

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"rouse/messages"
)

const (
	sweepTick = time.Second
	sweepPage = 500
	expireGap = 5 * time.Second
	purgeGap  = time.Minute
	// warnGap is how often credentials are looked at that run out.
	warnGap = time.Hour
	// purgeTurn bounds one turn of purging; with something left the next comes a tick later.
	purgeTurn = 500 * time.Millisecond
	tidyPage  = 500
	// A rung is swept from four fifths of its age on; each device then gets a time of
	// its own between four and six fifths, so that a broadcast's ladder is no storm.
	jitterFrom  = 0.8
	jitterWidth = 0.4
)

// rung is one step of a ladder with its durable cursor. Owned by the sweep.
type rung struct {
	messages.Rung
	cursor messages.Seq
	next   time.Time
	busy   bool // a page is under way
}

// rungs returns every step at which an un-acked message can call again, up to the longest life.
func rungs() []*rung {
	var all []*rung
	for _, class := range []messages.Class{messages.HighWake, messages.NormalWake} {
		ages := class.Ladder()
		for day := 24 * time.Hour; day <= messages.MaxTTL; day += 24 * time.Hour {
			ages = append(ages, day)
		}
		for _, age := range ages {
			all = append(all, &rung{Rung: messages.Rung{Name: rungName(class, age), Class: class, Age: age}})
		}
	}
	return all
}

func rungName(c messages.Class, age time.Duration) string {
	if c == messages.HighWake {
		return fmt.Sprintf("high/%s", age)
	}
	return fmt.Sprintf("normal/%s", age)
}

// period is how often a rung is looked at: often enough that its jitter hides the delay.
func (r *rung) period() time.Duration { return min(max(r.Age/20, sweepTick), 10*time.Minute) }

// jittered returns the age at which this device's turn on this rung comes.
func (r *rung) jittered(d messages.Due) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(d.Device))
	_, _ = h.Write([]byte(r.Name))
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(d.Seq)))
	share := float64(h.Sum64()>>11) / (1 << 53)
	return time.Duration(float64(r.Age) * (jitterFrom + jitterWidth*share))
}

// sweep does what one node does for all, until ctx is done: the ladder, and what keeps the store in order.
func (w *Worker) sweep(ctx context.Context) error {
	var house sync.WaitGroup
	defer house.Wait()
	house.Go(func() { w.keepHouse(ctx) })
	w.climb(ctx, rungs())
	return nil
}

// carried is a page of a rung that is with the homes of its devices, the cursor moved behind it; or why it is not.
type carried struct {
	rung *rung
	to   messages.Seq
	more bool
	err  error
}

// climb runs every rung whose period has come. A rung has one page under way at a time; homes that do not answer hold
// up no other rung.
func (w *Worker) climb(ctx context.Context, ladder []*rung) {
	var pages sync.WaitGroup
	defer pages.Wait()
	back := make(chan carried)
	tick := time.NewTicker(sweepTick)
	defer tick.Stop()
	known := false // where the cursors are
	for {
		now := time.Now()
		select {
		case <-ctx.Done():
			return
		case now = <-tick.C:
		case c := <-back:
			c.rung.come(c, now)
			if c.err != nil {
				w.try(ctx, "sweeping", func() error { return c.err })
				continue // on the next tick
			}
		}
		w.try(ctx, "sweeping", func() (err error) {
			if !known {
				err = w.readCursors(ctx, ladder)
				known = err == nil
			}
			for _, r := range ladder {
				if err == nil && !r.busy && !now.Before(r.next) {
					err = w.step(ctx, r, now, &pages, back)
				}
			}
			return err
		})
	}
}

// come takes a page's way back in.
func (r *rung) come(c carried, now time.Time) {
	r.busy = false
	if c.err != nil {
		return
	}
	r.cursor = c.to
	if !c.more {
		r.next = now.Add(r.period())
	}
}

func (w *Worker) readCursors(ctx context.Context, ladder []*rung) error {
	for _, r := range ladder {
		cursor, err := w.o.Sweeps.SweepCursor(ctx, r.Name)
		if err != nil {
			return fmt.Errorf("reading the sweep cursor %s: %w", r.Name, err)
		}
		r.cursor = cursor
	}
	return nil
}

// step scans a rung's next page and sends it on its way. Its durable cursor moves, but only after the homes have taken the page
// in: a crash in between hands it over once more.
func (w *Worker) step(ctx context.Context, r *rung, now time.Time, pages *sync.WaitGroup, back chan<- carried) error {
	q := messages.SweepQuery{Class: r.Class, After: r.cursor, Before: now.Add(-time.Duration(jitterFrom * float64(r.Age))), Now: now, Limit: sweepPage}
	due, next, more, err := w.o.Sweeps.Sweep(ctx, q)
	if err != nil {
		return err
	}
	page := make([]found, len(due))
	for i, d := range due {
		page[i] = found{due: d, at: now.Add(max(0, r.jittered(d)-d.Age))}
	}
	name, from := r.Name, r.cursor
	r.busy = true
	pages.Go(func() {
		c := carried{rung: r, to: next, more: more}
		if !w.handOver(ctx, page) {
			return
		}
		if next > from {
			c.err = w.o.Sweeps.MoveSweepCursor(ctx, name, next)
		}
		select {
		case back <- c:
		case <-ctx.Done():
		}
	})
	return nil
}

// handOver brings a page into the memories of its devices' homes; false if ctx ended first. It begins without waiting, not
// even for a timer that has ended: where two goroutines of a test's bubble meet such timers at once, the race detector may crash (golang/go#78156).
func (w *Worker) handOver(ctx context.Context, page []found) bool {
	h, answers := w.desk.begin(page, time.Now())
	defer w.desk.end(h)
	again := time.NewTimer(tellEvery)
	defer again.Stop()
	for {
		s := w.desk.step(h, time.Now(), w.o.Nodes.Mine)
		if len(s.tell) > 0 {
			w.o.Hints.Hint(s.tell...)
		}
		if len(s.fostered) > 0 {
			w.o.Log.Warn("the homes of some devices do not answer; they are woken from here", "devices", len(s.fostered))
		}
		if !w.give(ctx, append(s.own, s.fostered...)) {
			return false
		}
		if s.done {
			return true
		}
		again.Reset(time.Until(s.next))
		select {
		case <-answers:
		case <-again.C:
		case <-ctx.Done():
			return false
		}
	}
}

// give hands devices to the hub and waits until they are taken in; false if ctx ended first.
func (w *Worker) give(ctx context.Context, page []found) bool {
	if len(page) == 0 {
		return true
	}
	taken := make(chan struct{})
	if !w.post(ctx, sweptEvent{found: page, done: taken}) {
		return false
	}
	select {
	case <-taken:
		return true
	case <-ctx.Done():
		return false
	}
}

// keepHouse ends lives, purges, and warns of credentials that run out, until ctx is done.
func (w *Worker) keepHouse(ctx context.Context) {
	tick := time.NewTicker(sweepTick)
	defer tick.Stop()
	defer w.metrics.expiries.Reset() // another node shows them from here on
	var expire, purge, warn time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.rewarn:
			warn = time.Time{}
		case now := <-tick.C:
			if !now.Before(expire) {
				expire = now.Add(expireGap)
				w.try(ctx, "ending lives", func() error { return w.expire(ctx, now) })
			}
			if !now.Before(warn) {
				warn = now.Add(warnGap)
				w.try(ctx, "looking for credentials that run out", func() error { return w.warn(ctx, now) })
			}
			if !now.Before(purge) {
				purge = now.Add(purgeGap)
				w.try(ctx, "purging", func() error {
					left, err := w.purge(ctx, now)
					if left {
						purge = now
					}
					return err
				})
			}
		}
	}
}

// try runs a piece of work; what fails is tried again later, from the same cursor.
func (w *Worker) try(ctx context.Context, what string, work func() error) {
	if err := work(); err != nil && ctx.Err() == nil {
		w.o.Log.Error(what+" failed; it will be tried again", "error", err)
	}
}

// expire ends the lives that are over, all of them, in small commits so that senders hardly wait.
func (w *Worker) expire(ctx context.Context, now time.Time) error {
	for n := tidyPage; n >= tidyPage && ctx.Err() == nil; {
		var err error
		if n, err = w.o.Sweeps.Expire(ctx, now, tidyPage); err != nil {
			return err
		}
		w.metrics.expired.Add(float64(n))
		if n > 0 {
			w.o.Hints.Hint(messages.Hint{Kind: messages.HintEvents}) // of any app
		}
	}
	return nil
}

// warn tells of credentials that run out before long.
func (w *Worker) warn(ctx context.Context, now time.Time) error {
	all, err := w.o.Expiries.Expiries(ctx)
	if err != nil {
		return err
	}
	w.metrics.expire(all)
	told, err := w.o.Expiries.TellExpiring(ctx, now)
	for _, c := range told {
		w.o.Log.Warn("an app's credential runs out", "app", c.App, "provider", c.Provider, "at", c.ExpiresAt)
	}
	return err
}

// purge forgets what is past its retention, in small commits. It gives way to the sweeps after a while and
// says whether something is left: what accumulates faster than that would grow for ever.
func (w *Worker) purge(ctx context.Context, now time.Time) (left bool, err error) {
	until := now.Add(purgeTurn)
	for n := tidyPage; n >= tidyPage; {
		if time.Now().After(until) {
			return true, nil
		}
		if n, err = w.o.Sweeps.Purge(ctx, now.Add(-w.o.Retention), now, tidyPage); err != nil {
			return false, err
		}
	}
	return false, nil
}
