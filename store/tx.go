package store

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"rouse/ident"
	"rouse/messages"
)

// tx is one attempt at a batch: its statements, and what they come to for each inbox, which is written once
// at the end.
type tx struct {
	w      *writer
	writes int // statements that changed, or will change, something
	lane   laneEntries
	ledger map[ident.Device]*entry
	// shared counts the deliveries that no longer need the body of a message.
	shared map[ident.Message]*tally
	// ackedTo is the place each device acked up to in this attempt, ackedIDs the newest it acked by its id.
	ackedTo, ackedIDs map[ident.Device]messages.Seq
	// marked is how many of the lane's pages of a device were written before its ack.
	marked map[ident.Device]int
	done   settled

	seq, lastSeq int64 // where the counter stood and stands; lastSeq 0 is not read yet
	// Where nodes share a database: places taken and not given yet, the shards that are locked, the users' devices as they were when
	// those were locked.
	places []int64
	locked [shards]bool
	users  map[userKey][]ident.Device
	wakes  wakeRows // where statements travel
	outbox map[ident.App][]*packed
	// reports counts what devices reported of messages that have a row of their own.
	reports map[ident.Message]*reportTally
}

// entry is what a batch changes in one row of inboxes.
type entry struct {
	pending, bytes int64
	head           messages.Seq
	gap            *messages.Gap

	marks        bool // the fields below are set
	seen         messages.Seq
	woken        messages.Marks
	wokenAt      *int64
	backgroundAt *int64
	contactAt    *int64
	served       bool
	unanswered   int
	lastWake     int64
}

func newTx(w *writer, lane laneEntries) *tx {
	return &tx{w: w, lane: lane, ledger: map[ident.Device]*entry{}, shared: map[ident.Message]*tally{},
		ackedTo: map[ident.Device]messages.Seq{}, ackedIDs: map[ident.Device]messages.Seq{}, marked: map[ident.Device]int{},
		outbox: map[ident.App][]*packed{}, reports: map[ident.Message]*reportTally{}}
}

// exec changes something and returns how many rows.
func (t *tx) exec(query string, args ...any) (int64, error) {
	t.writes++
	r, err := t.w.exec(query, args...)
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	if err == nil && n == 0 {
		t.writes--
	}
	return n, err
}

// get reads one row into dest; sql.ErrNoRows if there is none.
func (t *tx) get(dest any, query string, args ...any) error {
	stmt, err := t.w.stmt(query)
	if err != nil {
		return err
	}
	return stmt.Get(dest, args...)
}

// scan reads one row into fields; sql.ErrNoRows if there is none.
func (t *tx) scan(fields []any, query string, args ...any) error {
	stmt, err := t.w.stmt(query)
	if err != nil {
		return err
	}
	return stmt.QueryRow(args...).Scan(fields...)
}

// list reads all rows into dest, a pointer to a slice.
func (t *tx) list(dest any, query string, args ...any) error {
	stmt, err := t.w.stmt(query)
	if err != nil {
		return err
	}
	return stmt.Select(dest, args...)
}

// rows starts reading; the caller closes what it gets before the next statement.
func (t *tx) rows(query string, args ...any) (*sqlx.Rows, error) {
	stmt, err := t.w.stmt(query)
	if err != nil {
		return nil, err
	}
	return stmt.Queryx(args...)
}

// change returns the entry of device, to be added to.
func (t *tx) change(device ident.Device) *entry {
	t.writes++
	e := t.ledger[device]
	if e == nil {
		e = &entry{}
		t.ledger[device] = e
	}
	return e
}

// forget drops what the batch would have changed in an inbox that it deletes.
func (t *tx) forget(device ident.Device) { delete(t.ledger, device) }

// nextSeq gives the next place. The counter is stored with the batch: a rollback leaves no trace, a
// place that was committed is never given again.
func (t *tx) nextSeq() (messages.Seq, error) {
	if t.w.store.dialect.shared {
		return t.placeOfSequence()
	}
	if t.lastSeq == 0 {
		if err := t.get(&t.seq, "SELECT value FROM counters WHERE name = 'seq'"); err != nil {
			return 0, fmt.Errorf("read the sequence counter: %w", err)
		}
		t.lastSeq = t.seq
	}
	t.lastSeq++
	return messages.Seq(t.lastSeq), nil
}

// touch writes without changing anything, to learn whether the database can be written.
func (t *tx) touch() error {
	_, err := t.exec("UPDATE counters SET value = value WHERE name = 'seq'")
	return err
}

// flush writes what the batch comes to, and in the end what it tells of.
func (t *tx) flush() error {
	if err := t.flushSums(); err != nil {
		return err
	}
	if err := t.flushReports(); err != nil {
		return err
	}
	return t.flushEvents()
}

// flushSums writes counter, inboxes, gaps and shared bodies.
func (t *tx) flushSums() error {
	if t.lastSeq > t.seq {
		if _, err := t.exec("UPDATE counters SET value = ? WHERE name = 'seq'", t.lastSeq); err != nil {
			return fmt.Errorf("store the sequence counter: %w", err)
		}
	}
	if err := t.closeGaps(); err != nil {
		return err
	}
	if err := t.flushInboxes(); err != nil {
		return fmt.Errorf("update inboxes: %w", err)
	}
	if t.w.travels() {
		return t.releaseAtOnce()
	}
	for _, id := range slices.Sorted(maps.Keys(t.shared)) {
		c := t.shared[id]
		if _, err := t.exec(releaseBody, c.sum(), c[0], c[1], c[2], c[3], c[4], string(id)); err != nil {
			return fmt.Errorf("release a shared body: %w", err)
		}
	}
	return nil
}

const (
	updateCounts = `UPDATE inboxes SET pending = pending + ?1, pending_bytes = pending_bytes + ?2,
		head = CASE WHEN head < ?3 THEN ?3 ELSE head END WHERE device = ?4`
	updateMarks = `UPDATE inboxes SET pending = pending + ?1, pending_bytes = pending_bytes + ?2,
		head = CASE WHEN head < ?3 THEN ?3 ELSE head END, seen = CASE WHEN seen < ?5 THEN ?5 ELSE seen END,
		woken_normal = CASE WHEN woken_normal < ?6 THEN ?6 ELSE woken_normal END,
		woken_high = CASE WHEN woken_high < ?7 THEN ?7 ELSE woken_high END,
		woken_at = COALESCE(?8, woken_at), background_at = COALESCE(?9, background_at), contact_at = COALESCE(?10, contact_at),
		unanswered = ?11 + CASE WHEN ?12 = 1 THEN 0 ELSE unanswered END,
		last_wake = CASE WHEN CAST(?13 AS BIGINT) > 0 THEN ?13 ELSE last_wake END WHERE device = ?4`
	// releaseBody adds a tally, in the order of finals.
	releaseBody = `UPDATE messages SET pending = pending - ?1, acked = acked + ?2, expired = expired + ?3, replaced = replaced + ?4,
		canceled = canceled + ?5, dropped = dropped + ?6,
		body = CASE WHEN pending <= ?1 THEN NULL ELSE body END WHERE id = ?7`
)

func (t *tx) flushInboxes() error {
	if t.w.travels() {
		return t.flushInboxesAtOnce()
	}
	for device, e := range t.ledger {
		if err := t.flushInbox(device, e); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) flushInbox(device ident.Device, e *entry) error {
	if err := t.flushGap(device, e); err != nil || !e.changes() {
		return err
	}
	if !e.marks {
		_, err := t.exec(updateCounts, e.pending, e.bytes, int64(e.head), string(device))
		return err
	}
	_, err := t.exec(updateMarks, e.args(device)...)
	return err
}

func (t *tx) flushGap(device ident.Device, e *entry) error {
	g := e.gap
	if g == nil {
		return nil
	}
	_, err := t.exec(mergeGap, string(device), int64(g.From), int64(g.To), g.Count, g.Reason)
	return err
}

// changes reports whether the inbox's row is another afterwards.
func (e *entry) changes() bool { return e.marks || e.pending != 0 || e.bytes != 0 || e.head != 0 }

// args are updateMarks' parameters.
func (e *entry) args(device ident.Device) []any {
	return []any{e.pending, e.bytes, int64(e.head), string(device), int64(e.seen), int64(e.woken.Normal), int64(e.woken.High),
		e.wokenAt, e.backgroundAt, e.contactAt, e.unanswered, e.served, e.lastWake}
}

// ending is a pending delivery that comes to its end.
type ending struct {
	Device  ident.Device  `db:"device"`
	Seq     messages.Seq  `db:"seq"`
	Message ident.Message `db:"message"`
	Size    int64         `db:"size"`
	Shared  bool          `db:"shared"`
	Expires int64         `db:"expires_at"`

	App         ident.App `db:"app"`
	Correlation string    `db:"correlation_id"`

	by ident.Message // what replaces it
}

const endingColumns = "device, seq, message, size, shared, expires_at, app, COALESCE(correlation_id, '') AS correlation_id"

const endDelivery = `UPDATE deliveries SET ended_at = ?, ended = ?, reason = ?, body = NULL, notification = NULL
	WHERE seq = ? AND device = ? AND ended_at IS NULL`

// end brings one delivery to its end and drops its body, unless it has ended since it was read. why may be empty.
func (t *tx) end(d ending, state messages.State, why string, at int64) (ended bool, err error) {
	n, err := t.exec(endDelivery, at, string(state), orNull(why), int64(d.Seq), string(d.Device))
	if err != nil {
		return false, fmt.Errorf("end a delivery: %w", err)
	}
	if n == 1 {
		t.left(d, state)
		t.tellEnd(d, state, why, at)
	}
	return n == 1, nil
}

// lockEnding takes the locks of the devices whose deliveries are about to end.
func (t *tx) lockEnding(list []ending) error {
	devices := make([]ident.Device, len(list))
	for i, d := range list {
		devices[i] = d.Device
	}
	return t.lock(devices)
}

// left takes an ended delivery off its inbox's counters and counts it for its message.
func (t *tx) left(d ending, state messages.State) {
	e := t.change(d.Device)
	e.pending--
	e.bytes -= d.Size
	if d.Shared {
		if t.shared[d.Message] == nil {
			t.shared[d.Message] = &tally{}
		}
		t.shared[d.Message].count(state)
	}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func millisOrNull(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	return ref(millis(t))
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func fromNull(ms *int64) time.Time {
	if ms == nil {
		return time.Time{}
	}
	return fromMillis(*ms)
}
