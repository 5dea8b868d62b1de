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

func newDesk(h messages.WebhookDesk) *desk {
	d := &desk{
		hook: h.Webhook, cursor: h.Place, more: true, noted: h.Place, room: mostPosts / 4, down: h.Attempts > 0,
		apart: map[order][]messages.WebhookRetry{}, flying: map[order]bool{}, failed: map[order]bool{},
	}
	for _, r := range h.Retries {
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

// settle takes in what came of a post.
func (d *desk) settle(j *job, o outcome, now time.Time) {
	d.land(j)
	if o.wait > 0 {
		d.until = now.Add(o.wait)
	}
	if o.taken {
		d.succeed(j, now)
		return
	}
	d.told.LastError, d.status = o.reason, true
	if o.gone {
		d.told.Disable = messages.WebhookFailing
	}
	if j.parcel == nil {
		d.failRetry(j, o, now)
	} else {
		d.fail(j.parcel, o, now)
	}
	if !d.hook.FailingSince.IsZero() && !now.Before(d.hook.FailingSince.Add(messages.WebhookPatience)) {
		d.told.Disable = messages.WebhookFailing
	}
}

// land ends a post.
func (d *desk) land(j *job) {
	delete(d.flying, j.order)
	if j.parcel == nil {
		d.retries--
	} else {
		j.parcel.flying = false
	}
}

// drop lets go of an event that cannot be posted: it is too large, or no longer there.
func (d *desk) drop(j *job) {
	d.land(j)
	if j.parcel == nil {
		d.finishRetry(j.order)
	} else {
		d.forget(j.parcel)
	}
}

func (d *desk) forget(p *parcel) {
	if i := slices.Index(d.queue, p); i >= 0 {
		d.queue = slices.Delete(d.queue, i, i+1)
	}
}

func (d *desk) succeed(j *job, now time.Time) {
	d.told.SucceededAt, d.taken = now, now
	d.status = d.status || d.hook.Attempts > 0 || !d.hook.FailingSince.IsZero()
	d.hook.FailingSince, d.hook.Attempts, d.hook.NextAt = time.Time{}, 0, time.Time{}
	d.room, d.down = min(d.room+1, mostPosts), false
	clear(d.failed)
	if j.parcel == nil {
		d.finishRetry(j.order)
	} else {
		d.forget(j.parcel)
	}
	d.release(now)
}

// release ends the waiting of what is held, now that something was taken. What failed before that is tried once more - most likely it
// was the receiver's trouble - and what did so twice waits by itself.
func (d *desk) release(now time.Time) {
	d.queue = slices.DeleteFunc(d.queue, func(p *parcel) bool {
		if p.held && p.second && d.waiting < maxApart {
			d.setApart(p, now.Add(retryIn(p.tries)))
			return true
		}
		p.second, p.held = p.second || p.held, false
		return false
	})
	d.follow()
}

// finishRetry lets go of the first in its order of those that wait by themselves. The next need not wait.
func (d *desk) finishRetry(o order) {
	line := d.apart[o]
	d.told.Done = append(d.told.Done, line[0].Place)
	if d.apart[o] = line[1:]; len(line) == 1 {
		delete(d.apart, o)
	}
	if d.waiting--; d.waiting == maxApart-1 {
		d.follow()
	}
}

// fail deals with a parcel that was not taken. If others were while it was under way, it is to blame; else the webhook may be.
func (d *desk) fail(p *parcel, o outcome, now time.Time) {
	if p.tries++; p.first.IsZero() {
		p.first = p.began
	}
	p.lastError = o.reason
	if (p.second || d.since(p.began)) && d.waiting < maxApart {
		d.forget(p)
		d.setApart(p, later(now.Add(retryIn(p.tries)), d.until))
		d.follow()
		return
	}
	p.held = true
	d.failed[p.order()] = true
	d.down = d.down || len(d.failed) >= downAfter
	d.room = max(d.room/2, leastPosts)
	d.pause(now)
}

// since reports whether anything was taken from a time on.
func (d *desk) since(t time.Time) bool { return !d.taken.IsZero() && !d.taken.Before(t) }

// pause puts the webhook's next attempt off, once a round: failures that come before it was due are of the same.
func (d *desk) pause(now time.Time) {
	if d.hook.FailingSince.IsZero() {
		d.hook.FailingSince = now
	}
	if !now.Before(d.hook.NextAt) {
		d.hook.Attempts++
		d.hook.NextAt = now.Add(pauseAfter(d.hook.Attempts))
	}
	d.hook.NextAt = later(d.hook.NextAt, d.until)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// failRetry deals with an event that waits by itself and was not taken again.
func (d *desk) failRetry(j *job, o outcome, now time.Time) {
	switch {
	case d.since(j.began):
	case d.down:
		d.pause(now)
	case d.hook.FailingSince.IsZero():
		d.hook.FailingSince = now
	}
	r := &d.apart[j.order][0]
	if r.Attempts++; r.Attempts == 1 {
		r.FirstAt = j.began
	}
	r.LastError = o.reason
	if givenUp(*r, now) {
		d.lost++
		d.finishRetry(j.order)
		return
	}
	r.NextAt = later(now.Add(retryIn(r.Attempts)), d.until)
	d.told.Again = append(d.told.Again, *r)
}

// yield has what is held wait by itself, though nobody knows who is to blame, when nothing else could be read otherwise.
func (d *desk) yield() {
	if d.down || d.inFlight() > 0 || !d.more || d.wants() > 0 {
		return
	}
	d.queue = slices.DeleteFunc(d.queue, func(p *parcel) bool {
		if !p.held || d.waiting >= maxApart {
			return false
		}
		p.tries, p.first = 0, time.Time{} // its days begin anew: they were the webhook's
		d.setApart(p, d.hook.NextAt)
		return true
	})
	d.follow()
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
