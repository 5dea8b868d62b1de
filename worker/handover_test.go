package worker

import (
	"slices"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// handing is a page with the devices a, b and c, due in a minute, on its way.
func handing(now time.Time) *handover {
	var page []found
	for i, d := range []ident.Device{"a", "b", "c"} {
		page = append(page, found{due: messages.Due{Device: d, Class: messages.HighWake, Seq: messages.Seq(i + 1)}, at: now.Add(time.Minute)})
	}
	return newHandover(page, now)
}

func homeOf(mine ...ident.Device) func(ident.Device) bool {
	return func(d ident.Device) bool { return slices.Contains(mine, d) }
}

func named(list []found) (names string) {
	for _, f := range list {
		names += string(f.due.Device)
	}
	return names
}

// answer is what a's home says to what handing told.
func answer(h *handover, d ident.Device) messages.Hint {
	f := h.missing[d]
	return messages.Hint{Kind: messages.HintTaken, Device: d, Class: f.due.Class, Seq: f.due.Seq, Until: f.at.Add(time.Second)}
}

func TestAPageIsDoneWhenEachDeviceIsInAHomesMemory(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	h := handing(now)
	s := h.step(now, homeOf("a"), homePatience)
	if named(s.own) != "a" || len(s.tell) != 2 || s.done {
		t.Fatalf("first %+v: one is at home here, two are told", s)
	}
	if tell := s.tell[0]; tell.Kind != messages.HintDue || tell.Class != messages.HighWake || !tell.Until.Equal(now.Add(time.Minute)) {
		t.Errorf("told %+v", tell)
	}
	h.taken(answer(h, "b"))
	if s = h.step(now, homeOf("a"), homePatience); len(s.own)+len(s.tell) != 0 || s.done || !s.next.Equal(now.Add(tellEvery)) {
		t.Errorf("one is missing, and was told of just now: %+v", s)
	}
	if s = h.step(now.Add(tellEvery), homeOf("a"), homePatience); len(s.tell) != 1 || s.tell[0].Device != "c" {
		t.Errorf("told again %+v, want c", s.tell)
	}
	if s = h.step(now.Add(tellEvery), homeOf("a", "c"), homePatience); named(s.own) != "c" || !s.done {
		t.Errorf("its home is here now: %+v", s)
	}
}

func TestWhatNoHomeTakesIsTakenHere(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	h := handing(now)
	h.step(now, homeOf(), homePatience)
	h.taken(answer(h, "a"))
	told := 1
	for at := now; at.Before(now.Add(homePatience)); {
		s := h.step(at, homeOf(), homePatience)
		told += len(s.tell) / 2
		if s.done || len(s.fostered) > 0 {
			t.Fatalf("gave up after %s", at.Sub(now))
		}
		at = s.next
	}
	s := h.step(now.Add(homePatience), homeOf(), homePatience)
	if told != 10 || len(s.fostered) != 2 || len(s.tell) != 0 || !s.done {
		t.Errorf("told %d times, then %+v", told, s)
	}
	for _, f := range s.fostered {
		if !f.foster || !f.at.Equal(now.Add(time.Minute+fosterDelay)) {
			t.Errorf("%+v: a home that heard after all is to be first", f)
		}
	}
}

func TestOnlyAnAnswerToThisCallCounts(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	for name, change := range map[string]func(*messages.Hint){
		"another device":      func(t *messages.Hint) { t.Device = "d" },
		"another place":       func(t *messages.Hint) { t.Seq++ },
		"another class":       func(t *messages.Hint) { t.Class = messages.NormalWake },
		"another step":        func(t *messages.Hint) { t.Until = t.Until.Add(sameCall) },
		"one that is at once": func(t *messages.Hint) { t.Until = time.Time{} },
	} {
		h := handing(now)
		a := answer(h, "a")
		change(&a)
		if h.taken(a); len(h.missing) != 3 || h.answered {
			t.Errorf("%s was taken for an answer", name)
		}
	}
}

func TestABusThatIsAwayIsNotWaitedForAgainAndAgain(t *testing.T) {
	t.Parallel()
	var d desk
	now := time.Unix(1000, 0)
	patience := func() time.Duration {
		h, _ := d.begin(handing(now).page(), now)
		defer d.end(h)
		for at := now; ; {
			s := d.step(h, at, homeOf())
			if s.done {
				return at.Sub(now)
			}
			at = s.next
		}
	}
	for i, want := range []time.Duration{homePatience, deafPatience, deafPatience} {
		if got := patience(); got != want {
			t.Errorf("page %d: %s, want %s", i, got, want)
		}
	}
	others := d.taken([]messages.Hint{{Kind: messages.HintNew, Device: "x"}, {Kind: messages.HintTaken, Device: "x"}, {Kind: messages.HintIdle}})
	if got := patience(); got != homePatience || len(others) != 2 {
		t.Errorf("a home has answered: %s, want %s; other hints %+v", got, homePatience, others)
	}
	if len(d.open) != 0 {
		t.Errorf("%d pages are left on the desk", len(d.open))
	}
}

// page is what is missing.
func (h *handover) page() (list []found) {
	for _, f := range h.missing {
		list = append(list, f)
	}
	return list
}
