package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rouse/ident"
	"rouse/messages"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// at is a moment of the tables below, in seconds.
func at(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }

func row(id ident.Node, joined, beat float64) messages.Node {
	return messages.Node{ID: id, JoinedAt: at(joined), BeatAt: at(beat)}
}

// hear takes in a beat that was sent, read and answered within 20 ms.
func (p *place) hear(s float64, rows ...messages.Node) (*view, bool) {
	if p.lost(at(s)) {
		*p = place{me: p.me}
	}
	rows = append(rows, row(p.me, s, s))
	return p.heard(beat{sent: at(s), answered: at(s + .02), now: at(s + .01), rows: rows})
}

func TestWhoIsHome(t *testing.T) {
	t.Parallel()
	me, other, third := ident.Node("node_b"), ident.Node("node_a"), ident.Node("node_c")
	for _, c := range []struct {
		name string
		// others are the rows of others at second 0, when the node joins, and at the beats after that.
		beats [][]messages.Node
		when  float64
		want  homes
	}{
		{"before its first beat", nil, 0, nil},
		{"after one beat it does not know whether it is alone", [][]messages.Node{{}}, .1, nil},
		{"alone it is home at once", [][]messages.Node{{}, {}}, .1, homes{me}},
		{"beside another it waits", [][]messages.Node{{row(other, -60, -1)}, {row(other, -60, -1)}, {row(other, -60, 1)}, {row(other, -60, 3)}}, 6.9, nil},
		{"and then they share", [][]messages.Node{{}, {row(other, -60, -1)}, {row(other, -60, 1)}, {row(other, -60, 3)}}, 7.1, homes{other, me}},
		{"one that came a millisecond before its second look is another", [][]messages.Node{{}, {row(other, 0, 0)}}, 3, nil},
		{"the dead are not counted", [][]messages.Node{{row(other, -60, -9)}, {row(other, -60, -9)}}, .1, homes{me}},
		{"one that joins later is yielded to when it is home", [][]messages.Node{{}, {}, {row(third, 1, 1)}}, 7.8, homes{me}},
		{"not before, but not after either", [][]messages.Node{{}, {}, {row(third, 1, 1)}}, 7.95, homes{me, third}},
		{"a row from the future is dead", [][]messages.Node{{row(other, 500, 500)}, {row(other, 500, 500)}}, .1, homes{me}},
		{"one that joined in the future is yielded to", [][]messages.Node{{}, {}, {row(other, 5, 5)}}, 2.1, homes{other, me}},
		{"without a beat for 6 s it holds nothing", [][]messages.Node{{}, {}}, 6.1, nil},
		{"a beat after that begins anew", [][]messages.Node{{}, {}, nil, nil, nil, {}}, 8.1, nil},
		{"and finds itself alone", [][]messages.Node{{}, {}, nil, nil, nil, {}, {}}, 10.1, homes{me}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := place{me: me}
			var v *view
			for i, rows := range c.beats {
				if rows == nil && i > 0 {
					continue // it was not heard
				}
				second := max(0, float64(2*i-2)) + .02*float64(min(i, 1)) // the second one follows at once
				v, _ = p.hear(second, rows...)
			}
			if got := v.homes(at(c.when)); !got.same(c.want) {
				t.Errorf("at %v s: %v, want %v", c.when, got, c.want)
			}
			owned := 0
			for i := range 100 {
				if v.mine(ident.Device(fmt.Sprint("dev_", i)), at(c.when)) {
					owned++
				}
			}
			// As many as there are homes share them; none that is not one has any.
			if want := 100 / max(1, len(c.want)); len(c.want) == 0 && owned > 0 || len(c.want) > 0 && (owned < want*2/3 || owned > want*4/3) {
				t.Errorf("it is home to %d of 100 devices", owned)
			}
		})
	}
}

// A process that was frozen, or a machine: whatever clock shows it, the node comes anew.
func TestANodeThatWasTakenForDeadJoinsAgain(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]beat{
		"frozen while it asked":                  {sent: at(5), answered: at(8.5), now: at(8.4)},
		"the machine was frozen, and its clocks": {sent: at(2), answered: at(2.1), now: at(30)},
	} {
		p := place{me: "node_a"}
		p.hear(0)
		p.hear(.02)
		v, again := p.heard(late)
		if v != nil || !again || !p.lost(late.answered) {
			t.Errorf("%s: view %+v, again %t, lost %t", name, v, again, p.lost(late.answered))
		}
	}
}

// All versions have to agree on who is home: a change here is one of the protocol.
func TestTheHashIsWhatItWas(t *testing.T) {
	t.Parallel()
	const want = uint64(13873172082193770122)
	if got := mix(hashOf(ident.Device("dev_06a1b2c3d4e5f6g7h8i9j0k1l2")) ^ hashOf(ident.Node("node_06a1b2c3d4e5f6g7h8i9j0k1l2"))); got != want {
		t.Errorf("the score is %d", got)
	}
}

// among is a view of nodes that are home for long.
func among(me ident.Node, all []ident.Node) *view {
	v := &view{me: member{id: me, hash: hashOf(me), from: at(0)}, until: at(100)}
	for _, id := range all {
		if id != me {
			v.others = append(v.others, member{id: id, hash: hashOf(id), from: at(0)})
		}
	}
	return v
}

func TestANewNodeTakesItsShareAndNothingElseMoves(t *testing.T) {
	t.Parallel()
	const devices = 4000
	rapid.Check(t, func(t *rapid.T) {
		var nodes []ident.Node
		for i := range rapid.IntRange(1, 12).Draw(t, "nodes") {
			nodes = append(nodes, ident.Node(fmt.Sprint("node_", rapid.StringN(5, 26, -1).Draw(t, "id"), i)))
		}
		newcomer := ident.NewNode()
		grown := slices.Concat(nodes, []ident.Node{newcomer})
		homeOf := func(d ident.Device, all []ident.Node) (home ident.Node) {
			for _, n := range all {
				if among(n, all).mine(d, at(1)) {
					if home != "" {
						t.Fatalf("%s has two homes", d)
					}
					home = n
				}
			}
			if home == "" {
				t.Fatalf("%s has no home", d)
			}
			return home
		}
		moved := 0
		for i := range devices {
			d := ident.Device(fmt.Sprintf("dev_%026d", i))
			before, after := homeOf(d, nodes), homeOf(d, grown)
			if after == newcomer {
				moved++
			} else if after != before {
				t.Fatalf("%s moved from %s to %s", d, before, after)
			}
		}
		if share := float64(devices) / float64(len(grown)); float64(moved) < .7*share || float64(moved) > 1.3*share {
			t.Fatalf("%d of %d devices moved to one of %d nodes", moved, devices, len(grown))
		}
	})
}

func BenchmarkMine(b *testing.B) {
	c := New(Options{})
	v := among(c.me, []ident.Node{c.me, ident.NewNode(), ident.NewNode()})
	v.until = time.Now().Add(time.Hour)
	c.view.Store(v)
	d := ident.NewDevice()
	b.ReportAllocs()
	for b.Loop() {
		c.Mine(d)
	}
}
