package store

import (
	"testing"

	"rouse/ident"
)

func TestAFloodOfOneAppLeavesTheOthersTheirTurnAndTheirRoom(t *testing.T) {
	t.Parallel()
	q := newQueue(100)
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
	if q.pop() != nil || q.len() != 0 || len(q.lines) != 0 || len(q.turn) != 0 {
		t.Error("an empty queue holds something")
	}
}

func TestALineKeepsItsOrder(t *testing.T) {
	t.Parallel()
	q := newQueue(100)
	var want [2][]*op
	for n := range 40 {
		o := &op{app: ident.App([]string{"a", "b"}[n%2])}
		want[n%2] = append(want[n%2], o)
		if !q.push(o) {
			t.Fatal("no room")
		}
	}
	for n := range 40 {
		if o := q.pop(); o != want[n%2][n/2] {
			t.Fatalf("operation %d is out of its turn", n)
		}
	}
}
