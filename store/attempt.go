package store

import "errors"

// attempt does ops and the lane's entries in the transaction that has begun, and ends it. An op that
// fails before it wrote anything keeps its error in o.err and hurts nobody. On an error everything was rolled back:
// culprits are the ops to be done alone; none means that the trouble is not theirs.
func (w *writer) attempt(t *tx, ops []*op) (culprits []*op, err error) {
	defer func() {
		if err != nil {
			w.rollback()
		}
	}()
	if err := t.lockAll(ops); err != nil {
		return nil, err
	}
	if len(ops) > 0 {
		if err := t.askEventTypes(); err != nil {
			return nil, err
		}
	}
	merged, culprits, err := w.do(t, ops)
	if err == nil {
		culprits, err = t.together(merged)
	}
	if err == nil {
		culprits, err = ops, t.finish()
	}
	if err != nil {
		return w.blame(err, ops, culprits)
	}
	w.lane.land()
	if err = w.store.dialect.commit(w); err == nil {
		return nil, nil
	}
	if w.lostConnection(err) && !errors.Is(err, errBeforeCommit) {
		return nil, errors.Join(errUnsure, err)
	}
	if w.trips == 0 { // nothing travelled: it was the commit that failed
		return nil, err
	}
	return w.blame(err, ops, ops)
}

// finish does what is left once all ops are done: the lane, what was added up.
func (t *tx) finish() error {
	t.part(errLane)
	if err := t.landLane(); err != nil {
		if t.w.store.dialect.storageTrouble(err) {
			return err
		}
		return errors.Join(errLane, err)
	}
	t.part(nil)
	if t.w.sick.Load() != nil {
		if err := t.touch(); err != nil {
			return err
		}
	}
	return t.flush()
}

// blame returns who is to be done alone after err: the culprits, unless it says itself whose fault it is.
func (w *writer) blame(err error, ops, culprits []*op) ([]*op, error) {
	switch {
	case errors.Is(err, errLane):
		return nil, err
	case errors.Is(err, errSends):
		return blamed(sendsOf(ops), err), err
	case len(ops) == 0 && !w.store.dialect.storageTrouble(err):
		return nil, errors.Join(errLane, err)
	}
	return culprits, err
}

func sendsOf(ops []*op) (sends []*op) {
	for _, o := range ops {
		if o.sending() {
			sends = append(sends, o)
		}
	}
	return sends
}

// merged are the ops of a batch that are done together, with few statements for all.
type merged struct {
	sends, acks []*op
}

// together does what is merged: first everything is read that deciding needs, then all is decided. Errors are those of attempt.
func (t *tx) together(m merged) (culprits []*op, err error) {
	last, err := t.ackWaves(m.acks)
	if err != nil {
		return m.acks, err
	}
	if err := t.askAcks(last); err != nil {
		return m.acks, err
	}
	t.part(errSends)
	p := t.newPlan(len(m.sends))
	if err := p.ask(m.sends); err != nil {
		return m.sends, err
	}
	t.part(errLane)
	if err := t.askLane(); err != nil {
		return nil, errors.Join(errLane, err)
	}
	t.part(nil)
	if err := t.w.answers(); err != nil {
		return m.acks, err
	}
	if culprit, err := t.settleAcks(last); err != nil {
		return culprit, err
	}
	t.part(errSends)
	if err := p.settle(m.sends); err != nil {
		return blamed(m.sends, err), err
	}
	t.part(nil)
	return nil, nil
}

// do runs the ops that are done one by one and returns the others. Errors are those of attempt.
func (w *writer) do(t *tx, ops []*op) (m merged, culprits []*op, err error) {
	for _, o := range ops {
		if o.sending() {
			m.sends = append(m.sends, o)
			continue
		}
		if o.ack != nil && w.travels() {
			m.acks = append(m.acks, o)
			continue
		}
		before := t.writes
		if o.err = o.do(t); o.err == nil {
			continue
		}
		if w.store.dialect.storageTrouble(o.err) || w.lostConnection(o.err) {
			return merged{}, nil, o.err
		}
		if t.writes != before || w.store.dialect.spoils(o.err) {
			return merged{}, []*op{o}, o.err
		}
	}
	return m, nil, nil
}
