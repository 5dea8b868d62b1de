package sim

import (
	"errors"
	"fmt"
	"time"
)

// errInstant is what the switches of a phone answer while there is no delivery model.
var errInstant = errors.New("every push is handed over at once; ask for delivery \"real\" in the options or settings")

// PhoneState is a registered device token as the provider sees it.
type PhoneState struct {
	// Provider is APNs or FCM, Owner the topic or the project.
	Provider string `json:"provider"`
	Owner    string `json:"owner"`
	Sandbox  bool   `json:"sandbox"`
	Dead     bool   `json:"dead"`
	Online   bool   `json:"online"`
	// Dozing has FCM hold what is not of high priority.
	Dozing bool `json:"dozing"`
	// Demoted has FCM treat high priority as normal.
	Demoted bool `json:"demoted"`
	// Pushes counts those that reached the phone, Held those that wait for it.
	Pushes int  `json:"pushes"`
	Held   int  `json:"held"`
	Lost   Lost `json:"lost"`
}

// Phone returns what is known of a device token; false if it was never registered.
func (s *Sim) Phone(token string) (PhoneState, bool) { return s.phones.state(token) }

// SetOnline takes a phone off the net, or puts it back: then what was held for it
// arrives. It fails for an unknown token, and unless Delivery is DeliveryReal.
func (s *Sim) SetOnline(token string, online bool) error {
	return s.phones.change(token, func(c *condition) { c.offline = !online })
}

// SetDozing lets an Android phone doze: FCM holds messages of normal priority until
// it wakes. It fails as SetOnline does.
func (s *Sim) SetDozing(token string, dozing bool) error {
	return s.phones.change(token, func(c *condition) { c.dozing = dozing })
}

// SetDemoted has FCM treat high priority as normal for this phone, as it does with an app
// that shows the user nothing for it. It fails as SetOnline does.
func (s *Sim) SetDemoted(token string, demoted bool) error {
	return s.phones.change(token, func(c *condition) { c.demoted = demoted })
}

// Advance moves the clock of the delivery model forward: what is held expires, and
// budgets fill up, as if d had passed. Provider tokens and access tokens keep the real time.
func (s *Sim) Advance(d time.Duration) { s.phones.advance(d) }

// model turns the delivery model on, or off: then all that is held arrives.
func (b *phoneBook) model(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.real && !on {
		for _, p := range b.phones {
			p.condition = condition{}
			if p.shelf != nil && !p.dead {
				p.shelf.open()
				b.settle(p)
			}
			p.shelf = nil
		}
	}
	b.real = on
}

// change turns one of a phone's switches.
func (b *phoneBook) change(token string, turn func(*condition)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.phones[tokenKey(token)]
	switch {
	case !ok:
		return fmt.Errorf("no such device token: %s", shorten(token))
	case !b.real:
		return errInstant
	}
	turn(&p.condition)
	b.settle(p)
	return nil
}

func (b *phoneBook) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead += max(0, d)
	b.silence()
	for _, p := range b.phones {
		b.settle(p)
	}
}

// now is the time of the model.
func (b *phoneBook) now() time.Time { return time.Now().Add(b.ahead) }

// settle hands over what is due and sees to it that somebody looks again in time.
func (b *phoneBook) settle(p *phone) {
	if p.shelf == nil || p.dead {
		return
	}
	for _, d := range p.shelf.due(b.now(), p.condition) {
		p.take(d)
	}
	b.watch(p)
}

// watch sets the timer for the phone, if no other needs it earlier.
func (b *phoneBook) watch(p *phone) {
	next := p.shelf.next(p.condition)
	if next.IsZero() || b.closed {
		delete(b.waiting, p)
		return
	}
	b.waiting[p] = struct{}{}
	if b.timer != nil && !next.Before(b.rings) {
		return
	}
	b.silence()
	b.rings = next
	b.timer = time.AfterFunc(next.Sub(b.now()), b.ring)
}

// ring looks after every phone that waits for a time.
func (b *phoneBook) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.timer = nil
	for p := range b.waiting {
		b.settle(p)
	}
}

// close stops the timer for good.
func (b *phoneBook) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.silence()
}

// silence stops the timer.
func (b *phoneBook) silence() {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
}

func (b *phoneBook) state(token string) (PhoneState, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.phones[tokenKey(token)]
	if !ok {
		return PhoneState{}, false
	}
	b.settle(p) // what has expired is held no more
	s := PhoneState{
		Provider: p.provider, Owner: p.owner, Sandbox: p.sandbox, Dead: p.dead, Pushes: p.n,
		Online: !p.condition.offline, Dozing: p.condition.dozing, Demoted: p.condition.demoted,
	}
	if p.shelf != nil {
		s.Held, s.Lost = p.shelf.sum()
	}
	return s, true
}
