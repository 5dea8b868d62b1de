package worker

import (
	"context"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// Fanouts stores, page by page, what is for an audience or for a later time.
type Fanouts interface {
	// FanJobs lists up to limit sends of which something is due: the oldest due first, and every app's.
	FanJobs(ctx context.Context, now time.Time, limit int) ([]messages.FanJob, error)
	// FanOut stores the next page of a send, up to limit devices, in one commit with the place it came to. A page that was
	// stored already, or is no longer wanted, is stored by nobody.
	FanOut(ctx context.Context, message ident.Message, limit int, now time.Time) (messages.FanPage, error)
}

// fanDuty is what one node does for all: storing the pages of what is for many, or for later.
const fanDuty = "fanout"

const (
	// fanTick is how often the store is asked what is due: so late a send may be that nobody hints of.
	fanTick = time.Second
	// fanGap lies between two looks at what is due, however many hints come.
	fanGap = 20 * time.Millisecond
	// fanList bounds the sends that are stored side by side; the others' turn comes when some are done.
	fanList = 256
	// fanRoom bounds how long the next page waits for devices of the last to be looked at.
	fanRoom = time.Second
	// fanFinish is how long a page that is being stored may go on when the duty is over.
	fanFinish = 1500 * time.Millisecond
)

// fanner fans out on the node that has the duty. One page is stored at a time: memory holds one, whatever the audience.
type fanner struct {
	w     *Worker
	turns turns
	look  bool      // what is due is to be asked
	asked time.Time // when it was asked last
	ill   bool      // the last time failed, and that was told
}

// fanOut stores what is due until ctx is done; a page under way is finished.
func (w *Worker) fanOut(ctx context.Context) error {
	f := &fanner{w: w, look: true}
	defer w.metrics.fanIdle() // another node shows them from here on
	tick := time.NewTicker(fanTick)
	defer tick.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-w.fans:
			f.look = true
		case <-tick.C:
			f.look = true
		case <-next.C:
		}
		if ctx.Err() == nil {
			next.Reset(f.step(ctx))
		}
	}
	return nil
}

// step looks at what is due, if that is to be done, stores the page whose turn it is, and says when there is more to do.
func (f *fanner) step(ctx context.Context) time.Duration {
	again := fanTick
	if f.look {
		if rest := fanGap - time.Since(f.asked); rest > 0 {
			again = rest
		} else {
			f.list(ctx)
		}
	}
	if f.ill {
		return again
	}
	now := time.Now()
	f.w.metrics.fanning(f.turns.state(now))
	turn, wait := f.turns.pick(now)
	if turn.job == nil {
		return min(again, wait)
	}
	f.store(ctx, turn, now)
	return 0
}

// list asks what is due by this node's clock now.
func (f *fanner) list(ctx context.Context) {
	f.asked, f.look = time.Now(), false
	list, err := f.w.o.Fanouts.FanJobs(ctx, f.asked, fanList)
	switch {
	case err == nil && f.ill:
		f.ill = false
		f.w.o.Log.Info("what is to be fanned out can be read again")
	case err != nil && ctx.Err() != nil:
		f.ill = true
	case err != nil && !f.ill:
		f.ill = true
		f.w.o.Log.Error("asking what is to be fanned out failed; it is tried every second, and not told again", "error", err)
	}
	if err == nil {
		f.turns.listed(list, len(list) == fanList, f.asked)
	}
}

// store stores one page and tells of it.
func (f *fanner) store(ctx context.Context, turn turn, now time.Time) {
	storing, done := outliving(ctx, fanFinish)
	defer done()
	page, err := f.w.o.Fanouts.FanOut(storing, turn.job.Message, turn.limit, turn.time(now))
	if err != nil {
		wait := turn.job.fail(time.Now())
		f.w.metrics.fanFailed.Inc()
		f.w.o.Log.Error("storing a page of a fan-out failed; it is tried again", "app", turn.job.App, "message", turn.job.Message, "in", wait, "error", err)
		return
	}
	// After the commit, as every hint: who is told before looks and finds nothing.
	f.w.tellPage(turn.job.App, page)
	f.w.metrics.fanned(page.Reached, time.Since(now))
	f.turns.stored(turn, page, now)
	f.look = f.look || page.Done && f.turns.full
	if turn.job.Wakes && page.Reached > 0 {
		f.w.awaitRoom(ctx)
	}
}

// awaitRoom waits, but not long, until the hub has looked at most of the devices it was told of: pages that come faster than that would
// have it remember a whole audience.
func (w *Worker) awaitRoom(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fanRoom)
	defer cancel()
	taken := make(chan struct{})
	if !w.post(ctx, sweptEvent{done: taken}) {
		return
	}
	select {
	case <-taken:
	case <-ctx.Done():
	}
}

// tellPage hints at all that a page put somewhere.
func (w *Worker) tellPage(app ident.App, page messages.FanPage) {
	hints := make([]messages.Hint, 0, len(page.Pending)+1)
	for _, p := range page.Pending {
		hints = append(hints, messages.Hint{Kind: messages.HintNew, App: app, Device: p.Device, Seq: p.Seq, Class: p.Class})
	}
	// Events tell of what it replaced, dropped, or took back.
	w.o.Hints.Hint(append(hints, messages.Hint{Kind: messages.HintEvents, App: app})...)
}

// outliving is ctx for work that is better finished than cut: it ends so long after ctx does, or when done is called.
func outliving(ctx context.Context, by time.Duration) (longer context.Context, done func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		limit := time.NewTimer(by)
		defer limit.Stop()
		select {
		case <-limit.C:
		case <-longer.Done():
		}
		cancel()
	})
	return longer, func() { stop(); cancel() }
}

// fanSoon has what is due looked at now rather than with the next tick.
func (w *Worker) fanSoon() {
	select {
	case w.fans <- struct{}{}:
	default:
	}
}

// hasFanout reports whether hints speak of something new to fan out.
func hasFanout(hints []messages.Hint) bool {
	for i := range hints {
		if hints[i].Kind == messages.HintFanout {
			return true
		}
	}
	return false
}
