package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// fanning is one page of a fan-out on its way through a writer.
type fanning struct {
	job fanRow
	audience
	now time.Time

	send  *messages.Send
	blind bool // take is tried, without a look at the inboxes
	fit   int  // in how many it fits simply, where that was counted beforehand
	taken int  // how many have it by take
	page  messages.FanPage
}

// Statements of a page. The engines differ in how they take a list: as arrays, or as JSON.
const (
	// mayFan is answered if the fan-out stands where the page begins, which nobody changes from then on.
	mayFan = "SELECT 1 FROM messages WHERE id = ? AND due_at IS NOT NULL AND canceled_at IS NULL AND COALESCE(fan_cursor, '') = ?"

	fanBoxes       = "SELECT i.device, i.pending, i.pending_bytes, "
	fanBoxesFrom   = " FROM inboxes i WHERE " + fanReachable + " AND i.device "
	fanBoxesJSON   = "IN (SELECT value FROM json_each(?1))"
	fanBoxesArrays = "= ANY (CAST(?1 AS TEXT[]))"

	// A device that has a topic only through its user has the message as that user's: it goes when the user does.
	fanVia       = "COALESCE((SELECT MIN(s.via) FROM subscriptions s WHERE s.device = i.device AND s.topic = ?3 AND s.created_at <= ?4), '')"
	fanByItself  = "''"
	fanInsertVia = "NULLIF((SELECT MIN(s.via) FROM subscriptions s WHERE s.device = j.value AND s.topic = ?10 AND s.created_at <= ?14), '')"

	fanReachable  = "i.app = ?2 AND i.gone_at IS NULL"
	fanHasTopic   = " AND EXISTS (SELECT 1 FROM subscriptions s WHERE s.device = i.device AND s.topic = ?3 AND s.created_at <= ?4"
	fanSubscribed = fanHasTopic + ")"
	fanHasItself  = fanHasTopic + " AND s.via = '')"
	fanOfUser     = " AND EXISTS (SELECT 1 FROM devices d WHERE d.id = i.device AND d.user_id = ?3)"

	fanHolders       = "SELECT " + endingColumns + " FROM deliveries WHERE device "
	fanHeld          = " AND collapse_key = ? AND ended_at IS NULL ORDER BY seq"
	fanHoldersJSON   = fanHolders + "IN (SELECT value FROM json_each(?))" + fanHeld
	fanHoldersArrays = fanHolders + anyOf + fanHeld

	fanInsert       = "INSERT INTO deliveries (seq, device, app, message, class, urgency, size, created_at, expires_at, shared, collapse_key, to_user, correlation_id, notification) "
	fanInsertHead   = fanInsert + "SELECT ?1 + j.key, j.value, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1, ?9, "
	fanInsertTail   = ", ?11, ?12 FROM json_each(?13) j WHERE j.value IS NOT NULL"
	fanInsertJSON   = fanInsertHead + "?10" + fanInsertTail
	fanInsertTopic  = fanInsertHead + fanInsertVia + fanInsertTail
	fanInsertArrays = fanInsert + `SELECT n.seq, n.device, CAST(?4 AS TEXT), CAST(?5 AS TEXT), CAST(?6 AS BIGINT), CAST(?7 AS BIGINT), CAST(?8 AS BIGINT),
		CAST(?9 AS BIGINT), CAST(?10 AS BIGINT), 1, CAST(?11 AS TEXT), n.to_user, CAST(?12 AS TEXT), CAST(?13 AS TEXT)
		FROM unnest(CAST(?1 AS TEXT[]), CAST(?2 AS BIGINT[]), CAST(?3 AS TEXT[])) AS n (device, seq, to_user)`
	fanCount = `UPDATE inboxes SET pending = pending + 1, pending_bytes = pending_bytes + ?1, head = ?2 + j.key
		FROM json_each(?3) j WHERE inboxes.device = j.value`
	fanCountArrays = `UPDATE inboxes AS i SET pending = i.pending + 1, pending_bytes = i.pending_bytes + ?3, head = n.seq
		FROM unnest(CAST(?1 AS TEXT[]), CAST(?2 AS BIGINT[])) AS n (device, seq) WHERE i.device = n.device AND i.device = ANY (CAST(?1 AS TEXT[]))`

	// moveFan takes how many were reached, how many of them need the body, and a tally of the others, without those that cannot be.
	moveFan = `UPDATE messages SET fan_cursor = ?1, recipients = recipients + ?2, pending = pending + ?3 - CAST(?6 AS BIGINT), expired = expired + ?4, dropped = dropped + ?5,
		due_at = CASE WHEN CAST(?6 AS BIGINT) = 1 THEN NULL ELSE due_at END,
		notification = CASE WHEN CAST(?6 AS BIGINT) = 1 THEN NULL ELSE notification END,
		body = CASE WHEN CAST(?6 AS BIGINT) = 1 AND pending + ?3 <= 1 THEN NULL ELSE body END
		WHERE id = ?7 AND due_at IS NOT NULL AND canceled_at IS NULL AND COALESCE(fan_cursor, '') = ?8`
)

// store does the page, unless somebody else was faster.
func (f *fanning) store(t *tx) (err error) {
	f.page = messages.FanPage{}
	if f.send, err = f.job.send(f.now); err != nil {
		return err
	}
	f.fit, f.taken = 0, 0
	p := t.newPlan(0)
	mine, err := f.begin(p)
	if err != nil || !mine {
		return err
	}
	others, err := f.take(t)
	if err != nil {
		return fmt.Errorf("store a page's deliveries: %w", err)
	}
	if err := f.look(p, others); err != nil {
		return fmt.Errorf("read inboxes: %w", err)
	}
	fast, err := f.decide(p, others)
	if err != nil {
		return err
	}
	if err := f.insert(t, fast); err != nil {
		return fmt.Errorf("insert deliveries: %w", err)
	}
	if err := p.write(); err != nil {
		return err
	}
	return f.move(p, fast)
}

// begin reads whether the page may still be stored, and, where statements travel, what take or else look has to know.
func (f *fanning) begin(p *plan) (mine bool, err error) {
	t, query := p.t, mayFan
	if t.w.travels() {
		query += " FOR UPDATE"
	}
	may := func(r row) error {
		var one int
		mine = true
		return r.Scan(&one)
	}
	if err := t.ask(may, query, string(f.job.ID), f.job.Cursor); err != nil {
		return false, fmt.Errorf("look where a fan-out stands: %w", err)
	}
	f.blind = f.job.CollapseKey == "" && f.send.TTL > 0
	if t.w.travels() && len(f.devices) > 0 {
		// Whom this batch has changed is not in the database as they are.
		f.blind = f.blind && !slices.ContainsFunc(f.devices, func(d ident.Device) bool { return t.ledger[d] != nil })
		know := f.askBoxes
		if f.blind {
			know = f.askFitting
		}
		if err := errors.Join(t.askPlaces(len(f.devices)), know(p, f.devices)); err != nil {
			return false, err
		}
	}
	err = t.w.travel()
	return mine, err
}

// look learns what the inboxes of devices hold, and what the message replaces there.
func (f *fanning) look(p *plan, devices []ident.Device) error {
	if len(devices) == 0 {
		return nil
	}
	if !p.t.w.travels() || f.blind {
		if err := errors.Join(f.askBoxes(p, devices), p.t.w.travel()); err != nil {
			return err
		}
	}
	return f.askHolders(p, devices)
}

// askBoxes reads those inboxes of devices that are to be reached.
func (f *fanning) askBoxes(p *plan, devices []ident.Device) error {
	list, err := p.t.listed(devices)
	if err != nil {
		return err
	}
	also, via, args := f.condition(list)
	of := fanBoxesJSON
	if p.t.w.travels() {
		of = fanBoxesArrays
	}
	return p.t.ask(f.box(p), fanBoxes+via+fanBoxesFrom+of+also, args...)
}

// condition is who is to be reached, of a list: what is added to fanReachable, the user whose a message is, and the first arguments of both.
func (f *fanning) condition(list any) (also, via string, args []any) {
	args = []any{list, string(f.job.App), f.job.Name, f.job.until()}
	switch f.job.Audience {
	case toTopic:
		return fanSubscribed, fanVia, args
	case toUser:
		return fanOfUser, fanByItself, args[:3]
	}
	return "", fanByItself, args[:2]
}

// box takes an inbox as it is in the database.
func (f *fanning) box(p *plan) func(row) error {
	return func(r row) error {
		b := &box{app: f.job.App}
		if err := r.Scan(&b.device, &b.pending, &b.bytes, &b.via); err != nil {
			return err
		}
		p.boxes[b.device] = b
		return nil
	}
}

// listed is a list of devices as a statement takes it.
func (t *tx) listed(devices []ident.Device) (any, error) {
	if t.w.travels() {
		return names(devices), nil
	}
	text, err := json.Marshal(devices)
	return string(text), err
}

// askHolders reads what the message replaces in its page's inboxes.
func (f *fanning) askHolders(p *plan, devices []ident.Device) error {
	if f.job.CollapseKey == "" {
		return nil
	}
	list, err := p.t.listed(devices)
	if err != nil {
		return err
	}
	query := fanHoldersJSON
	if p.t.w.travels() {
		query = fanHoldersArrays
	}
	var rows []ending
	if err := p.t.list(&rows, query, list, f.job.CollapseKey); err != nil {
		return fmt.Errorf("look a collapse key up: %w", err)
	}
	for _, d := range devices {
		p.holders[pendingKey{d, f.job.CollapseKey}] = holder{}
	}
	for i := range rows { // the newest comes last
		p.holders[pendingKey{rows[i].Device, f.job.CollapseKey}] = holder{row: &rows[i]}
	}
	return nil
}

// place is a device that the message simply fits, and its place there.
type place struct {
	device ident.Device
	seq    messages.Seq
	via    string // the user it is there for, as far as that is known by now
}

// decide gives the message its places in the inboxes of devices: those that it simply fits are returned, the others are the plan's.
func (f *fanning) decide(p *plan, devices []ident.Device) (fast []place, err error) {
	if err := p.complete(); err != nil {
		return nil, err
	}
	var odd []*box
	for _, d := range devices {
		switch b := p.boxes[d]; {
		case b == nil: // it has left
		case f.simple(p, b):
			fast = append(fast, place{device: d, via: b.via})
		default:
			odd = append(odd, b)
		}
	}
	if err := f.seat(p.t, fast); err != nil {
		return nil, err
	}
	for _, b := range odd {
		if err := f.deliver(p, b); err != nil {
			return nil, err
		}
	}
	f.page.Reached, f.page.Done = f.taken+len(fast)+len(p.slots), f.last
	return fast, nil
}

// seat gives devices their places, which follow one another where there is one writer.
func (f *fanning) seat(t *tx, fast []place) (err error) {
	for i := range fast {
		if fast[i].seq, err = t.nextSeq(); err != nil {
			return err
		}
		f.reaches(fast[i].device, fast[i].seq)
	}
	return nil
}

// reaches notes where a device finds the message.
func (f *fanning) reaches(d ident.Device, at messages.Seq) {
	f.page.Pending = append(f.page.Pending, messages.Pending{Device: d, Seq: at, Class: f.send.Urgency.Class()})
}

// simple reports whether the message is one more in the inbox, and nothing else.
func (f *fanning) simple(p *plan, b *box) bool {
	limits := p.t.w.store.limits
	return f.send.TTL > 0 && p.holders[pendingKey{b.device, f.job.CollapseKey}].row == nil &&
		b.pending+1 <= limits.messages && b.bytes+f.job.Size <= limits.bytes
}

// deliver does for one inbox what a send of its own would do. A message past its life is over where it comes to.
func (f *fanning) deliver(p *plan, b *box) error {
	if f.send.TTL <= 0 {
		s, err := p.slot(b, f.send, true)
		if err == nil {
			s.ended, s.via = messages.Expired, b.via
			p.t.change(b.device).lose(s.seq, lostToTTL)
		}
		return err
	}
	fits, err := p.fits(b, f.send)
	if err != nil {
		return err
	}
	s, err := p.deliverIf(fits, b, f.send)
	if err != nil {
		return err
	}
	if s.via = b.via; s.ended == "" {
		f.reaches(s.device, s.seq)
	}
	return nil
}

// insert stores the deliveries of those that the message simply fits.
func (f *fanning) insert(t *tx, fast []place) error {
	if len(fast) == 0 {
		return nil
	}
	if t.w.travels() {
		return f.insertArrays(t, fast)
	}
	devices := make([]ident.Device, len(fast))
	for i, at := range fast {
		devices[i] = at.device
	}
	list, err := t.listed(devices)
	if err != nil {
		return err
	}
	if err := f.insertJSON(t, list, fast[0].seq); err != nil {
		return err
	}
	_, err = t.exec(fanCount, f.job.Size, int64(fast[0].seq), list)
	return err
}

// columns are what all deliveries have in common, from app to expires_at, and the last three.
func (f *fanning) columns() []any {
	m := f.send
	note, _ := noteJSON(m.Notification).(string)
	return []any{string(m.App), string(m.ID), int64(m.Urgency.Class()), int64(m.Urgency), f.job.Size, millis(m.CreatedAt), f.job.ExpiresAt,
		orNull(m.CollapseKey), orNull(m.CorrelationID), orNull(note)}
}

// insertJSON stores deliveries for a list of devices, whose places begin at first. null in the list is nobody.
func (f *fanning) insertJSON(t *tx, list any, first messages.Seq) error {
	query, user := fanInsertJSON, orNull(f.send.To.User)
	args := append([]any{int64(first)}, f.columns()...)
	if f.job.Audience == toTopic {
		query, user = fanInsertTopic, f.job.Name
	}
	args = append(slices.Insert(args, 9, user), list)
	if f.job.Audience == toTopic {
		args = append(args, f.job.until())
	}
	_, err := t.exec(query, args...)
	return err
}

func (f *fanning) insertArrays(t *tx, fast []place) error {
	devices, seqs, users := make([]string, len(fast)), make([]int64, len(fast)), make([]*string, len(fast))
	for i, at := range fast {
		devices[i], seqs[i], users[i] = string(at.device), int64(at.seq), textOrNull(cmp.Or(f.send.To.User, at.via))
	}
	return errors.Join(t.later(fanInsertArrays, append([]any{devices, seqs, users}, f.columns()...)...), t.later(fanCountArrays, devices, seqs, f.job.Size))
}

// move notes what the page came to, and where the fan-out stands.
func (f *fanning) move(p *plan, fast []place) error {
	pending, ended := (&post{slots: p.slots}).counts()
	pending += int64(f.taken + len(fast))
	return p.t.later(moveFan, f.cursor, int64(f.page.Reached), pending, ended.of(messages.Expired), ended.of(messages.Dropped), bit(f.last), string(f.job.ID), f.job.Cursor)
}
