package sim

import (
	"encoding/json"
	"slices"
	"time"
)

// Limits of what the providers keep and let through.
const (
	appleKeeps        = 30 * 24 * time.Hour // a push without apns-expiration
	backgroundPushes  = 3                   // in backgroundHour
	backgroundHour    = time.Hour
	googleKeeps       = ttlLimit * time.Second
	googleStores      = 100 // non-collapsible messages
	googleKeys        = 4   // collapse keys
	collapsibleBurst  = 20
	collapsibleRefill = 3 * time.Minute
)

// KindDeleted is the Kind of the notice that FCM dropped what it had stored.
const KindDeleted = "deleted_messages"

// Lost counts pushes that were accepted and will never reach the phone, by reason.
type Lost struct {
	// Replaced gave way to newer ones: at APNs by the storage of one, at FCM by collapse key.
	Replaced int `json:"replaced"`
	// Expired were held for longer than they might be.
	Expired int `json:"expired"`
	// NotStored were for now or never (apns-expiration in the past, ttl 0), and it was not now.
	NotStored int `json:"not_stored"`
	// Overflowed were dropped with all others when FCM had stored too many, or too many collapse keys.
	Overflowed int `json:"overflowed"`
}

// condition is what keeps a push from a phone.
type condition struct{ offline, dozing, demoted bool }

// parcel is an accepted push on its way.
type parcel struct {
	Delivered
	life        time.Duration // how long the provider may keep it; 0 for now or never
	expires     time.Time     // set when it is kept
	background  bool          // APNs
	high        bool          // FCM: wakes a phone that dozes
	collapsible bool          // FCM
	key         string        // its collapse key
}

// shelf is what a provider keeps for one phone. Its methods decide and have no
// clock: now is what they are told. They return what goes to the phone, in order.
type shelf interface {
	// offer takes an accepted push.
	offer(now time.Time, c condition, p parcel) []Delivered
	// due takes what may go now from what is kept, and drops what has expired.
	due(now time.Time, c condition) []Delivered
	// next is when due should be asked again though nothing else happens; zero for never.
	next(c condition) time.Time
	// open forgets what was used up of the budgets, so that due lets everything go.
	open()
	// sum is how many are kept, and what was lost.
	sum() (kept int, lost Lost)
}

func newShelf(provider string) shelf {
	if provider == APNs {
		return &appleShelf{}
	}
	return &googleShelf{}
}

// appleShelf keeps one push for an app on a device, the newest, and lets three
// background pushes an hour through.
type appleShelf struct {
	stored     *parcel
	background []time.Time // when the latest went through
	lost       Lost
}

func (a *appleShelf) offer(now time.Time, c condition, p parcel) []Delivered {
	a.due(now, condition{offline: true}) // what has expired is not replaced
	switch {
	case a.passes(now, c, p):
		return []Delivered{p.Delivered}
	case p.life <= 0:
		a.lost.NotStored++
		return nil
	case a.stored != nil:
		a.lost.Replaced++
	}
	p.expires = now.Add(p.life)
	a.stored = &p
	return nil
}

// passes reports whether a push may go to the phone, and counts it if so.
func (a *appleShelf) passes(now time.Time, c condition, p parcel) bool {
	if c.offline {
		return false
	}
	if !p.background {
		return true
	}
	a.background = slices.DeleteFunc(a.background, func(t time.Time) bool { return now.Sub(t) >= backgroundHour })
	if len(a.background) >= backgroundPushes {
		return false
	}
	a.background = append(a.background, now)
	return true
}

func (a *appleShelf) due(now time.Time, c condition) []Delivered {
	if a.stored != nil && !now.Before(a.stored.expires) {
		a.stored = nil
		a.lost.Expired++
	}
	if a.stored == nil || !a.passes(now, c, *a.stored) {
		return nil
	}
	goes := a.stored.Delivered
	a.stored = nil
	return []Delivered{goes}
}

func (a *appleShelf) next(c condition) time.Time {
	if a.stored == nil || c.offline || len(a.background) == 0 {
		return time.Time{}
	}
	return a.background[0].Add(backgroundHour)
}

func (a *appleShelf) open() { a.background = nil }

func (a *appleShelf) sum() (int, Lost) {
	if a.stored != nil {
		return 1, a.lost
	}
	return 0, a.lost
}

// googleShelf keeps a hundred messages, collapses those with a key, lets a burst of
// twenty collapsible ones through and one more every three minutes.
type googleShelf struct {
	kept    []parcel  // oldest first
	full    time.Time // when the budget of collapsible ones is whole again
	deleted bool      // the phone is owed a notice
	lost    Lost
}

func (g *googleShelf) offer(now time.Time, c condition, p parcel) []Delivered {
	g.expire(now)
	switch {
	case g.passes(now, c, p):
		return []Delivered{p.as(c)}
	case p.life <= 0:
		g.lost.NotStored++
		return nil
	}
	p.expires = now.Add(p.life)
	g.makeRoom(p)
	g.kept = append(g.kept, p)
	return nil
}

// as is the push as it arrives in this condition.
func (p parcel) as(c condition) Delivered {
	d := p.Delivered
	if p.high && c.demoted {
		d.Kind, d.Demoted = "normal", true
	}
	return d
}

// reaches reports whether a push gets to the phone in this condition, were there no budget.
func (p parcel) reaches(c condition) bool { return !c.offline && (!c.dozing || p.high && !c.demoted) }

// passes reports whether a push may go to the phone, and takes it from the budget if so.
func (g *googleShelf) passes(now time.Time, c condition, p parcel) bool {
	if !p.reaches(c) {
		return false
	}
	if !p.collapsible || p.life <= 0 {
		return true
	}
	if now.Before(g.refill()) {
		return false
	}
	if g.full.Before(now) {
		g.full = now
	}
	g.full = g.full.Add(collapsibleRefill)
	return true
}

// refill is when the budget has room for one more.
func (g *googleShelf) refill() time.Time {
	return g.full.Add(-(collapsibleBurst - 1) * collapsibleRefill)
}

// makeRoom drops what a new push replaces, or what is too much beside it.
func (g *googleShelf) makeRoom(p parcel) {
	drop := func(count *int, unwanted func(parcel) bool) {
		before := len(g.kept)
		g.kept = slices.DeleteFunc(g.kept, unwanted)
		*count += before - len(g.kept)
	}
	if !p.collapsible {
		if plain := len(g.kept) - len(g.keys()); plain >= googleStores {
			drop(&g.lost.Overflowed, func(parcel) bool { return true })
			g.deleted = true
		}
		return
	}
	drop(&g.lost.Replaced, func(old parcel) bool { return old.collapsible && old.key == p.key })
	if keys := g.keys(); len(keys) >= googleKeys {
		drop(&g.lost.Overflowed, func(old parcel) bool { return old.collapsible && old.key == keys[0] })
	}
}

// keys are the collapse keys of what is kept, oldest first; each is there once.
func (g *googleShelf) keys() []string {
	var keys []string
	for _, p := range g.kept {
		if p.collapsible {
			keys = append(keys, p.key)
		}
	}
	return keys
}

func (g *googleShelf) expire(now time.Time) {
	before := len(g.kept)
	g.kept = slices.DeleteFunc(g.kept, func(p parcel) bool { return !now.Before(p.expires) })
	g.lost.Expired += before - len(g.kept)
}

func (g *googleShelf) due(now time.Time, c condition) []Delivered {
	g.expire(now)
	var goes []Delivered
	if g.deleted && !c.offline {
		g.deleted = false
		goes = append(goes, Delivered{Provider: FCM, Kind: KindDeleted, Body: json.RawMessage(`{"message_type":"deleted_messages"}`), Headers: map[string]string{}})
	}
	g.kept = slices.DeleteFunc(g.kept, func(p parcel) bool {
		passes := g.passes(now, c, p)
		if passes {
			goes = append(goes, p.as(c))
		}
		return passes
	})
	return goes
}

func (g *googleShelf) next(c condition) time.Time {
	if slices.ContainsFunc(g.kept, func(p parcel) bool { return p.reaches(c) }) {
		return g.refill()
	}
	return time.Time{}
}

// open gives each key that is kept its turn.
func (g *googleShelf) open() { g.full = time.Time{} }

func (g *googleShelf) sum() (int, Lost) { return len(g.kept), g.lost }
