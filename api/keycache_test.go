package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"rouse/ident"
	"rouse/tokens"
)

func TestKeyCache(t *testing.T) {
	t.Parallel()
	lookups := 0
	var fail error
	c := newKeyCache(func(_ context.Context, id ident.Key) (tokens.Key, error) {
		lookups++
		return tokens.Key{ID: id}, fail
	})
	now := time.Now()
	get := func(id ident.Key) error {
		k, err := c.get(t.Context(), id, now)
		if err == nil && k.ID != id {
			t.Errorf("asked for %s, got %s", id, k.ID)
		}
		return err
	}
	expect := func(want int, what string) {
		t.Helper()
		if lookups != want {
			t.Errorf("%s: %d look-ups, want %d", what, lookups, want)
		}
	}
	_, _ = get("key_1"), get("key_1")
	expect(1, "the second time")
	now = now.Add(keyLife)
	_ = get("key_1")
	expect(2, "after its life")
	c.forget()
	_ = get("key_1")
	expect(3, "after an invalidation")
	fail = errors.New("no")
	for range 2 {
		if get("key_2") == nil {
			t.Error("the failure was swallowed")
		}
	}
	expect(5, "failures are not kept")
}

// TestKeyCacheForgetsWhatIsUnderWay: a key deleted while it is being looked up must not be kept.
func TestKeyCacheForgetsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	lookups := 0
	var c *keyCache
	c = newKeyCache(func(context.Context, ident.Key) (tokens.Key, error) {
		if lookups++; lookups == 1 {
			c.forget()
		}
		return tokens.Key{}, nil
	})
	for range 2 {
		if _, err := c.get(t.Context(), "key_1", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if lookups != 2 {
		t.Error("the revoked key is in the cache")
	}
}

func TestKeyCacheIsBounded(t *testing.T) {
	t.Parallel()
	c := newKeyCache(func(context.Context, ident.Key) (tokens.Key, error) { return tokens.Key{}, nil })
	for range 2*keysKept + 10 {
		if _, err := c.get(t.Context(), ident.NewKey(), time.Now()); err != nil || len(c.byID) > keysKept {
			t.Fatalf("%d keys, %v", len(c.byID), err)
		}
	}
}
