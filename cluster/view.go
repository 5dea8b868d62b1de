package cluster

import (
	"hash/fnv"
	"slices"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// place is what a node knows of its own standing. It is pure: times come in.
type place struct {
	me ident.Node
	// asked is when the last beat that was heard was sent, clock what the database's clock showed then. Zero before the first.
	asked, clock time.Time
	// from is when this node is home; doubt is whether it is still to find out if anybody else was there when it joined.
	from  time.Time
	doubt bool
	dead  bool // somebody may have taken it for dead
}

// beat is one that was heard.
type beat struct {
	sent, answered time.Time // by this node's clock
	now            time.Time // by the database's, between the two
	rows           []messages.Node
}

// lost reports whether nobody may have heard of this node for so long that it has to join anew, under another id: what of its
// former life still comes to the database late is not taken for the new one's.
func (p *place) lost(now time.Time) bool {
	return p.dead || !p.asked.IsZero() && now.Sub(p.asked) > hold
}

// heard takes in a beat and returns what it shows, and whether the next one is due at once.
func (p *place) heard(b beat) (v *view, again bool) {
	joins := p.asked.IsZero()
	switch {
	case joins:
		// Whoever goes on without having read of this node has lost everything by then.
		p.from, p.doubt, again = b.answered.Add(settle), true, true
	case b.answered.Sub(p.asked) > life-slack || b.now.Sub(p.clock) > life-slack:
		p.dead = true
		return nil, true
	}
	p.asked, p.clock = b.sent, b.now
	v = &view{me: member{id: p.me, hash: hashOf(p.me)}, until: b.sent.Add(hold)}
	for _, r := range b.rows {
		if r.ID == p.me || r.BeatAt.Add(life).Before(b.now) || r.BeatAt.Sub(b.now) > life {
			continue
		}
		// The latest that the database's clock can show at a time is now and what passed since the question.
		from := b.sent.Add(r.JoinedAt.Add(settle - slack).Sub(b.now))
		if r.JoinedAt.After(b.now) {
			from = b.sent // the clock was set back: it may be home for long
		}
		v.others = append(v.others, member{id: r.ID, hash: hashOf(r.ID), from: from})
	}
	if p.doubt && !joins {
		p.doubt = false
		if len(v.others) == 0 {
			// Nobody's row was there after this node's was: who comes later reads of this one, and waits.
			p.from = b.answered
		}
	}
	v.me.from = p.from
	return v, again
}

// view is who was alive at a beat, and until when to count on that. It is not changed. A nil view is that of a
// node which counts on nothing.
type view struct {
	me     member
	others []member
	until  time.Time
}

// member is a node that is home from a time on.
type member struct {
	id   ident.Node
	hash uint64
	from time.Time
}

// fresh reports whether the view may be counted on.
func (v *view) fresh(now time.Time) bool { return v != nil && now.Before(v.until) }

// home reports whether the node is home to any device.
func (v *view) home(now time.Time) bool { return v.fresh(now) && !now.Before(v.me.from) }

// mine reports whether this node is home to d: its score is the highest of all.
func (v *view) mine(d ident.Device, now time.Time) bool {
	if !v.home(now) {
		return false
	}
	h := hashOf(d)
	best := mix(h ^ v.me.hash)
	for i := range v.others {
		o := &v.others[i]
		if now.Before(o.from) {
			continue
		}
		if s := mix(h ^ o.hash); s > best || s == best && o.id > v.me.id {
			return false
		}
	}
	return true
}

// alive counts the nodes, this one included.
func (v *view) alive() int {
	if v == nil {
		return 0
	}
	return 1 + len(v.others)
}

// homes are the nodes that devices are shared out among, in order; none if this node is not one of them.
type homes []ident.Node

func (h homes) same(other homes) bool { return slices.Equal(h, other) }

func (v *view) homes(now time.Time) homes {
	if !v.home(now) {
		return nil
	}
	list := homes{v.me.id}
	for _, o := range v.others {
		if !now.Before(o.from) {
			list = append(list, o.id)
		}
	}
	slices.Sort(list)
	return list
}

// turns returns how long homes stays what it is at now, if nothing is heard; an hour for very long.
func (v *view) turns(now time.Time) time.Duration {
	next := time.Hour
	if v == nil {
		return next
	}
	soon := func(at time.Time) {
		if at.After(now) {
			next = min(next, at.Sub(now))
		}
	}
	soon(v.until)
	soon(v.me.from)
	for _, o := range v.others {
		soon(o.from)
	}
	return next
}

// hashOf and mix decide who is home to what: all nodes of all versions have to agree on them.
func hashOf[T ~string](name T) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // it never fails
	return mix(h.Sum64())
}

// mix spreads every bit over all others (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}
