package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

const (
	// lookRetry is how soon a look into the store that failed is made again.
	lookRetry = time.Second
	// lookShare keeps the look at what is older from taking the store from everyone else: it rests so many times as long
	// as each of its pages took, and lookRest at least.
	lookShare = 2
	lookRest  = time.Millisecond
	// How far down the ladder is looked for what no push stands for. What lies deeper the ladder calls for.
	highDepth   = 3 * time.Hour
	normalDepth = 12 * time.Hour
)

// looking is what this node has still to look at for the devices it is home to. Owned by look.
type looking struct {
	fresh  bool        // everything new: hints were lost
	homes  bool        // everything that only memory may have known, of this process or of the homes before
	apps   []ident.App // all that these have pending
	older  []stretch   // what comes after, page by page
	ill    bool        // the last look failed, and that was told
	resume time.Time   // nothing before: the store did not answer, or has to rest
}

// stretch is a range of places to look through; to 0 is up to the newest.
type stretch struct {
	query messages.SweepQuery
	to    messages.Seq
}

// look finds in the store what memory should hold, until ctx is done: when hints were lost, as they are before this node listens, when homes
// have changed, and when an app has put a credential. It looks on every node, each for its own devices.
func (w *Worker) look(ctx context.Context) error {
	var l looking
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.rehomed:
			if !w.post(ctx, rehomedEvent{}) {
				return nil
			}
			l.fresh, l.homes = true, true
			if now := time.Now(); !now.Before(l.resume) {
				l.resume = now.Add(rehomeCalm)
			}
		case <-w.resweep:
			l.fresh, l.homes = true, true
		case app := <-w.retried:
			if !slices.Contains(l.apps, app) {
				l.apps = append(l.apps, app)
			}
		case <-timer.C:
		}
		if now := time.Now(); !now.Before(l.resume) {
			w.lookOn(ctx, &l)
		}
		if l.more() {
			timer.Reset(time.Until(l.resume))
		}
	}
}

// more reports whether something is left.
func (l *looking) more() bool { return l.fresh || l.homes || len(l.apps)+len(l.older) > 0 }

// lookOn does the most urgent of what is left. What fails stays.
func (w *Worker) lookOn(ctx context.Context, l *looking) {
	begun, well := time.Now(), true
	switch {
	case l.fresh:
		well = w.tryLook(ctx, l, "looking at everything new", func() error { return w.fresh(ctx) })
		l.fresh = !well
	case len(l.apps) > 0:
		well = w.tryLook(ctx, l, "looking at all an app has pending", func() error { return w.pendingOf(ctx, l.apps[0]) })
		if well {
			l.apps = l.apps[1:]
		}
	case l.homes:
		well = w.tryLook(ctx, l, "asking what is older", func() (err error) { l.older, err = w.inherited(ctx); return err })
		l.homes = !well
	case len(l.older) > 0:
		well = w.tryLook(ctx, l, "looking at what is older", func() error { return w.lookDown(ctx, l) })
		l.resume = time.Now().Add(max(lookRest, lookShare*time.Since(begun)))
	}
	if !well {
		l.resume = time.Now().Add(lookRetry)
	}
}

// tryLook is try for what is tried every second: it tells of the first failure and of the end of them.
func (w *Worker) tryLook(ctx context.Context, l *looking, what string, work func() error) bool {
	err := work()
	switch {
	case err == nil && l.ill:
		l.ill = false
		w.o.Log.Info("the store can be looked through again")
	case err != nil && !l.ill && ctx.Err() == nil:
		l.ill = true
		w.o.Log.Error(what+" failed; it is tried every second, and not told again", "error", err)
	}
	return err == nil
}

// fresh looks at what lies behind the first rung of each ladder, whatever its age.
func (w *Worker) fresh(ctx context.Context) error {
	for _, class := range []messages.Class{messages.HighWake, messages.NormalWake} {
		cursor, err := w.o.Sweeps.SweepCursor(ctx, rungName(class, class.Ladder()[0]))
		if err != nil {
			return fmt.Errorf("reading a sweep cursor: %w", err)
		}
		if err := w.lookThrough(ctx, messages.SweepQuery{Class: class, After: cursor}); err != nil {
			return err
		}
	}
	return nil
}

// pendingOf looks at all that one app has pending.
func (w *Worker) pendingOf(ctx context.Context, app ident.App) error {
	for _, class := range []messages.Class{messages.HighWake, messages.NormalWake} {
		if err := w.lookThrough(ctx, messages.SweepQuery{Class: class, App: app}); err != nil {
			return err
		}
	}
	return nil
}

// inherited returns the stretches where there may be something that only a home's memory knew the time of: what the sweeps have passed and
// no push stands for, the youngest first, and all of the apps that are held back, whose devices wait for a pause to end and
// may have climbed past every step.
func (w *Worker) inherited(ctx context.Context) ([]stretch, error) {
	var older []stretch
	for _, way := range []struct {
		class messages.Class
		depth time.Duration
	}{{messages.HighWake, highDepth}, {messages.NormalWake, normalDepth}} {
		class, to := way.class, messages.Seq(-1)
		for _, age := range class.Ladder() {
			cursor, err := w.o.Sweeps.SweepCursor(ctx, rungName(class, age))
			if err != nil {
				return nil, fmt.Errorf("reading a sweep cursor: %w", err)
			}
			if cursor < to {
				older = append(older, stretch{query: messages.SweepQuery{Class: class, After: cursor, Unwoken: true}, to: to})
			}
			if to = cursor; age >= way.depth {
				break
			}
		}
	}
	circuits, err := w.o.Circuits.Circuits(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("reading the circuits: %w", err)
	}
	for _, app := range appsOf(circuits) {
		for _, class := range []messages.Class{messages.HighWake, messages.NormalWake} {
			older = append(older, stretch{query: messages.SweepQuery{Class: class, App: app}})
		}
	}
	return older, nil
}

// lookDown looks at the next page of what is older.
func (w *Worker) lookDown(ctx context.Context, l *looking) error {
	s := &l.older[0]
	more, err := w.lookPage(ctx, &s.query)
	if err == nil && (!more || s.to > 0 && s.query.After >= s.to) {
		l.older = l.older[1:]
	}
	return err
}

// lookThrough looks at all that q finds.
func (w *Worker) lookThrough(ctx context.Context, q messages.SweepQuery) (err error) {
	for more := true; more && err == nil; {
		more, err = w.lookPage(ctx, &q)
	}
	return err
}

// lookPage looks at the next page of what q finds for the devices that this node is home to, and moves q behind it.
func (w *Worker) lookPage(ctx context.Context, q *messages.SweepQuery) (more bool, err error) {
	q.Limit, q.Now = sweepPage, time.Now()
	q.Before = q.Now
	due, next, more, err := w.o.Sweeps.Sweep(ctx, *q)
	if err != nil {
		return false, err
	}
	var page []found
	for _, d := range due {
		if w.o.Nodes.Mine(d.Device) {
			page = append(page, found{due: d})
		}
	}
	if !w.give(ctx, page) {
		return false, ctx.Err()
	}
	q.After = next
	return more, nil
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
