package api

import (
	"context"
	"sync"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

const (
	// maxWatchers is how many calls wait for events on one node, maxAppWatchers how many of one app: each holds a goroutine and a
	// connection, and looks into the store.
	maxWatchers    = 512
	maxAppWatchers = 64
	// watchEvery is how often one looks that heard nothing: no event waits for longer, whoever wrote it. watchGap keeps it from looking at
	// every hint of a busy app.
	watchEvery = time.Second
	watchGap   = 100 * time.Millisecond
)

// watchers is who waits for events.
type watchers struct {
	mu      sync.Mutex
	waiting map[ident.App]map[*watcher]bool // guarded by mu, as the next
	n       int
}

// watcher is one call that waits. came holds a token when something may have been told.
type watcher struct {
	app  ident.App
	came chan struct{}
}

// enter lets a call wait; TooMany "too_many_waiting", Unavailable "overloaded".
func (ws *watchers) enter(app ident.App) (*watcher, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	switch {
	case len(ws.waiting[app]) >= maxAppWatchers:
		return nil, fault.New(fault.TooMany, "too_many_waiting", "%d calls of this app wait for events on this node already", maxAppWatchers).After(watchEvery)
	case ws.n >= maxWatchers:
		return nil, fault.New(fault.Unavailable, "overloaded", "too many calls wait for events on this node; ask without wait, or again later").After(5 * time.Second)
	}
	if ws.waiting == nil {
		ws.waiting = map[ident.App]map[*watcher]bool{}
	}
	if ws.waiting[app] == nil {
		ws.waiting[app] = map[*watcher]bool{}
	}
	w := &watcher{app: app, came: make(chan struct{}, 1)}
	ws.waiting[app][w] = true
	ws.n++
	return w, nil
}

func (ws *watchers) leave(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.n--
	delete(ws.waiting[w.app], w)
	if len(ws.waiting[w.app]) == 0 {
		delete(ws.waiting, w.app)
	}
}

func (ws *watchers) count() int {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.n
}

// hear wakes whom a hint concerns. One without an app concerns all.
func (ws *watchers) hear(h messages.Hint) {
	switch h.Kind {
	case messages.HintEvents, messages.HintAcked, messages.HintGone, messages.HintToken, messages.HintCircuit:
	default:
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if h.App != "" {
		wakeAll(ws.waiting[h.App])
		return
	}
	for _, of := range ws.waiting {
		wakeAll(of)
	}
}

func wakeAll(list map[*watcher]bool) {
	for w := range list {
		token(w.came)
	}
}

// awaitEvents reads a page, and waits until there is something in it, or the time is up, or the server stops.
func (a *API) awaitEvents(ctx context.Context, q messages.EventQuery, wait time.Duration) (messages.EventPage, error) {
	if wait == 0 {
		return a.deps.Events.EventPage(ctx, q)
	}
	// Listen, then look, then wait: what is told between looking and waiting leaves a token.
	me, err := a.watchers.enter(q.App)
	if err != nil {
		return messages.EventPage{}, err
	}
	defer a.watchers.leave(me)
	end := time.NewTimer(wait)
	defer end.Stop()
	for {
		looked := time.Now()
		page, err := a.deps.Events.EventPage(ctx, q)
		if err != nil || len(page.Events) > 0 {
			return page, err
		}
		q.After = page.Next
		if page.More { // nothing that was chosen yet
			token(me.came)
		}
		if !a.await(ctx, me, end.C, looked) {
			return page, a.stillAdmits(ctx)
		}
		if err := a.stillAdmits(ctx); err != nil {
			return messages.EventPage{}, err
		}
	}
}

// await returns true when it is time to look again, false when the wait is over.
func (a *API) await(ctx context.Context, me *watcher, end <-chan time.Time, looked time.Time) bool {
	look := time.NewTimer(watchEvery)
	defer look.Stop()
	came := me.came
	for {
		select {
		case <-ctx.Done():
			return false
		case <-a.deps.Draining:
			return false
		case <-end:
			return false
		case <-look.C:
			return true
		case <-came:
			came = nil // once is enough
			look.Reset(max(0, watchGap-time.Since(looked)))
		}
	}
}

// stillAdmits proves anew the key of a backend that has been waiting: it may have been revoked.
func (a *API) stillAdmits(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	key, err := a.keys.get(ctx, callerOf(ctx).key, time.Now())
	switch {
	case fault.KindOf(err) == fault.Unauthenticated:
		return errUnknownKey
	case err == nil && !key.Live(time.Now()):
		return errExpiredKey
	}
	return err
}
