package api

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"rouse/api/park"
	"rouse/ident"
	"rouse/messages"
)

const (
	// checkedAtATime is how many polls one question to the store is about.
	checkedAtATime = 1000
	// roundGap is how far apart rounds begin, however often one is asked for: a bus that flaps must not become a storm.
	roundGap = time.Second
)

// rechecker looks after the polls that no hint reached. It asks the store about all of them in rounds, some at a time, and
// wakes those that would be answered: a poll by itself is two reads, a thousand together are one statement.
type rechecker struct {
	parker park.Parker
	store  Inboxes
	every  time.Duration
	log    *slog.Logger
	// due holds a token when a round must begin after this moment.
	due chan struct{}
	// announce says that the next round tells anew who is polling.
	announce atomic.Bool
}

func newRechecker(p park.Parker, store Inboxes, every time.Duration, log *slog.Logger) *rechecker {
	return &rechecker{parker: p, store: store, every: every, log: log, due: make(chan struct{}, 1)}
}

// soon asks for a round. One that is under way does not count: it may have passed who should be looked at.
func (r *rechecker) soon() {
	select {
	case r.due <- struct{}{}:
	default:
	}
}

// run goes round until ctx is done.
func (r *rechecker) run(ctx context.Context) {
	failing := false
	for r.wait(ctx) {
		began := time.Now()
		err := r.round(ctx)
		if err != nil {
			r.soon() // what is left of it, for whoever runs then
		}
		if err != nil && ctx.Err() == nil && !failing {
			r.log.WarnContext(ctx, "parked polls could not be looked after; it is tried again", slog.Any("error", err))
		}
		failing = err != nil
		pause(ctx, min(roundGap, r.every)-time.Since(began))
	}
}

// wait returns false when ctx is done, and true when it is time for a round.
func (r *rechecker) wait(ctx context.Context) bool {
	timer := time.NewTimer(time.Duration(float64(r.every) * (0.8 + 0.4*rand.Float64())))
	defer timer.Stop()
	select {
	case <-r.due:
		return true
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// round asks about all polls that wait now. Between questions it rests as long as the last one took.
func (r *rechecker) round(ctx context.Context) error {
	announce := r.announce.Swap(false)
	for polls := range slices.Chunk(r.parker.Polls(), checkedAtATime) {
		if announce {
			r.parker.Announce(devicesOf(polls)...)
		}
		began := time.Now()
		fresh, err := r.store.Fresh(ctx, polls, began)
		if err != nil {
			r.announce.CompareAndSwap(false, announce)
			return err
		}
		r.parker.Wake(fresh...)
		pause(ctx, time.Since(began))
	}
	return nil
}

func devicesOf(polls []messages.Poll) []ident.Device {
	list := make([]ident.Device, len(polls))
	for i, p := range polls {
		list[i] = p.Device
	}
	return list
}

// pause returns after d, or when ctx is done.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
