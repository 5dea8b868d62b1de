package bus

import "sync"

// echoes tells what this node hears of itself because its connection listens from what the connection was given before: a pooler in
// transaction mode passes on, with the answer to LISTEN, what its own connection to the server has heard for another.
type echoes struct {
	mu     sync.Mutex
	packed uint64 // the highest number that a batch was given, as all here guarded by mu
	before uint64 // what it was when the connection began to listen
}

// pack notes that the batch of that number is about to be told.
func (e *echoes) pack(number uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.packed = number
}

// takeBack notes that the batches after the number were not told, as far as is known: their numbers are given again.
func (e *echoes) takeBack(number uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.packed, e.before = number, min(e.before, number)
}

// begin notes that a connection listens from now on.
func (e *echoes) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.before = e.packed
}

// proves reports whether the batch of that number, heard, was told after the connection began to listen.
func (e *echoes) proves(number uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return number > e.before
}
