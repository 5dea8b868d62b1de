package store

import (
	"errors"
	"slices"
	"time"
)

// Where the engine is a network away, statements travel together: what is asked for is answered, and what is to be done is
// known to be done, when travel returns. On SQLite, which is no trip away, each happens at once.

// row is what an answer is read from.
type row interface{ Scan(dest ...any) error }

// errand is a statement on its way.
type errand struct {
	query string
	args  []any
	// read takes a row of the answer; nil if there are none to look at.
	read func(row) error
	// done takes what the server called it in the end; nil if nobody asks.
	done func(tag string) error
	// part is joined to what goes wrong with it, unless that is the machine's trouble.
	part error
}

// Parts of a batch, for whom an error is to be blamed on.
var (
	errLane  = errors.New("lane")  // the lane's own statements
	errSends = errors.New("sends") // what the sends came to
)

// travels reports whether statements wait for one another.
func (w *writer) travels() bool { return w.store.dialect.travel != nil }

// send has e go with the next trip.
func (w *writer) send(e errand) {
	e.query, e.part = w.store.dialect.rebind(e.query), w.part
	w.waiting = append(w.waiting, e)
}

// travel sends what waits and reads all answers, in order. After an error the transaction can only be rolled back.
func (w *writer) travel() error {
	if len(w.waiting) == 0 {
		return nil
	}
	list := w.waiting
	w.waiting = nil
	w.trips++
	w.spoke = time.Now() // the server's silence may begin at once, however late its answer is read here
	return w.store.dialect.travel(w, list)
}

// answers travels if somebody needs the answer to anything that waits. What is only to be done goes with what comes after it, the
// commit at the latest.
func (w *writer) answers() error {
	if !slices.ContainsFunc(w.waiting, func(e errand) bool { return e.read != nil || e.done != nil }) {
		return nil
	}
	return w.travel()
}

// part has what the tx asks for and changes from now on belong to a part of the batch; nil is none in particular.
func (t *tx) part(of error) { t.w.part = of }

// later changes something with the next trip.
func (t *tx) later(query string, args ...any) error {
	if !t.w.travels() {
		_, err := t.exec(query, args...)
		return err
	}
	t.w.send(errand{query: query, args: args})
	return nil
}

// ask reads rows with the next trip.
func (t *tx) ask(read func(row) error, query string, args ...any) error {
	if t.w.travels() {
		t.w.send(errand{query: query, args: args, read: read})
		return nil
	}
	rows, err := t.rows(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := read(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
