package store

import (
	"sync"
	"time"

	"rouse/ident"
)

const (
	// keyUseEvery is how often the use of one key is written at most.
	keyUseEvery = time.Minute
	// maxKeysUsed bounds the memory of when that was.
	maxKeysUsed = 1 << 16
)

// keyUses remembers when the use of a key was last passed on, in milliseconds.
type keyUses struct {
	mu   sync.Mutex
	last map[ident.Key]int64 // guarded by mu
}

// due reports whether a use is to be written, and takes it that it will be.
func (u *keyUses) due(key ident.Key, now int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	last, known := u.last[key]
	if ago := now - last; known && ago < keyUseEvery.Milliseconds() && ago > -keyUseEvery.Milliseconds() {
		return false
	}
	if u.last == nil || len(u.last) >= maxKeysUsed {
		u.last = map[ident.Key]int64{}
	}
	u.last[key] = now
	return true
}

// NoteKeyUse notes that a key was used. It never waits; it is written at most once a minute a key, and may be lost.
func (s *Store) NoteKeyUse(key ident.Key, now time.Time) {
	if !s.keyUses.due(key, millis(now)) {
		return
	}
	_ = s.enqueue(newOp(func(t *tx) error { // full or stopping: a later use tells it again
		_, err := t.exec(noteKeyUsed, millis(now), string(key))
		return err
	}))
}
