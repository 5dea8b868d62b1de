package bus

import (
	"context"
	"errors"
	"testing"

	"rouse/messages"
)

// Only what was told after a connection began to listen shows that something comes through it, also if it bears the number of
// something that could not be told before.
func TestWhatProvesThatAConnectionHears(t *testing.T) {
	t.Parallel()
	f := newFar(nil)
	var last string
	tell := func(err error) {
		f.out.add([]messages.Hint{hint(1)}, false)
		if got := f.flush(context.Background(), patience, notifyLimit, func(_ context.Context, payloads []string) error {
			last = payloads[0]
			if err != nil {
				f.echoes.begin() // in the middle of it
			}
			return err
		}); !errors.Is(got, err) {
			t.Fatalf("told with %v, want %v", got, err)
		}
	}
	proves := func(when string, want bool) {
		if got := f.echoes.proves(f.hear(last)); got != want {
			t.Errorf("%s: %t, want %t", when, got, want)
		}
	}
	tell(nil)
	f.echoes.begin()
	proves("one from before", false)
	tell(nil)
	proves("one from then", true)
	tell(errors.New("cut off"))
	tell(nil)
	proves("one with a number given again", true)
	last = "nothing that a node says"
	proves("nothing of its own", false)
}
