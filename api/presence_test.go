package api

import (
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"rouse/ident"
)

// TestPresenceInAnyOrder: hints of two nodes come mixed; what counts is which poll is the later one.
func TestPresenceInAnyOrder(t *testing.T) {
	t.Parallel()
	now := time.Now()
	end := now.Add(50 * time.Second)
	came := func(n int64) func(*presence) { return func(p *presence) { p.came("d", n, end, now) } }
	left := func(n int64) func(*presence) { return func(p *presence) { p.left("d", n) } }
	for _, c := range []struct {
		name string
		said []func(*presence)
		has  bool
	}{
		{"nothing", nil, false},
		{"came", []func(*presence){came(1)}, true},
		{"came and left", []func(*presence){came(1), left(1)}, false},
		{"the older leaves after the later came", []func(*presence){came(1), came(2), left(1)}, true},
		{"the older is announced after the later", []func(*presence){came(2), came(1), left(1)}, true},
		{"both leave", []func(*presence){came(1), came(2), left(1), left(2)}, false},
		{"the later leaves, the older is forgotten", []func(*presence){came(1), came(2), left(2)}, false},
		{"served or gone", []func(*presence){came(7), left(0)}, false},
		{"left without having come", []func(*presence){left(3)}, false},
		{"without numbers", []func(*presence){came(0), left(0)}, false},
	} {
		p := &presence{}
		for _, say := range c.said {
			say(p)
		}
		if p.has("d", now) != c.has {
			t.Errorf("%s: has is %t", c.name, !c.has)
		}
	}
}

func TestPresenceEnds(t *testing.T) {
	t.Parallel()
	p, now := &presence{}, time.Now()
	p.came("short", 1, now.Add(time.Second), now)
	p.came("long", 1, now.Add(time.Hour), now)
	for device, ends := range map[ident.Device]time.Duration{"short": time.Second, "long": time.Minute} {
		if !p.has(device, now.Add(ends-1)) || p.has(device, now.Add(ends)) {
			t.Errorf("%s does not end after %s", device, ends)
		}
	}
	p.came("long", 0, now.Add(3*time.Minute), now.Add(2*time.Minute))
	if !p.has("long", now.Add(2*time.Minute)) {
		t.Error("a poll that is over keeps the next one out")
	}
}

func TestPresenceIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	end := now.Add(time.Minute)
	p := &presence{polls: make(map[ident.Device]farPoll, pollingKept)}
	for i := range pollingKept {
		p.polls[ident.Device(strconv.Itoa(i))] = farPoll{number: 1, until: end}
	}
	for i := range 100 {
		p.came(ident.Device(fmt.Sprint("one more ", i)), 1, end, now)
	}
	if n := len(p.polls); n != pollingKept {
		t.Errorf("%d are kept", n)
	}
	// What is over goes as others come.
	p, later := &presence{}, end.Add(time.Second)
	for i := range 1000 {
		p.came(ident.Device(fmt.Sprint(i)), 1, end, now)
	}
	for i := range 1000 {
		p.came(ident.Device(fmt.Sprint("later ", i)), 1, later.Add(time.Minute), later)
	}
	if n := len(p.polls); n > 1200 {
		t.Errorf("%d are kept", n)
	}
}

func TestOrderPassesWhatItHears(t *testing.T) {
	t.Parallel()
	var o order
	first := o.next()
	ahead := first + time.Hour.Microseconds() // of a node whose clock is an hour ahead
	o.heard(ahead)
	o.heard(first)
	if n := o.next(); n != ahead+1 {
		t.Errorf("next is %d after %d", n, ahead)
	}
	var all sync.Map
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			last := int64(math.MinInt64)
			for range 1000 {
				n := o.next()
				if _, twice := all.LoadOrStore(n, true); twice || n <= last {
					t.Errorf("%d is no new number after %d", n, last)
				}
				last = n
				o.heard(n + 1)
			}
		})
	}
	callers.Wait()
}
