package webhooks

import (
	"slices"
	"time"

	"rouse/messages"
)

// What a desk makes of what came of its posts.

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

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
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
