package api

import (
	"sync"
	"sync/atomic"
	"time"

	"rouse/ident"
)

const (
	// pollingKept bounds what is remembered of other nodes' polls, at about 150 bytes each. Who is forgotten misses a message
	// of TTL 0, and nothing else.
	pollingKept = 1 << 19
	// pollingLongest is what a poll may last according to another node: no longer than one here, and a little.
	pollingLongest = time.Minute
	// pollingTidied is how many others a new one looks at, to drop those that are over.
	pollingTidied = 4
)

// presence is who is polling on other nodes. The zero value is ready.
type presence struct {
	mu    sync.Mutex
	polls map[ident.Device]farPoll // guarded by mu
}

// farPoll is a poll on another node.
type farPoll struct {
	number int64
	until  time.Time
}

// came notes a poll, unless a later one of the device is known.
func (p *presence) came(device ident.Device, number int64, until, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, known := p.polls[device]
	if known && old.number > number && now.Before(old.until) {
		return
	}
	if !known {
		p.room(now)
	}
	if latest := now.Add(pollingLongest); until.After(latest) {
		until = latest
	}
	p.polls[device] = farPoll{number: number, until: until}
}

// left forgets the poll of that number, and any before it; 0 is all.
func (p *presence) left(device ident.Device, number int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if number == 0 || p.polls[device].number <= number {
		delete(p.polls, device)
	}
}

func (p *presence) has(device ident.Device, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	poll, known := p.polls[device]
	return known && now.Before(poll.until)
}

// room makes room for one more. It is called with mu held.
func (p *presence) room(now time.Time) {
	if p.polls == nil {
		p.polls = map[ident.Device]farPoll{}
	}
	seen := 0
	for device, poll := range p.polls {
		if !now.Before(poll.until) {
			delete(p.polls, device)
		}
		if seen++; seen == pollingTidied {
			if len(p.polls) >= pollingKept {
				delete(p.polls, device) // somebody has to go
			}
			return
		}
	}
}

// order numbers polls so that the later one of a device has the greater number, whichever nodes they came to: it begins with
// this node's clock, never goes back, and passes every number it hears of. Where a hint was lost and clocks differ, two
// polls of one device may wait at once, until the wait of the older one is over.
type order struct {
	last atomic.Int64
}

func (o *order) next() int64 {
	for {
		last := o.last.Load()
		n := max(last+1, time.Now().UnixMicro())
		if o.last.CompareAndSwap(last, n) {
			return n
		}
	}
}

func (o *order) heard(n int64) {
	for last := o.last.Load(); n > last; last = o.last.Load() {
		if o.last.CompareAndSwap(last, n) {
			return
		}
	}
}
