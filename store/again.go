package store

import (
	"errors"
	"slices"
	"time"
)

// What is done again, and what never is.

// maxTries is how often a batch is done that another transaction or a lost connection took back.
const maxTries = 4

func (w *writer) retryAlone(o *op) {
	var err error
	for range maxTries {
		started := time.Now()
		if err = w.begin(); err != nil {
			break
		}
		t := newTx(w, nil)
		if _, err = w.attempt(t, []*op{o}); err == nil {
			w.committed([]*op{o}, t, started)
			return
		}
		if !w.again(err) && !w.mayPass(err) {
			break
		}
	}
	if w.store.dialect.storageTrouble(err) || w.lostConnection(err) {
		w.failed([]*op{o}, err)
		return
	}
	o.done <- err
}

// again reports whether a whole batch is to be done again after err: it met another transaction, or its connection broke
// before it was asked to commit.
func (w *writer) again(err error) bool {
	d := w.store.dialect
	if !d.shared || errors.Is(err, errUnsure) {
		return false
	}
	return d.raced(err) && d.storageTrouble(err) || w.lostConnection(err)
}

// mayPass reports whether an op that failed with err may fare better when it is done again: another node has just written what
// it was about to write.
func (w *writer) mayPass(err error) bool {
	return errors.As(err, new(takenError)) || w.store.dialect.raced(err)
}

// errUnsure marks a commit whose answer was lost: it may have been done, and is not done again. Its callers are asked to come
// again; an Idempotency-Key makes that safe.
var errUnsure = errors.New("the answer to a commit was lost")

// blamed returns the sends that err is the fault of: all of them, if it does not say.
func blamed(sends []*op, err error) []*op {
	var taken takenError
	if !errors.As(err, &taken) {
		return sends
	}
	return slices.DeleteFunc(slices.Clone(sends), func(o *op) bool {
		for a := range sendsIn([]*op{o}) {
			if (replayKey{a.send.App, a.send.Idempotency.Key}) == taken.at {
				return false
			}
		}
		return true
	})
}
