package store

import (
	"maps"
	"slices"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// Where statements travel, the acks of a batch are one statement for those up to a place and one for those by ids, whatever
// number of devices they are of. A row that two acks reach must be counted for one of them: of a device there is one ack in each
// wave, and nearly always there is one wave.

// acking is an ack on its way through a writer: up to a place, or of ids.
type acking struct {
	device ident.Device
	upTo   messages.Seq
	byIDs  bool
	ids    []ident.Message
	now    time.Time

	n      int          // newly acked
	newest messages.Seq // of them
}

const (
	ackedAtOnce = `UPDATE deliveries AS d SET ended_at = a.now, ended = 'acked', body = NULL, notification = NULL,
		attempts = d.attempts + CASE WHEN d.seq >= a.page_from AND d.seq <= a.page_to THEN 1 ELSE 0 END,
		fetched_at = CASE WHEN d.fetched_at IS NULL AND d.seq >= a.page_from AND d.seq <= a.page_to THEN a.page_at ELSE d.fetched_at END
		FROM unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), `
	ackedWhere = ` WHERE d.device = a.device AND d.device = ANY (CAST(?1 AS TEXT[])) AND d.ended_at IS NULL
		AND (d.expires_at > a.now OR d.fetched_at IS NOT NULL OR (d.seq >= a.page_from AND d.seq <= a.page_to AND d.expires_at > a.page_at)) AND `
	ackedReturn = ` RETURNING d.device, d.seq, d.size, d.message, d.shared, d.created_at, d.app, COALESCE(d.correlation_id, '')`
	// The values are those of ackSet, an array for each.
	ackUpToAtOnce = ackedAtOnce + `CAST(? AS BIGINT[])) AS a (device, now, page_from, page_to, page_at, up_to)` + ackedWhere + `d.seq <= a.up_to` + ackedReturn
	ackIDsAtOnce  = ackedAtOnce + `CAST(? AS TEXT[])) AS a (device, now, page_from, page_to, page_at, message)` + ackedWhere + `d.message = a.message` + ackedReturn
	selectHeads   = "SELECT device, head FROM inboxes WHERE device " + anyOf
)

// ackWave is acks of as many devices.
type ackWave struct {
	ops   map[ident.Device]*op
	heads map[ident.Device]messages.Seq
}

// ackWaves does all acks but the last of each device, which it returns.
func (t *tx) ackWaves(ops []*op) (last ackWave, err error) {
	for {
		last = ackWave{ops: map[ident.Device]*op{}, heads: map[ident.Device]messages.Seq{}}
		var rest []*op
		for _, o := range ops {
			if last.ops[o.ack.device] != nil {
				rest = append(rest, o)
			} else {
				last.ops[o.ack.device] = o
			}
		}
		if len(rest) == 0 {
			return last, nil
		}
		if err := t.askAcks(last); err != nil {
			return last, err
		}
		if err := t.w.travel(); err != nil {
			return last, err
		}
		if _, err := t.settleAcks(last); err != nil {
			return last, err
		}
		ops = rest
	}
}

// ackRows are the parameters of one of the statements above.
type ackRows struct {
	devices                 []string
	now, from, to, at, upTo []int64
	ids                     []string
}

func (r *ackRows) add(a *acking, p handed) {
	r.devices, r.now = append(r.devices, string(a.device)), append(r.now, millis(a.now))
	r.from, r.to, r.at = append(r.from, int64(p.from)), append(r.to, int64(p.to)), append(r.at, p.at)
}

// askAcks has the wave's acks done with the next trip, and reads the heads of their inboxes.
func (t *tx) askAcks(wave ackWave) error {
	if len(wave.ops) == 0 {
		return nil
	}
	var places, ids ackRows
	devices := slices.Sorted(maps.Keys(wave.ops))
	if err := t.markOlderPages(devices); err != nil {
		return err
	}
	for _, d := range devices {
		a := wave.ops[d].ack
		a.n, a.newest = 0, 0
		page := t.newestPage(d)
		if !a.byIDs {
			places.add(a, page)
			places.upTo = append(places.upTo, int64(a.upTo))
		}
		for _, id := range a.ids {
			ids.add(a, page)
			ids.ids = append(ids.ids, plainText(string(id)))
		}
	}
	acked := func(r row) error { return t.ackedRow(wave, r) }
	if len(places.devices) > 0 {
		t.w.send(errand{query: ackUpToAtOnce, args: []any{places.devices, places.now, places.from, places.to, places.at, places.upTo}, read: acked})
	}
	if len(ids.devices) > 0 {
		t.w.send(errand{query: ackIDsAtOnce, args: []any{ids.devices, ids.now, ids.from, ids.to, ids.at, ids.ids}, read: acked})
	}
	return t.ask(func(r row) error {
		var d ident.Device
		var head messages.Seq
		err := r.Scan(&d, &head)
		wave.heads[d] = head
		return err
	}, selectHeads, names(devices))
}

func (t *tx) ackedRow(wave ackWave, r row) error {
	var d ending
	var shared, created int64
	if err := r.Scan(&d.Device, &d.Seq, &d.Size, &d.Message, &shared, &created, &d.App, &d.Correlation); err != nil {
		return err
	}
	d.Shared = shared != 0
	t.left(d, messages.Acked)
	a := wave.ops[d.Device].ack
	t.done.acked = append(t.done.acked, a.now.Sub(fromMillis(created)))
	a.n, a.newest = a.n+1, max(a.newest, d.Seq)
	t.tellEnd(d, messages.Acked, "", millis(a.now))
	return nil
}

// settleAcks tells each ack of the wave what came of it. One that acked something and names a place its inbox never held is the
// culprit.
func (t *tx) settleAcks(wave ackWave) (culprits []*op, err error) {
	for d, o := range wave.ops {
		a := o.ack
		head, known := wave.heads[d]
		switch {
		case !known:
			o.err = deviceNotFound()
		case a.upTo > head:
			o.err = badCursor()
		default:
			o.err = nil
			t.passed(a)
		}
		if o.err != nil && a.n > 0 {
			return []*op{o}, o.err
		}
	}
	return nil, nil
}

// passed notes how far the device has acked.
func (t *tx) passed(a *acking) {
	if !a.byIDs {
		t.ackedTo[a.device] = max(t.ackedTo[a.device], a.upTo)
	} else if a.n > 0 {
		t.ackedIDs[a.device] = max(t.ackedIDs[a.device], a.newest)
	}
}

// newestPage is the page whose marks the device's ack writes.
func (t *tx) newestPage(device ident.Device) handed {
	if e := t.lane[device]; e != nil && len(e.pages) > 0 {
		return e.pages[len(e.pages)-1]
	}
	return handed{from: 1}
}

// markOlderPages writes the pages that wait in the lane before the newest of each device.
func (t *tx) markOlderPages(devices []ident.Device) error {
	var list []pageOf
	for _, d := range devices {
		if e := t.lane[d]; e != nil && len(e.pages) > 1 {
			for _, p := range e.pages[t.marked[d] : len(e.pages)-1] {
				list = append(list, pageOf{d, p})
			}
			t.marked[d] = max(t.marked[d], len(e.pages)-1)
		}
	}
	return t.markPages(list)
}

// names are the devices as text.
func names(devices []ident.Device) []string {
	list := make([]string, len(devices))
	for i, d := range devices {
		list[i] = string(d)
	}
	return list
}
