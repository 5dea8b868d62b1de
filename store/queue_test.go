package store

import (
	"testing"

	"rouse/ident"
)

func TestAFloodOfOneAppLeavesTheOthersTheirTurnAndTheirRoom(t *testing.T) {
	t.Parallel()
	q := newQueue(newRoom(100))
	flood, others := ident.NewApp(), []ident.App{"", ident.NewApp(), ident.NewApp()}
	pushed := 0
	for q.push(&op{app: flood}) {
		pushed++
	}
	if pushed != 50 {
		t.Fatalf("one app took %d of 100 places, want half", pushed)
	}
	for _, app := range others {
		if !q.push(&op{app: app}) {
			t.Errorf("no room for %q beside the flood", app)
		}
	}
	served := map[ident.App]bool{}
	for range len(others) + 1 {
		served[q.pop().app] = true
	}
	if len(served) != len(others)+1 {
		t.Errorf("the first turn served %d lines, want every one of %d", len(served), len(others)+1)
	}
	for left := pushed - 1; left > 0; left-- {
		if o := q.pop(); o == nil || o.app != flood {
			t.Fatalf("%d of the flood's operations are gone", left)
		}
	}
	if q.pop() != nil || q.len() != 0 || len(q.lines) != 0 || len(q.turn) != 0 || len(q.others.ops) != 0 {
		t.Error("an empty queue holds something")
	}
}

// Acks and registrations are everybody's: however many apps send, every second turn is theirs.
func TestWhatIsNoSendHasEverySecondTurn(t *testing.T) {
	t.Parallel()
	const apps, sends, others, batch = 200, 10, 2000, 512
	q := newQueue(newRoom(8192))
	push := func(app ident.App, n int) {
		for range n {
			if !q.push(&op{app: app}) {
				t.Fatal("no room")
			}
		}
	}
	for range apps {
		push(ident.NewApp(), sends)
	}
	push("", others)
	take := func(n int) (noSends int, served map[ident.App]int) {
		served = map[ident.App]int{}
		for range n {
			if app := q.pop().app; app == "" {
				noSends++
			} else {
				served[app]++
			}
		}
		return noSends, served
	}
	n, served := take(batch)
	if n != batch/2 || len(served) != apps {
		t.Errorf("of the first %d, %d are no sends, and %d apps had their turn; want half, and all %d", batch, n, len(served), apps)
	}
	for app, n := range served {
		if n > 2 {
			t.Errorf("%s had %d turns of %d", app, n, batch/2)
		}
	}
	if n, _ = take(q.len()); n != others-batch/2 || q.pop() != nil {
		t.Errorf("%d that are no sends were left, want %d", n, others-batch/2)
	}
	push("", 3)
	if n, _ = take(3); n != 3 {
		t.Errorf("alone, %d of 3 are served", n)
	}
	push(ident.NewApp(), 3)
	if n, _ = take(3); n != 0 || q.pop() != nil {
		t.Error("the sends are not served alone")
	}
}

func TestALineKeepsItsOrder(t *testing.T) {
	t.Parallel()
	q := newQueue(newRoom(100))
	want := map[ident.App][]*op{}
	turns := []ident.App{"", "a", "", "b"} // of pop
	for n := range 40 {
		o := &op{app: turns[n%4]}
		want[o.app] = append(want[o.app], o)
		if !q.push(o) {
			t.Fatal("no room")
		}
	}
	for n := range 40 {
		app := turns[n%4]
		o := want[app][0]
		want[app] = want[app][1:]
		if q.pop() != o {
			t.Fatalf("operation %d is out of its turn", n)
		}
	}
}
