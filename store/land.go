package store

import (
	"fmt"

	"rouse/ident"
	"rouse/messages"
)

const (
	markPage = `UPDATE deliveries SET fetched_at = COALESCE(fetched_at, ?), attempts = attempts + 1
		WHERE device = ? AND seq >= ? AND seq <= ? AND ended_at IS NULL AND expires_at > ?`
	// insertWake appends to the device's chain: to the row given, or, without one, to its newest.
	insertWake = `INSERT INTO wakes (device, at, head_normal, head_high, accepted, background, took, provider, verdict, reason, previous)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, COALESCE(?11, (SELECT last_wake FROM inboxes WHERE device = ?1), 0)) RETURNING id`
	tellGap = `UPDATE gaps SET told = ? WHERE device = ? AND told < ?`
)

// landLane writes the lane's entries of this batch.
func (t *tx) landLane() error {
	if t.w.travels() {
		return t.landAtOnce()
	}
	for device, e := range t.lane {
		if err := t.land(device, e); err != nil {
			return fmt.Errorf("record wakes and fetches: %w", err)
		}
	}
	return nil
}

func (t *tx) land(device ident.Device, e *laneEntry) error {
	for _, p := range e.pages[t.marked[device]:] {
		if p.to <= t.ackedTo[device] {
			continue // the ack wrote it
		}
		if err := t.markPage(device, p); err != nil {
			return err
		}
	}
	if e.told > 0 {
		if _, err := t.exec(tellGap, e.told, string(device), e.told); err != nil {
			return err
		}
	}
	last, err := t.insertWakes(device, e.wakes)
	if err != nil {
		return err
	}
	t.markInbox(device, e, last)
	return nil
}

// insertWakes stores wakes of one device, oldest first, and returns the newest's row; 0 for none.
func (t *tx) insertWakes(device ident.Device, wakes []messages.Wake) (last int64, err error) {
	var previous any
	for _, w := range wakes {
		t.writes++
		err := t.get(&last, insertWake, string(device), millis(w.At), int64(w.Head.Normal), int64(w.Head.High), w.Accepted,
			w.Background, w.Took.Microseconds(), w.Provider, w.Verdict, w.Reason, previous)
		if err != nil {
			return 0, err
		}
		previous = last
	}
	return last, nil
}

func (t *tx) markPage(device ident.Device, p handed) error {
	_, err := t.exec(markPage, p.at, string(device), int64(p.from), int64(p.to), p.at)
	return err
}

func (t *tx) markInbox(device ident.Device, e *laneEntry, lastWake int64) {
	woken, at, background := e.woken()
	if e.seen == 0 && lastWake == 0 && e.contact == 0 {
		return
	}
	c := t.change(device)
	c.marks, c.seen, c.woken, c.served, c.unanswered, c.lastWake = true, e.seen, woken, e.served, e.unanswered, lastWake
	if !at.IsZero() {
		c.wokenAt = ref(millis(at))
	}
	if !background.IsZero() {
		c.backgroundAt = ref(millis(background))
	}
	if e.contact != 0 {
		c.contactAt = ref(e.contact)
	}
}

func ref[T any](v T) *T { return &v }
