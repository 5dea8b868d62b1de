package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"rouse/ident"
)

// Where statements travel, a batch is written in few of them, each with an array for each column. What a row comes to is what
// insertDelivery, updateCounts and updateMarks make of it. Where rows are found by a join with such a list, their key is compared with
// the list as well: a distributed database knows from that, and not from the join, which machines to ask.

const (
	insertPlainsAtOnce = `INSERT INTO deliveries (` + plainColumns + `) SELECT *, 0 FROM unnest(CAST(? AS BIGINT[]), CAST(? AS TEXT[]),
		CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[]), CAST(? AS BYTEA[]))`
	insertSlotsAtOnce = `INSERT INTO deliveries (` + deliveryColumns + `) SELECT * FROM unnest(CAST(? AS BIGINT[]), CAST(? AS TEXT[]),
		CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[]), CAST(? AS BYTEA[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]),
		CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]))`
	endAtOnce = `UPDATE deliveries AS d SET ended_at = n.at, ended = n.state, reason = n.reason, body = NULL, notification = NULL
		FROM unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]))
		AS n (device, seq, at, state, reason) WHERE d.device = n.device AND d.device = ANY (CAST(?1 AS TEXT[])) AND d.seq = n.seq
		AND d.ended_at IS NULL`
	insertReplaysAtOnce = `INSERT INTO idempotency (app, key, request, receipt, created_at) SELECT * FROM unnest(CAST(? AS TEXT[]),
		CAST(? AS TEXT[]), CAST(? AS BYTEA[]), CAST(? AS TEXT[]), CAST(? AS BIGINT[]))
		ON CONFLICT (app, key) DO UPDATE SET request = excluded.request, receipt = excluded.receipt, created_at = excluded.created_at
		WHERE excluded.created_at - idempotency.created_at >= ? RETURNING app, key`
	selectReplaysOf = `SELECT i.app, i.key, i.request, i.receipt, i.created_at FROM unnest(CAST(? AS TEXT[]), CAST(? AS TEXT[])) AS n (app, key)
		JOIN idempotency i ON i.app = n.app AND i.key = n.key
		AND i.app = ANY (CAST(?1 AS TEXT[])) AND i.key = ANY (CAST(?2 AS TEXT[]))`
	updateCountsAtOnce = `UPDATE inboxes AS i SET pending = i.pending + n.pending, pending_bytes = i.pending_bytes + n.bytes,
		head = GREATEST(i.head, n.head) FROM unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]))
		AS n (device, pending, bytes, head) WHERE i.device = n.device AND i.device = ANY (CAST(?1 AS TEXT[]))`
	updateInboxesAtOnce = `UPDATE inboxes AS i SET pending = i.pending + n.pending, pending_bytes = i.pending_bytes + n.bytes,
		head = GREATEST(i.head, n.head), seen = GREATEST(i.seen, n.seen), woken_normal = GREATEST(i.woken_normal, n.woken_normal),
		woken_high = GREATEST(i.woken_high, n.woken_high), woken_at = COALESCE(n.woken_at, i.woken_at),
		background_at = COALESCE(n.background_at, i.background_at), contact_at = COALESCE(n.contact_at, i.contact_at),
		unanswered = n.unanswered + CASE WHEN n.served = 1 THEN 0 ELSE i.unanswered END,
		last_wake = CASE WHEN n.last_wake > 0 THEN n.last_wake ELSE i.last_wake END
		FROM unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[]), CAST(? AS BIGINT[])) AS n (device, pending, bytes, head, seen, woken_normal, woken_high, unanswered, served,
		last_wake, woken_at, background_at, contact_at) WHERE i.device = n.device AND i.device = ANY (CAST(?1 AS TEXT[]))`
	releaseBodies = `UPDATE messages AS m SET pending = m.pending - n.released, acked = m.acked + n.acked, expired = m.expired + n.expired,
		replaced = m.replaced + n.replaced, canceled = m.canceled + n.canceled, dropped = m.dropped + n.dropped,
		body = CASE WHEN m.pending <= n.released THEN NULL ELSE m.body END
		FROM unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[])) AS n (id, released, acked, expired, replaced, canceled, dropped) WHERE m.id = n.id AND m.id = ANY (CAST(?1 AS TEXT[]))`
)

// askAlong reads what is wanted for nearly every send to n devices: places, and the answers that its users' devices, its
// Idempotency-Key and its collapse key have in the database.
func (p *plan) askAlong(ops []*op, n int) error {
	for user := range p.t.users {
		p.users[user] = nil
	}
	if len(p.users) > 0 {
		if err := p.t.askUsers(p.users); err != nil {
			return err
		}
	}
	if n > 0 {
		if err := p.t.askPlaces(n); err != nil {
			return err
		}
	}
	if err := p.askReplays(ops); err != nil {
		return err
	}
	return p.askHolders(ops)
}

// askReplays reads the answers given before to the sends' keys.
func (p *plan) askReplays(ops []*op) error {
	var apps, keys []string
	stored := map[replayKey]replayKey{} // by its key as the database has it
	for a := range sendsIn(ops) {
		m := &a.send
		at := replayKey{m.App, m.Idempotency.Key}
		if _, asked := p.known[at]; at.key == "" || asked {
			continue
		}
		p.known[at] = nil
		as := replayKey{at.app, plainText(at.key)}
		stored[as] = at
		apps, keys = append(apps, string(as.app)), append(keys, as.key)
	}
	if len(keys) == 0 {
		return nil
	}
	return p.t.ask(func(r row) error {
		var x remembered
		var receipt []byte
		if err := r.Scan(&x.at.app, &x.at.key, &x.request, &receipt, &x.created); err != nil {
			return err
		}
		x.at = stored[x.at]
		p.known[x.at] = &x
		return json.Unmarshal(receipt, &x.receipt)
	}, selectReplaysOf, apps, keys)
}

const selectHoldersOf = `SELECT d.collapse_key, d.device, d.seq, d.message, d.size, d.shared, d.expires_at, d.app, COALESCE(d.correlation_id, '')
	FROM unnest(CAST(? AS TEXT[]), CAST(? AS TEXT[])) AS n (device, collapse_key)
	JOIN deliveries d ON d.device = n.device AND d.device = ANY (CAST(?1 AS TEXT[])) AND d.collapse_key = n.collapse_key
	WHERE d.ended_at IS NULL ORDER BY d.seq`

// askHolders reads what is pending under the collapse keys of sends to one device.
func (p *plan) askHolders(ops []*op) error {
	var devices, keys []string
	stored := map[pendingKey]pendingKey{}
	for a := range sendsIn(ops) {
		m := &a.send
		at := pendingKey{m.To.Device, m.CollapseKey}
		if _, asked := p.holders[at]; at.key == "" || at.device == "" || m.Later() || asked {
			continue
		}
		p.holders[at] = holder{}
		as := pendingKey{at.device, plainText(at.key)}
		stored[as] = at
		devices, keys = append(devices, string(as.device)), append(keys, as.key)
	}
	if len(keys) == 0 {
		return nil
	}
	return p.t.ask(func(r row) error {
		var key string
		var d ending
		var shared int64
		if err := r.Scan(&key, &d.Device, &d.Seq, &d.Message, &d.Size, &shared, &d.Expires, &d.App, &d.Correlation); err != nil {
			return err
		}
		d.Shared = shared != 0
		p.holders[stored[pendingKey{d.Device, key}]] = holder{row: &d} // the newest comes last
		return nil
	}, selectHoldersOf, devices, keys)
}

// writeAtOnce has what was decided written with the next trip. Only whether another node was faster with an Idempotency-Key has to
// be known before the commit.
func (p *plan) writeAtOnce() error {
	if err := p.endAtOnce(); err != nil {
		return fmt.Errorf("end deliveries: %w", err)
	}
	if err := p.insertSlotsAtOnce(); err != nil {
		return fmt.Errorf("insert deliveries: %w", err)
	}
	if err := p.insertPostsAtOnce(); err != nil {
		return fmt.Errorf("insert messages: %w", err)
	}
	return p.insertReplaysAtOnce()
}

// endAtOnce ends rows that were read under the locks of their devices: they are pending still.
func (p *plan) endAtOnce() error {
	if len(p.ends) == 0 {
		return nil
	}
	var devices, states []string
	var seqs, ats []int64
	var reasons []*string
	for _, e := range p.ends {
		devices, seqs, ats = append(devices, string(e.Device)), append(seqs, int64(e.Seq)), append(ats, e.at)
		states, reasons = append(states, string(e.state)), append(reasons, textOrNull(e.reason))
		p.t.left(e.ending, e.state)
		p.t.tellEnd(e.ending, e.state, e.reason, e.at)
	}
	return p.t.later(endAtOnce, devices, seqs, ats, states, reasons)
}

// slotRows are the columns of deliveries; those from ended on are empty where all rows are plain.
type slotRows struct {
	seq, class, urgency, size, created, expires []int64
	device, app, message                        []string
	body                                        [][]byte
	shared                                      []int64
	endedAt                                     []*int64
	ended, reason, collapse, user               []*string
	correlation, note                           []*string
}

func (c *slotRows) add(s *slot) {
	m := s.send
	c.seq, c.class, c.urgency = append(c.seq, int64(s.seq)), append(c.class, int64(s.class)), append(c.urgency, int64(m.Urgency))
	c.size, c.created, c.expires = append(c.size, int64(len(m.Data))), append(c.created, millis(m.CreatedAt)), append(c.expires, s.expire)
	c.device, c.app, c.message = append(c.device, string(s.device)), append(c.app, string(m.App)), append(c.message, string(m.ID))
}

// addRest adds the columns that plain rows do not have, and the body.
func (c *slotRows) addRest(s *slot) {
	m := s.send
	var endedAt *int64
	var ended, reason, note *string
	var body []byte
	if s.ended != "" {
		endedAt, ended, reason = ref(millis(m.CreatedAt)), ref(string(s.ended)), textOrNull(s.reason)
	} else {
		if text, ok := noteJSON(m.Notification).(string); ok {
			note = textOrNull(text)
		}
		if !s.shared {
			body = m.Data
		}
	}
	c.body, c.shared = append(c.body, body), append(c.shared, bit(s.shared))
	c.endedAt, c.ended, c.reason = append(c.endedAt, endedAt), append(c.ended, ended), append(c.reason, reason)
	c.collapse, c.user = append(c.collapse, textOrNull(m.CollapseKey)), append(c.user, textOrNull(s.user()))
	c.correlation, c.note = append(c.correlation, textOrNull(m.CorrelationID)), append(c.note, note)
}

func (c *slotRows) plain() []any {
	return []any{c.seq, c.device, c.app, c.message, c.class, c.urgency, c.size, c.created, c.expires, c.body}
}

// insertSlotsAtOnce inserts the plain deliveries with one statement and the others with another.
func (p *plan) insertSlotsAtOnce() error {
	var plain, others slotRows
	for _, s := range p.slots {
		if s.plain() {
			plain.add(s)
			plain.body = append(plain.body, s.send.Data)
		} else {
			others.add(s)
			others.addRest(s)
		}
	}
	if len(plain.seq) > 0 {
		if err := p.t.later(insertPlainsAtOnce, plain.plain()...); err != nil {
			return err
		}
	}
	if c := &others; len(c.seq) > 0 {
		return p.t.later(insertSlotsAtOnce, append(c.plain(), c.shared, c.endedAt, c.ended, c.reason, c.collapse, c.user, c.correlation, c.note)...)
	}
	return nil
}

// insertReplaysAtOnce goes through the keys in one order, so that no two nodes wait for each other.
func (p *plan) insertReplaysAtOnce() error {
	if len(p.replays) == 0 {
		return nil
	}
	stored := map[replayKey]bool{}
	var apps, keys, receipts []string
	var requests [][]byte
	var created []int64
	for _, r := range slices.SortedFunc(slices.Values(p.replays), func(a, b *remembered) int { return a.at.compare(b.at) }) {
		receipt, err := json.Marshal(r.receipt)
		if err != nil {
			return fmt.Errorf("store a receipt: %w", err)
		}
		apps, keys = append(apps, string(r.at.app)), append(keys, plainText(r.at.key))
		receipts, requests, created = append(receipts, string(receipt)), append(requests, r.request), append(created, r.created)
	}
	err := p.t.ask(func(r row) error {
		var at replayKey
		err := r.Scan(&at.app, &at.key)
		stored[at] = true
		return err
	}, insertReplaysAtOnce, apps, keys, requests, receipts, created, idempotencyLife.Milliseconds())
	if err == nil {
		err = p.t.w.travel()
	}
	if err != nil {
		return fmt.Errorf("store idempotency keys: %w", err)
	}
	for _, r := range p.replays {
		if !stored[replayKey{r.at.app, plainText(r.at.key)}] {
			return takenError{r.at}
		}
	}
	return nil
}

// flushInboxesAtOnce writes what the batch changes in inboxes: one statement for those where only counters changed, as accepting
// does, and one for the others. Gaps are few and go one by one.
func (t *tx) flushInboxesAtOnce() error {
	var counts, marks inboxRows
	for _, device := range slices.Sorted(maps.Keys(t.ledger)) {
		e := t.ledger[device]
		if g := e.gap; g != nil {
			if err := t.later(mergeGap, string(device), int64(g.From), int64(g.To), g.Count, g.Reason); err != nil {
				return err
			}
		}
		switch {
		case e.marks:
			marks.add(device, e)
			marks.addMarks(e)
		case e.changes():
			counts.add(device, e)
		}
	}
	if len(counts.device) > 0 {
		if err := t.later(updateCountsAtOnce, counts.counts()...); err != nil {
			return err
		}
	}
	if m := &marks; len(m.device) > 0 {
		return t.later(updateInboxesAtOnce, append(m.counts(), m.seen, m.wokenNormal, m.wokenHigh, m.unanswered, m.served, m.lastWake,
			m.wokenAt, m.backgroundAt, m.contactAt)...)
	}
	return nil
}

// inboxRows are the columns of what changes in inboxes.
type inboxRows struct {
	device                       []string
	pending, bytes, head         []int64
	seen, wokenNormal, wokenHigh []int64
	unanswered, served, lastWake []int64
	wokenAt, backgroundAt        []*int64
	contactAt                    []*int64
}

func (c *inboxRows) add(device ident.Device, e *entry) {
	c.device, c.pending = append(c.device, string(device)), append(c.pending, e.pending)
	c.bytes, c.head = append(c.bytes, e.bytes), append(c.head, int64(e.head))
}

func (c *inboxRows) addMarks(e *entry) {
	c.seen, c.wokenNormal = append(c.seen, int64(e.seen)), append(c.wokenNormal, int64(e.woken.Normal))
	c.wokenHigh, c.unanswered = append(c.wokenHigh, int64(e.woken.High)), append(c.unanswered, int64(e.unanswered))
	c.served, c.lastWake = append(c.served, bit(e.served)), append(c.lastWake, e.lastWake)
	c.wokenAt, c.backgroundAt, c.contactAt = append(c.wokenAt, e.wokenAt), append(c.backgroundAt, e.backgroundAt), append(c.contactAt, e.contactAt)
}

func (c *inboxRows) counts() []any { return []any{c.device, c.pending, c.bytes, c.head} }

// releaseAtOnce takes off bodies that several devices share those that need them no longer.
func (t *tx) releaseAtOnce() error {
	if len(t.shared) == 0 {
		return nil
	}
	var ids []string
	var numbers [1 + len(tally{})][]int64
	for _, id := range slices.Sorted(maps.Keys(t.shared)) {
		ended := t.shared[id]
		ids, numbers[0] = append(ids, string(id)), append(numbers[0], ended.sum())
		for i, n := range ended {
			numbers[i+1] = append(numbers[i+1], n)
		}
	}
	return t.later(releaseBodies, append([]any{ids}, anysOf(numbers[:])...)...)
}

// textOrNull is text as it can be stored; nil for none.
func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return ref(plainText(s))
}
