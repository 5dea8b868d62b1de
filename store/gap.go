package store

import (
	"fmt"
	"maps"
	"slices"

	"rouse/ident"
	"rouse/messages"
)

// Reasons of a gap.
const (
	lostToTTL   = "ttl"
	lostToQuota = "quota"
	lostToBoth  = "mixed"
)

// mergeGap leaves no row behind for an inbox that is gone, or going in the same batch: nobody would be told.
const mergeGap = `INSERT INTO gaps (device, from_seq, to_seq, lost, reason)
	SELECT device, ?2, ?3, ?4, ?5 FROM inboxes WHERE device = ?1 AND gone_at IS NULL
	ON CONFLICT (device) DO UPDATE SET
	from_seq = CASE WHEN gaps.from_seq > excluded.from_seq THEN excluded.from_seq ELSE gaps.from_seq END,
	to_seq = CASE WHEN gaps.to_seq < excluded.to_seq THEN excluded.to_seq ELSE gaps.to_seq END,
	lost = gaps.lost + excluded.lost,
	reason = CASE WHEN gaps.reason = excluded.reason THEN gaps.reason ELSE 'mixed' END`

// lose records that the message at seq was lost to the device un-acked.
func (e *entry) lose(seq messages.Seq, reason string) {
	if e.gap == nil {
		e.gap = &messages.Gap{From: seq, To: seq, Count: 1, Reason: reason}
		return
	}
	e.gap.From, e.gap.To, e.gap.Count = min(e.gap.From, seq), max(e.gap.To, seq), e.gap.Count+1
	if e.gap.Reason != reason {
		e.gap.Reason = lostToBoth
	}
}

// selectGaps asks which of some devices have a gap.
var selectGaps = ofDevices("SELECT device FROM gaps WHERE device ", "")

// closeGaps forgets the gaps that this batch's acks passed. Few devices have one: all are asked about at once.
func (t *tx) closeGaps() error {
	if t.w.travels() {
		return t.closeGapsAtOnce()
	}
	acked := map[ident.Device]bool{}
	for _, list := range []map[ident.Device]messages.Seq{t.ackedTo, t.ackedIDs} {
		for d := range list {
			acked[d] = true
		}
	}
	for piece := range slices.Chunk(slices.Collect(maps.Keys(acked)), boxesAtATime) {
		query, args := forDevices(selectGaps.sizes, piece)
		var found []ident.Device
		if err := t.list(&found, query, args...); err != nil {
			return fmt.Errorf("look for gaps: %w", err)
		}
		for _, d := range found {
			if err := t.closeGap(d); err != nil {
				return fmt.Errorf("close a gap: %w", err)
			}
		}
	}
	return nil
}

// closeGap forgets the device's gap if an ack passed its end and the device was told of all of it. An ack
// by ids passes it by acking something newer, or by leaving nothing before its end to ack.
func (t *tx) closeGap(device ident.Device) error {
	told := 0
	if e := t.lane[device]; e != nil {
		told = e.told
	}
	const query = `DELETE FROM gaps WHERE device = ?1 AND (told >= lost OR lost <= ?2) AND (to_seq <= ?3 OR to_seq < ?4
		OR (?4 > 0 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.device = ?1 AND d.seq < gaps.to_seq AND d.ended_at IS NULL)))`
	_, err := t.exec(query, string(device), told, int64(t.ackedTo[device]), int64(t.ackedIDs[device]))
	return err
}

// closeGapsAtOnce does for all devices what closeGap does for one.
const closeGapsAtOnce = `DELETE FROM gaps AS g USING unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]))
	AS a (device, told, acked_to, acked_ids) WHERE g.device = a.device AND g.device = ANY (CAST(?1 AS TEXT[])) AND (g.told >= g.lost OR g.lost <= a.told)
	AND (g.to_seq <= a.acked_to OR g.to_seq < a.acked_ids OR (a.acked_ids > 0 AND NOT EXISTS
	(SELECT 1 FROM deliveries d WHERE d.device = g.device AND d.seq < g.to_seq AND d.ended_at IS NULL)))`

func (t *tx) closeGapsAtOnce() error {
	var devices []string
	var told, to, ids []int64
	add := func(d ident.Device) {
		n := 0
		if e := t.lane[d]; e != nil {
			n = e.told
		}
		devices, told = append(devices, string(d)), append(told, int64(n))
		to, ids = append(to, int64(t.ackedTo[d])), append(ids, int64(t.ackedIDs[d]))
	}
	for d := range t.ackedTo {
		add(d)
	}
	for d := range t.ackedIDs {
		if _, both := t.ackedTo[d]; !both {
			add(d)
		}
	}
	if len(devices) == 0 {
		return nil
	}
	return t.later(closeGapsAtOnce, devices, told, to, ids)
}
