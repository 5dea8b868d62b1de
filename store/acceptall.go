package store

import (
	"context"
	"iter"

	"rouse/ident"
	"rouse/messages"
)

// AcceptAll accepts each message as Accept does, all in one commit, and returns what became of each, in their order: one that is
// refused hurts no other, and an inbox that the first of them filled refuses the next. The error is of all of them, and then none is
// stored: Unavailable "overloaded" and "storage_unavailable". Keep to messages.MaxBatch: others wait for the commit.
func (s *Store) AcceptAll(ctx context.Context, list []messages.Send) ([]messages.Verdict, error) {
	if len(list) == 0 {
		return nil, nil
	}
	o := &op{app: list[0].App, done: make(chan error, 1)}
	for _, m := range list {
		o.batch = append(o.batch, newAcceptance(m))
		o.bytes += sendBytes(m)
	}
	if err := s.write(ctx, "accept messages", o); err != nil {
		return nil, err
	}
	verdicts := make([]messages.Verdict, len(list))
	for i, a := range o.batch {
		verdicts[i] = messages.Verdict{Receipt: a.receipt, Err: a.err}
	}
	return verdicts, nil
}

func newAcceptance(m messages.Send) *acceptance {
	m.CreatedAt = fromMillis(millis(m.CreatedAt))
	return &acceptance{send: m}
}

// sendBytes is about what a send adds to a batch.
func sendBytes(m messages.Send) int {
	if m.To.User != "" && !m.Later() {
		return len(m.Data) + userSend
	}
	return len(m.Data)
}

// sending reports whether the op is one send, or several.
func (o *op) sending() bool { return o.send != nil || len(o.batch) > 0 }

// weight is how many places of a queue the op takes.
func (o *op) weight() int { return max(1, len(o.batch)) }

// sendsIn goes through the sends of ops.
func sendsIn(ops []*op) iter.Seq[*acceptance] {
	return func(yield func(*acceptance) bool) {
		for _, o := range ops {
			if o.send != nil && !yield(o.send) {
				return
			}
			for _, a := range o.batch {
				if !yield(a) {
					return
				}
			}
		}
	}
}

// goesTo names whose writer does a send: its device's, its user's, or, for whom the store does not look at, any.
func goesTo(m *messages.Send) string {
	switch {
	case m.To.Device != "":
		return string(m.To.Device)
	case m.To.User != "":
		return m.To.User
	}
	return string(m.ID)
}

// asksUser returns the user whose devices have to be known to decide m; none for what is stored for later.
func asksUser(m *messages.Send) (user userKey, asks bool) {
	return userKey{m.App, m.To.User}, m.To.User != "" && !m.Later()
}

// devicesIn are the devices that sends of ops name.
func devicesIn(ops []*op) (devices []ident.Device) {
	for a := range sendsIn(ops) {
		if d := a.send.To.Device; d != "" {
			devices = append(devices, d)
		}
	}
	return devices
}
