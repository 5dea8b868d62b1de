package bus

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestANodeIsHeardAsLongAsItSpeaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFar(nil)
		f.hear(payload(f.node, 1, false)) // itself
		f.hear("nothing that a node says")
		if n := f.Others(); n != 0 {
			t.Errorf("hears %d before anybody spoke", n)
		}
		f.hear(payload("a", 1, false))
		f.hear(payload("b", 1, false))
		<-time.After(voiceLife)
		f.hear(payload("b", 2, false))
		if n := f.Others(); n != 2 {
			t.Errorf("hears %d, want 2", n)
		}
		<-time.After(1)
		if n := f.Others(); n != 1 {
			t.Errorf("hears %d after a fell silent, want 1", n)
		}
	})
}

func TestHowManyAreHeardIsBounded(t *testing.T) {
	t.Parallel()
	v := newVoices()
	now := time.Now()
	for n := range 2 * nodeLimit {
		v.note(string(rune(n+1000)), now)
	}
	if n := v.count(now); n != nodeLimit {
		t.Errorf("remembers %d", n)
	}
}
