package bus

import (
	"context"
	"testing"
	"testing/synctest"

	"rouse/ident"
	"rouse/messages"
)

func hint(n int) messages.Hint {
	return messages.Hint{Kind: messages.HintNew, Device: "dev_x", Seq: messages.Seq(n)}
}

// received runs a listener on b; stop ends it, and what it heard may be read then: lost is how often it was told that hints are, after
// the beginning.
func received(b *Memory) (heard *[]messages.Hint, lost *int, stop func()) {
	heard, lost = new([]messages.Hint), new(int)
	*lost = -1
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = b.Listen(ctx, func(hints []messages.Hint, missing bool) {
			*heard = append(*heard, hints...)
			if missing {
				*lost++
			}
		})
	}()
	synctest.Wait()
	return heard, lost, func() { cancel(); <-ended }
}

func TestEveryListenerHearsEveryHintInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Memory
		first, _, stopFirst := received(&b)
		second, _, stopSecond := received(&b)
		for n := range 1000 {
			b.Hint(hint(2*n), hint(2*n+1))
		}
		synctest.Wait()
		stopFirst()
		stopSecond()
		for _, heard := range []*[]messages.Hint{first, second} {
			if len(*heard) != 2000 {
				t.Fatalf("heard %d hints, want 2000", len(*heard))
			}
			for i, h := range *heard {
				if h.Seq != messages.Seq(i) {
					t.Fatalf("hint %d is %d", i, h.Seq)
				}
			}
		}
	})
}

func TestASlowListenerIsToldThatHintsAreLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Memory
		ctx, cancel := context.WithCancel(t.Context())
		block, busy := make(chan struct{}), make(chan struct{})
		lost := false
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			first := true
			_ = b.Listen(ctx, func(_ []messages.Hint, missing bool) {
				if first {
					first = false
					close(busy)
					<-block
					return
				}
				lost = lost || missing
			})
		}()
		synctest.Wait()
		b.Hint(hint(0))
		<-busy
		for n := range queueLimit + 1 {
			b.Hint(hint(n))
		}
		close(block)
		synctest.Wait()
		cancel()
		<-ended
		if !lost {
			t.Error("more hints than the queue holds, and the listener was not told that some are missing")
		}
	})
}

func TestAListenerThatLeftHearsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Memory
		heard, _, stop := received(&b)
		stop()
		b.Hint(hint(1))
		synctest.Wait()
		if len(*heard) != 0 || len(b.listeners) != 0 {
			t.Errorf("heard %d hints after leaving, %d listeners remain", len(*heard), len(b.listeners))
		}
	})
}

func TestHintWithoutListenersIsHarmless(t *testing.T) {
	t.Parallel()
	var b Memory
	b.Hint(messages.Hint{Kind: messages.HintGone, Device: ident.NewDevice()})
}
