package store

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// Events are written in the transaction of what they tell of, packed: all that a batch has to tell of one app are one row, or a
// few. So an ack costs no row of its own.
//
// A place among events is a row's number and an event's index in it.

const (
	// eventBits are those of a place that count the events of a row.
	eventBits = 12
	// maxPacked is how many events a row holds: fewer than its bits could count, since who reads one of them reads all.
	maxPacked = 256
)

// packed is a row of events on its way.
type packed struct {
	first ident.Event
	count int64
	at    int64  // when the youngest happened, unix ms
	text  []byte // a JSON array, its end missing
}

// packedEvent is one of them as it is kept.
type packedEvent struct {
	ID   ident.Event        `json:"id"`
	Type messages.EventType `json:"type"`
	At   int64              `json:"at"` // unix ms
	Data json.RawMessage    `json:"data"`
}

// event has an event stored with the batch, unless the app does not want its type.
func (t *tx) event(app ident.App, kind messages.EventType, data any, now time.Time) error {
	if !t.w.store.wanted(app, kind) {
		return nil
	}
	text, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode an event: %w", err)
	}
	p := t.pack(app, kind, millis(now))
	p.text = append(append(p.text, text...), '}')
	return nil
}

// tellEnd is event for a delivery that came to its end. why may be empty.
func (t *tx) tellEnd(d ending, state messages.State, why string, at int64) {
	kind := eventOf[state]
	if !t.w.store.wanted(d.App, kind) {
		return
	}
	p := t.pack(d.App, kind, at)
	p.text = appendDelivery(p.text, d.Message, d.Device, d.Correlation)
	p.text = appendField(p.text, `,"reason":`, why)
	p.text = appendField(p.text, `,"replaced_by":`, string(d.by))
	p.text = append(p.text, '}', '}')
}

// tellSlots tells of the deliveries that were at their end when they were stored.
func (p *plan) tellSlots() {
	for _, s := range p.slots {
		if s.ended != "" {
			d := ending{Device: s.device, Message: s.send.ID, App: s.send.App, Correlation: s.send.CorrelationID, by: s.by}
			p.t.tellEnd(d, s.ended, s.reason, millis(s.send.CreatedAt))
		}
	}
}

// eventOf is the type of event that a final state is told as.
var eventOf = map[messages.State]messages.EventType{messages.Acked: messages.MessageAcked, messages.Expired: messages.MessageExpired,
	messages.Dropped: messages.MessageDropped, messages.Replaced: messages.MessageReplaced, messages.Canceled: messages.MessageCanceled}

// deviceData is what an event tells of a device.
type deviceData struct {
	Device       ident.Device    `json:"device_id"`
	Installation string          `json:"installation_id"`
	Provider     tokens.Provider `json:"provider"`
	Reason       string          `json:"reason,omitempty"`
}

func (t *tx) tellDevice(kind messages.EventType, d tokens.Device, why string, now time.Time) error {
	return t.event(d.App, kind, deviceData{Device: d.ID, Installation: d.Installation, Provider: d.Provider, Reason: why}, now)
}

// appendDelivery begins an event's data. Its object is left open.
func appendDelivery(b []byte, m ident.Message, d ident.Device, correlation string) []byte {
	b = append(append(b, `{"message_id":"`...), m...)
	b = append(append(b, `","device_id":"`...), d...)
	return appendField(append(b, '"'), `,"correlation_id":`, correlation)
}

// appendField appends a field, if there is anything in it.
func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, name...)
	for i := range len(value) {
		if c := value[i]; c < ' ' || c == '"' || c == '\\' || c > '~' {
			text, err := json.Marshal(value)
			if err != nil {
				text = []byte(`""`) // a string always marshals
			}
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), value...), '"')
}

// pack begins an event: its data and a brace are still to be appended. What was told counts as written: if its operation fails
// after it, the batch is taken back.
func (t *tx) pack(app ident.App, kind messages.EventType, at int64) *packed {
	t.writes++
	rows := t.outbox[app]
	if len(rows) == 0 || rows[len(rows)-1].count == maxPacked {
		rows = append(rows, &packed{})
		t.outbox[app] = rows
	}
	p, id := rows[len(rows)-1], ident.NewEvent()
	if p.count == 0 {
		p.first, p.text = id, append(make([]byte, 0, 256), '[')
	} else {
		p.text = append(p.text, ',')
	}
	p.count, p.at = p.count+1, max(p.at, at)
	p.text = append(append(append(append(p.text, `{"id":"`...), id...), `","type":"`...), kind...)
	p.text = append(strconv.AppendInt(append(p.text, `","at":`...), at, 10), `,"data":`...)
	return p
}

const (
	insertEvents       = "INSERT INTO events (id, app, type, created_at, data, count) VALUES (?, ?, '', ?, ?, ?)"
	insertEventsAtOnce = `INSERT INTO events (id, app, type, created_at, data, count) SELECT n.id, n.app, '', n.at, n.data, n.count
		FROM unnest(CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BYTEA[]), CAST(? AS BIGINT[]))
		AS n (id, app, at, data, count)`
	// outboxShards bounds how many locks a batch takes that tells of many apps. It may not change while nodes of two versions run.
	outboxShards = 1024
)

// lockOutboxes goes in the order of its array.
var lockOutboxes = fmt.Sprintf("SELECT pg_advisory_xact_lock(%d, shard) FROM unnest(CAST(? AS INT[])) AS shard", outboxLocks)

// flushEvents writes what the batch has to tell. Where nodes share a database it is the last that a batch does: from the lock of an app's
// events on nobody else numbers any of them, until the commit, which travels along. So they become visible in the order of their
// numbers, and a cursor never skips one.
func (t *tx) flushEvents() error {
	if len(t.outbox) == 0 {
		return nil
	}
	apps := slices.Sorted(maps.Keys(t.outbox))
	if t.w.travels() {
		return t.flushEventsAtOnce(apps)
	}
	for _, app := range apps {
		for _, p := range t.outbox[app] {
			if _, err := t.exec(insertEvents, string(p.first), string(app), p.at, append(p.text, ']'), p.count); err != nil {
				return fmt.Errorf("write events: %w", err)
			}
		}
	}
	return nil
}

func (t *tx) flushEventsAtOnce(apps []ident.App) error {
	var ids, of []string
	var ats, counts []int64
	var data [][]byte
	var locks []int32
	for _, app := range apps {
		locks = append(locks, outboxOf(app))
		for _, p := range t.outbox[app] {
			ids, of, ats = append(ids, string(p.first)), append(of, string(app)), append(ats, p.at)
			data, counts = append(data, append(p.text, ']')), append(counts, p.count)
		}
	}
	if !t.w.store.unlocked {
		slices.Sort(locks)
		if err := t.later(lockOutboxes, slices.Compact(locks)); err != nil {
			return err
		}
	}
	return t.later(insertEventsAtOnce, ids, of, ats, data, counts)
}

func outboxOf(app ident.App) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(app)) // it never fails
	return int32(h.Sum32() % outboxShards)
}
