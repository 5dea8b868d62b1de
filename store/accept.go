package store

import (
	"context"
	"fmt"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// presentGrace is the life of a TTL 0 message whose device is polling: long enough for the answer to arrive and be acked.
const presentGrace = 10 * time.Second

// userSend is what a send to a user counts for in a batch beyond its data: it may be a row for each of maxUserDevices.
const userSend = 32 << 10

// Reasons of deliveries that were dropped.
const (
	notPolling = "not_polling"
	inboxWas   = "inbox_full"
)

// acceptance is a send on its way through the writer.
type acceptance struct {
	send    messages.Send
	receipt messages.Receipt
	err     error // why it was refused
}

// Accept stores a message for everyone it is for; the receipt is durable when it returns. Errors:
// Invalid "device_not_found", "device_unregistered" (both at /to/device_id) and
// "idempotency_key_reused"; TooMany "inbox_full"; Unavailable "overloaded" and "storage_unavailable".
//
// A message of TTL 0 is for a device that is polling now: it lives presentGrace there; for any other it is stored as
// dropped at once. Of a user's several devices, one whose inbox is full gets a dropped delivery and a gap; only
// if all are full is the message refused.
//
// What is for later, a topic or everyone is stored as it is, and FanOut reaches its devices; of those only the one it names is looked at.
func (s *Store) Accept(ctx context.Context, m messages.Send) (messages.Receipt, error) {
	a := newAcceptance(m)
	o := &op{send: a, app: m.App, bytes: sendBytes(m), done: make(chan error, 1)}
	if err := s.write(ctx, "accept a message", o); err != nil {
		return messages.Receipt{}, err
	}
	return a.receipt, nil
}

// box is an inbox as it stands while a batch of sends is being decided.
type box struct {
	device         ident.Device
	app            ident.App
	gone           bool
	pending, bytes int64
	// via is the user through whom alone it has the topic that is being fanned out.
	via string
	// oldest are the database's next pending rows after the place after; exhausted says that there are no others.
	oldest    []ending
	after     messages.Seq
	exhausted bool
	// swept says that what is dead in it was ended in this batch already.
	swept bool
}

// slot is a delivery to be inserted; ended says that it already came to its end.
type slot struct {
	send   *messages.Send
	device ident.Device
	seq    messages.Seq
	class  messages.Class
	expire int64
	shared bool
	ended  messages.State
	reason string
	by     ident.Message // what replaced it
	via    string        // the user it is there for, of a send to others than a user
}

// pendingKey names what a collapse key replaces.
type pendingKey struct {
	device ident.Device
	key    string
}

// holder is the pending delivery of a collapse key: in this batch or in the database; neither if there is none.
type holder struct {
	slot *slot
	row  *ending
}

// plan decides a batch of sends: it reads, and keeps what is to be written.
type plan struct {
	t       *tx
	boxes   map[ident.Device]*box
	users   map[userKey][]ident.Device
	drops   map[ident.App]bool // whether the app drops the oldest
	holders map[pendingKey]holder
	ended   map[messages.Seq]bool // rows of the database that come to their end
	known   map[replayKey]*remembered
	present map[visit]bool

	slots   []*slot
	ends    []planned
	posts   []*post
	replays []*remembered
}

// planned is a row of the database to be ended.
type planned struct {
	ending
	state  messages.State
	reason string
	at     int64
}

// post is a row of messages: a send to a user with no device, or with several; or one for later, whose devices FanOut reaches.
type post struct {
	send  *messages.Send
	slots []*slot
}

type visit struct {
	send   *messages.Send
	device ident.Device
}

type userKey struct {
	app  ident.App
	user string
}

func (t *tx) newPlan(sends int) *plan {
	return &plan{t: t, boxes: make(map[ident.Device]*box, sends), users: map[userKey][]ident.Device{}, drops: map[ident.App]bool{},
		holders: map[pendingKey]holder{}, ended: map[messages.Seq]bool{}, known: map[replayKey]*remembered{},
		present: map[visit]bool{}, slots: make([]*slot, 0, sends)}
}

// settle decides all sends of a batch, once what was asked for is there, one after the other, and writes what they come to
// together. A send that is refused gets its error and leaves nothing behind. An error is the statement's, not a send's.
func (p *plan) settle(ops []*op) error {
	if len(ops) == 0 {
		return nil
	}
	if err := p.complete(); err != nil {
		return err
	}
	t := p.t
	for a := range sendsIn(ops) {
		a.receipt, a.err = p.accept(&a.send)
		if a.err == nil && a.receipt.Replayed {
			continue
		}
		if a.err == nil {
			t.done.accepted = append(t.done.accepted, a.send.Urgency)
			continue
		}
		if fault.KindOf(a.err) == fault.Internal {
			return a.err
		}
	}
	for _, o := range ops {
		if o.err = nil; o.send != nil {
			o.err = o.send.err
		}
	}
	p.hints(ops)
	return p.write()
}

// hints lists, per receipt, what is still pending now that the whole batch is decided.
func (p *plan) hints(ops []*op) {
	bySend := make(map[*messages.Send]*messages.Receipt, len(ops))
	for a := range sendsIn(ops) {
		bySend[&a.send] = &a.receipt
	}
	for _, s := range p.slots {
		if s.ended == "" {
			r := bySend[s.send]
			r.Pending = append(r.Pending, messages.Pending{Device: s.device, Seq: s.seq, Class: s.class})
		}
	}
}

// accept decides one send. Whatever can refuse it comes before anything it changes.
func (p *plan) accept(m *messages.Send) (messages.Receipt, error) {
	replay, err := p.replay(m)
	if err != nil || replay != nil {
		return replayed(replay), err
	}
	receipt := messages.Receipt{ID: m.ID, Status: messages.Accepted, CreatedAt: m.CreatedAt, ExpiresAt: fromMillis(millis(m.ExpiresAt())), SendAt: m.SendAt}
	switch {
	case m.Later():
		receipt.Status, err = p.later(m)
	case m.To.Device != "":
		err = p.toDevice(m)
		receipt.Recipients = 1
	default:
		receipt.Recipients, err = p.toUser(m)
	}
	if err != nil {
		return messages.Receipt{}, err
	}
	if receipt.Recipients == 0 && !m.Later() {
		receipt.Status = messages.NoRecipients
	}
	p.remember(m, receipt)
	return receipt, nil
}

// later keeps m whole, for FanOut.
func (p *plan) later(m *messages.Send) (messages.Status, error) {
	if m.To.Device != "" {
		if _, err := p.boxOf(m); err != nil {
			return "", err
		}
	}
	p.posts = append(p.posts, &post{send: m})
	if m.SendAt.IsZero() {
		return messages.FanningOut, nil
	}
	return messages.Scheduled, nil
}

// boxOf returns the inbox of the device that m names.
func (p *plan) boxOf(m *messages.Send) (*box, error) {
	b := p.boxes[m.To.Device]
	if b == nil || b.app != m.App {
		return nil, fault.New(fault.Invalid, "device_not_found", "the message is for a device that does not exist").
			At("/to/device_id", "no device of this app has this id")
	}
	if b.gone {
		return nil, fault.New(fault.Invalid, "device_unregistered", "the message is for a device that was unregistered").
			At("/to/device_id", "this device was unregistered")
	}
	return b, nil
}

func (p *plan) toDevice(m *messages.Send) error {
	b, err := p.boxOf(m)
	if err != nil {
		return err
	}
	fits, err := p.fits(b, m)
	if err != nil {
		return err
	}
	if !fits {
		return inboxFull()
	}
	_, err = p.deliver(b, m, false)
	return err
}

func inboxFull() *fault.Error {
	return fault.New(fault.TooMany, "inbox_full", "the device has too much un-acked; send again when it has fetched some").After(retryFull)
}

// toUser delivers to each of a user's devices and returns how many those are.
func (p *plan) toUser(m *messages.Send) (int, error) {
	devices := p.users[userKey{m.App, m.To.User}]
	if len(devices) == 1 {
		one := p.boxes[devices[0]]
		fits, err := p.fits(one, m)
		if err == nil && !fits {
			err = inboxFull()
		}
		if err != nil {
			return 0, err
		}
		_, err = p.deliver(one, m, false)
		return 1, err
	}
	fit, room := make([]bool, len(devices)), len(devices) == 0
	for i, d := range devices {
		fits, err := p.fits(p.boxes[d], m)
		if err != nil {
			return 0, err
		}
		fit[i], room = fits, room || fits
	}
	if !room {
		return 0, inboxFull()
	}
	return len(devices), p.spread(m, devices, fit)
}

// spread stores a message for several devices, or none: its body once, apart.
func (p *plan) spread(m *messages.Send, devices []ident.Device, fit []bool) error {
	shared := &post{send: m}
	p.posts = append(p.posts, shared)
	for i, d := range devices {
		s, err := p.deliverIf(fit[i], p.boxes[d], m)
		if err != nil {
			return err
		}
		shared.slots = append(shared.slots, s)
	}
	return nil
}

func (p *plan) deliverIf(fits bool, b *box, m *messages.Send) (*slot, error) {
	if fits {
		return p.deliver(b, m, true)
	}
	s, err := p.slot(b, m, true)
	if err == nil {
		s.ended, s.reason = messages.Dropped, inboxWas
		p.t.change(b.device).lose(s.seq, lostToQuota)
	}
	return s, err
}

// deliver puts m into an inbox that it fits.
func (p *plan) deliver(b *box, m *messages.Send, shared bool) (*slot, error) {
	if m.TTL == 0 && !p.here(m, b.device) {
		s, err := p.slot(b, m, shared)
		if err == nil {
			s.ended, s.reason = messages.Dropped, notPolling
		}
		return s, err
	}
	if err := p.replace(b, m); err != nil {
		return nil, err
	}
	if err := p.makeRoom(b, m); err != nil {
		return nil, err
	}
	s, err := p.slot(b, m, shared)
	if err != nil {
		return nil, err
	}
	if m.TTL == 0 {
		s.class, s.expire = messages.NoWake, millis(m.CreatedAt.Add(presentGrace))
	}
	if m.CollapseKey != "" {
		p.holders[pendingKey{b.device, m.CollapseKey}] = holder{slot: s}
	}
	p.add(b, 1, int64(len(m.Data)))
	return s, nil
}

// here reports whether the device is polling; it asks once, so that one answer decides everything.
func (p *plan) here(m *messages.Send, d ident.Device) bool {
	at := visit{m, d}
	is, asked := p.present[at]
	if !asked {
		is = m.Present != nil && m.Present(d)
		p.present[at] = is
	}
	return is
}

// slot gives m a place in the inbox.
func (p *plan) slot(b *box, m *messages.Send, shared bool) (*slot, error) {
	seq, err := p.t.nextSeq()
	if err != nil {
		return nil, err
	}
	s := &slot{send: m, device: b.device, seq: seq, class: m.Urgency.Class(), expire: millis(m.ExpiresAt()), shared: shared}
	p.slots = append(p.slots, s)
	p.t.change(b.device).head = seq
	return s, nil
}

// add changes what is pending in an inbox.
func (p *plan) add(b *box, count, bytes int64) {
	b.pending += count
	b.bytes += bytes
	e := p.t.change(b.device)
	e.pending += count
	e.bytes += bytes
}

// dropsOldest reports what the app wants done with a full inbox.
func (p *plan) dropsOldest(app ident.App) (bool, error) {
	drops, known := p.drops[app]
	if known {
		return drops, nil
	}
	var overflow tokens.Overflow
	if err := p.t.get(&overflow, "SELECT inbox_overflow FROM apps WHERE id = ?", string(app)); err != nil {
		return false, fmt.Errorf("read an app's overflow: %w", err)
	}
	p.drops[app] = overflow == tokens.OverflowDropOldest
	return p.drops[app], nil
}
