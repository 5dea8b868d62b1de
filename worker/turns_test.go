package worker

import (
	"cmp"
	"fmt"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// floor is turns at work: sends with so many devices left, stored as the turns say, each page in no time.
type floor struct {
	t     *testing.T
	turns turns
	now   time.Time
	left  map[ident.Message]int
	done  map[ident.Message]time.Time
	pages []messages.FanJob // in order
	jobs  []messages.FanJob
}

func newFloor(t *testing.T) *floor {
	return &floor{t: t, now: time.Unix(1_700_000_000, 0), left: map[ident.Message]int{}, done: map[ident.Message]time.Time{}}
}

// send begins a send to so many devices; at 0 a second it wakes nobody.
func (f *floor) send(app ident.App, name ident.Message, devices, aSecond int) {
	f.jobs = append(f.jobs, messages.FanJob{App: app, Message: name, Due: f.now, Rate: cmp.Or(aSecond, 1000), Wakes: aSecond > 0})
	f.left[name] = devices
	f.list()
}

func (f *floor) list() {
	var due []messages.FanJob
	for _, j := range f.jobs {
		if _, done := f.done[j.Message]; !done {
			due = append(due, j)
		}
	}
	f.turns.listed(due, false, f.now)
}

// run stores pages for d, each of which takes a while.
func (f *floor) run(d, each time.Duration) {
	for end := f.now.Add(d); f.now.Before(end); {
		turn, wait := f.turns.pick(f.now)
		if turn.job == nil {
			f.now = earlier(f.now.Add(wait), end)
			continue
		}
		id := turn.job.Message
		n := min(turn.limit, f.left[id])
		f.left[id] -= n
		f.pages = append(f.pages, turn.job.FanJob)
		if f.left[id] == 0 {
			f.done[id] = f.now
		}
		f.turns.stored(turn, messages.FanPage{Reached: n, Done: f.left[id] == 0}, f.now)
		f.now = f.now.Add(each)
	}
}

func TestAnAppsPaceIsKeptByAllItsSendsTogether(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		aSecond int
		each    time.Duration
	}{{1, 0}, {10, 0}, {2000, 0}, {2000, 20 * time.Millisecond}, {10_000, 20 * time.Millisecond}} {
		t.Run(fmt.Sprintf("%d a second, pages of %v", c.aSecond, c.each), func(t *testing.T) {
			t.Parallel()
			f := newFloor(t)
			whole := 1000 * c.aSecond
			f.send("a", "1", whole, c.aSecond)
			f.send("a", "2", whole, c.aSecond)
			f.run(20*time.Second, c.each)
			reached := 2*whole - f.left["1"] - f.left["2"]
			if want := 20 * c.aSecond; reached < want*95/100 || reached > want*105/100 {
				t.Errorf("%d devices in 20 s, want %d", reached, want)
			}
			if apart := f.left["1"] - f.left["2"]; apart > fanPage || apart < -fanPage {
				t.Errorf("%d and %d are left: two sends of an app take turns", f.left["1"], f.left["2"])
			}
		})
	}
}

// Small sends that come one after the other are paced like one that is as large: what was used is not forgotten between them.
func TestManySmallSendsArePaced(t *testing.T) {
	t.Parallel()
	f := newFloor(t)
	for i := range 2000 {
		f.send("a", ident.Message(fmt.Sprint(i)), 10, 1000)
		f.run(time.Millisecond, 0)
	}
	f.run(8*time.Second, 0)
	reached := 0
	for range f.done {
		reached += 10
	}
	if reached < 9500 || reached > 10_500 {
		t.Errorf("%d devices in 10 s, want 10000", reached)
	}
}

func TestASmallSendBehindAHugeOneIsSoonDone(t *testing.T) {
	t.Parallel()
	f := newFloor(t)
	f.send("a", "huge", 1_000_000, 2000)
	f.run(10*time.Second, 0)
	f.send("a", "small", 100, 2000)
	begun := f.now
	f.run(2*time.Second, 0)
	if took := f.done["small"].Sub(begun); took < 0 || took > time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAppsTakeTurns(t *testing.T) {
	t.Parallel()
	f := newFloor(t)
	for i := range 5 {
		f.send("greedy", ident.Message(fmt.Sprint(i)), 1_000_000, 0)
	}
	f.send("modest", "one", 1_000_000, 0)
	f.run(10*time.Second, 10*time.Millisecond)
	n := map[ident.App]int{}
	for _, p := range f.pages {
		n[p.App]++
	}
	if n["greedy"]-n["modest"] > 1 || n["modest"]-n["greedy"] > 1 {
		t.Errorf("pages %v: an app with five sends has no more turns than one with one", n)
	}
}

func TestWhatWakesNobodyIsNotPaced(t *testing.T) {
	t.Parallel()
	f := newFloor(t)
	f.send("a", "loud", 1_000_000, 1000)
	f.send("a", "soft", 100_000, 0)
	f.run(3*time.Second, 5*time.Millisecond)
	if took := f.done["soft"].Sub(time.Unix(1_700_000_000, 0)); took < 0 || took > 1200*time.Millisecond {
		t.Errorf("200 pages of 5 ms took %v", took)
	}
	if reached := 1_000_000 - f.left["loud"]; reached < 2800 || reached > 3400 {
		t.Errorf("%d devices were woken in 3 s beside it, want 3000", reached)
	}
}

func TestANewRateHoldsFromTheNextLookOn(t *testing.T) {
	t.Parallel()
	f := newFloor(t)
	f.send("a", "1", 1_000_000, 2000)
	f.run(5*time.Second, 0)
	f.jobs[0].Rate = 100
	f.list()
	before := f.left["1"]
	f.run(10*time.Second, 0)
	if reached := before - f.left["1"]; reached < 900 || reached > 1100 {
		t.Errorf("%d devices in 10 s, want 1000", reached)
	}
}

func TestASendThatFailsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	f := newFloor(t)
	f.send("a", "ill", 1000, 0)
	turn, _ := f.turns.pick(f.now)
	var waits []time.Duration
	for range 9 {
		waits = append(waits, turn.job.fail(f.now))
	}
	f.send("a", "well", 5000, 0)
	f.list() // what is known keeps its wait
	f.run(30*time.Second, 10*time.Millisecond)
	if f.left["well"] > 0 || f.left["ill"] != 1000 {
		t.Errorf("after 30 s %v is left", f.left)
	}
	if f.run(31*time.Second, 10*time.Millisecond); f.left["ill"] > 0 {
		t.Error("it is not tried again")
	}
	if waits[0] != time.Second || waits[1] != 2*time.Second || waits[8] != time.Minute {
		t.Errorf("waits %v", waits)
	}
}

// What has begun is asked once more: it has ended. An app with nothing left is forgotten when its pace is.
func TestWhatIsNotListedIsForgotten(t *testing.T) {
	t.Parallel()
	f := newFloor(t)
	f.send("a", "1", 1_000_000, 1000)
	f.run(time.Second, 0)
	f.turns.listed(nil, false, f.now)
	if jobs, _ := f.turns.state(f.now); jobs != 1 {
		t.Error("what has begun does not go on when the clock is put back")
	}
	turn, _ := f.turns.pick(f.now.Add(time.Second))
	if due := turn.job.Due; !turn.time(due.Add(-2*time.Hour)).Equal(due) || !turn.time(due.Add(time.Minute)).Equal(due.Add(time.Minute)) {
		t.Error("a page is not stored by a clock that was put back")
	}
	f.turns.stored(turn, messages.FanPage{Done: true}, f.now)
	if jobs, lag := f.turns.state(f.now); jobs != 0 || lag != 0 {
		t.Errorf("%d sends under way, %v behind", jobs, lag)
	}
	if len(f.turns.apps) != 1 {
		t.Error("its pace was forgotten at once: a new send would get a burst")
	}
	f.turns.listed(nil, false, f.now.Add(time.Minute))
	if len(f.turns.apps) != 0 {
		t.Error("the app is remembered for ever")
	}
}

func TestHowFarBehindIsTold(t *testing.T) {
	t.Parallel()
	f := newFloor(t)
	f.send("a", "1", 1_000_000, 2000)
	if _, lag := f.turns.state(f.now.Add(90 * time.Second)); lag != 90*time.Second {
		t.Errorf("%v behind, want 90 s: it is due and no page was stored", lag)
	}
	f.run(5*time.Second, 0)
	if _, lag := f.turns.state(f.now); lag > time.Second {
		t.Errorf("%v behind while pages are stored", lag)
	}
}

func TestAPageThatComesToNothingIsNotAskedAtOnceAgain(t *testing.T) {
	t.Parallel()
	f := newFloor(t)
	f.send("a", "1", 1_000_000, 2000)
	turn, _ := f.turns.pick(f.now)
	f.turns.stored(turn, messages.FanPage{}, f.now)
	if again, wait := f.turns.pick(f.now); again.job != nil || wait > fanGap {
		t.Errorf("%+v, wait %v", again, wait)
	}
}
