package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// The model is an inbox as a page of prose would describe it: a list. Whatever is done to both, the store must
// say the same, and its counters must be those of a recount.

const (
	modelMessages = 4
	modelBytes    = 40
)

var modelUsers = []string{"anna", "bert"}

// entry of the model: a message in one inbox.
type modelEntry struct {
	id      ident.Message
	seq     messages.Seq
	data    string
	key     string
	user    string // it was sent to
	expires time.Time
	state   messages.State
	fetched bool
	reports []messages.ReportKind
}

func (e *modelEntry) pending() bool { return e.state == "" }

type modelInbox struct {
	id      ident.Device
	user    string // whose it is
	entries []*modelEntry
	lost    int // since the last gap went
	told    int
	lostTo  messages.Seq
}

type model struct {
	s *Store
	// crash abandons the store as a kill does and opens what is on disk then, with after having run; nil where the engine is not this process's.
	crash func(t *rapid.T, during func()) *Store
	app   ident.App
	now   time.Time
	boxes []*modelInbox
	drops bool
	next  int
	last  messages.Seq

	subs    []modelSub
	follows map[string][]string // topics of users
	fans    []*modelFan
	heard   messages.Seq // events up to it
	endings map[string]int
}

// Run it with -count 6 -rapid.checks=600 for 100,000 steps: a crash copies the files, which grow with each play.
func TestTheStoreAgreesWithAModel(t *testing.T) {
	t.Parallel()
	c := newCrasher(t)
	agrees(t, c.s, c.crash)
	c.stop()
}

func TestTheStoreAgreesWithAModelOnPostgres(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1, small)[0]
	stop := start(t, s)
	agrees(t, s, nil)
	stop()
}

func small(o *Options) { o.InboxMessages, o.InboxBytes = modelMessages, modelBytes }

func agrees(t *testing.T, s *Store, crash func(*rapid.T, func()) *Store) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, s, rapid.Bool().Draw(t, "drop oldest"))
		m.crash = crash
		defer func() { s = m.s }()
		actions := map[string]func(*rapid.T){
			"send":     m.send,
			"sendUser": m.sendUser,
			"bind":     m.bind,
			"logout":   m.logout,
			"sendMany": m.sendMany, "sendLater": m.sendLater, "fanOut": m.fanOut, "report": m.report,
			"subscribe": m.subscribe, "subscribeUser": m.subscribeUser,
			"fetch":   m.fetch,
			"ackUpTo": m.ackUpTo,
			"ackIDs":  m.ackIDs,
			"cancel":  m.cancel,
			"wait": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
			},
			"expire": m.expire,
			"flush":  func(t *rapid.T) { m.do(t, m.flush()) },
			"":       m.check,
		}
		if crash != nil {
			actions["crash"], actions["crashInASend"], actions["crashInAFanOut"] = m.crashed, m.crashedInASend, m.crashedInAFanOut
		}
		t.Repeat(actions)
		m.callOffAll(t)
	})
}

func newModel(t *rapid.T, s *Store, drops bool) *model {
	m := &model{s: s, app: ident.NewApp(), now: time.Now().Truncate(time.Millisecond).UTC(), drops: drops,
		follows: map[string][]string{}, endings: map[string]int{}}
	overflow := tokens.OverflowReject
	if drops {
		overflow = tokens.OverflowDropOldest
	}
	m.do(t, s.CreateApp(context.Background(), tokens.App{ID: m.app, InboxOverflow: overflow, CreatedAt: m.now}, nil))
	for i := range 3 {
		id := ident.NewDevice()
		_, _, err := s.Register(context.Background(), tokens.Enrol{Registration: tokens.Registration{App: m.app, Installation: string(id),
			Provider: tokens.NoProvider}, As: tokens.PublishableKey, ID: id, Now: m.now})
		m.do(t, err)
		b := &modelInbox{id: id}
		if i > 0 {
			b.user = modelUsers[0]
			m.do(t, s.BindUser(context.Background(), m.app, b.user, id, m.now))
		}
		m.boxes = append(m.boxes, b)
	}
	m.follow(t, modelUsers[0], modelTopics[0]) // most plays would not come to it
	return m
}

func (m *model) do(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// flush has the lane written.
func (m *model) flush() error {
	for _, b := range m.boxes {
		if _, err := m.s.AckIDs(context.Background(), b.id, []ident.Message{"none"}, m.now); err != nil {
			return err
		}
	}
	return nil
}

func (m *model) draw(t *rapid.T) (messages.Send, *modelEntry) {
	m.next++
	data := fmt.Sprintf(`"%d%s"`, m.next, "xxxxxxxxxxxxxxx"[:rapid.IntRange(0, 12).Draw(t, "size")])
	send := messages.Send{ID: ident.NewMessage(), App: m.app, Data: []byte(data), CreatedAt: m.now, Urgency: messages.High,
		TTL:         time.Duration(rapid.SampledFrom([]int{5, 30, 3600}).Draw(t, "ttl")) * time.Second,
		CollapseKey: rapid.SampledFrom([]string{"", "", "k", "l"}).Draw(t, "key")}
	return send, &modelEntry{id: send.ID, data: data, key: send.CollapseKey, expires: send.ExpiresAt()}
}

func (b *modelInbox) live() (list []*modelEntry) {
	for _, e := range b.entries {
		if e.pending() {
			list = append(list, e)
		}
	}
	return list
}

// room is what would have to go for e: what it replaces, and, if that is not enough, the oldest.
func (b *modelInbox) room(e *modelEntry) (replaced *modelEntry, over []*modelEntry) {
	left := b.live()
	if i := slices.IndexFunc(left, func(x *modelEntry) bool { return e.key != "" && x.key == e.key }); i >= 0 {
		replaced = left[i]
		left = slices.Delete(left, i, i+1)
	}
	size := func() int {
		n := len(e.data)
		for _, x := range left {
			n += len(x.data)
		}
		return n
	}
	for len(left) > 0 && (len(left)+1 > modelMessages || size() > modelBytes) {
		over = append(over, left[0])
		left = left[1:]
	}
	return replaced, over
}

// room is the same once what is dead has gone, which happens when e does not fit beside it.
func (m *model) room(b *modelInbox, e *modelEntry) (replaced *modelEntry, over []*modelEntry) {
	if replaced, over = b.room(e); len(over) == 0 {
		return replaced, nil
	}
	b.bury(m.now)
	return b.room(e)
}

func (b *modelInbox) bury(now time.Time) {
	for _, e := range b.live() {
		if !now.Before(e.expires) {
			e.state = messages.Expired
			b.lose(e.seq)
		}
	}
}

func (m *model) put(b *modelInbox, e *modelEntry) {
	replaced, over := m.room(b, e)
	if replaced != nil {
		replaced.state = messages.Replaced
	}
	for _, x := range over {
		x.state = messages.Dropped
		b.lose(x.seq)
	}
	b.entries = append(b.entries, e)
}

func (b *modelInbox) lose(seq messages.Seq) {
	b.lost++
	b.lostTo = max(b.lostTo, seq)
}

func (m *model) send(t *rapid.T) {
	send, e := m.draw(t)
	b := rapid.SampledFrom(m.boxes).Draw(t, "to")
	send.To.Device = b.id
	_, over := m.room(b, e)
	r, err := m.s.Accept(context.Background(), send)
	if !m.drops && len(over) > 0 {
		if fault.From(err).Code != "inbox_full" {
			t.Fatalf("a full inbox says %v", err)
		}
		return
	}
	m.do(t, err)
	m.place(t, r, e)
	m.put(b, e)
}

// place checks that places only grow.
func (m *model) place(t *rapid.T, r messages.Receipt, e *modelEntry) {
	if len(r.Pending) == 0 || r.Pending[0].Seq <= m.last {
		t.Fatalf("places %+v after %d", r.Pending, m.last)
	}
	e.seq = r.Pending[0].Seq
	m.last = r.Pending[len(r.Pending)-1].Seq
}

// of are the user's inboxes.
func (m *model) of(user string) (list []*modelInbox) {
	for _, b := range m.boxes {
		if b.user == user {
			list = append(list, b)
		}
	}
	return list
}

// fit says in which of the inboxes e has room.
func (m *model) fit(boxes []*modelInbox, e *modelEntry) (fits []bool, room bool) {
	for _, b := range boxes {
		_, over := m.room(b, e)
		fits = append(fits, m.drops || len(over) == 0)
		room = room || fits[len(fits)-1]
	}
	return fits, room
}

func (m *model) sendUser(t *rapid.T) {
	send, e := m.draw(t)
	send.To.User = rapid.SampledFrom(modelUsers).Draw(t, "user")
	e.user = send.To.User
	boxes := m.of(e.user)
	fits, room := m.fit(boxes, e)
	r, err := m.s.Accept(context.Background(), send)
	if len(boxes) > 0 && !room {
		if fault.From(err).Code != "inbox_full" {
			t.Fatalf("full inboxes say %v", err)
		}
		return
	}
	m.do(t, err)
	if r.Recipients != len(boxes) {
		t.Fatalf("%d recipients, the user has %d devices", r.Recipients, len(boxes))
	}
	m.putAll(t, boxes, fits, e)
}

// putAll puts a message into inboxes where it fits, and leaves a gap in the others.
func (m *model) putAll(t *rapid.T, boxes []*modelInbox, fits []bool, e *modelEntry) {
	for i, b := range boxes {
		mine := *e
		mine.seq = m.placeOf(t, b.id, e.id)
		m.last = max(m.last, mine.seq)
		if fits[i] {
			m.put(b, &mine)
			continue
		}
		mine.state = messages.Dropped
		b.entries = append(b.entries, &mine)
		b.lose(mine.seq)
	}
}

func (b *modelInbox) alive(now time.Time) (list []*modelEntry) {
	for _, e := range b.live() {
		if now.Before(e.expires) {
			list = append(list, e)
		}
	}
	return list
}

func (m *model) fetch(t *rapid.T) {
	b := rapid.SampledFrom(m.boxes).Draw(t, "of")
	limit := rapid.IntRange(1, 3).Draw(t, "limit")
	p, err := m.s.Inbox(context.Background(), messages.Query{Device: b.id, Limit: limit, Now: m.now})
	m.do(t, err)
	want := b.alive(m.now)
	if len(p.Items) != min(limit, len(want)) || p.More != (len(want) > limit) {
		t.Fatalf("%d items, more %t; the model has %d", len(p.Items), p.More, len(want))
	}
	for i, item := range p.Items {
		if item.ID != want[i].id || item.Seq != want[i].seq || string(item.Data) != want[i].data {
			t.Fatalf("item %d is %+v, the model has %+v", i, item, want[i])
		}
		want[i].fetched = true
	}
	if (p.Gap != nil) != (b.lost > 0) || p.Gap != nil && (p.Gap.Count != b.lost || p.Gap.To != b.lostTo) {
		t.Fatalf("gap %+v, the model lost %d up to %d", p.Gap, b.lost, b.lostTo)
	}
	b.told = b.lost
}

func (b *modelInbox) passed() { b.lost, b.told, b.lostTo = 0, 0, 0 }

func (m *model) ackUpTo(t *rapid.T) {
	b := rapid.SampledFrom(m.boxes).Draw(t, "of")
	if len(b.entries) == 0 {
		t.Skip("nothing was ever there")
	}
	to := rapid.SampledFrom(b.entries).Draw(t, "up to").seq
	want := 0
	for _, e := range b.live() {
		if e.seq <= to && (e.fetched || m.now.Before(e.expires)) {
			e.state = messages.Acked
			want++
		}
	}
	n, err := m.s.AckUpTo(context.Background(), b.id, to, m.now)
	m.do(t, err)
	if n != want {
		t.Fatalf("acked %d, the model %d", n, want)
	}
	if b.lostTo <= to && b.told == b.lost {
		b.passed()
	}
}

func (m *model) ackIDs(t *rapid.T) {
	b := rapid.SampledFrom(m.boxes).Draw(t, "of")
	if len(b.entries) == 0 {
		t.Skip("nothing was ever there")
	}
	chosen := rapid.SliceOfN(rapid.SampledFrom(b.entries), 1, 20).Draw(t, "ids")
	var ids []ident.Message
	want, newest := 0, messages.Seq(0)
	for _, e := range chosen {
		ids = append(ids, e.id)
		if e.pending() && (e.fetched || m.now.Before(e.expires)) {
			e.state = messages.Acked
			want++
			newest = max(newest, e.seq)
		}
	}
	n, err := m.s.AckIDs(context.Background(), b.id, ids, m.now)
	m.do(t, err)
	if n != want {
		t.Fatalf("acked %d, the model %d", n, want)
	}
	before := slices.ContainsFunc(b.live(), func(e *modelEntry) bool { return e.seq < b.lostTo })
	if want > 0 && b.told == b.lost && (newest > b.lostTo || !before) {
		b.passed()
	}
}

func (m *model) all() map[ident.Message][]*modelEntry {
	all := map[ident.Message][]*modelEntry{}
	for _, b := range m.boxes {
		for _, e := range b.entries {
			all[e.id] = append(all[e.id], e)
		}
	}
	return all
}

func (m *model) cancel(t *rapid.T) {
	all := m.all()
	ids := slices.Sorted(maps.Keys(all))
	for _, f := range m.fans {
		ids = append(ids, f.id)
	}
	if len(ids) == 0 {
		t.Skip("nothing was ever sent")
	}
	id := rapid.SampledFrom(ids).Draw(t, "id")
	sum, err := m.s.Cancel(context.Background(), m.app, id, m.now)
	m.do(t, err)
	pending := false
	for _, e := range all[id] {
		if e.pending() {
			e.state, pending = messages.Canceled, true
		}
	}
	m.callOff(t, sum, pending)
}

func (m *model) expire(t *rapid.T) {
	_, err := m.s.Expire(context.Background(), m.now, 1000)
	m.do(t, err)
	for _, b := range m.boxes {
		b.bury(m.now)
	}
}
