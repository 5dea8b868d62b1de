package store

import (
	"slices"

	"rouse/messages"
)

// Rows of messages: sends to several devices, or to nobody, and those for later.

// Whom a row is for: what its user_id names.
const (
	toUser   = "user"
	toDevice = "device"
	toTopic  = "topic"
	toAll    = "all"
)

func audienceOf(to messages.Target) (audience, name string) {
	switch {
	case to.Device != "":
		return toDevice, string(to.Device)
	case to.Topic != "":
		return toTopic, to.Topic
	case to.Broadcast:
		return toAll, ""
	}
	return toUser, to.User
}

// tally counts deliveries by how they ended, in the order of finals.
type tally [5]int64

// finals are the columns of a tally.
var finals = [len(tally{})]messages.State{messages.Acked, messages.Expired, messages.Replaced, messages.Canceled, messages.Dropped}

// of is how many ended as state.
func (c *tally) of(state messages.State) int64 {
	if i := slices.Index(finals[:], state); i >= 0 {
		return c[i]
	}
	return 0
}

func (c *tally) count(state messages.State) {
	if i := slices.Index(finals[:], state); i >= 0 {
		c[i]++
	}
}

func (c *tally) sum() (n int64) {
	for _, v := range c {
		n += v
	}
	return n
}

// counts returns how many of the post's deliveries need the body, and how the others ended.
func (p *post) counts() (pending int64, ended tally) {
	for _, s := range p.slots {
		if s.ended == "" {
			pending++
		} else {
			ended.count(s.ended)
		}
	}
	return pending, ended
}

const (
	// postPending is how many of a post's deliveries are pending. While it is due it needs its body as one of them does, and counts so:
	// who knows nothing of fan-outs, a node of the version before, leaves its body and its row alone.
	postPending = "(pending - CASE WHEN due_at IS NULL THEN 0 ELSE 1 END)"
	postColumns = `id, app, audience, user_id, urgency, recipients, pending, acked, expired, replaced, canceled, dropped, created_at,
		expires_at, send_at, due_at, notification, collapse_key, correlation_id, body`
	insertPost        = "INSERT INTO messages (" + postColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	insertPostsAtOnce = "INSERT INTO messages (" + postColumns + `) SELECT * FROM unnest(CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]),
		CAST(? AS TEXT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]),
		CAST(? AS BIGINT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS TEXT[]), CAST(? AS BYTEA[]))`
)

// postRow is a post as it is stored.
type postRow struct {
	names   [4]string // id, app, audience, whom
	numbers [10]int64 // urgency, recipients, pending, the tally, created_at, expires_at
	sendAt  *int64
	dueAt   *int64
	texts   [3]*string // notification, collapse_key, correlation_id
	body    []byte
}

func (p *post) row() (r postRow) {
	m := p.send
	audience, name := audienceOf(m.To)
	pending, ended := p.counts()
	r.names = [4]string{string(m.ID), string(m.App), audience, plainText(name)}
	r.numbers = [10]int64{int64(m.Urgency), int64(len(p.slots)), pending, 0, 0, 0, 0, 0, millis(m.CreatedAt), millis(m.ExpiresAt())}
	copy(r.numbers[3:], ended[:])
	r.texts = [3]*string{nil, textOrNull(m.CollapseKey), textOrNull(m.CorrelationID)}
	if pending > 0 || m.Later() {
		r.body = m.Data
	}
	if m.Later() {
		if note, ok := noteJSON(m.Notification).(string); ok {
			r.texts[0] = textOrNull(note)
		}
		r.numbers[2]++ // see postPending
		r.dueAt = ref(millis(m.CreatedAt.Add(-dueBefore)))
		if r.sendAt = millisOrNull(m.SendAt); r.sendAt != nil {
			r.dueAt = r.sendAt
		}
	}
	return r
}

func (p *plan) insertPost(post *post) error {
	r := post.row()
	args := make([]any, 0, 20)
	for _, v := range r.names {
		args = append(args, v)
	}
	for _, v := range r.numbers {
		args = append(args, v)
	}
	_, err := p.t.exec(insertPost, append(args, r.sendAt, r.dueAt, r.texts[0], r.texts[1], r.texts[2], r.body)...)
	return err
}

func (p *plan) insertPostsAtOnce() error {
	if len(p.posts) == 0 {
		return nil
	}
	var names [4][]string
	var numbers [10][]int64
	var sendAt, dueAt []*int64
	var texts [3][]*string
	var bodies [][]byte
	for _, post := range p.posts {
		r := post.row()
		for i, v := range r.names {
			names[i] = append(names[i], v)
		}
		for i, v := range r.numbers {
			numbers[i] = append(numbers[i], v)
		}
		for i, v := range r.texts {
			texts[i] = append(texts[i], v)
		}
		sendAt, dueAt, bodies = append(sendAt, r.sendAt), append(dueAt, r.dueAt), append(bodies, r.body)
	}
	args := append(anysOf(names[:]), anysOf(numbers[:])...)
	args = append(args, sendAt, dueAt)
	return p.t.later(insertPostsAtOnce, append(append(args, anysOf(texts[:])...), bodies)...)
}

func anysOf[T any](columns [][]T) (args []any) {
	for _, c := range columns {
		args = append(args, c)
	}
	return args
}
