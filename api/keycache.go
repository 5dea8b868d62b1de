package api

import (
	"context"
	"sync"
	"time"

	"rouse/ident"
	"rouse/tokens"
)

const (
	// keyLife is how long what was looked up is believed unasked. A revoked key may work for 5 s on a server that was not told: the
	// rest is for calls under way.
	keyLife = 4500 * time.Millisecond
	// keysKept bounds the cache of keys, and that of apps, at about 300 bytes each.
	keysKept = 10000
)

// keyCache spares the database a look-up for each call with a server key.
type keyCache = cache[ident.Key, tokens.Key]

func newKeyCache(lookup func(context.Context, ident.Key) (tokens.Key, error)) *keyCache {
	return newCache(lookup, keysKept)
}

// cache keeps what was looked up for keyLife.
type cache[K comparable, V any] struct {
	lookup func(context.Context, K) (V, error)
	most   int

	mu sync.Mutex
	// generation counts invalidations: what was looked up before one must not be kept after it.
	generation uint64          // guarded by mu
	byID       map[K]cached[V] // guarded by mu
}

type cached[V any] struct {
	value V
	until time.Time
}

// newCache makes a cache of at most so many values.
func newCache[K comparable, V any](lookup func(context.Context, K) (V, error), most int) *cache[K, V] {
	return &cache[K, V]{lookup: lookup, most: most, byID: map[K]cached[V]{}}
}

// get returns the value, at most keyLife old. Errors are the look-up's and are not kept.
func (c *cache[K, V]) get(ctx context.Context, id K, now time.Time) (V, error) {
	c.mu.Lock()
	hit, ok := c.byID[id]
	generation := c.generation
	c.mu.Unlock()
	if ok && now.Before(hit.until) {
		return hit.value, nil
	}
	value, err := c.lookup(ctx, id)
	if err != nil {
		var none V
		return none, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation {
		c.room(now)
		c.byID[id] = cached[V]{value: value, until: now.Add(keyLife)}
	}
	return value, nil
}

// room keeps the cache within its bound. It is called with mu held.
func (c *cache[K, V]) room(now time.Time) {
	if len(c.byID) < c.most {
		return
	}
	for id, k := range c.byID {
		if !now.Before(k.until) {
			delete(c.byID, id)
		}
	}
	if len(c.byID) >= c.most {
		clear(c.byID)
	}
}

// forget empties the cache: something was changed or deleted here.
func (c *cache[K, V]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	clear(c.byID)
}
