package sim

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// shelfTest drives one shelf with a clock of its own, and writes down what arrives.
type shelfTest struct {
	t     *testing.T
	shelf shelf
	now   time.Time
	state condition
}

func newShelfTest(t *testing.T, provider string) *shelfTest {
	t.Helper()
	return &shelfTest{t: t, shelf: newShelf(provider), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

// offer accepts a push; want names what arrives because of it.
func (s *shelfTest) offer(name, want string, p parcel) {
	s.t.Helper()
	p.Body = []byte(name)
	s.arrive("offering "+name, want, s.shelf.offer(s.now, s.state, p))
}

// after lets time pass, and says what arrives then.
func (s *shelfTest) after(d time.Duration, want string) {
	s.t.Helper()
	s.now = s.now.Add(d)
	s.arrive(fmt.Sprintf("after %v", d), want, s.shelf.due(s.now, s.state))
}

// turn changes the phone's condition, and says what arrives then.
func (s *shelfTest) turn(c condition, want string) {
	s.t.Helper()
	s.state = c
	s.arrive(fmt.Sprintf("turned %+v", c), want, s.shelf.due(s.now, s.state))
}

func (s *shelfTest) arrive(when, want string, got []Delivered) {
	s.t.Helper()
	var names []string
	for _, d := range got {
		name := string(d.Body)
		if d.Kind == KindDeleted {
			name = "NOTICE"
		}
		if d.Demoted {
			name += " demoted to " + d.Kind
		}
		names = append(names, name)
	}
	if strings.Join(names, ",") != want {
		s.t.Errorf("%s: %v arrived, want %q", when, names, want)
	}
}

func (s *shelfTest) sum(kept int, lost Lost) {
	s.t.Helper()
	if k, l := s.shelf.sum(); k != kept || l != lost {
		s.t.Errorf("kept %d, lost %+v; want %d, %+v", k, l, kept, lost)
	}
}

var (
	offline = condition{offline: true}
	dozing  = condition{dozing: true}
)

func TestAppleKeepsTheNewest(t *testing.T) {
	t.Parallel()
	s := newShelfTest(t, APNs)
	push := parcel{life: time.Hour}
	s.offer("a", "a", push)
	s.turn(offline, "")
	s.offer("b", "", push)
	s.offer("c", "", push)
	s.offer("now or never", "", parcel{})
	s.sum(1, Lost{Replaced: 1, NotStored: 1})
	s.turn(condition{}, "c")
	s.turn(offline, "")
	s.offer("d", "", push)
	s.after(time.Hour, "")
	s.turn(condition{}, "")
	s.sum(0, Lost{Replaced: 1, NotStored: 1, Expired: 1})
	s.turn(offline, "")
	s.offer("e", "", push)
	s.after(time.Hour-1, "")
	s.turn(condition{}, "e")
}

func TestAppleLimitsBackgroundPushes(t *testing.T) {
	t.Parallel()
	s := newShelfTest(t, APNs)
	push := parcel{life: 24 * time.Hour, background: true}
	for _, name := range []string{"a", "b", "c"} {
		s.offer(name, name, push)
		s.after(10*time.Minute, "")
	}
	s.offer("d", "", push)
	s.offer("e", "", push)
	s.offer("alert", "alert", parcel{life: time.Hour})
	s.sum(1, Lost{Replaced: 1})
	if want := s.now.Add(30 * time.Minute); !s.shelf.next(s.state).Equal(want) {
		t.Errorf("next %v, want an hour after the first: %v", s.shelf.next(s.state), want)
	}
	s.after(30*time.Minute-1, "")
	s.after(1, "e")
	s.offer("f", "", parcel{background: true}) // now or never, and the hour has three
	s.sum(0, Lost{Replaced: 1, NotStored: 1})
	if next := s.shelf.next(s.state); !next.IsZero() {
		t.Errorf("nothing waits until %v", next)
	}
}

func TestGoogleStoresAHundred(t *testing.T) {
	t.Parallel()
	s := newShelfTest(t, FCM)
	push := parcel{life: time.Hour, high: true}
	s.turn(offline, "")
	var all []string
	for i := range 100 {
		all = append(all, fmt.Sprint(i))
		s.offer(fmt.Sprint(i), "", push)
	}
	s.sum(100, Lost{})
	s.turn(condition{}, strings.Join(all, ","))
	s.turn(offline, "")
	for range 100 {
		s.offer("x", "", push)
	}
	s.offer("one too many", "", push)
	s.sum(1, Lost{Overflowed: 100})
	s.turn(condition{}, "NOTICE,one too many")
	s.turn(offline, "")
	s.turn(condition{}, "") // the notice comes once
}

func TestGoogleCollapses(t *testing.T) {
	t.Parallel()
	s := newShelfTest(t, FCM)
	of := func(key string) parcel { return parcel{life: time.Hour, high: true, collapsible: true, key: key} }
	s.turn(offline, "")
	s.offer("a1", "", of("a"))
	s.offer("b1", "", of("b"))
	s.offer("a2", "", of("a"))
	s.offer("plain", "", parcel{life: time.Hour, high: true})
	s.sum(3, Lost{Replaced: 1})
	s.offer("c1", "", of("c"))
	s.offer("d1", "", of("d"))
	s.offer("e1", "", of("e")) // a fifth key drops the oldest
	s.sum(5, Lost{Replaced: 1, Overflowed: 1})
	s.turn(condition{}, "a2,plain,c1,d1,e1")
}

func TestGoogleBudgetOfCollapsibles(t *testing.T) {
	t.Parallel()
	s := newShelfTest(t, FCM)
	push := parcel{life: 24 * time.Hour, high: true, collapsible: true}
	for i := range 20 {
		s.offer(fmt.Sprint(i), fmt.Sprint(i), push)
	}
	s.offer("held", "", push)
	s.offer("newer", "", push)
	s.offer("plain", "plain", parcel{life: time.Hour, high: true})
	s.offer("now", "now", parcel{high: true, collapsible: true}) // ttl 0 is exempt
	s.sum(1, Lost{Replaced: 1})
	if want := s.now.Add(3 * time.Minute); !s.shelf.next(s.state).Equal(want) {
		t.Errorf("next %v, want %v", s.shelf.next(s.state), want)
	}
	s.after(3*time.Minute-1, "")
	s.after(1, "newer")
	s.offer("again", "", push)
	s.after(3*time.Minute, "again")
	s.after(time.Hour, "") // twenty more
	for i := range 20 {
		s.offer(fmt.Sprint(i), fmt.Sprint(i), push)
	}
	s.offer("held", "", push)
}

func TestGoogleDozing(t *testing.T) {
	t.Parallel()
	s := newShelfTest(t, FCM)
	normal, high := parcel{life: time.Hour}, parcel{life: time.Hour, high: true}
	s.turn(dozing, "")
	s.offer("n", "", normal)
	s.offer("h", "h", high)
	s.offer("never", "", parcel{})
	s.sum(1, Lost{NotStored: 1})
	s.turn(condition{}, "n")
	s.turn(condition{dozing: true, demoted: true}, "")
	s.offer("d", "", high)
	s.turn(condition{demoted: true}, "d demoted to normal")
	s.turn(offline, "")
	s.offer("late", "", normal)
	s.after(time.Hour, "")
	s.turn(condition{}, "")
	s.sum(0, Lost{NotStored: 1, Expired: 1})
}

// TestHeldPushesComeByThemselves: nobody asks, and the push comes when the budget has room again.
func TestHeldPushesComeByThemselves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newPhoneBook()
		defer b.close()
		b.model(true)
		b.add(&phone{provider: APNs, token: "aa", owner: "app"})
		b.add(&phone{provider: FCM, token: "f", owner: "project"})
		count := func(token string) int { got, _ := b.after(token, 0); return len(got) }
		for range 4 {
			b.deliver(parcel{Delivered: Delivered{Token: "aa"}, background: true, life: 24 * time.Hour})
		}
		for i := range 23 {
			b.deliver(parcel{Delivered: Delivered{Token: "f"}, high: true, collapsible: true, key: fmt.Sprint(i), life: 24 * time.Hour})
		}
		for i, step := range []struct {
			wait        time.Duration
			apple, goog int
		}{{0, 3, 20}, {3*time.Minute - 1, 3, 20}, {1, 3, 21}, {3 * time.Minute, 3, 22}, {54*time.Minute - 1, 3, 23}, {1, 4, 23}} {
			time.Sleep(step.wait) //nolint:forbidigo // the bubble's clock
			synctest.Wait()
			if a, g := count("aa"), count("f"); a != step.apple || g != step.goog {
				t.Errorf("step %d: %d and %d pushes, want %d and %d", i, a, g, step.apple, step.goog)
			}
		}
		// Off again, all that is held arrives.
		b.deliver(parcel{Delivered: Delivered{Token: "f"}, high: true, life: time.Hour})
		if err := b.change("f", func(c *condition) { c.offline = true }); err != nil {
			t.Fatal(err)
		}
		b.deliver(parcel{Delivered: Delivered{Token: "f"}, high: true, life: time.Hour})
		b.model(false)
		if n := count("f"); n != 25 {
			t.Errorf("%d pushes", n)
		}
		if err := b.change("f", func(*condition) {}); err == nil {
			t.Error("there is no model, and a switch was turned")
		}
	})
}

// TestAdvanceRingsToo: time that is advanced counts for what waits already and for what comes.
func TestAdvanceRingsToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newPhoneBook()
		defer b.close()
		b.model(true)
		b.add(&phone{provider: APNs, token: "aa", owner: "app"})
		for range 4 {
			b.deliver(parcel{Delivered: Delivered{Token: "aa"}, background: true, life: 24 * time.Hour})
		}
		b.advance(59 * time.Minute)
		time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		if got, _ := b.after("aa", 0); len(got) != 4 {
			t.Errorf("%d pushes, want the held one too", len(got))
		}
		b.forget()
		if s, _ := b.state("aa"); s.Pushes != 4 || s.Held != 0 || !s.Online || b.ahead != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestHeldPushesExpireUnasked: what has expired is not counted as held, and going back to
// instant hands over what only a budget held back.
func TestHeldPushesExpireUnasked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newPhoneBook()
		defer b.close()
		b.model(true)
		b.add(&phone{provider: APNs, token: "aa", owner: "app"})
		if err := b.change("aa", func(c *condition) { c.offline = true }); err != nil {
			t.Fatal(err)
		}
		b.deliver(parcel{Delivered: Delivered{Token: "aa"}, life: time.Hour})
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock
		if s, _ := b.state("aa"); s.Held != 0 || s.Lost.Expired != 1 {
			t.Errorf("%+v", s)
		}
		if err := b.change("aa", func(c *condition) { c.offline = false }); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			b.deliver(parcel{Delivered: Delivered{Token: "aa"}, background: true, life: 24 * time.Hour})
		}
		b.model(false)
		if got, _ := b.after("aa", 0); len(got) != 4 {
			t.Errorf("%d pushes, want the held one too", len(got))
		}
	})
}

// TestCloseStopsTheTimer: nothing is left that would go off later.
func TestCloseStopsTheTimer(t *testing.T) {
	t.Parallel()
	s, err := Start(context.Background(), Options{Delivery: DeliveryReal})
	if err != nil {
		t.Fatal(err)
	}
	token := s.NewAPNsToken("com.example.app", false)
	for range 4 {
		s.phones.deliver(parcel{Delivered: Delivered{Token: token}, background: true, life: 24 * time.Hour})
	}
	if s.phones.timer == nil {
		t.Error("a push waits, and nobody for its time")
	}
	if err := s.Close(); err != nil || s.phones.timer != nil {
		t.Errorf("a timer runs after Close; %v", err)
	}
}
