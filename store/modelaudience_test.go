package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

var modelTopics = []string{"news", "weather"}

// modelSub is why a device has a topic: via a user, or, if that is empty, by itself.
type modelSub struct {
	device     ident.Device
	topic, via string
	since      time.Time
}

// modelFan is a send that is stored page by page.
type modelFan struct {
	*modelEntry
	to     messages.Target
	since  time.Time
	cursor ident.Device
	over   bool
	// reached counts devices.
	reached int
	// ahead is the next page as it was when the last one was stored: that may be what the store goes by.
	ahead *modelRows
}

// until is when the audience is settled: who comes later is not reached.
func (f *modelFan) until() time.Time { return f.since.Add(audienceSlack) }

// modelRows are the devices that a page goes through, one row for each reason.
type modelRows struct {
	devices []ident.Device
	limit   int
	last    bool
}

// end is where the page ends, from where it begins.
func (r *modelRows) end(cursor ident.Device) ident.Device {
	if n := len(r.devices); n > 0 {
		return r.devices[n-1]
	}
	return cursor
}

// bind makes an inbox a user's. Whoever had it before leaves nothing there.
func (m *model) bind(t *rapid.T) {
	b := rapid.SampledFrom(m.boxes).Draw(t, "of")
	user := rapid.SampledFrom(modelUsers).Draw(t, "user")
	m.do(t, m.s.BindUser(context.Background(), m.app, user, b.id, m.now))
	m.leaves(b, user)
}

func (m *model) logout(t *rapid.T) {
	b := rapid.SampledFrom(m.boxes).Draw(t, "of")
	m.do(t, m.s.UnbindUser(context.Background(), m.app, "", b.id, m.now))
	m.leaves(b, "")
}

// leaves has the user before leave an inbox to another, or to nobody.
func (m *model) leaves(b *modelInbox, to string) {
	if b.user == to {
		return
	}
	for _, e := range b.live() {
		if e.user != "" {
			e.state = messages.Canceled
		}
	}
	m.subs = slices.DeleteFunc(m.subs, func(s modelSub) bool { return s.device == b.id && s.via != "" })
	b.user = to
	for _, topic := range m.follows[to] {
		m.subscribed(b.id, topic, to)
	}
}

func (m *model) subscribed(d ident.Device, topic, via string) {
	if !slices.ContainsFunc(m.subs, func(s modelSub) bool { return s.device == d && s.topic == topic && s.via == via }) {
		m.subs = append(m.subs, modelSub{d, topic, via, m.now})
	}
}

func (m *model) unsubscribed(topic, via string, from ...ident.Device) {
	m.subs = slices.DeleteFunc(m.subs, func(s modelSub) bool { return s.topic == topic && s.via == via && slices.Contains(from, s.device) })
}

func (m *model) subscribe(t *rapid.T) {
	b, topic := rapid.SampledFrom(m.boxes).Draw(t, "of"), rapid.SampledFrom(modelTopics).Draw(t, "topic")
	if rapid.Bool().Draw(t, "leave") {
		_, err := m.s.Unsubscribe(context.Background(), m.app, topic, []ident.Device{b.id})
		m.do(t, err)
		m.unsubscribed(topic, "", b.id)
		return
	}
	_, err := m.s.Subscribe(context.Background(), m.app, topic, []ident.Device{b.id}, m.now)
	m.do(t, err)
	m.subscribed(b.id, topic, "")
}

func (m *model) subscribeUser(t *rapid.T) {
	user, topic := rapid.SampledFrom(modelUsers).Draw(t, "user"), rapid.SampledFrom(modelTopics).Draw(t, "topic")
	if rapid.Bool().Draw(t, "leave") {
		m.do(t, m.s.UnsubscribeUser(context.Background(), m.app, topic, user))
		m.follows[user] = slices.DeleteFunc(m.follows[user], func(s string) bool { return s == topic })
		for _, b := range m.boxes {
			m.unsubscribed(topic, user, b.id)
		}
		return
	}
	m.follow(t, user, topic)
}

func (m *model) follow(t *rapid.T, user, topic string) {
	m.do(t, m.s.SubscribeUser(context.Background(), m.app, topic, user, m.now))
	if !slices.Contains(m.follows[user], topic) {
		m.follows[user] = append(m.follows[user], topic)
	}
	for _, b := range m.of(user) {
		m.subscribed(b.id, topic, user)
	}
}

// sendLater sends to a topic, to everyone, or at a time.
func (m *model) sendLater(t *rapid.T) {
	send, e := m.draw(t)
	f := &modelFan{modelEntry: e}
	switch rapid.SampledFrom([]string{"topic", "topic", "all", "user", "device"}).Draw(t, "audience") {
	case "topic":
		f.to.Topic = rapid.SampledFrom(modelTopics).Draw(t, "topic")
	case "all":
		f.to.Broadcast = true
	case "user":
		f.to.User = rapid.SampledFrom(modelUsers).Draw(t, "user")
	default:
		f.to.Device = rapid.SampledFrom(m.boxes).Draw(t, "to").id
	}
	want := messages.FanningOut
	f.since = m.now
	if !f.to.Fans() || rapid.Bool().Draw(t, "scheduled") {
		f.since, want = m.now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "in"))*time.Second), messages.Scheduled
		send.SendAt = f.since
	}
	send.To, e.user, e.expires = f.to, f.to.User, send.ExpiresAt()
	r, err := m.s.Accept(context.Background(), send)
	m.do(t, err)
	if r.Status != want || r.Recipients != 0 || len(r.Pending) != 0 {
		t.Fatalf("a send for later says %+v", r)
	}
	m.fans = append(m.fans, f)
}

// due is a fan-out with something to be stored now.
func (m *model) due(t *rapid.T) *modelFan {
	var due []*modelFan
	for _, f := range m.fans {
		if !f.over && !m.now.Before(f.since) {
			due = append(due, f)
		}
	}
	m.checkJobs(t, due)
	if len(due) == 0 {
		t.Skip("nothing is due")
	}
	return rapid.SampledFrom(due).Draw(t, "fan-out")
}

// callOffAll leaves nothing due: those that play next on the database would be listed with it.
func (m *model) callOffAll(t *rapid.T) {
	for _, f := range m.fans {
		_, err := m.s.Cancel(context.Background(), m.app, f.id, m.now)
		m.do(t, err)
	}
}

func (m *model) checkJobs(t *rapid.T, want []*modelFan) {
	jobs, err := m.s.FanJobs(context.Background(), m.now, 1000)
	m.do(t, err)
	n := 0
	for _, j := range jobs {
		if j.App != m.app {
			continue
		}
		if n++; !slices.ContainsFunc(want, func(f *modelFan) bool { return f.id == j.Message }) {
			t.Fatalf("%s is due, and was not to be", j.Message)
		}
	}
	if n != len(want) {
		t.Fatalf("%d fan-outs are due, the model has %d", n, len(want))
	}
}

func (m *model) fanOut(t *rapid.T) {
	f, limit := m.due(t), rapid.IntRange(1, 3).Draw(t, "limit")
	p, err := m.s.FanOut(context.Background(), f.id, limit, m.now)
	m.do(t, err)
	if n := m.page(t, f, m.rows(f, limit, m.stands(t, f))); p.Reached != n || p.Done != f.over {
		t.Fatalf("a page reached %d, done %t; the model %d, %t", p.Reached, p.Done, n, f.over)
	}
}

// crashedInAFanOut kills the store during a page: it is there with where it ends, or not at all.
func (m *model) crashedInAFanOut(t *rapid.T) {
	rarely(t)
	f, limit := m.due(t), rapid.IntRange(1, 3).Draw(t, "limit")
	old := m.s
	m.s = m.crash(t, func() {
		if _, err := old.FanOut(context.Background(), f.id, limit, m.now); err != nil {
			t.Errorf("a page in a crash says %v", err)
		}
	})
	m.reread(t)
	now := m.stands(t, f)
	if now.Cursor != f.cursor || now.Over {
		m.page(t, f, m.rows(f, limit, now))
	}
	if now.Cursor != f.cursor || now.Over != f.over {
		t.Fatalf("after a crash the fan-out stands at %+v, the model at %q, %t", now, f.cursor, f.over)
	}
}

// modelStand is where a fan-out stands in the database.
type modelStand struct {
	Cursor ident.Device
	Over   bool
}

func (m *model) stands(t *rapid.T, f *modelFan) (at modelStand) {
	const query = "SELECT COALESCE(fan_cursor, '') AS cursor, due_at IS NULL AS over FROM messages WHERE id = ?"
	m.do(t, m.s.reads.get(context.Background(), &at, m.s.dialect.rebind(query), string(f.id)))
	return at
}

// rows are the devices that the page which came to stand there went through: those of now, or those that were read ahead.
func (m *model) rows(f *modelFan, limit int, at modelStand) *modelRows {
	if r := f.ahead; r != nil && r.limit == limit && r.end(f.cursor) == at.Cursor && r.last == at.Over {
		return r
	}
	return m.rowsNow(f, limit)
}

func (m *model) rowsNow(f *modelFan, limit int) *modelRows {
	var rows []ident.Device
	switch {
	case f.to.Topic != "":
		for _, s := range m.subs {
			if s.topic == f.to.Topic {
				rows = append(rows, s.device)
			}
		}
	case f.to.Device != "":
		rows = append(rows, f.to.Device)
	default:
		for _, b := range m.boxes {
			if f.to.Broadcast || b.user == f.to.User {
				rows = append(rows, b.id)
			}
		}
	}
	rows = slices.DeleteFunc(rows, func(d ident.Device) bool { return d <= f.cursor })
	slices.Sort(rows)
	return &modelRows{rows[:min(limit, len(rows))], limit, len(rows) < limit || f.to.Device != ""}
}

// page stores the model's page and returns how many it reached.
func (m *model) page(t *rapid.T, f *modelFan, rows *modelRows) (reached int) {
	f.cursor, f.over, f.ahead = rows.end(f.cursor), rows.last, nil
	if f.to.Fans() && !f.over {
		f.ahead = m.rowsNow(f, rows.limit)
	}
	var boxes []*modelInbox
	for _, b := range m.boxes {
		if slices.Contains(rows.devices, b.id) && m.early(f, b.id) {
			boxes = append(boxes, b)
		}
	}
	slices.SortFunc(boxes, func(a, b *modelInbox) int { return cmp.Compare(a.id, b.id) })
	if !m.now.Before(f.expires) {
		for _, b := range boxes {
			e := *f.modelEntry
			e.user = m.through(f, b)
			e.seq, e.state = m.placeOf(t, b.id, e.id), messages.Expired
			b.entries = append(b.entries, &e)
			b.lose(e.seq)
		}
	} else {
		fits, _ := m.fit(boxes, f.modelEntry)
		m.putAll(t, boxes, fits, f.modelEntry)
		for _, b := range boxes {
			b.entries[len(b.entries)-1].user = m.through(f, b)
		}
	}
	f.reached += len(boxes)
	return len(boxes)
}

// through is the user whose the message is in an inbox: of a topic, if the device has that by its user alone.
func (m *model) through(f *modelFan, b *modelInbox) string {
	itself := func(s modelSub) bool {
		return s.device == b.id && s.topic == f.to.Topic && s.via == "" && !s.since.After(f.until())
	}
	if f.to.Topic == "" || slices.ContainsFunc(m.subs, itself) {
		return f.to.User
	}
	return b.user
}

// early reports whether the device was subscribed in time.
func (m *model) early(f *modelFan, d ident.Device) bool {
	return f.to.Topic == "" || slices.ContainsFunc(m.subs, func(s modelSub) bool {
		return s.device == d && s.topic == f.to.Topic && !s.since.After(f.until())
	})
}

// callOff ends what is still to be stored of a send.
func (m *model) callOff(t *rapid.T, sum messages.Summary, pending bool) {
	for _, f := range m.fans {
		if f.id != sum.ID {
			continue
		}
		if sum.Recipients != f.reached {
			t.Fatalf("%d recipients, the model %d", sum.Recipients, f.reached)
		}
		if (pending || !f.over) && sum.Status != messages.CanceledStatus {
			t.Fatalf("what was canceled is %s", sum.Status)
		}
		f.over = true
	}
}

// report says what a user did with some messages; the first report of each kind counts, whatever became of the message.
func (m *model) report(t *rapid.T) {
	b := rapid.SampledFrom(m.boxes).Draw(t, "of")
	if len(b.entries) == 0 {
		t.Skip("nothing was ever there")
	}
	var list []messages.Report
	want := 0
	for _, e := range rapid.SliceOfN(rapid.SampledFrom(b.entries), 1, 3).Draw(t, "messages") {
		kind := rapid.SampledFrom(reportKinds[:]).Draw(t, "kind")
		list = append(list, messages.Report{Message: e.id, Kind: kind, At: m.now})
		if !slices.Contains(e.reports, kind) {
			e.reports = append(e.reports, kind)
			want++
		}
	}
	n, err := m.s.Report(context.Background(), b.id, list, m.now)
	m.do(t, err)
	if n != want {
		t.Fatalf("%d reports are new, of %d in the model", n, want)
	}
}

// sendMany sends a batch: what one of it fills, the next finds full.
func (m *model) sendMany(t *rapid.T) {
	type one struct {
		e   *modelEntry
		box *modelInbox
	}
	var sends []messages.Send
	var list []one
	for range rapid.IntRange(1, 4).Draw(t, "many") {
		send, e := m.draw(t)
		b := rapid.SampledFrom(m.boxes).Draw(t, "to")
		send.To.Device = b.id
		sends, list = append(sends, send), append(list, one{e: e, box: b})
	}
	verdicts, err := m.s.AcceptAll(context.Background(), sends)
	m.do(t, err)
	for i, x := range list {
		_, over := m.room(x.box, x.e)
		if full := !m.drops && len(over) > 0; full != (verdicts[i].Err != nil && fault.From(verdicts[i].Err).Code == "inbox_full") {
			t.Fatalf("%d of %d says %v, full %t", i, len(list), verdicts[i].Err, full)
		} else if full {
			continue
		}
		x.e.seq = m.placeOf(t, x.box.id, x.e.id)
		m.last = max(m.last, x.e.seq)
		m.put(x.box, x.e)
	}
}

// told reads the events that came and compares: each ending is told once, and nothing else is.
func (m *model) told(t *rapid.T) {
	for more := true; more; {
		var list []messages.Event
		var err error
		list, more, err = m.s.Events(context.Background(), m.app, m.heard, 50)
		m.do(t, err)
		for _, e := range list {
			m.heard = e.Seq
			if at, ending := endingOf(e); ending {
				m.endings[at]++
			}
		}
	}
	ended := 0
	for _, b := range m.boxes {
		for _, e := range b.entries {
			if e.pending() {
				continue
			}
			ended++
			if at := fmt.Sprintf("%s %s %s", b.id, e.id, eventOf[e.state]); m.endings[at] != 1 {
				t.Fatalf("%s was told %d times", at, m.endings[at])
			}
		}
	}
	if len(m.endings) != ended {
		t.Fatalf("%d endings were told, the model has %d", len(m.endings), ended)
	}
}
