package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"rouse/client"
)

// wanderer is a phone of a fleet, whose every call may meet another node. What it hears and does is noted, to be judged later.
type wanderer struct {
	*crowdPhone
	known *phone
	heard int // number of the last push; touched by listen alone
	log   pushLog
}

// How a wanderer without a provider gets its messages.
const (
	parks = iota // it waits on long polls
	asks         // it asks now and then, and never waits
)

const (
	// drowsiness is what a phone takes at most from a push to its fetch.
	drowsiness = 1500 * time.Millisecond
	// longestPoll is what a parked phone waits at most: several polls fit in a trouble.
	longestPoll = 20 * time.Second
	// askEvery is about how often a phone asks that never waits.
	askEvery = 2 * time.Second
)

// wanderers are the phones of the crowd, sent over the road from now on.
func wanderers(c *crowd, r *road) []*wanderer {
	c.http.Transport, c.http.Timeout = r, 0
	var all []*wanderer
	for _, p := range c.phones {
		all = append(all, &wanderer{crowdPhone: p, known: &phone{api: p.api, device: p.device}})
	}
	return all
}

// wander sets the phones going.
func (c *crowd) wander(all []*wanderer) {
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	for _, w := range all {
		switch {
		case w.way.Provider != "none":
			c.going.Go(func() { w.listen(ctx) })
		case w.habit() == parks:
			c.going.Go(func() { w.park(ctx) })
		default:
			c.going.Go(func() { w.ask(ctx) })
		}
	}
}

func (w *wanderer) habit() int { return w.number / len(ways) % 2 }

// kind names how the phone gets its messages.
func (w *wanderer) kind() string {
	if w.way.Provider != "none" {
		return "woken"
	}
	return []string{parks: "parked", asks: "asking"}[w.habit()]
}

// listen fetches some time after each push. What is pushed before it has begun to is answered by the same fetch.
func (w *wanderer) listen(ctx context.Context) {
	answered := time.Time{}
	for {
		push, err := w.crowd.rig.sim.NextPush(ctx, w.token, w.heard)
		if err != nil {
			return
		}
		w.heard = push.N
		w.log.pushed(push)
		if push.At.Before(answered) {
			continue
		}
		if !rest(ctx, time.Duration(w.dice.Int64N(int64(drowsiness)))) {
			return
		}
		answered = time.Now()
		w.fetch(ctx)
	}
}

// fetch empties the inbox, however often it takes.
func (w *wanderer) fetch(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*patient)
	defer cancel()
	begun := time.Now()
	err := insist(ctx, func() error {
		_, err := w.known.empty(ctx, w.got)
		return err
	})
	w.log.fetched(span{begun, time.Now()}, err == nil)
}

// park waits on long polls of several lengths.
func (w *wanderer) park(ctx context.Context) {
	api, err := client.NewClientWithResponses(somewhere, w.crowd.options(w.secret)...)
	if err != nil {
		w.crowd.rig.t.Error(err)
		return
	}
	r := &client.Receiver{Client: api, Limit: maxPage, Wait: longestPoll/4 + time.Duration(w.dice.Int64N(int64(longestPoll*3/4)))}
	_ = r.Run(ctx, func(_ context.Context, page client.InboxPage) error {
		at := time.Now()
		for _, m := range page.Messages {
			w.got(fetched{m, at})
		}
		return nil
	})
}

// ask asks every now and then.
func (w *wanderer) ask(ctx context.Context) {
	for rest(ctx, askEvery/2+time.Duration(w.dice.Int64N(int64(askEvery)))) {
		w.fetch(ctx)
	}
}

// rest waits; false if ctx ended before.
func rest(ctx context.Context, d time.Duration) bool {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// backend sends to the phones of one half of a crowd at a time, at a steady pace. Each phone's messages are sent one after the other, the
// next when the last has its 202: so the order in which they have to come is known.
type backend struct {
	senders
	halves [2][]*wanderer
	half   atomic.Int32
	sent   atomic.Int64
}

// backendCalls is how many sends may be under way at a time.
const backendCalls = 32

// startBackend begins to send to the first half.
func startBackend(c *crowd, all []*wanderer, aSecond int) *backend {
	b := &backend{senders: senders{crowd: c, api: c.client(c.rig.app.SecretKey), begun: time.Now(), gap: time.Second / time.Duration(aSecond), stopped: make(chan struct{})}}
	for _, w := range all {
		// Both halves hold some of every way and habit.
		i := (w.number/len(ways)/2 + w.number) % 2
		b.halves[i] = append(b.halves[i], w)
	}
	for n := range backendCalls {
		b.done.Go(func() { b.workOn(n, rand.New(rand.NewPCG(c.seed, uint64(2_000_000+n)))) })
	}
	return b
}

// turn lets the other half have the messages from now on, and returns those that get none any more.
func (b *backend) turn() (quiet []*wanderer) {
	was := b.half.Load()
	b.half.Store(1 - was)
	return b.halves[was]
}

// workOn sends to every backendCalls-th phone, from the nth on.
func (b *backend) workOn(n int, dice *rand.Rand) {
	for i := int64(n); ; i += backendCalls {
		due := time.NewTimer(time.Until(b.begun.Add(time.Duration(i) * b.gap)))
		select {
		case <-due.C:
		case <-b.stopped:
			due.Stop()
			return
		}
		half := b.halves[b.half.Load()]
		mine := (len(half) - n + backendCalls - 1) / backendCalls
		if mine <= 0 {
			continue
		}
		w := half[n+backendCalls*dice.IntN(mine)]
		number := w.log.sending()
		w.log.sent(number, b.send(w.crowdPhone, i, dice))
		b.sent.Add(1)
	}
}

// owedTo is what was promised to these phones before a moment and has not come.
func (l *ledger) owedTo(phones []*wanderer, before time.Time) (owed []string) {
	theirs := map[*crowdPhone]bool{}
	for _, w := range phones {
		theirs[w.crowdPhone] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, p := range l.promised {
		if theirs[p.phone] && p.at.Before(before) && len(l.came[id]) == 0 {
			owed = append(owed, id)
		}
	}
	for id, s := range l.shared {
		for p := range s.to {
			if _, came := l.cameTo(id, p); !came && theirs[p] && !s.calm && s.at.Before(before) {
				owed = append(owed, id)
			}
		}
	}
	return owed
}

// inOrder fails for every phone to which messages did not come in the order in which they were promised. What came twice counts when it
// came first; what is for several has no place in it.
func (l *ledger) inOrder(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	want := map[*crowdPhone][]string{}
	for id, p := range l.promised {
		want[p.phone] = append(want[p.phone], id)
	}
	for phone, ids := range want {
		slices.SortFunc(ids, func(a, b string) int { return l.promised[a].at.Compare(l.promised[b].at) })
		got := slices.DeleteFunc(slices.Clone(l.order[phone]), func(id string) bool { _, shared := l.shared[id]; return shared })
		for i := range min(len(ids), len(got)) {
			if ids[i] != got[i] {
				t.Errorf("%s: message %d of %d should be %s and is %s", phone.name(), i+1, len(ids), ids[i], got[i])
				break
			}
		}
	}
}

// delays are what messages promised between two moments took to the hands of phones of a kind.
func (l *ledger) delays(phones []*wanderer, kind string, s span) []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	theirs := map[*crowdPhone]bool{}
	for _, w := range phones {
		theirs[w.crowdPhone] = w.kind() == kind
	}
	var all []time.Duration
	for id, p := range l.promised {
		if theirs[p.phone] && !p.at.Before(s.from) && p.at.Before(s.to) && len(l.came[id]) > 0 {
			all = append(all, max(0, l.came[id][0].at.Sub(p.at)))
		}
	}
	return all
}
