package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

// RotateKey stores next, which gets the kind, name, scopes and rate of old, and returns it as it is stored; next says its app. old ends at until,
// if not before. NotFound "key_not_found", for a key that has ended by the time next was made as well: a key that nobody holds any more
// has no successor.
func (s *Store) RotateKey(ctx context.Context, old ident.Key, next tokens.Key, until time.Time) (tokens.Key, error) {
	err := s.write(ctx, "rotate a key", newOp(func(t *tx) error {
		if _, err := t.needApp(next.App); err != nil {
			return err
		}
		before, err := t.keyOf(next.App, old)
		if err != nil {
			return err
		}
		if !before.Live(next.CreatedAt) {
			return fault.New(fault.NotFound, "key_not_found", "this key has expired; create a new one instead")
		}
		next.Kind, next.Name, next.Scopes, next.Rate = before.Kind, before.Name, before.Scopes, before.Rate
		if before.ExpiresAt.IsZero() || until.Before(before.ExpiresAt) {
			before.ExpiresAt = until
		}
		if _, err := t.exec("UPDATE keys SET expires_at = ? WHERE id = ?", millis(before.ExpiresAt), string(old)); err != nil {
			return fmt.Errorf("end a key: %w", err)
		}
		return t.insertKey(next)
	}))
	if err != nil {
		return tokens.Key{}, err
	}
	return next, nil
}

func (t *tx) keyOf(app ident.App, id ident.Key) (tokens.Key, error) {
	var r keyRow
	err := t.get(&r, selectKey, string(id))
	if errors.Is(err, sql.ErrNoRows) || err == nil && r.App != app {
		return tokens.Key{}, keyNotFound()
	}
	if err != nil {
		return tokens.Key{}, fmt.Errorf("read a key: %w", err)
	}
	return r.key()
}

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
