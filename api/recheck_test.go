package api

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rouse/api/park"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
)

// watched counts the questions, and fails as many as it is told to.
type watched struct {
	Inboxes
	asked, polls, failures atomic.Int64
}

func (w *watched) Fresh(ctx context.Context, polls []messages.Poll, now time.Time) ([]ident.Device, error) {
	w.asked.Add(1)
	w.polls.Add(int64(len(polls)))
	if w.failures.Add(-1) >= 0 {
		return nil, errors.New("the database is away")
	}
	return w.Inboxes.Fresh(ctx, polls, now)
}

// crowd is n polls that wait, over a real store, and a rechecker that runs.
type crowd struct {
	*rechecker
	store *watched
	looks atomic.Int64
	told  atomic.Int64
	log   bytes.Buffer
}

// newCrowd parks n polls of devices that the store does not know: asked about, all of them look.
func newCrowd(t *testing.T, n int, every time.Duration) *crowd {
	c := &crowd{store: &watched{Inboxes: testkit.Store(t)}}
	parker := park.NewBlocking(park.Options{})
	for range n {
		go parker.Park(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), park.Poll{
			Device: ident.NewDevice(), Wait: time.Hour,
			Look: func(_ context.Context, parked bool) (park.Reply, bool) {
				if parked {
					c.looks.Add(1)
				}
				return park.Reply{}, false
			},
			Parked: func(int64, time.Time) { c.told.Add(1) },
			Idle:   func(int64) {},
			Empty:  func(park.End) park.Reply { return park.Reply{} },
		})
	}
	c.rechecker = newRechecker(parker, c.store, every, slog.New(slog.NewTextHandler(&c.log, nil)))
	go c.run(t.Context())
	synctest.Wait()
	return c
}

// A flapping bus makes rounds a second apart, of a statement for each thousand polls.
func TestLostAgainAndAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const polls, seconds = 1100, 5
		c := newCrowd(t, polls, time.Hour)
		for range 100 * seconds {
			c.soon()
			<-time.After(10 * time.Millisecond)
		}
		<-time.After(2 * time.Second)
		if n := c.store.asked.Load(); n < 2*(seconds-1) || n > 2*(seconds+2) {
			t.Errorf("%d questions in %d s", n, seconds)
		}
		if rounds := c.store.asked.Load() / 2; c.looks.Load() != rounds*polls || c.store.polls.Load() != rounds*polls {
			t.Errorf("%d looks of %d polls in %d rounds", c.looks.Load(), polls, rounds)
		}
		if n := c.told.Load(); n != polls {
			t.Errorf("told of %d polls", n)
		}
	})
}

// What is asked for while a round is under way is not taken for done with it.
func TestAskedForDuringARound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 10, time.Hour)
		c.soon()
		synctest.Wait()
		c.soon()
		<-time.After(time.Minute)
		if n := c.store.asked.Load(); n != 2 {
			t.Errorf("%d rounds", n)
		}
	})
}

func TestRoundsBySlowTimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 10, 10*time.Second)
		<-time.After(100 * time.Second)
		if n := c.store.asked.Load(); n < 8 || n > 12 {
			t.Errorf("%d rounds in 100 s", n)
		}
	})
}

// A database that is away ends no poll. It is asked again every second, which is told once, and who was to be announced is.
func TestRoundsThatFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 10, time.Hour)
		c.store.failures.Store(5)
		c.announce.Store(true)
		c.soon()
		<-time.After(4500 * time.Millisecond)
		if c.looks.Load() != 0 || c.store.asked.Load() != 5 {
			t.Errorf("%d looks after %d questions", c.looks.Load(), c.store.asked.Load())
		}
		<-time.After(time.Minute)
		if c.looks.Load() != 10 || c.store.asked.Load() != 6 {
			t.Errorf("%d looks after %d questions", c.looks.Load(), c.store.asked.Load())
		}
		if n := strings.Count(c.log.String(), "tried again"); n != 1 {
			t.Errorf("logged %d times", n)
		}
	})
}

func TestAnnounceOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 1100, time.Minute)
		a := &API{recheck: c.rechecker}
		a.Recheck()
		<-time.After(3 * time.Minute)
		if n := c.told.Load(); n != 2*1100 {
			t.Errorf("told %d times of 1100 polls", n)
		}
	})
}
