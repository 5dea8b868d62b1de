package testkit_test

import (
	"context"
	"slices"
	"testing"

	"rouse/internal/testkit"
	"rouse/messages"
)

// kept is a bus that remembers what it was given.
type kept []messages.Hint

func (k *kept) Hint(hints ...messages.Hint) { *k = append(*k, hints...) }

func (k *kept) Listen(context.Context, func([]messages.Hint, bool)) error { return nil }

func TestLossyDropsHalfBySeed(t *testing.T) {
	t.Parallel()
	drop := func(seed uint64) kept {
		var k kept
		l := testkit.NewLossy(&k, seed)
		for n := range messages.Seq(500) {
			l.Hint(messages.Hint{Seq: 2 * n}, messages.Hint{Seq: 2*n + 1})
		}
		return k
	}
	first := drop(1)
	if len(first) < 400 || len(first) > 600 {
		t.Errorf("kept %d of 1000", len(first))
	}
	if !slices.Equal(first, drop(1)) || slices.Equal(first, drop(2)) {
		t.Error("what is dropped does not depend on the seed alone")
	}
}
