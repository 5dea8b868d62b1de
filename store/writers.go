package store

import (
	"rouse/fault"
	"rouse/ident"
)

// Which writer does what.

// newWriters makes n writers. Each owns the devices of its shards; the first also does what concerns none.
func (s *Store) newWriters(n, queue int) {
	room := newRoom(queue)
	for range n {
		s.writers = append(s.writers, &writer{store: s, queue: newQueue(room), lane: newLane(n), stmts: map[string]statement{}})
	}
}

// ownerOf returns the writer of a name's shard: no two writers of a node wait for each other's locks of one.
func (s *Store) ownerOf(name string) *writer { return s.writers[int(shardOf(name))%len(s.writers)] }

func (s *Store) laneOf(device ident.Device) *lane { return s.ownerOf(string(device)).lane }

// writerOf returns the writer that does o: that of its device, or of the user it is for.
func (s *Store) writerOf(o *op) *writer {
	switch {
	case o.send != nil:
		return s.ownerOf(goesTo(&o.send.send))
	case len(o.batch) > 0:
		return s.ownerOf(goesTo(&o.batch[0].send))
	case o.lands != "":
		return s.ownerOf(string(o.lands))
	case len(o.locks) > 0:
		return s.ownerOf(string(o.locks[0]))
	}
	return s.writers[0]
}

// queued is how many operations wait for all writers.
func (s *Store) queued() (n int) {
	for _, w := range s.writers {
		n += w.queue.len()
	}
	return n
}

// trouble is why a writer's last batch failed; nil if none did.
func (s *Store) trouble() *fault.Error {
	for _, w := range s.writers {
		if e := w.sick.Load(); e != nil {
			return e
		}
	}
	return nil
}
