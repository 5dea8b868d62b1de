package main

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"rouse/providers/sim"
)

// pushLog is what one phone was pushed and did, in the order of time.
type pushLog struct {
	mu      sync.Mutex
	pushes  []heardPush
	fetches []fetchSpan
	sends   []heardSend
}

type heardPush struct {
	at   time.Time
	high bool
}

// heardSend is a send to the phone; it has no id until it has its 202.
type heardSend struct {
	began time.Time
	id    string
}

type fetchSpan struct {
	span
	ok bool // it emptied the inbox
}

func (l *pushLog) pushed(p sim.Delivered) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pushes = append(l.pushes, heardPush{p.At, p.Kind == "high" || p.Kind == "alert"})
}

func (l *pushLog) fetched(s span, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fetches = append(l.fetches, fetchSpan{s, ok})
}

// sending notes that a send begins, and returns its number.
func (l *pushLog) sending() (number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sends = append(l.sends, heardSend{began: time.Now()})
	return len(l.sends) - 1
}

// sent notes that the send of that number got its 202.
func (l *pushLog) sent(number int, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sends[number].id = id
}

const (
	// ladderGap is less than the least time between a push that was not answered and the ladder's next.
	ladderGap = 45 * time.Second
	// onItsWay is how long after its reason is gone a push may still arrive that had begun before.
	onItsWay = time.Second
)

// needless is how many pushes the phone got in a span of time, and which of them nobody needed:
//
//   - a wake was outstanding: the push before this one came less than ladderGap ago, it stood for all that this one may stand for (a
//     normal push does not stand for a high message), and the phone had not begun to fetch since;
//   - or nothing was pending: every message whose sending had begun had been in the phone's hands for more than onItsWay, and its last
//     fetch was over for as long, and had acked all it found.
//
// came tells when a message was in the phone's hands.
func (l *pushLog) needless(within span, came func(id string) (time.Time, bool)) (pushes int, needless []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range l.pushes {
		if p.at.Before(within.from) || !p.at.Before(within.to) {
			continue
		}
		pushes++
		switch {
		case i > 0 && l.outstanding(l.pushes[i-1], p):
			needless = append(needless, fmt.Sprintf("%s: the push %v before it was not answered yet", p.at.Format("15:04:05.000"), p.at.Sub(l.pushes[i-1].at).Round(time.Millisecond)))
		case l.idle(p.at, came):
			needless = append(needless, fmt.Sprintf("%s: nothing was pending", p.at.Format("15:04:05.000")))
		}
	}
	return pushes, needless
}

func (l *pushLog) outstanding(before, p heardPush) bool {
	if p.at.Sub(before.at) >= ladderGap || p.high && !before.high {
		return false
	}
	return !slices.ContainsFunc(l.fetches, func(f fetchSpan) bool { return f.from.After(before.at) && f.from.Before(p.at) })
}

func (l *pushLog) idle(at time.Time, came func(id string) (time.Time, bool)) bool {
	last := -1
	for i, f := range l.fetches {
		if f.from.Before(at) {
			last = i
		}
	}
	if last < 0 || !l.fetches[last].ok || at.Sub(l.fetches[last].to) < onItsWay {
		return false
	}
	return !slices.ContainsFunc(l.sends, func(s heardSend) bool {
		arrived, ok := came(s.id)
		return s.began.Before(at) && (!ok || at.Sub(arrived) < onItsWay)
	})
}

// TestWhichPushesAreNeedless judges the judge.
func TestWhichPushesAreNeedless(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	at := func(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }
	high := func(s float64) heardPush { return heardPush{at(s), true} }
	fetch := func(from, to float64) fetchSpan { return fetchSpan{span{at(from), at(to)}, true} }
	sends := func(began ...float64) (all []heardSend) {
		for _, s := range began {
			all = append(all, heardSend{at(s), fmt.Sprint(s)})
		}
		return all
	}
	// came has the message of each send come at the end of the first fetch that begins after it.
	came := func(l *pushLog) func(string) (time.Time, bool) {
		return func(id string) (time.Time, bool) {
			for _, f := range l.fetches {
				for _, s := range l.sends {
					if id != "" && s.id == id && f.from.After(s.began) && f.ok {
						return f.to, true
					}
				}
			}
			return time.Time{}, false
		}
	}
	for name, c := range map[string]struct {
		log  *pushLog
		want int
	}{
		"one for one":                 {&pushLog{pushes: []heardPush{high(1)}, fetches: []fetchSpan{fetch(2, 3)}, sends: sends(0)}, 0},
		"two for one":                 {&pushLog{pushes: []heardPush{high(1), high(1.5)}, fetches: []fetchSpan{fetch(2, 3)}, sends: sends(0)}, 1},
		"a second while one is out":   {&pushLog{pushes: []heardPush{high(1), high(1.5)}, sends: sends(0, 1.1)}, 1},
		"the ladder":                  {&pushLog{pushes: []heardPush{high(1), high(50)}, sends: sends(0)}, 0},
		"high after normal":           {&pushLog{pushes: []heardPush{{at(1), false}, high(1.5)}, sends: sends(0, 1.1)}, 0},
		"one for what came meanwhile": {&pushLog{pushes: []heardPush{high(1), high(4.5)}, fetches: []fetchSpan{fetch(2, 3)}, sends: sends(0, 2.5)}, 0},
		"one for nothing":             {&pushLog{pushes: []heardPush{high(1), high(5)}, fetches: []fetchSpan{fetch(2, 3)}, sends: sends(0)}, 1},
		"begun before the fetch":      {&pushLog{pushes: []heardPush{high(1), high(3.5)}, fetches: []fetchSpan{fetch(2, 3)}, sends: sends(0)}, 0},
		"after a fetch that failed":   {&pushLog{pushes: []heardPush{high(1), high(70)}, fetches: []fetchSpan{{span{at(2), at(62)}, false}}, sends: sends(0)}, 0},
		"a send without its 202":      {&pushLog{pushes: []heardPush{high(1), high(9)}, fetches: []fetchSpan{fetch(2, 3)}, sends: append(sends(0), heardSend{began: at(1)})}, 0},
	} {
		if _, got := c.log.needless(span{begin, at(100)}, came(c.log)); len(got) != c.want {
			t.Errorf("%s: %q needless, want %d", name, got, c.want)
		}
	}
}
