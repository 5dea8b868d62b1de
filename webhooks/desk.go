package webhooks

import (
	"slices"
	"time"

	"rouse/ident"
	"rouse/messages"
)

const (
	// mostPosts is how many posts to one webhook are under way at once, leastPosts how few it is held to when they fail.
	mostPosts  = 16
	leastPosts = 2
	// probes is how many posts find out whether a webhook takes anything again.
	probes = 4
	// downAfter is of how many orders - devices, or events of none - something has to fail, and nothing to be taken meanwhile, for the
	// webhook to be at fault and not the events.
	downAfter = 2
	// maxQueue is how many events are held in memory, maxAhead how far they may lie behind the oldest of them: so many may come twice
	// after a crash.
	maxQueue = 100
	maxAhead = 1000
	// maxApart is how many events of a webhook wait by themselves. When there are as many, those of their devices hold up the rest.
	maxApart = 10_000
)

// order is what must stay in order: the events of a device, or one event that is of none.
type order struct {
	device ident.Device
	place  messages.Seq
}

func orderOf(device ident.Device, place messages.Seq) order {
	if device != "" {
		return order{device: device}
	}
	return order{place: place}
}

// parcel is an event that was read and not dealt with yet.
type parcel struct {
	event messages.Event
	// number counts what was read.
	number int64
	// flying says that it is being posted, held that it failed and waits for the webhook's next attempt, second that it failed before
	// others were taken.
	flying, held, second bool
	tries                int
	first, began         time.Time // its first try, and its last
	lastError            string
}

func (p *parcel) order() order { return orderOf(p.event.Device, p.event.Seq) }

// job is one post that is to be made now.
type job struct {
	order order
	place messages.Seq
	// parcel is nil for an event that waits by itself, which is read anew.
	parcel *parcel
	began  time.Time
	// slot says that it counts against what all webhooks may have under way together.
	slot bool
}

// desk decides what is posted to one webhook and when, and what is noted of it. It does nothing itself: its courier does.
type desk struct {
	hook messages.Webhook

	queue  []*parcel // in the order of their places
	cursor messages.Seq
	read   int64 // how many events were
	more   bool  // there may be some behind it

	apart   map[order][]messages.WebhookRetry
	waiting int // in apart
	flying  map[order]bool
	retries int // of those under way

	room   int // how many posts may be under way
	taken  time.Time
	failed map[order]bool // since something was taken
	down   bool           // it is at fault, and not the events
	until  time.Time      // the receiver wants to be left alone

	noted  messages.Seq // the place that was
	status bool         // what is to be noted besides the place
	told   messages.WebhookNote
	lost   int // events given up since it was asked last
}

// newDesk is what was noted of a webhook. The clock of who noted it may have been ahead: nothing is put off for longer than it could be.
func newDesk(h messages.WebhookDesk, now time.Time) *desk {
	d := &desk{
		hook: h.Webhook, cursor: h.Place, more: true, noted: h.Place, room: mostPosts / 4, down: h.Attempts > 0,
		apart: map[order][]messages.WebhookRetry{}, flying: map[order]bool{}, failed: map[order]bool{},
	}
	d.hook.FailingSince, d.hook.NextAt = sooner(h.FailingSince, now), sooner(h.NextAt, now.Add(atMost(mostPause)))
	for _, r := range h.Retries {
		r.FirstAt, r.NextAt = sooner(r.FirstAt, now), sooner(r.NextAt, now.Add(atMost(steps[len(steps)-1])))
		o := orderOf(r.Device, r.Place)
		d.apart[o] = append(d.apart[o], r)
	}
	d.waiting = len(h.Retries)
	return d
}

// wants is how many events may be read now.
func (d *desk) wants() int {
	if len(d.queue) > 0 && d.read-d.queue[0].number >= maxAhead {
		return 0
	}
	return maxQueue - len(d.queue)
}

// take takes in what was read behind the cursor.
func (d *desk) take(page messages.EventPage) {
	for _, e := range page.Events {
		d.read++
		d.queue = append(d.queue, &parcel{event: e, number: d.read})
	}
	d.cursor, d.more = page.Next, page.More
	d.follow()
}

// follow sets apart what stands behind something of its order that is, as far as there is room.
func (d *desk) follow() {
	ahead := map[order]bool{}
	d.queue = slices.DeleteFunc(d.queue, func(p *parcel) bool {
		o := p.order()
		if len(d.apart[o]) == 0 || ahead[o] || p.flying || d.waiting >= maxApart {
			ahead[o] = true
			return false
		}
		d.setApart(p, time.Time{})
		return true
	})
}

// setApart has an event wait by itself.
func (d *desk) setApart(p *parcel, next time.Time) {
	r := messages.WebhookRetry{Place: p.event.Seq, Device: p.event.Device, Attempts: p.tries, FirstAt: p.first, NextAt: next, LastError: p.lastError}
	d.apart[p.order()] = append(d.apart[p.order()], r)
	d.waiting++
	d.told.Apart = append(d.told.Apart, r)
}

// place is up to which everything is dealt with.
func (d *desk) place() messages.Seq {
	if len(d.queue) > 0 {
		return d.queue[0].event.Seq - 1
	}
	return d.cursor
}

// inFlight is how many posts are under way.
func (d *desk) inFlight() int { return len(d.flying) }

// spare is how many more could be.
func (d *desk) spare() int { return max(d.room-d.inFlight(), 0) }

// next returns up to limit posts that are to be made now; they count as under way.
func (d *desk) next(now time.Time, limit int) []*job {
	limit = min(limit, d.spare())
	switch {
	case limit == 0 || now.Before(d.until):
		return nil
	case d.down && (d.inFlight() > 0 || now.Before(d.hook.NextAt)):
		return nil
	case d.down:
		return d.probe(now, min(limit, probes))
	}
	jobs := d.dueRetries(now, min(limit, max(d.room/2-d.retries, 0)))
	for _, p := range d.heads(now) {
		if len(jobs) == limit {
			break
		}
		jobs = append(jobs, &job{order: p.order(), place: p.event.Seq, parcel: p})
	}
	return d.begin(jobs, now)
}

// probe chooses what finds out whether the webhook is at fault: what was not tried lately.
func (d *desk) probe(now time.Time, limit int) []*job {
	heads := d.heads(now)
	slices.SortStableFunc(heads, func(a, b *parcel) int { return a.began.Compare(b.began) })
	var jobs []*job
	for _, p := range heads[:min(limit, len(heads))] {
		jobs = append(jobs, &job{order: p.order(), place: p.event.Seq, parcel: p})
	}
	return d.begin(append(jobs, d.dueRetries(now, limit-len(jobs))...), now)
}

// heads are the first parcels of each order that may be posted.
func (d *desk) heads(now time.Time) (list []*parcel) {
	behind := map[order]bool{}
	for _, p := range d.queue {
		o := p.order()
		if behind[o] || d.flying[o] || len(d.apart[o]) > 0 {
			continue
		}
		behind[o] = true
		if !p.held || !now.Before(d.hook.NextAt) {
			list = append(list, p)
		}
	}
	return list
}

// dueRetries are up to limit of the first in their order that wait by themselves and whose time has come.
func (d *desk) dueRetries(now time.Time, limit int) (list []*job) {
	if limit <= 0 {
		return nil
	}
	for o, line := range d.apart {
		if len(list) == limit {
			break
		}
		if !d.flying[o] && !now.Before(line[0].NextAt) {
			list = append(list, &job{order: o, place: line[0].Place})
		}
	}
	return list
}

func (d *desk) begin(jobs []*job, now time.Time) []*job {
	for _, j := range jobs {
		j.began = now
		d.flying[j.order] = true
		if j.parcel == nil {
			d.retries++
			continue
		}
		j.parcel.flying, j.parcel.began = true, now
	}
	return jobs
}

// wake is when next may have something to do without anything else happening; zero if never.
func (d *desk) wake(now time.Time) (at time.Time) {
	sooner := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if sooner(d.until); !at.IsZero() {
		return at
	}
	if d.down && now.Before(d.hook.NextAt) {
		return d.hook.NextAt
	}
	if slices.ContainsFunc(d.queue, func(p *parcel) bool { return p.held }) {
		sooner(d.hook.NextAt)
	}
	for o, line := range d.apart {
		if !d.flying[o] {
			sooner(line[0].NextAt)
		}
	}
	return at
}

// note is what is to be written down; false if that is nothing.
func (d *desk) note(now time.Time) (messages.WebhookNote, bool) {
	n := d.told
	if d.place() == d.noted && !d.status && len(n.Apart)+len(n.Again)+len(n.Done) == 0 && n.SucceededAt.IsZero() && n.Disable == "" {
		return n, false
	}
	n.ID, n.App, n.Term, n.Place, n.Now = d.hook.ID, d.hook.App, d.hook.Term, d.place(), now
	n.FailingSince, n.Attempts, n.NextAt = d.hook.FailingSince, d.hook.Attempts, d.hook.NextAt
	return n, true
}

// written forgets what was.
func (d *desk) written(n messages.WebhookNote) {
	d.noted, d.status, d.told = n.Place, false, messages.WebhookNote{}
}

// putBack undoes a post that was not made, and has the next one made no earlier than at.
func (d *desk) putBack(j *job, at time.Time) {
	d.land(j)
	d.until = later(d.until, at)
}
