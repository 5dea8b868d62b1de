package bus

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rouse/messages"
)

var errRefused = errors.New("refused")

func payload(node string, number uint64, lost bool, hints ...messages.Hint) string {
	p, _ := batch{node: node, number: number, lost: lost, hints: hints}.encode(notifyLimit)
	return p
}

func TestABatchThatNeverCameIsToldAsLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		payloads []string
		lost     int
	}{
		"in order":               {[]string{payload("a", 5, false), payload("a", 6, false), payload("b", 9, false), payload("a", 7, false)}, 0},
		"one missing":            {[]string{payload("a", 5, false), payload("a", 7, false)}, 1},
		"told twice":             {[]string{payload("a", 5, false), payload("a", 6, false), payload("a", 6, false), payload("a", 7, false)}, 0},
		"the sender dropped":     {[]string{payload("a", 5, false), payload("a", 6, true)}, 1},
		"first heard of, and it": {[]string{payload("a", 5, true)}, 1},
		"of another version":     {[]string{payload("a", 5, false), "2 a 9", payload("a", 6, false)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFar(nil)
				_, lost, stop := received(&f.near)
				for _, p := range c.payloads {
					f.hear(p)
					synctest.Wait()
				}
				stop()
				if *lost != c.lost {
					t.Errorf("told %d times that hints are lost, want %d", *lost, c.lost)
				}
			})
		})
	}
}

func TestANodeDoesNotHearItselfTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(nil)
		heard, _, stop := received(&f.near)
		f.Hint(hint(1))
		payloads, _ := f.pack([]messages.Hint{hint(1)}, false, notifyLimit)
		if f.hear(payloads[0]) != 1 {
			t.Error("it did not know its own batch")
		}
		synctest.Wait()
		stop()
		if len(*heard) != 1 {
			t.Errorf("heard its hint %d times", len(*heard))
		}
	})
}

func TestAFlushThatFailsIsToldAgain(t *testing.T) {
	t.Parallel()
	f := newFar(nil)
	f.out.add([]messages.Hint{hint(1), hint(2)}, true)
	send := func(context.Context, []string) error { return errRefused }
	if err := f.flush(t.Context(), time.Minute, notifyLimit, send); !errors.Is(err, errRefused) {
		t.Fatalf("flush: %v", err)
	}
	f.Hint(hint(3))
	var got []batch
	send = func(_ context.Context, payloads []string) error {
		for _, p := range payloads {
			b, _ := decode(p)
			got = append(got, b)
		}
		return nil
	}
	if err := f.flush(t.Context(), time.Minute, notifyLimit, send); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].number != 1 || !got[0].lost || len(got[0].hints) != 3 {
		t.Errorf("told %+v", got)
	}
}

func TestASilentNodeShowsThatItIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*beatEvery+time.Second)
		defer cancel()
		told := 0
		err := f.tell(ctx, notifyLimit, func(_ context.Context, payloads []string) error { told += len(payloads); return nil })
		// The first at once, the last when it ends.
		if err != nil || told != 12 {
			t.Errorf("told %d batches: %v", told, err)
		}
	})
}

func TestWhatGatheredIsToldAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(nil)
		ctx, cancel := context.WithCancel(t.Context())
		told := 0
		_ = f.tell(ctx, notifyLimit, func(_ context.Context, payloads []string) error {
			if ctx.Err() == nil {
				cancel()
				f.Hint(hint(1))
			}
			b, _ := decode(payloads[0])
			told += len(b.hints)
			return nil
		})
		if told != 1 {
			t.Errorf("told %d hints", told)
		}
	})
}

func TestABrokenConnectionIsTriedAtMostEveryFewSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		tries := 0
		f.keep(ctx, "test", func(func()) error { tries++; return errRefused })
		if tries < 60/3 || tries > 70 {
			t.Errorf("%d tries in a minute", tries)
		}
	})
}
