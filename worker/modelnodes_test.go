package worker

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"rouse/messages"
)

// The model of two nodes: one phone whose home may move or die at any point, a sweep on one of them that hands over by hints,
// and a bus that may lose any hint. The sweep has one step and passes each message once; the later steps of
// the ladder, which would find what was forgotten, are left out. So whatever a home forgets, or is not told, has to be
// found by another rule, or a message lies there and no wake will ever come for it.

// broken names rules that are left out, to show that the walk finds what follows.
type broken struct {
	hasty bool // the cursor moves once the home was told, not once it has answered
	lying bool // a home answers before it has become it
	young bool // an heir looks only behind the sweep's cursor
	blind bool // an heir looks at nothing
	late  bool // a push stands for what is there when it is answered, not when it began
}

// misfortunes bounds what may happen from outside.
type misfortunes struct{ inserts, moves, deaths, losses, failures int }

// aNode is one node's memory of the phone and its work for it.
type aNode struct {
	m                          *marks
	dead, owes                 bool            // owes: it has to look into the store, because homes have changed
	hints                      []messages.Hint // on their way to it
	looking, pushing, answered bool
	captured, lane             messages.Seq // lane is what its pushes stood for and the store does not show others yet
}

// pair is one state of the model.
type pair struct {
	now      time.Time
	rules    broken
	left     misfortunes
	node     [2]aNode
	home     int // which node is home to the phone
	sweeper  int
	cursor   messages.Seq
	handing  messages.Seq // what the sweep is handing over; 0 for nothing
	inserted messages.Seq

	acked, seen, woken messages.Seq
	rung               bool
	page               messages.Seq
}

func newPair(left misfortunes, rules broken) *pair {
	p := &pair{now: time.Unix(1_000_000, 0), rules: rules, left: left, sweeper: 1}
	for i := range p.node {
		p.node[i].m = &marks{}
	}
	return p
}

func (p *pair) done() bool { return p.inserted == p.acked }

// over reports whether nothing can become of the state but what is done.
func (p *pair) over() bool { return p.done() && p.left.inserts == 0 }

func (p *pair) clone() *pair {
	c := *p
	for i := range c.node {
		c.node[i].m = p.node[i].m.clone().(*marks)
		c.node[i].hints = append([]messages.Hint(nil), p.node[i].hints...)
	}
	return &c
}

func (p *pair) key() string {
	parts := []int64{
		int64(p.left.inserts), int64(p.left.moves), int64(p.left.deaths), int64(p.left.losses), int64(p.left.failures), int64(p.home), int64(p.sweeper),
		int64(p.cursor), int64(p.handing), int64(p.inserted), int64(p.acked), int64(p.seen), int64(p.woken), truth(p.rung), int64(p.page),
	}
	k := ""
	for i := range p.node {
		n := &p.node[i]
		parts = append(parts, truth(n.dead), truth(n.owes), truth(n.looking), truth(n.pushing), truth(n.answered), int64(n.captured), int64(n.lane), int64(len(n.hints)))
		for _, h := range n.hints {
			parts = append(parts, int64(h.Kind), int64(h.Seq))
		}
		parts = append(parts, age(n.m.s.tried, p.now))
		for _, r := range n.m.s.rungs {
			parts = append(parts, age(r, p.now))
		}
		k += n.m.key(p.now)
	}
	return packed(parts...) + k
}

// tell sends a hint to every node that lives and is home to the phone, or may yet be.
func (p *pair) tell(kind messages.HintKind, seq messages.Seq) {
	for i := range p.node {
		if n := &p.node[i]; !n.dead && (i == p.home || p.left.moves+p.left.deaths > 0) {
			n.sent(messages.Hint{Kind: kind, Seq: seq})
		}
	}
}

// sent puts a hint on its way. They come in any order, so they are kept in one; one that is the same as another adds nothing.
func (n *aNode) sent(h messages.Hint) {
	i, known := slices.BinarySearchFunc(n.hints, h, func(a, b messages.Hint) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Seq, b.Seq))
	})
	if !known {
		n.hints = slices.Insert(n.hints, i, h)
	}
}

func (p *pair) outside() []*pair {
	if p.over() {
		return nil
	}
	var all []*pair
	add := func(change func(*pair)) { c := p.clone(); change(c); all = append(all, c) }
	if p.left.inserts > 0 {
		add(func(c *pair) { c.left.inserts--; c.inserted++; c.tell(messages.HintNew, c.inserted) })
	}
	if p.left.moves > 0 && !p.node[1-p.home].dead {
		add(func(c *pair) { c.left.moves--; c.move() })
	}
	for i := range p.node {
		if p.left.deaths > 0 && !p.node[0].dead && !p.node[1].dead {
			add(func(c *pair) { c.left.deaths--; c.die(i) })
		}
		for j := range p.node[i].hints {
			if p.left.losses > 0 {
				add(func(c *pair) { c.left.losses--; c.take(i, j) })
			}
		}
	}
	return all
}

// move makes the other node home: the old one forgets what is not under way, the new one has to look.
func (p *pair) move() {
	old := &p.node[p.home]
	if !old.looking && !old.pushing {
		old.m = &marks{}
	}
	if p.left.moves+p.left.deaths == 0 { // it will not be home again
		old.hints = slices.DeleteFunc(old.hints, func(h messages.Hint) bool { return h.Kind != messages.HintTaken })
	}
	p.home = 1 - p.home
	p.node[p.home].owes = true
}

// die kills a node: its memory, its hints, what it had not recorded. A push under way may have reached the phone already.
func (p *pair) die(i int) {
	p.node[i] = aNode{m: &marks{}, dead: true}
	if p.home == i {
		p.home = 1 - i
		p.node[p.home].owes = true
	}
	if p.sweeper == i {
		p.sweeper, p.handing = 1-i, 0
	}
}

// take takes a hint off its way.
func (p *pair) take(i, j int) messages.Hint {
	n := &p.node[i]
	h := n.hints[j]
	n.hints = append(n.hints[:j:j], n.hints[j+1:]...)
	return h
}

func (p *pair) inside() []*pair {
	if p.over() {
		return nil
	}
	var all []*pair
	add := func(change func(*pair)) { c := p.clone(); change(c); all = append(all, c) }
	for i := range p.node {
		n := &p.node[i]
		for j := range n.hints {
			add(func(c *pair) { c.deliver(i, j) })
		}
		if n.owes {
			add(func(c *pair) { c.inherit(i) })
		}
		if n.lane > 0 {
			add(func(c *pair) { c.woken, c.node[i].lane = max(c.woken, c.node[i].lane), 0 })
		}
		p.work(i, add)
	}
	switch {
	case p.handing == 0 && p.cursor < p.inserted:
		add(func(c *pair) { c.handing = c.inserted })
	case p.handing != 0 && !p.telling():
		add(func(c *pair) { c.handOver() })
	}
	if p.rung {
		add(func(c *pair) { c.fetch() })
	}
	if p.page > 0 {
		add(func(c *pair) { c.ack() })
	}
	return all
}

// telling reports whether a hand-over or its answer is on its way.
func (p *pair) telling() bool {
	for i := range p.node {
		for _, h := range p.node[i].hints {
			if h.Kind == messages.HintDue || h.Kind == messages.HintTaken {
				return true
			}
		}
	}
	return false
}

// handOver gives what the sweep found to the home: at once to its own memory, else by a hint, as often as it takes.
func (p *pair) handOver() {
	switch {
	case p.handing <= p.acked:
		p.moveCursor(p.handing)
	case p.home == p.sweeper:
		p.climb(p.home, p.handing)
		p.moveCursor(p.handing)
	default:
		p.node[p.home].sent(messages.Hint{Kind: messages.HintDue, Seq: p.handing})
		if p.rules.lying { // who is not home hears it as well
			p.node[p.sweeper].sent(messages.Hint{Kind: messages.HintDue, Seq: p.handing})
		}
		if p.rules.hasty {
			p.moveCursor(p.handing)
		}
	}
}

func (p *pair) moveCursor(to messages.Seq) { p.cursor, p.handing = max(p.cursor, to), 0 }

func (p *pair) climb(i int, seq messages.Seq) {
	p.node[i].m.s.climb(messages.Due{Class: messages.HighWake, Seq: seq}, p.now, p.now)
}

func (p *pair) deliver(i, j int) {
	h := p.take(i, j)
	m, mine := p.node[i].m, p.home == i
	switch {
	case h.Kind == messages.HintTaken:
		if i == p.sweeper && h.Seq == p.handing {
			p.moveCursor(h.Seq)
		}
	case h.Kind == messages.HintDue && (mine || p.rules.lying):
		if mine {
			p.climb(i, h.Seq)
		}
		if s := &p.node[p.sweeper]; !s.dead {
			s.sent(messages.Hint{Kind: messages.HintTaken, Seq: h.Seq})
		}
	case !mine:
	case h.Kind == messages.HintNew:
		m.arrived(h.Seq, p.now)
	case h.Kind == messages.HintServed:
		m.served(h.Seq, p.now)
	case h.Kind == messages.HintAcked:
		m.acked(h.Seq, p.now)
	}
}

// inherit looks into the store after homes have changed: at what the sweep has not passed, and at what no push stands for.
func (p *pair) inherit(i int) {
	p.node[i].owes = false
	found := p.inserted > p.cursor || p.inserted > p.woken && !p.rules.young
	if i == p.home && p.inserted > p.acked && found && !p.rules.blind {
		p.node[i].m.arrived(p.inserted, p.now)
	}
}

// work is what a node may do next for the phone.
func (p *pair) work(i int, add func(func(*pair))) {
	n := &p.node[i]
	at, due := n.m.next()
	switch {
	case n.looking:
		add(func(c *pair) { c.look(i) })
	case n.pushing && !n.answered:
		add(func(c *pair) { c.rung, c.node[i].answered = true, true })
		if p.left.failures > 0 {
			add(func(c *pair) { c.left.failures--; c.back(i, (*marks).failed) })
		}
	case n.pushing:
		add(func(c *pair) { c.answer(i) })
	case due && !at.After(p.now):
		add(func(c *pair) { c.node[i].looking = true; c.node[i].m.begin() })
	case due:
		add(func(c *pair) { c.now = at })
	}
}

func (p *pair) look(i int) {
	n := &p.node[i]
	n.looking = false
	woken := max(p.woken, n.lane)
	waiting := messages.Waiting{Seen: p.seen, Woken: messages.Marks{High: woken, Normal: woken}}
	if p.inserted > p.acked {
		waiting.Head.High = p.inserted
	}
	n.captured = p.inserted
	if n.pushing = n.m.look(waiting, p.now) && i == p.home; !n.pushing && i != p.home {
		n.m = &marks{}
	}
}

// answer brings back that the provider took a push.
func (p *pair) answer(i int) {
	n := &p.node[i]
	n.lane = max(n.lane, n.captured)
	if p.rules.late {
		n.lane, n.m.s.captured.High = p.inserted, p.inserted
	}
	p.back(i, (*marks).accepted)
}

// back ends a push. A node that is home no longer forgets.
func (p *pair) back(i int, with func(*marks, time.Time)) {
	n := &p.node[i]
	n.pushing, n.answered = false, false
	if with(n.m, p.now); i != p.home {
		n.m = &marks{}
	}
}

func (p *pair) fetch() {
	p.rung = false
	if p.inserted > p.acked {
		p.page, p.seen = p.inserted, p.inserted
		p.tell(messages.HintServed, p.inserted)
	}
}

func (p *pair) ack() {
	p.acked, p.seen = max(p.acked, p.page), max(p.seen, p.page)
	p.tell(messages.HintAcked, p.page)
	p.page = 0
}

func TestTwoNodesLoseNoWakeBetweenThem(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]misfortunes{
		"hints that are lost":       {inserts: 1, losses: 4},
		"a home that moves":         {inserts: 1, moves: 1},
		"a death and a lost hint":   {inserts: 1, deaths: 1, losses: 1},
		"a death and a failed push": {inserts: 1, deaths: 1, failures: 1},
		"two messages":              {inserts: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			states, stuck := walkFrom(newPair(b, broken{}))
			if states < 1000 {
				t.Errorf("the walk saw only %d states: it does not enumerate the interleavings", states)
			}
			for _, p := range stuck[:min(len(stuck), 3)] {
				t.Errorf("no wake will come: %+v with %+v and %+v", *p, p.node[0].m.s, p.node[1].m.s)
			}
			t.Logf("%d states, %d of them stuck", states, len(stuck))
		})
	}
}

// Each rule is needed: without it the walk finds messages that nobody will ever call for.
func TestTheRulesBetweenNodesAreNeeded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		misfortunes
		broken
	}{
		"a cursor that does not wait for answers": {misfortunes{inserts: 1, losses: 2}, broken{hasty: true}},
		"a node that answers for another's phone": {misfortunes{inserts: 1, losses: 2}, broken{lying: true}},
		"an heir that looks at what is young":     {misfortunes{inserts: 1, deaths: 1, losses: 1}, broken{young: true}},
		"an heir that does not look":              {misfortunes{inserts: 1, deaths: 1, losses: 1}, broken{blind: true}},
		"a push that stands for what came after":  {misfortunes{inserts: 2}, broken{late: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			states, stuck := walkFrom(newPair(c.misfortunes, c.broken))
			if len(stuck) == 0 {
				t.Errorf("the walk over %d states found nothing wrong; it proves nothing", states)
			}
			t.Logf("%d states, %d of them stuck", states, len(stuck))
		})
	}
}
