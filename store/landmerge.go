package store

import (
	"errors"
	"maps"
	"slices"

	"rouse/ident"
	"rouse/messages"
)

// Where statements travel, the lane's entries of a batch are written together: what land does, in few statements.

const (
	markPagesAtOnce = `UPDATE deliveries AS d SET fetched_at = COALESCE(d.fetched_at, p.at), attempts = d.attempts + 1
		FROM unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[])) AS p (device, page_from, page_to, at)
		WHERE d.device = p.device AND d.device = ANY (CAST(?1 AS TEXT[])) AND d.seq >= p.page_from AND d.seq <= p.page_to AND d.ended_at IS NULL AND d.expires_at > p.at`
	tellGapsAtOnce = `UPDATE gaps AS g SET told = n.told FROM unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[])) AS n (device, told)
		WHERE g.device = n.device AND g.device = ANY (CAST(?1 AS TEXT[])) AND g.told < n.told`
	selectLastWakes   = "SELECT device, last_wake FROM inboxes WHERE device " + anyOf
	takeWakes         = "SELECT nextval(pg_get_serial_sequence('wakes', 'id')) FROM generate_series(1, CAST(? AS BIGINT))"
	insertWakesAtOnce = `INSERT INTO wakes (device, id, previous, at, head_normal, head_high, accepted, background, took, provider, verdict, reason)
		SELECT * FROM unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]))`
)

// pageOf is a page that was handed to a device.
type pageOf struct {
	device ident.Device
	handed
}

// markPages notes pages as fetched with the next trip. Two of one device may hold the same message, which was fetched twice then:
// they go in waves.
func (t *tx) markPages(list []pageOf) error {
	for len(list) > 0 {
		var devices []string
		var from, to, at []int64
		var rest []pageOf
		in := map[ident.Device]bool{}
		for _, p := range list {
			if in[p.device] {
				rest = append(rest, p)
				continue
			}
			in[p.device] = true
			devices, from, to, at = append(devices, string(p.device)), append(from, int64(p.from)), append(to, int64(p.to)), append(at, p.at)
		}
		if err := t.later(markPagesAtOnce, devices, from, to, at); err != nil {
			return err
		}
		list = rest
	}
	return nil
}

// wakeRows numbers the wakes that the batch stores.
type wakeRows struct {
	ids  []int64
	last map[ident.Device]int64 // the newest of a device so far
}

// askLane reads, with the next trip, what writing the lane's wakes needs.
func (t *tx) askLane() error {
	if !t.w.travels() {
		return nil
	}
	t.wakes = wakeRows{last: map[ident.Device]int64{}}
	n := 0
	var devices []ident.Device
	for d, e := range t.lane {
		if len(e.wakes) > 0 {
			n += len(e.wakes)
			devices = append(devices, d)
		}
	}
	if n == 0 {
		return nil
	}
	err := t.ask(func(r row) error {
		var d ident.Device
		var last int64
		err := r.Scan(&d, &last)
		t.wakes.last[d] = last
		return err
	}, selectLastWakes, names(devices))
	return errors.Join(err, t.ask(func(r row) error {
		var id int64
		err := r.Scan(&id)
		t.wakes.ids = append(t.wakes.ids, id)
		return err
	}, takeWakes, n))
}

// landAtOnce writes the lane's entries of this batch with the next trip.
func (t *tx) landAtOnce() error {
	var pages []pageOf
	var gaps []string
	var told []int64
	var wakes []messages.Wake
	for _, d := range slices.Sorted(maps.Keys(t.lane)) {
		e := t.lane[d]
		for _, p := range e.pages[t.marked[d]:] {
			if p.to > t.ackedTo[d] { // otherwise the ack wrote it
				pages = append(pages, pageOf{d, p})
			}
		}
		if e.told > 0 {
			gaps, told = append(gaps, string(d)), append(told, int64(e.told))
		}
		wakes = append(wakes, e.wakes...)
	}
	if err := t.markPages(pages); err != nil {
		return err
	}
	if len(gaps) > 0 {
		if err := t.later(tellGapsAtOnce, gaps, told); err != nil {
			return err
		}
	}
	newest, err := t.insertWakesAtOnce(wakes)
	if err != nil {
		return err
	}
	for d, e := range t.lane {
		t.markInbox(d, e, newest[d])
	}
	return nil
}

// insertWakesAtOnce stores wakes, a device's oldest first, and returns the newest of each device.
func (t *tx) insertWakesAtOnce(wakes []messages.Wake) (newest map[ident.Device]int64, err error) {
	if len(wakes) == 0 {
		return nil, nil
	}
	if len(t.wakes.ids) < len(wakes) {
		return nil, errors.New("fewer numbers than wakes")
	}
	newest = map[ident.Device]int64{}
	slices.Sort(t.wakes.ids)
	var devices, providers, verdicts, reasons []string
	var numbers [8][]int64
	for i, w := range wakes {
		devices, providers = append(devices, string(w.Device)), append(providers, plainText(w.Provider))
		verdicts, reasons = append(verdicts, plainText(w.Verdict)), append(reasons, plainText(w.Reason))
		id := t.wakes.ids[i]
		for j, v := range [8]int64{id, t.wakes.last[w.Device], millis(w.At), int64(w.Head.Normal), int64(w.Head.High), bit(w.Accepted),
			bit(w.Background), w.Took.Microseconds()} {
			numbers[j] = append(numbers[j], v)
		}
		t.wakes.last[w.Device], newest[w.Device] = id, id
	}
	args := []any{devices}
	for _, column := range numbers {
		args = append(args, column)
	}
	return newest, t.later(insertWakesAtOnce, append(args, providers, verdicts, reasons)...)
}

// bit is how a truth is stored.
func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
