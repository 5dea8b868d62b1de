package worker

import (
	"sync"
	"time"

	"rouse/ident"
	"rouse/messages"
)

const (
	// tellEvery is how often a home is told of what it has not taken in yet: what was said, or its answer, may be lost.
	tellEvery = time.Second
	// homePatience is how long homes may take. What is left then the sweep takes in itself: two pushes are better than none.
	homePatience = 10 * time.Second
	// deafPatience is that while nobody answers anything: then it is not the homes that are away but the bus.
	deafPatience = 2 * time.Second
	// fosterDelay is how much later than its home the sweep calls a device that it has taken in: its home may have heard after
	// all, and then its push is in the store by then.
	fosterDelay = 5 * time.Second
)

// handover is a page of due devices on its way into the memories of their homes. It is pure: time and homes come in,
// decisions go out. The sweep's cursor may pass the page when nothing is missing.
type handover struct {
	missing  map[ident.Device]found
	began    time.Time
	tellAt   time.Time
	answered bool // by any home
}

func newHandover(page []found, now time.Time) *handover {
	h := &handover{missing: make(map[ident.Device]found, len(page)), began: now, tellAt: now}
	for _, f := range page {
		h.missing[f.due.Device] = f
	}
	return h
}

// step says what is to be done at now: own goes into this node's memory, fostered too though its home is elsewhere, and
// the homes of all others are told. What goes into memory is no longer missing. At next there is more to do, if no answer
// comes before.
func (h *handover) step(now time.Time, mine func(ident.Device) bool, patience time.Duration) (s handStep) {
	given := now.Sub(h.began) >= patience
	telling := !given && !now.Before(h.tellAt)
	for d, f := range h.missing {
		switch {
		case mine(d):
			s.own = append(s.own, f)
			delete(h.missing, d)
		case given:
			f.at, f.foster = later(f.at, now).Add(fosterDelay), true
			s.fostered = append(s.fostered, f)
			delete(h.missing, d)
		case telling:
			s.tell = append(s.tell, messages.Hint{Kind: messages.HintDue, Device: d, Class: f.due.Class, Seq: f.due.Seq, Until: f.at, Age: f.due.Age})
		}
	}
	if telling {
		h.tellAt = now.Add(tellEvery)
	}
	s.next = earlier(h.tellAt, h.began.Add(patience))
	s.done = len(h.missing) == 0
	return s
}

// handStep is what is to be done for a page.
type handStep struct {
	own, fostered []found
	tell          []messages.Hint
	next          time.Time
	done          bool
}

// taken notes a home's answer. One to what another step of the ladder handed over is none to this.
func (h *handover) taken(t messages.Hint) {
	f, known := h.missing[t.Device]
	if known && f.due.Class == t.Class && f.due.Seq == t.Seq && sameTime(f.at, t.Until) {
		delete(h.missing, t.Device)
		h.answered = true
	}
}

// sameTime reports whether two times to look at a device mean the same call; zero is at once.
func sameTime(a, b time.Time) bool {
	return a.IsZero() == b.IsZero() && a.Sub(b).Abs() < sameCall
}

// desk is where the homes' answers come in.
type desk struct {
	mu sync.Mutex
	// open are the pages under way, guarded by mu as they are; a token in the channel says that answers came.
	open map[*handover]chan struct{}
	// deaf is whether the last page that was given up had no answer at all. Guarded by mu.
	deaf bool
}

// begin puts a page on the desk, before anyone is told of it.
func (d *desk) begin(page []found, now time.Time) (*handover, <-chan struct{}) {
	h, answers := newHandover(page, now), make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[*handover]chan struct{}{}
	}
	d.open[h] = answers
	return h, answers
}

// step is the handover's.
func (d *desk) step(h *handover, now time.Time, mine func(ident.Device) bool) handStep {
	d.mu.Lock()
	defer d.mu.Unlock()
	patience := homePatience
	if d.deaf {
		patience = deafPatience
	}
	s := h.step(now, mine, patience)
	if len(s.fostered) > 0 && !h.answered {
		d.deaf = true
	}
	return s
}

func (d *desk) end(h *handover) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, h)
}

// taken notes the answers among the hints and returns the other hints.
func (d *desk) taken(hints []messages.Hint) (others []messages.Hint) {
	others = hints[:0]
	var answers []messages.Hint
	for _, t := range hints {
		if t.Kind == messages.HintTaken {
			answers = append(answers, t)
		} else {
			others = append(others, t)
		}
	}
	if len(answers) == 0 {
		return others
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deaf = false
	for h, signal := range d.open {
		for _, t := range answers {
			h.taken(t)
		}
		select {
		case signal <- struct{}{}:
		default:
		}
	}
	return others
}
