package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rouse/client"
)

// ledger is which message was promised to whom, and what came.
type ledger struct {
	mu       sync.Mutex
	promised map[string]promise       // by message id
	came     map[string][]arrival     // by message id
	order    map[*crowdPhone][]string // ids, as each came first
	shared   map[string]share         // by message id: what is not for one phone in its turn
	missing  int                      // promised and not come
	moved    chan struct{}            // holds one token when something has changed
}

// share is a promise to several phones, or for later: it comes to each of them once, in no order with what else does.
type share struct {
	to map[*crowdPhone]bool
	at time.Time // when it is due
	// calm is of what wakes nobody: it comes with whatever comes next.
	calm bool
}

type promise struct {
	phone *crowdPhone
	at    time.Time
}

type arrival struct {
	phone *crowdPhone
	at    time.Time
}

func newLedger() *ledger {
	return &ledger{promised: map[string]promise{}, shared: map[string]share{}, came: map[string][]arrival{}, order: map[*crowdPhone][]string{}, moved: make(chan struct{}, 1)}
}

func (l *ledger) promise(id string, p *crowdPhone, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.promised[id] = promise{p, at}
	if len(l.came[id]) == 0 {
		l.missing++
	}
}

// promiseAll promises a message to each of the phones.
func (l *ledger) promiseAll(id string, s share) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.shared[id]; known {
		return
	}
	l.shared[id] = s
	for p := range s.to {
		if _, came := l.cameTo(id, p); !came {
			l.missing++
		}
	}
}

// cameTo is when a message came to a phone first. The caller has mu.
func (l *ledger) cameTo(id string, p *crowdPhone) (at time.Time, ok bool) {
	for _, a := range l.came[id] {
		if a.phone == p {
			return a.at, true
		}
	}
	return time.Time{}, false
}

func (l *ledger) fetched(p *crowdPhone, m fetched) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, again := l.cameTo(m.Id, p)
	if _, ok := l.promised[m.Id]; ok && len(l.came[m.Id]) == 0 || !again && l.shared[m.Id].to[p] {
		l.missing--
	}
	if !again {
		l.order[p] = append(l.order[p], m.Id)
	}
	l.came[m.Id] = append(l.came[m.Id], arrival{p, m.at})
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

// owed is how many promised messages have not come.
func (l *ledger) owed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missing
}

// await returns when every promised message has come, or false after the limit.
func (l *ledger) await(limit time.Duration) bool {
	deadline := time.After(limit)
	for l.owed() > 0 {
		select {
		case <-l.moved:
		case <-deadline:
			return l.owed() == 0
		}
	}
	return true
}

// tardy is the oldest message of each phone, up to most of them, that did not come before the time; the latest first.
func (l *ledger) tardy(by time.Time, most int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := map[*crowdPhone]string{}
	for id, p := range l.promised {
		if came := l.came[id]; len(came) > 0 && came[0].at.Before(by) {
			continue
		}
		if was, ok := oldest[p.phone]; !ok || p.at.Before(l.promised[was].at) {
			oldest[p.phone] = id
		}
	}
	for id, s := range l.shared {
		for p := range s.to {
			if at, ok := l.cameTo(id, p); oldest[p] == "" && (!ok || !at.Before(by)) {
				oldest[p] = id
			}
		}
	}
	when := func(id string) time.Time {
		if came := l.came[id]; len(came) > 0 {
			return came[0].at
		}
		return time.Now()
	}
	ids := slices.SortedFunc(maps.Values(oldest), func(a, b string) int { return when(b).Compare(when(a)) })
	return ids[:min(most, len(ids))]
}

// tally is what a ledger comes to.
type tally struct {
	promised, came, again int
	delays                []time.Duration // from the 202 to the phone's hands
}

func (t tally) String() string {
	if len(t.delays) == 0 {
		return fmt.Sprintf("%d promised, none fetched", t.promised)
	}
	return fmt.Sprintf("%d promised, %d fetched (%d of them more than once), 202 to fetched p50 %v p99 %v max %v", t.promised, t.came, t.again,
		percentile(t.delays, 0.5).Round(time.Millisecond), percentile(t.delays, 0.99).Round(time.Millisecond), slices.Max(t.delays).Round(time.Millisecond))
}

// close fails for every message that was promised and did not come, and for every one that came to the wrong phone or was
// never promised. No sender may be at work any more.
func (l *ledger) close(t *testing.T) tally {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := tally{promised: len(l.promised), came: len(l.came)}
	lost := map[string]int{}
	for id, p := range l.promised {
		if len(l.came[id]) == 0 {
			lost[p.phone.name()]++
			continue
		}
		sum.delays = append(sum.delays, max(0, l.came[id][0].at.Sub(p.at)))
	}
	for name, n := range lost {
		t.Errorf("%s: %d messages got their 202 and never came", name, n)
	}
	l.closeShared(t, &sum)
	for id, came := range l.came {
		if _, shared := l.shared[id]; shared {
			continue
		}
		if len(came) > 1 {
			sum.again++
		}
		switch p, ok := l.promised[id]; {
		case !ok:
			t.Errorf("%s came to %s, and nobody was promised it", id, came[0].phone.name())
		case slices.ContainsFunc(came, func(a arrival) bool { return a.phone != p.phone }):
			t.Errorf("%s was for %s and came to another phone", id, p.phone.name())
		}
	}
	return sum
}

// closeShared is close for what was promised to several.
func (l *ledger) closeShared(t *testing.T, sum *tally) {
	t.Helper()
	for id, s := range l.shared {
		sum.promised += len(s.to)
		sum.came-- // it counts once for each phone
		for p := range s.to {
			if _, ok := l.cameTo(id, p); !ok {
				t.Errorf("%s never came to %s", id, p.name())
			} else {
				sum.came++
			}
		}
		sum.again += max(0, len(l.came[id])-len(s.to))
		for _, a := range l.came[id] {
			if !s.to[a.phone] {
				t.Errorf("%s came to %s, for whom it was not", id, a.phone.name())
			}
		}
	}
}

// each calls f for every message and phone that was promised it.
func (l *ledger) each(f func(id string, p *crowdPhone)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, p := range l.promised {
		f(id, p.phone)
	}
	for id, s := range l.shared {
		for p := range s.to {
			f(id, p)
		}
	}
}

func (p *crowdPhone) name() string {
	env := ""
	if p.way.Environment != nil {
		env = " " + string(*p.way.Environment)
	}
	return fmt.Sprintf("phone %d (%s%s, %s)", p.number, p.way.Provider, env, p.device)
}

// senders post messages to random phones of a crowd at a steady pace.
type senders struct {
	crowd   *crowd
	api     *client.Client
	begun   time.Time
	gap     time.Duration
	next    atomic.Int64
	full    atomic.Int64 // sends that an inbox had no room for
	stopped chan struct{}
	done    sync.WaitGroup
}

// sendCalls is how many sends may be under way at a time.
const sendCalls = 64

// startSenders begins to send.
func (c *crowd) startSenders(aSecond int) *senders {
	s := &senders{crowd: c, api: c.client(c.rig.app.SecretKey), begun: time.Now(), gap: time.Second / time.Duration(aSecond), stopped: make(chan struct{})}
	for n := range sendCalls {
		s.done.Go(func() { s.work(rand.New(rand.NewPCG(c.seed, uint64(1_000_000+n)))) })
	}
	return s
}

// work sends the next message whenever its time has come. After a halt of the server it catches up.
func (s *senders) work(dice *rand.Rand) {
	for {
		n := s.next.Add(1)
		due := time.NewTimer(time.Until(s.begun.Add(time.Duration(n) * s.gap)))
		select {
		case <-due.C:
			s.send(s.crowd.phones[dice.IntN(len(s.crowd.phones))], n, dice)
		case <-s.stopped:
			due.Stop()
			return
		}
	}
}

// send posts the nth message until it has its 202, and returns its id. The key lets the server see that it is the same send.
func (s *senders) send(to *crowdPhone, n int64, dice *rand.Rand) (id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patient)
	defer cancel()
	key := fmt.Sprintf("send-%d", n)
	body := client.MessageSend{To: client.Recipient{DeviceId: &to.device}, Data: fmt.Appendf(nil, `{"n":%d,"text":%q}`, n, secretWords), Urgency: to.urgency(dice)}
	err := insist(ctx, func() error {
		m, err := answer[client.MessageAccepted](s.api.SendMessage(ctx, &client.SendMessageParams{IdempotencyKey: &key}, body))
		id = m.Id
		return err
	})
	switch {
	case err == nil:
		s.crowd.ledger.promise(id, to, time.Now())
	case hasCode(err, "inbox_full"):
		s.full.Add(1)
	default:
		s.crowd.rig.t.Errorf("sending to %s: %v", to.name(), err)
	}
	return id
}

// urgency is high where Apple's budget would hold a quiet push back for longer than a test may take.
func (p *crowdPhone) urgency(dice *rand.Rand) *client.MessageSendUrgency {
	if p.way.Provider == "apns" || dice.IntN(3) > 0 {
		return nil
	}
	return ptr(client.MessageSendUrgency("normal"))
}

// end lets the sends under way get their answers and sends no more.
func (s *senders) end() {
	close(s.stopped)
	s.done.Wait()
}

// insist repeats what failed for want of a server, until ctx ends.
func insist(ctx context.Context, f func() error) error {
	for {
		err := f()
		var refused *client.Error
		if err == nil || ctx.Err() != nil || errors.As(err, &refused) && !refused.Temporary() && refused.Status != http.StatusConflict || hasCode(err, "inbox_full") {
			return err
		}
		again := time.NewTimer(100 * time.Millisecond)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return err
		}
	}
}
