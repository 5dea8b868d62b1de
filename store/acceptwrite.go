package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"rouse/ident"
	"rouse/messages"
)

// The reading and writing side of acceptAll: few statements, each for many sends.

// insertRows is how many rows one statement inserts: in SQLite that is a little cheaper than one for each. The size is fixed, so that
// the statement is prepared once.
const insertRows = 16

// Most deliveries have nothing but these columns; binding the others costs as much as a small statement.
const (
	plainColumns    = "seq, device, app, message, class, urgency, size, created_at, expires_at, body, shared"
	plainRow        = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)"
	deliveryColumns = plainColumns + ", ended_at, ended, reason, collapse_key, to_user, correlation_id, notification"
	insertPlain     = "INSERT INTO deliveries (" + plainColumns + ") VALUES " + plainRow
	insertDelivery  = "INSERT INTO deliveries (" + deliveryColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

// insertPlains inserts insertRows plain rows.
var insertPlains = "INSERT INTO deliveries (" + plainColumns + ") VALUES " + repeat(plainRow, insertRows)

func repeat(part string, n int) string { return strings.TrimSuffix(strings.Repeat(part+", ", n), ", ") }

// ask reads, with the next trip, what deciding the sends needs: their users' devices, all inboxes concerned, and, where statements
// travel, places and answers given before.
func (p *plan) ask(ops []*op) error {
	if len(ops) == 0 {
		return nil
	}
	devices := devicesIn(ops)
	for a := range sendsIn(ops) {
		user, asks := asksUser(&a.send)
		if !asks {
			continue
		}
		ofUser, err := p.t.devicesOf(p.users, user)
		if err != nil {
			return err
		}
		devices = append(devices, ofUser...)
	}
	if p.t.w.travels() {
		if err := p.askAlong(ops, len(devices)); err != nil {
			return err
		}
	}
	return p.askBoxes(devices)
}

func (p *plan) askBoxes(devices []ident.Device) error {
	for piece := range slices.Chunk(devices, p.t.atATime()) {
		query, args := p.t.forDevices(selectBoxes, piece)
		if err := p.t.ask(p.box, query, args...); err != nil {
			return fmt.Errorf("read inboxes: %w", err)
		}
	}
	return nil
}

// box takes an inbox as it is in the database.
func (p *plan) box(r row) error {
	b := &box{}
	err := r.Scan(&b.device, &b.app, &b.gone, &b.pending, &b.bytes)
	p.boxes[b.device] = b
	return err
}

// complete adds what the batch has changed to the inboxes that were read. A user's devices may be others than when the batch took
// its locks: those are locked and read now, and their users are asked again, for one may have left before it was locked. Whoever is
// the user's while it is locked stays so until the commit.
func (p *plan) complete() error {
	asked := map[ident.Device]bool{}
	for p.t.w.travels() { // where there is one writer, nobody else binds meanwhile
		var missing []ident.Device
		for _, list := range p.users {
			for _, d := range list {
				if p.boxes[d] == nil && !asked[d] {
					asked[d] = true
					missing = append(missing, d)
				}
			}
		}
		if len(missing) == 0 {
			break
		}
		if err := p.askMissing(missing); err != nil {
			return err
		}
	}
	for user, list := range p.users { // one may have gone with its inbox meanwhile
		p.users[user] = slices.DeleteFunc(list, func(d ident.Device) bool { return p.boxes[d] == nil })
	}
	for d, b := range p.boxes {
		if e := p.t.ledger[d]; e != nil {
			b.pending += e.pending
			b.bytes += e.bytes
		}
	}
	return nil
}

func (p *plan) askMissing(devices []ident.Device) error {
	for user := range p.users {
		p.users[user] = nil
	}
	places := len(p.t.places) + len(devices)
	p.t.places = nil // they are from before the locks
	return errors.Join(p.t.lock(devices), p.t.askUsers(p.users), p.t.askPlaces(places), p.askBoxes(devices), p.t.w.travel())
}

const selectDevicesOf = "SELECT id FROM devices WHERE app = ? AND user_id = ? AND user_id <> '' AND unregistered_at IS NULL ORDER BY id"

// devicesOf returns a user's registered devices in the order of their ids. Where statements travel, those are as they were when the
// batch took its locks.
func (t *tx) devicesOf(known map[userKey][]ident.Device, user userKey) ([]ident.Device, error) {
	if t.w.travels() {
		return t.users[user], nil
	}
	if list, is := known[user]; is {
		return list, nil
	}
	var list []ident.Device
	if err := t.list(&list, selectDevicesOf, string(user.app), user.user); err != nil {
		return nil, fmt.Errorf("list a user's devices: %w", err)
	}
	known[user] = list
	return list, nil
}

// selectBoxes reads inboxes.
var selectBoxes = ofDevices("SELECT device, app, gone_at IS NOT NULL, pending, pending_bytes FROM inboxes WHERE device ", "")

// write stores what was decided.
func (p *plan) write() error {
	p.tellSlots()
	if p.t.w.travels() {
		return p.writeAtOnce()
	}
	for _, e := range p.ends {
		if _, err := p.t.end(e.ending, e.state, e.reason, e.at); err != nil {
			return err
		}
	}
	if err := p.insertSlots(); err != nil {
		return fmt.Errorf("insert deliveries: %w", err)
	}
	for _, post := range p.posts {
		if err := p.insertPost(post); err != nil {
			return fmt.Errorf("insert a message: %w", err)
		}
	}
	return p.insertReplays()
}

func (p *plan) insertSlots() error {
	args := make([]any, 0, insertRows*10)
	var plain []*slot
	for _, s := range p.slots {
		if s.plain() {
			plain = append(plain, s)
			continue
		}
		if _, err := p.t.exec(insertDelivery, s.args(args[:0])...); err != nil {
			return err
		}
	}
	for ; len(plain) >= insertRows; plain = plain[insertRows:] {
		args = args[:0]
		for _, s := range plain[:insertRows] {
			args = append(s.plainArgs(args), s.send.Data)
		}
		if _, err := p.t.exec(insertPlains, args...); err != nil {
			return err
		}
	}
	for _, s := range plain {
		if _, err := p.t.exec(insertPlain, append(s.plainArgs(args[:0]), s.send.Data)...); err != nil {
			return err
		}
	}
	return nil
}

// plain reports whether the slot's row has the plain columns alone.
func (s *slot) plain() bool {
	m := s.send
	return s.ended == "" && !s.shared && m.CollapseKey == "" && m.To.User == "" && m.CorrelationID == "" && m.Notification == nil
}

// plainArgs appends the slot's plain columns up to the body.
func (s *slot) plainArgs(to []any) []any {
	m := s.send
	return append(to, int64(s.seq), string(s.device), string(m.App), string(m.ID), int64(s.class), int64(m.Urgency), int64(len(m.Data)),
		millis(m.CreatedAt), s.expire)
}

// user is who has to stay for it to stay.
func (s *slot) user() string { return cmp.Or(s.send.To.User, s.via) }

// args appends all of the slot's columns.
func (s *slot) args(to []any) []any {
	m := s.send
	var endedAt, ended, reason, note, body any
	if s.ended != "" {
		endedAt, ended, reason = millis(m.CreatedAt), string(s.ended), orNull(s.reason)
	} else {
		note = noteJSON(m.Notification)
		if !s.shared {
			body = m.Data
		}
	}
	return append(s.plainArgs(to), body, s.shared, endedAt, ended, reason, orNull(m.CollapseKey), orNull(s.user()),
		orNull(m.CorrelationID), note)
}

func noteJSON(n *messages.Notification) any {
	if n == nil {
		return nil
	}
	b, err := json.Marshal(n)
	if err != nil {
		return nil // two strings always marshal
	}
	return string(b)
}
