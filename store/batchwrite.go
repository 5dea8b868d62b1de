package store

import (
	"maps"
	"slices"
)

// Where the engine is a network away a batch is written in few statements, each with an array for each column. What a row
// comes to is what insertDelivery and updateMarks make of it.

const (
	insertSlotsAtOnce = `INSERT INTO deliveries (` + deliveryColumns + `) SELECT * FROM unnest(CAST(? AS BIGINT[]), CAST(? AS TEXT[]),
		CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[]), CAST(? AS BYTEA[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]),
		CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]))`
	updateInboxesAtOnce = `UPDATE inboxes AS i SET pending = i.pending + n.pending, pending_bytes = i.pending_bytes + n.bytes,
		head = GREATEST(i.head, n.head), seen = GREATEST(i.seen, n.seen), woken_normal = GREATEST(i.woken_normal, n.woken_normal),
		woken_high = GREATEST(i.woken_high, n.woken_high), woken_at = COALESCE(n.woken_at, i.woken_at),
		background_at = COALESCE(n.background_at, i.background_at), contact_at = COALESCE(n.contact_at, i.contact_at),
		unanswered = n.unanswered + CASE WHEN n.served = 1 THEN 0 ELSE i.unanswered END,
		last_wake = CASE WHEN n.last_wake > 0 THEN n.last_wake ELSE i.last_wake END
		FROM unnest(CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS TEXT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[]), CAST(? AS BIGINT[])) AS n (pending, bytes, head, device, seen, woken_normal, woken_high, woken_at,
		background_at, contact_at, unanswered, served, last_wake) WHERE i.device = n.device`
)

// insertSlotsAtOnce inserts all deliveries with one statement.
func (p *plan) insertSlotsAtOnce() error {
	if len(p.slots) == 0 {
		return nil
	}
	var all columns
	args := make([]any, 0, 32)
	for _, s := range p.slots {
		args = s.args(args[:0])
		all.add(args)
	}
	_, err := p.t.exec(insertSlotsAtOnce, all.args()...)
	return err
}

// flushInboxesAtOnce writes what the batch changes in all inboxes with one statement, and gaps, which are few, one by one.
func (t *tx) flushInboxesAtOnce() error {
	var all columns
	for _, device := range slices.Sorted(maps.Keys(t.ledger)) {
		e := t.ledger[device]
		if err := t.flushGap(device, e); err != nil {
			return err
		}
		if e.changes() {
			all.add(e.args(device))
		}
	}
	if len(all) == 0 {
		return nil
	}
	_, err := t.exec(updateInboxesAtOnce, all.args()...)
	return err
}

// columns are the values of rows, an array for each column.
type columns [][]any

// add adds a row.
func (c *columns) add(row []any) {
	if *c == nil {
		*c = make(columns, len(row))
	}
	for i, v := range storable(row) {
		(*c)[i] = append((*c)[i], v)
	}
}

func (c columns) args() []any { return anys(c) }
