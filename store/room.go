package store

import (
	"fmt"

	"rouse/messages"
)

// What a send finds in the inbox it goes to: what its collapse key replaces, whether it fits, what has to
// go for it.

// oldestPage is how many of an inbox's oldest rows are read at a time.
const oldestPage = 32

// fits reports whether b can take m, once what m replaces is gone; by dropping the oldest, if the app wants that.
func (p *plan) fits(b *box, m *messages.Send) (bool, error) {
	if m.TTL == 0 && !p.here(m, b.device) {
		return true, nil
	}
	limits, size := p.t.w.store.limits, int64(len(m.Data))
	if size > limits.bytes {
		return false, nil
	}
	if b.pending+1 <= limits.messages && b.bytes+size <= limits.bytes {
		return true, nil
	}
	h, err := p.holder(b, m.CollapseKey)
	if err != nil {
		return false, err
	}
	count, bytes := h.size()
	if b.pending-count+1 <= limits.messages && b.bytes-bytes+size <= limits.bytes {
		return true, nil
	}
	if !b.swept {
		// What is dead and not swept yet takes no room.
		b.swept = true
		if err := p.bury(b, m); err != nil {
			return false, err
		}
		return p.fits(b, m)
	}
	return p.dropsOldest(m.App)
}

// bury ends what has outlived its life in an inbox, before Expire comes to it.
func (p *plan) bury(b *box, m *messages.Send) error {
	const query = "SELECT " + endingColumns + " FROM deliveries WHERE device = ? AND ended_at IS NULL AND expires_at <= ? ORDER BY seq"
	var rows []ending
	if err := p.t.list(&rows, query, string(b.device), millis(m.CreatedAt)); err != nil {
		return fmt.Errorf("look for what has expired: %w", err)
	}
	for _, row := range rows {
		if !p.ended[row.Seq] {
			p.endRow(b, row, messages.Expired, "", m)
			p.t.change(b.device).lose(row.Seq, lostToTTL)
		}
	}
	return nil
}

// size is what the held delivery takes in its inbox.
func (h holder) size() (count, bytes int64) {
	switch {
	case h.slot != nil:
		return 1, int64(len(h.slot.send.Data))
	case h.row != nil:
		return 1, h.row.Size
	}
	return 0, 0
}

// holder returns what is pending under the collapse key.
func (p *plan) holder(b *box, key string) (holder, error) {
	if key == "" {
		return holder{}, nil
	}
	at := pendingKey{b.device, key}
	if h, known := p.holders[at]; known {
		if h.slot != nil && h.slot.ended != "" || h.row != nil && p.ended[h.row.Seq] {
			return holder{}, nil
		}
		return h, nil
	}
	const query = "SELECT " + endingColumns + " FROM deliveries WHERE device = ? AND collapse_key = ? AND ended_at IS NULL ORDER BY seq DESC LIMIT 1"
	var rows []ending
	if err := p.t.list(&rows, query, string(b.device), key); err != nil {
		return holder{}, fmt.Errorf("look a collapse key up: %w", err)
	}
	var h holder
	if len(rows) == 1 && !p.ended[rows[0].Seq] {
		h.row = &rows[0]
	}
	p.holders[at] = h
	return h, nil
}

// replace ends what m's collapse key replaces.
func (p *plan) replace(b *box, m *messages.Send) error {
	h, err := p.holder(b, m.CollapseKey)
	if err != nil {
		return err
	}
	switch {
	case h.slot != nil:
		p.endSlot(b, h.slot, messages.Replaced, "")
		h.slot.by = m.ID
	case h.row != nil:
		h.row.by = m.ID
		p.endRow(b, *h.row, messages.Replaced, "", m)
	}
	return nil
}

func (p *plan) endSlot(b *box, s *slot, state messages.State, why string) {
	s.ended, s.reason = state, why
	p.add(b, -1, -int64(len(s.send.Data)))
}

func (p *plan) endRow(b *box, row ending, state messages.State, why string, m *messages.Send) {
	p.ended[row.Seq] = true
	b.pending--
	b.bytes -= row.Size
	p.ends = append(p.ends, planned{ending: row, state: state, reason: why, at: millis(m.CreatedAt)})
}

// makeRoom drops the oldest until m fits, and leaves a gap for what was dropped. fits has said that it may.
func (p *plan) makeRoom(b *box, m *messages.Send) error {
	limits, size := p.t.w.store.limits, int64(len(m.Data))
	for b.pending > 0 && (b.pending+1 > limits.messages || b.bytes+size > limits.bytes) {
		dropped, err := p.dropOne(b, m)
		if err != nil {
			return err
		}
		if !dropped {
			return fmt.Errorf("inbox %s counts %d pending of which none is found", b.device, b.pending)
		}
	}
	return nil
}

// dropOne ends the oldest pending delivery of b: of the database first, then of this batch.
func (p *plan) dropOne(b *box, m *messages.Send) (bool, error) {
	row, err := p.oldest(b)
	if err != nil {
		return false, err
	}
	if row != nil {
		p.endRow(b, *row, messages.Dropped, inboxWas, m)
		p.t.change(b.device).lose(row.Seq, lostToQuota)
		return true, nil
	}
	for _, s := range p.slots {
		if s.device == b.device && s.ended == "" {
			p.endSlot(b, s, messages.Dropped, inboxWas)
			p.t.change(b.device).lose(s.seq, lostToQuota)
			return true, nil
		}
	}
	return false, nil
}

// oldest takes the oldest pending row of the database that is not ended yet; nil if there is none.
func (p *plan) oldest(b *box) (*ending, error) {
	for {
		for len(b.oldest) > 0 {
			row := b.oldest[0]
			b.oldest = b.oldest[1:]
			b.after = row.Seq
			if !p.ended[row.Seq] {
				return &row, nil
			}
		}
		if b.exhausted {
			return nil, nil
		}
		const query = "SELECT " + endingColumns + " FROM deliveries WHERE device = ? AND seq > ? AND ended_at IS NULL ORDER BY seq LIMIT 0 + ?"
		if err := p.t.list(&b.oldest, query, string(b.device), int64(b.after), oldestPage); err != nil {
			return nil, fmt.Errorf("read an inbox's oldest: %w", err)
		}
		b.exhausted = len(b.oldest) < oldestPage
	}
}
