package store

import (
	"sync"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// The lane keeps what need not be durable before anyone goes on: wakes that were sent, pages that were
// handed out, contacts. Each writer has one, of its own devices, and writes it with its batches, device by device. A crash loses at most half a second of
// it: then a timeline lacks a line and a phone may be woken once more, but no message is touched.

const (
	// laneHold is how long an entry waits for the ack that will write it along.
	laneHold = 200 * time.Millisecond
	// Bounds, each of its own kind, so that contacts never crowd out pages, nor pages wakes.
	maxLaneContacts = 1 << 15
	maxLanePages    = 1 << 15
	maxLaneWakes    = 1 << 16
	// maxPagesEach bounds what one device that reads without acking can add.
	maxPagesEach = 16
	// contactEvery is how often a device's last contact is written at most.
	contactEvery = 5 * time.Minute
	// maxContacted bounds the memory of when that was.
	maxContacted = 1 << 17
)

// handed is a page that was handed out: every pending delivery from..to, both included, that was alive at.
type handed struct {
	from, to messages.Seq
	at       int64
}

// laneEntry is what the lane holds of one device.
type laneEntry struct {
	device ident.Device
	since  time.Time
	pages  []handed
	// seen is the end of the newest page, or of the inbox for a reader that came to it; 0 if none. An item fetched by
	// its id is a page that does not raise it.
	seen messages.Seq
	// served says that a page came, unanswered how many accepted wakes came after the last one.
	served     bool
	unanswered int
	// told is the count of the gap that the device was last told of.
	told    int
	wakes   []messages.Wake
	contact int64
}

type laneEntries map[ident.Device]*laneEntry

type lane struct {
	signal chan struct{} // holds a token when the lane stopped being empty

	mu        sync.Mutex
	waiting   laneEntries            // guarded by mu, as all below
	order     []*laneEntry           // oldest first; some have left waiting since
	flying    laneEntries            // with the writer, not yet durable
	landing   chan struct{}          // open while flying is being committed: nobody knows whether it is durable
	landings  int                    // counts the times flying became durable
	pages     int                    // in waiting
	wakes     int                    // in waiting
	contacted map[ident.Device]int64 // when a contact was last passed on
	hold      time.Duration
	share     int // of how many lanes this is one: each has its part of the bounds
}

func newLane(share int) *lane {
	return &lane{signal: make(chan struct{}, 1), waiting: laneEntries{}, contacted: map[ident.Device]int64{}, hold: laneHold, share: share}
}

// entry returns device's entry, made if missing. The caller holds mu.
func (l *lane) entry(device ident.Device) *laneEntry {
	e := l.waiting[device]
	if e == nil {
		e = &laneEntry{device: device, since: time.Now()}
		l.waiting[device] = e
		l.order = append(l.order, e)
		if len(l.waiting) == 1 {
			select {
			case l.signal <- struct{}{}:
			default:
			}
		}
	}
	return e
}

// hand notes a page. item says that it was one message fetched by its id.
func (l *lane) hand(device ident.Device, p handed, told int, item bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pages >= maxLanePages/l.share {
		return
	}
	e := l.entry(device)
	e.told = max(e.told, told)
	if p.to == 0 {
		return
	}
	if len(e.pages) < maxPagesEach {
		e.pages = append(e.pages, p)
		l.pages++
	}
	if !item {
		e.seen, e.served, e.unanswered = max(e.seen, p.to), true, 0
	}
}

// caughtUp notes that nothing up to head is left to hand out, whether or not the last page had any of it.
func (l *lane) caughtUp(device ident.Device, head messages.Seq) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pages >= maxLanePages/l.share {
		return
	}
	e := l.entry(device)
	e.seen, e.served, e.unanswered = max(e.seen, head), true, 0
}

// wake notes a push and reports whether there was room.
func (l *lane) wake(w messages.Wake) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wakes >= maxLaneWakes/l.share {
		return false
	}
	e := l.entry(w.Device)
	e.wakes = append(e.wakes, w)
	l.wakes++
	if w.Accepted {
		e.unanswered++
	}
	return true
}

// contact notes that the device spoke, if that was not noted lately.
func (l *lane) contact(device ident.Device, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, known := l.contacted[device]
	if ago := now - last; known && ago < contactEvery.Milliseconds() && ago > -contactEvery.Milliseconds() {
		return
	}
	if l.waiting[device] == nil && len(l.waiting) >= maxLaneContacts/l.share {
		return
	}
	if len(l.contacted) >= maxContacted/l.share {
		clear(l.contacted)
	}
	l.contacted[device] = now
	l.entry(device).contact = now
}

func (l *lane) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) == 0
}

// release ends the holding back: whatever waits may be taken.
func (l *lane) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold = 0
}

// take gives the writer the entries that have waited long enough at now, and those that ops land. They
// stay visible to view until landed or restore is called.
func (l *lane) take(now time.Time, ops []*op) laneEntries {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.order = l.order[:0]
		return nil
	}
	taken := laneEntries{}
	move := func(e *laneEntry) {
		taken[e.device] = e
		delete(l.waiting, e.device)
		l.pages -= len(e.pages)
		l.wakes -= len(e.wakes)
	}
	for _, o := range ops {
		if e := l.waiting[o.lands]; e != nil {
			move(e)
		}
	}
	i := 0
	for ; i < len(l.order); i++ {
		e := l.order[i]
		if l.waiting[e.device] != e {
			continue // an op took it
		}
		if now.Sub(e.since) < l.hold {
			break
		}
		move(e)
	}
	l.order = l.order[i:]
	l.flying = taken
	return taken
}

// land says that what was taken is being committed. Until landed or restore, view waits for devices that it concerns.
func (l *lane) land() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.flying) > 0 && l.landing == nil {
		l.landing = make(chan struct{})
	}
}

// settle ends what land began. The caller holds mu.
func (l *lane) settle() {
	if l.landing != nil {
		close(l.landing)
		l.landing = nil
	}
	l.flying = nil
}

// landed says that what was taken is durable.
func (l *lane) landed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.flying) > 0 {
		l.landings++
	}
	l.settle()
}

// restore puts back what was taken and could not be written.
func (l *lane) restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for device, old := range l.flying {
		newer := l.waiting[device]
		if newer == nil {
			l.order = append(l.order, old)
			l.waiting[device] = old
			l.pages += len(old.pages)
			l.wakes += len(old.wakes)
			continue
		}
		pages, wakes := len(newer.pages), len(newer.wakes)
		*newer = merge(*old, *newer)
		l.pages += len(newer.pages) - pages
		l.wakes += len(newer.wakes) - wakes
	}
	l.settle()
}

// merge returns what older and then newer come to. It shares nothing with either.
func merge(older, newer laneEntry) laneEntry {
	m := laneEntry{device: newer.device, since: older.since, seen: max(older.seen, newer.seen), told: max(older.told, newer.told),
		served: older.served || newer.served, unanswered: newer.unanswered, contact: max(older.contact, newer.contact)}
	if !newer.served {
		m.unanswered += older.unanswered
	}
	m.pages = append(append(m.pages, older.pages...), newer.pages...)
	m.wakes = append(append(m.wakes, older.wakes...), newer.wakes...)
	return m
}

// view returns what is not durable yet of a device, and a number that changes when something becomes so. It waits for
// a commit that is about to settle what is durable.
func (l *lane) view(device ident.Device) (e laneEntry, landings int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.landing != nil && l.flying[device] != nil {
		landing := l.landing
		l.mu.Unlock()
		<-landing
		l.mu.Lock()
	}
	if old := l.flying[device]; old != nil {
		e = merge(*old, laneEntry{device: device})
	}
	if newer := l.waiting[device]; newer != nil {
		e = merge(e, *newer)
	}
	return e, l.landings
}

// still reports whether nothing of the device has become durable since view, nor is about to.
func (l *lane) still(device ident.Device, landings int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.landings == landings && (l.landing == nil || l.flying[device] == nil)
}

func (e laneEntry) nothing() bool { return len(e.pages) == 0 && len(e.wakes) == 0 && e.told == 0 }

// woken returns the newest places the entry's accepted wakes stood for, and when the last was sent.
func (e laneEntry) woken() (m messages.Marks, at, background time.Time) {
	for _, w := range e.wakes {
		if w.Background && w.At.After(background) {
			background = w.At
		}
		if !w.Accepted {
			continue
		}
		m.Normal, m.High = max(m.Normal, w.Head.Normal), max(m.High, w.Head.High)
		if w.At.After(at) {
			at = w.At
		}
	}
	return m, at, background
}

// fetched returns when the delivery at seq was first handed out according to the entry, and how often.
func (e laneEntry) fetched(seq messages.Seq) (at int64, times int) {
	for _, p := range e.pages {
		if p.from <= seq && seq <= p.to {
			if times == 0 || p.at < at {
				at = p.at
			}
			times++
		}
	}
	return at, times
}

// steady calls read with what the lane holds of device, again if that became durable meanwhile, or may have, so that
// nothing is seen twice. What the lane held is gone from it only after the database has it: nothing is missed.
func (s *Store) steady(device ident.Device, read func(laneEntry) error) error {
	l := s.laneOf(device)
	for {
		e, before := l.view(device)
		if err := read(e); err != nil || e.nothing() || l.still(device, before) {
			return err
		}
	}
}
