package cluster

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rouse/ident"
	"rouse/messages"
)

// This file plays nodes and a database through time and checks at every moment that no device has two homes, and that in the
// end each has one. What a beat meets on its way is drawn: it is lost, slow before it is done, before it is committed
// or on its way back; nodes freeze, leave and come again; their clocks are off and do not run equally fast.

const (
	playFor = 90 * time.Second // trouble
	calmFor = 25 * time.Second // then none
	frame   = 40 * time.Millisecond
)

// played is one node; its clock shows offset and, since the play began, what passed times pace.
type played struct {
	place  place
	view   *view
	offset time.Duration
	pace   float64
	frozen time.Duration // until then it does nothing
	gone   bool
}

func (n *played) clock(now time.Duration) time.Time {
	return start.Add(n.offset + time.Duration(float64(now)*n.pace))
}

// play is a run of all.
type play struct {
	t     *rapid.T
	die   *rand.Rand
	now   time.Duration
	nodes []*played
	rows  map[ident.Node]messages.Node
	busy  map[ident.Node]time.Duration // when a row was, or will be, committed last
	todo  agenda
	order int
	named int
	clock time.Duration // the database's, against the play's
}

func (p *play) in(d time.Duration, do func()) {
	p.order++
	heap.Push(&p.todo, item{at: p.now + d, order: p.order, do: do})
}

// trouble comes with so many per cent, while there is any.
func (p *play) trouble(percent int) bool { return p.now < playFor && p.die.IntN(100) < percent }

// between draws a number of units, both bounds included.
func (p *play) between(from, to int, unit time.Duration) time.Duration {
	return time.Duration(from+p.die.IntN(to-from+1)) * unit
}

// delay is short, and sometimes long.
func (p *play) delay() time.Duration {
	if p.trouble(6) {
		return p.between(0, 5000, time.Millisecond)
	}
	return p.between(0, 30, time.Millisecond)
}

func (p *play) join() {
	n := &played{offset: p.between(-600, 600, time.Second), pace: 1 + float64(p.between(-5, 5, 1))/1000}
	p.nodes = append(p.nodes, n)
	p.rename(n)
	p.beat(n)
}

func (p *play) rename(n *played) {
	p.named++
	n.place = place{me: ident.Node(fmt.Sprintf("node_%03d", p.named))}
}

// beat does what loop does.
func (p *play) beat(n *played) {
	switch {
	case n.gone:
		return
	case p.now < n.frozen:
		p.in(n.frozen-p.now, func() { p.beat(n) })
		return
	}
	switch luck := p.die.IntN(100); {
	case p.now >= playFor:
	case luck < 2:
		n.freeze(p)
		p.beat(n)
		return
	case luck < 4:
		p.leave(n)
		return
	}
	sent := p.now
	if n.place.lost(n.clock(sent)) {
		p.rename(n)
	}
	me := n.place.me
	b := beat{sent: n.clock(sent)}
	if p.trouble(2) {
		n.freeze(p)
	}
	over := false // it was answered, or given up
	// Of both, a node that was frozen meanwhile finds the answer first.
	p.in(max(beatLimit, n.frozen-sent+1), func() {
		if !over {
			over = true
			p.in(retryGap, func() { p.beat(n) })
		}
	})
	if p.trouble(8) {
		return
	}
	p.in(p.delay(), func() {
		b.now = start.Add(p.clock + p.now).Truncate(time.Millisecond)
		for _, r := range p.rows {
			b.rows = append(b.rows, r)
		}
		// Who writes a row waits until whoever wrote it before has committed.
		commit := max(p.now+p.delay(), p.busy[me])
		p.busy[me] = commit
		p.in(commit-p.now, func() {
			row := messages.Node{ID: me, JoinedAt: b.now, BeatAt: b.now}
			if was, known := p.rows[me]; known {
				row.JoinedAt = was.JoinedAt
			}
			p.rows[me] = row
			p.in(max(p.delay(), n.frozen-p.now), func() {
				if over || n.gone {
					return
				}
				over = true
				p.answered(n, b)
			})
		})
	})
}

func (n *played) freeze(p *play) {
	n.frozen = min(p.now+p.between(1, 30, time.Second), playFor)
}

func (p *play) answered(n *played, b beat) {
	b.answered = n.clock(p.now)
	v, again := n.place.heard(b)
	n.view = v
	gap := beatGap
	if again {
		gap = 0
	}
	p.in(gap, func() { p.beat(n) })
}

func (p *play) leave(n *played) {
	n.view, n.gone = nil, true
	p.in(p.delay(), func() { delete(p.rows, n.place.me) })
	p.in(p.delay(), p.join)
}

var playDevices = func() (list []ident.Device) {
	for i := range 12 {
		list = append(list, ident.Device(fmt.Sprint("dev_", i)))
	}
	return list
}()

// look checks that no device has two homes, and returns how many have one.
func (p *play) look() (homed int) {
	for _, d := range playDevices {
		var home *played
		for _, n := range p.nodes {
			if !n.view.mine(d, n.clock(p.now)) {
				continue
			}
			if home != nil {
				p.t.Fatalf("at %s %s has two homes: %s, which sees %v, and %s, which sees %v", p.now, d,
					home.place.me, home.view.homes(home.clock(p.now)), n.place.me, n.view.homes(n.clock(p.now)))
			}
			home = n
		}
		if home != nil {
			homed++
		}
	}
	return homed
}

func TestNoDeviceHasTwoHomes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := &play{t: t, die: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), rows: map[ident.Node]messages.Node{}, busy: map[ident.Node]time.Duration{}}
		p.clock = p.between(-600, 600, time.Second)
		for range p.between(2, 5, 1) {
			p.in(p.delay(), p.join)
		}
		for p.now < playFor+calmFor {
			next := p.now.Truncate(frame) + frame
			if len(p.todo) > 0 && p.todo[0].at < next {
				p.now = p.todo[0].at
				heap.Pop(&p.todo).(item).do()
			} else {
				p.now = next
			}
			p.look()
		}
		if n := p.look(); n != len(playDevices) {
			t.Fatalf("%d of %d devices have a home though all has been well for %s", n, len(playDevices), calmFor)
		}
	})
}

// agenda is what is to happen, in order.
type agenda []item

type item struct {
	at    time.Duration
	order int
	do    func()
}

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].order < a[j].order
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }

// Push is for container/heap.
func (a *agenda) Push(x any) { *a = append(*a, x.(item)) }

// Pop is for container/heap.
func (a *agenda) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}
