package store

import (
	"encoding/json"
	"fmt"

	"rouse/ident"
	"rouse/messages"
)

const (
	// fanTake counts a message in those inboxes of a list that it simply fits, and gives them places from the first on.
	fanTake     = "UPDATE inboxes AS i SET pending = i.pending + 1, pending_bytes = i.pending_bytes + ?%d, head = ?%d + j.key"
	fanTakeFrom = " FROM json_each(?1) j WHERE i.device = j.value AND " + fanReachable
	// fanUntaken are the others, by where they are in the list.
	fanUntaken = "SELECT j.key FROM json_each(?1) j LEFT JOIN inboxes i ON i.device = j.value WHERE i.head IS NOT ?2 + j.key"

	fanFitting = "SELECT COUNT(*)" + fanBoxesFrom + fanBoxesArrays

	// fanFits is an inbox that holds no more than so many messages and bytes.
	fanFits = " AND i.pending <= ?%d AND i.pending_bytes <= ?%d"
)

// fits are the condition and the arguments that have been gathered, and that the message simply fits an inbox.
func (f *fanning) fits(t *tx, also string, args []any) (string, []any) {
	limits := t.w.store.limits
	return also + fmt.Sprintf(fanFits, len(args)+1, len(args)+2), append(args, limits.messages-1, limits.bytes-f.job.Size)
}

// askFitting counts the inboxes of devices that the message simply fits, of a topic those that have it by themselves.
func (f *fanning) askFitting(p *plan, devices []ident.Device) error {
	list, err := p.t.listed(devices)
	if err != nil {
		return err
	}
	also, _, args := f.condition(list)
	if f.job.Audience == toTopic {
		also = fanHasItself
	}
	also, args = f.fits(p.t, also, args)
	return p.t.ask(func(r row) error { return r.Scan(&f.fit) }, fanFitting+also, args...)
}

// take stores the message for those devices of the page whose inboxes it simply fits, nearly always all, without a look at any of them. It
// returns the others, of which nothing is known. Where statements travel there are none, or nothing was taken.
func (f *fanning) take(t *tx) (others []ident.Device, err error) {
	switch {
	case !f.blind:
		return f.devices, nil
	case !t.w.travels():
		return f.takeSome(t)
	case f.fit < len(f.devices):
		return f.devices, nil
	}
	fast := make([]place, len(f.devices))
	for i, d := range f.devices {
		fast[i].device = d
	}
	if err := f.seat(t, fast); err != nil {
		return nil, err
	}
	f.taken = len(fast)
	return nil, f.insert(t, fast)
}

// takeSome is take where nothing was counted. Those that this batch has changed are left to the others: what the database has of them is
// not the truth yet.
func (f *fanning) takeSome(t *tx) (others []ident.Device, err error) {
	devices := make([]ident.Device, 0, len(f.devices))
	for _, d := range f.devices {
		if t.ledger[d] != nil {
			others = append(others, d)
		} else {
			devices = append(devices, d)
		}
	}
	if len(devices) == 0 {
		return others, nil
	}
	var first messages.Seq
	for i := range devices { // their places follow one another
		at, err := t.nextSeq()
		if err != nil {
			return nil, err
		}
		first = at - messages.Seq(i)
	}
	list, err := t.listed(devices)
	if err != nil {
		return nil, err
	}
	also, _, args := f.condition(list)
	also, args = f.fits(t, also, args)
	n, err := t.exec(fmt.Sprintf(fanTake, len(args)+1, len(args)+2)+fanTakeFrom+also, append(args, f.job.Size, int64(first))...)
	if err != nil {
		return nil, err
	}
	left := make([]bool, len(devices))
	if int(n) < len(devices) {
		if list, err = f.leave(t, list, first, devices, left); err != nil {
			return nil, err
		}
	}
	for i, d := range devices {
		if left[i] {
			others = append(others, d)
		} else {
			f.reaches(d, first+messages.Seq(i))
		}
	}
	if f.taken = int(n); n == 0 {
		return others, nil
	}
	return others, f.insertJSON(t, list, first)
}

// leave marks those whose inboxes fanTake left as they were, and returns the list without them.
func (f *fanning) leave(t *tx, list any, first messages.Seq, devices []ident.Device, left []bool) (any, error) {
	err := t.ask(func(r row) error {
		var i int
		if err := r.Scan(&i); err != nil {
			return err
		}
		left[i] = true
		return nil
	}, fanUntaken, list, int64(first))
	if err != nil {
		return nil, err
	}
	taken := make([]*ident.Device, len(devices))
	for i := range devices {
		if !left[i] {
			taken[i] = &devices[i]
		}
	}
	text, err := json.Marshal(taken)
	return string(text), err
}
