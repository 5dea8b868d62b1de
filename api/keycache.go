package api

import (
	"context"
	"sync"
	"time"

	"rouse/ident"
	"rouse/tokens"
)

const (
	// keyLife is how long a key is believed unasked. A revoked one may work for 5 s on a server that was not told: the rest is for
	// calls under way.
	keyLife = 4500 * time.Millisecond
	// keysKept bounds the cache, at about 300 bytes each.
	keysKept = 10000
)

// keyCache spares the database a look-up for each call with a server key.
type keyCache struct {
	lookup func(context.Context, ident.Key) (tokens.Key, error)

	mu sync.Mutex
	// generation counts invalidations: what was looked up before one must not be kept after it.
	generation uint64                  // guarded by mu
	byID       map[ident.Key]cachedKey // guarded by mu
}

type cachedKey struct {
	key   tokens.Key
	until time.Time
}

func newKeyCache(lookup func(context.Context, ident.Key) (tokens.Key, error)) *keyCache {
	return &keyCache{lookup: lookup, byID: map[ident.Key]cachedKey{}}
}

// get returns the key, at most keyLife old. Errors are the look-up's and are not kept.
func (c *keyCache) get(ctx context.Context, id ident.Key, now time.Time) (tokens.Key, error) {
	c.mu.Lock()
	hit, ok := c.byID[id]
	generation := c.generation
	c.mu.Unlock()
	if ok && now.Before(hit.until) {
		return hit.key, nil
	}
	key, err := c.lookup(ctx, id)
	if err != nil {
		return tokens.Key{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation {
		c.room(now)
		c.byID[id] = cachedKey{key: key, until: now.Add(keyLife)}
	}
	return key, nil
}

// room keeps the cache within its bound. It is called with mu held.
func (c *keyCache) room(now time.Time) {
	if len(c.byID) < keysKept {
		return
	}
	for id, k := range c.byID {
		if !now.Before(k.until) {
			delete(c.byID, id)
		}
	}
	if len(c.byID) >= keysKept {
		clear(c.byID)
	}
}

// forget empties the cache: a key or an app was deleted here.
func (c *keyCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	clear(c.byID)
}
