package worker

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
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

// sweep makes wakes certain until ctx is done. What a crash lost from memory the first pass finds again: everything behind
// the first rung's cursor, at any age, and all of the apps held back. Their devices waited in memory for a pause to end, and
// had climbed past the first steps.
func (w *Worker) sweep(ctx context.Context, held []ident.App) error {
	ladder := rungs()
	for _, r := range ladder {
		cursor, err := w.o.Sweeps.SweepCursor(ctx, r.Name)
		if err != nil {
			return fmt.Errorf("reading the sweep cursor %s: %w", r.Name, err)
		}
		r.cursor = cursor
	}
	w.lookAgain()
	tick := time.NewTicker(sweepTick)
	defer tick.Stop()
	var expire, purge, warn time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.resweep:
			w.try(ctx, "looking at everything new", func() error { return w.fresh(ctx, ladder) })
			for _, app := range held {
				w.try(ctx, "looking at all an app has pending", func() error { return w.pendingOf(ctx, app) })
			}
			held = nil
		case app := <-w.retried:
			w.try(ctx, "looking at all an app has pending", func() error { return w.pendingOf(ctx, app) })
			warn = time.Time{} // it has put a credential
		case now := <-tick.C:
			w.try(ctx, "sweeping", func() error { return w.climb(ctx, ladder, now) })
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

// try runs one duty; what fails is tried again on a later tick, from the same cursor.
func (w *Worker) try(ctx context.Context, what string, duty func() error) {
	if err := duty(); err != nil && ctx.Err() == nil {
		w.o.Log.Error(what+" failed; it will be tried again", "error", err)
	}
}

// fresh hands over what lies behind the first rung of each ladder, whatever its age.
func (w *Worker) fresh(ctx context.Context, ladder []*rung) error {
	for _, class := range []messages.Class{messages.HighWake, messages.NormalWake} {
		first := class.Ladder()[0]
		for _, r := range ladder {
			if r.Class != class || r.Age != first {
				continue
			}
			q := messages.SweepQuery{Class: class, After: r.cursor}
			if err := w.handOver(ctx, q, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// appsOf returns the apps of circuits, each once.
func appsOf(circuits []tokens.Circuit) (apps []ident.App) {
	for _, c := range circuits {
		if !slices.Contains(apps, c.App) {
			apps = append(apps, c.App)
		}
	}
	return apps
}

// pendingOf hands over all that one app has pending.
func (w *Worker) pendingOf(ctx context.Context, app ident.App) error {
	for _, class := range []messages.Class{messages.HighWake, messages.NormalWake} {
		if err := w.handOver(ctx, messages.SweepQuery{Class: class, App: app}, nil); err != nil {
			return err
		}
	}
	return nil
}

// climb runs every rung whose period has come.
func (w *Worker) climb(ctx context.Context, ladder []*rung, now time.Time) error {
	for _, r := range ladder {
		if now.Before(r.next) {
			continue
		}
		q := messages.SweepQuery{Class: r.Class, After: r.cursor, Before: now.Add(-time.Duration(jitterFrom * float64(r.Age)))}
		if err := w.handOver(ctx, q, r); err != nil {
			return err
		}
		r.next = now.Add(r.period())
	}
	return nil
}

// handOver scans q page by page and gives what it finds to the hub. With a rung, its
// durable cursor moves, but only after the hub has taken the page in: a crash in between
// hands it over once more.
func (w *Worker) handOver(ctx context.Context, q messages.SweepQuery, r *rung) error {
	q.Limit = sweepPage
	for more := true; more; {
		q.Now = time.Now()
		if r == nil {
			q.Before = q.Now
		}
		due, next, again, err := w.o.Sweeps.Sweep(ctx, q)
		if err != nil {
			return err
		}
		if !w.give(ctx, due, r, q.Now) {
			return ctx.Err()
		}
		if r != nil && next > q.After {
			if err := w.o.Sweeps.MoveSweepCursor(ctx, r.Name, next); err != nil {
				return err
			}
			r.cursor = next
		}
		q.After, more = next, again
	}
	return nil
}

// give hands one page to the hub and waits until it is taken in; false if ctx ended first.
func (w *Worker) give(ctx context.Context, due []messages.Due, r *rung, now time.Time) bool {
	if len(due) == 0 {
		return true
	}
	event := sweptEvent{found: make([]found, len(due))}
	for i, d := range due {
		event.found[i].due = d
		if r != nil {
			event.found[i].at = now.Add(max(0, r.jittered(d)-d.Age))
		}
	}
	taken := make(chan struct{})
	event.done = taken
	if !w.post(ctx, event) {
		return false
	}
	select {
	case <-taken:
		return true
	case <-ctx.Done():
		return false
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
