package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"pgregory.net/rapid"

	"rouse/ident"
	"rouse/messages"
)

// check compares counters with a recount and with the model, and looks for bodies that should be gone.
func (m *model) check(t *rapid.T) {
	for _, b := range m.boxes {
		var got struct {
			Pending, Bytes, Count, Sum int64
			Lost                       int
		}
		const query = `SELECT pending, pending_bytes AS bytes,
			(SELECT COUNT(*) FROM deliveries d WHERE d.device = i.device AND ended_at IS NULL) AS count,
			(SELECT COALESCE(SUM(size), 0) FROM deliveries d WHERE d.device = i.device AND ended_at IS NULL) AS sum,
			COALESCE((SELECT lost FROM gaps g WHERE g.device = i.device), 0) AS lost FROM inboxes i WHERE device = ?`
		m.do(t, m.s.reads.get(context.Background(), &got, query, string(b.id)))
		bytes := 0
		for _, e := range b.live() {
			bytes += len(e.data)
		}
		if got.Pending != got.Count || got.Bytes != got.Sum || got.Count != int64(len(b.live())) || got.Sum != int64(bytes) || got.Lost != b.lost {
			t.Fatalf("%s: stored %+v, the model has %d of %d bytes and lost %d", b.id, got, len(b.live()), bytes, b.lost)
		}
	}
	for id, entries := range m.all() {
		m.checkMessage(t, id, entries)
	}
	m.told(t)
}

// endingOf names the delivery and the ending that an event tells of.
func endingOf(e messages.Event) (at string, ending bool) {
	var data struct {
		Message ident.Message `json:"message_id"`
		Device  ident.Device  `json:"device_id"`
	}
	if !slices.Contains(slices.Collect(maps.Values(eventOf)), e.Type) || json.Unmarshal(e.Data, &data) != nil {
		return "", false
	}
	return fmt.Sprintf("%s %s %s", data.Device, data.Message, e.Type), true
}

func (m *model) checkMessage(t *rapid.T, id ident.Message, entries []*modelEntry) {
	sum, err := m.s.Message(context.Background(), m.app, id)
	m.do(t, err)
	pending := 0
	want := map[messages.State]int{}
	for _, e := range entries {
		switch {
		case e.pending() && e.fetched:
			want[messages.Fetched]++
			pending++
		case e.pending():
			want[messages.Queued]++
			pending++
		default:
			want[e.state]++
		}
	}
	// A page that was read from the middle on leaves older ones that were passed over: seen, so fetched as well.
	want[messages.Queued], want[messages.Fetched] = 0, want[messages.Queued]+want[messages.Fetched]
	got := maps.Clone(sum.Counters)
	got[messages.Fetched], got[messages.Queued] = got[messages.Queued]+got[messages.Fetched], 0
	for state, n := range got {
		if n != want[state] {
			t.Fatalf("%s counts %v, the model %v", id, sum.Counters, want)
		}
	}
	for i, kind := range reportKinds {
		n := 0
		for _, e := range entries {
			if slices.Contains(e.reports, kind) {
				n++
			}
		}
		if sum.Reports[kind] != n {
			t.Fatalf("%s has %d reports of kind %d, the model %d", id, sum.Reports[kind], i, n)
		}
	}
	var bodies int
	const query = `SELECT (SELECT COUNT(*) FROM deliveries WHERE message = ? AND ended_at IS NOT NULL AND body IS NOT NULL) +
		(SELECT COUNT(*) FROM messages WHERE id = ? AND body IS NOT NULL AND ? = 0 AND due_at IS NULL) + (SELECT COUNT(*) FROM messages WHERE id = ? AND ` + postPending + ` <> ?)`
	m.do(t, m.s.reads.get(context.Background(), &bodies, query, string(id), string(id), pending, string(id), pending))
	if bodies != 0 {
		t.Fatalf("%s holds on to a body, or counts wrongly, with %d pending", id, pending)
	}
}
