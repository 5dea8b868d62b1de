package store

import (
	"sync"

	"rouse/ident"
)

// queue is what waits for a writer. Every app's sends stand in a line of their own, and the writer takes from those in
// turn: a flood in one app makes that app wait. All operations that are no sends share a line that has every second
// turn, however many apps send: acks and registrations are everybody's. The queues of all writers share one room, of which no line may take more than half,
// so that there is always some for the others.
type queue struct {
	// signal holds a token while something may be queued. The writer receives from it.
	signal chan struct{}

	mu      sync.Mutex
	others  line                // no sends; guarded by mu, as all below
	sendNow bool                // the next turn is a send's
	lines   map[ident.App]*line // of sends, those that are not empty
	turn    []*line             // the same lines, the next to take from first
	n       int
	room    *room
}

// room is what all queues of a store may hold together.
type room struct {
	size int

	mu    sync.Mutex
	n     int               // guarded by mu, as the next
	taken map[ident.App]int // by each line, of all queues
}

func newRoom(size int) *room { return &room{size: size, taken: map[ident.App]int{}} }

// take takes n places for the line of app, if there is one at least, and reports whether there was.
func (r *room) take(app ident.App, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n >= r.size || r.taken[app] >= max(1, r.size/2) {
		return false
	}
	r.n += n
	r.taken[app] += n
	return true
}

// leave gives n places back.
func (r *room) leave(app ident.App, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n -= n
	if r.taken[app] -= n; r.taken[app] == 0 {
		delete(r.taken, app)
	}
}

// line is operations, oldest first: one app's sends, or, without an app, those that are no sends.
type line struct {
	app ident.App
	ops []*op
}

// next takes the first operation; there is one.
func (l *line) next() *op {
	o := l.ops[0]
	l.ops[0] = nil
	l.ops = l.ops[1:]
	return o
}

func newQueue(r *room) *queue {
	return &queue{signal: make(chan struct{}, 1), lines: map[ident.App]*line{}, room: r}
}

// push queues o and reports whether there was room.
func (q *queue) push(o *op) bool {
	if !q.room.take(o.app, o.weight()) {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := &q.others
	if o.app != "" {
		l = q.lines[o.app]
	}
	if l == nil {
		l = &line{app: o.app}
		q.lines[o.app] = l
		q.turn = append(q.turn, l)
	}
	l.ops = append(l.ops, o)
	q.n++
	q.wake()
	return true
}

// pop takes the next operation: of the next app's sends and of those that are no sends by turns, while there are both;
// nil if there is none.
func (q *queue) pop() *op {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 {
		return nil
	}
	q.n--
	if len(q.others.ops) > 0 && (!q.sendNow || len(q.turn) == 0) {
		q.sendNow = true
		o := q.others.next()
		q.room.leave("", o.weight())
		return o
	}
	q.sendNow = false
	l := q.turn[0]
	q.turn = q.turn[1:]
	o := l.next()
	q.room.leave(l.app, o.weight())
	if len(l.ops) == 0 {
		delete(q.lines, l.app)
	} else {
		q.turn = append(q.turn, l)
	}
	return o
}

// again makes sure that what is left is taken by a further batch.
func (q *queue) again() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n > 0 {
		q.wake()
	}
}

// wake leaves a token for the writer. The caller holds mu.
func (q *queue) wake() {
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}
