package store

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/ident"
	"rouse/messages"
)

func wakeOf(d ident.Device, high messages.Seq) messages.Wake {
	return messages.Wake{Device: d, At: time.Now(), Head: messages.Marks{High: high}, Accepted: true}
}

func TestTheLaneIsWrittenWithinHalfASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openFile(t, "")
		stop := start(t, s)
		_, device := populate(t, s)
		s.RecordWake(wakeOf(device, 7))
		<-time.After(500 * time.Millisecond) // by the bubble's clock
		synctest.Wait()
		var n int
		if err := s.reads.get(context.Background(), &n, "SELECT woken_high FROM inboxes WHERE device = ?", string(device)); err != nil || n != 7 {
			t.Errorf("the mark stands at %d, %v", n, err)
		}
		if !s.writers[0].lane.empty() {
			t.Error("the lane is not empty")
		}
		stop()
	})
}

func TestTheLaneIsWrittenWhenTheWriterEnds(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/rouse.db"
	s := openFile(t, path)
	stop := start(t, s)
	app, device := populate(t, s)
	r, err := s.Accept(context.Background(), sendTo(app, device))
	if err != nil {
		t.Fatal(err)
	}
	s.RecordWake(wakeOf(device, r.Pending[0].Seq))
	if _, err := s.Inbox(context.Background(), messages.Query{Device: device, Limit: 1, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	stop()
	s = openFile(t, path)
	stop = start(t, s)
	w, _, err := s.Waiting(context.Background(), device, time.Now())
	if err != nil || w.Woken.High != r.Pending[0].Seq || w.Seen != r.Pending[0].Seq || w.Unanswered != 0 {
		t.Errorf("after the restart: %+v, %v", w, err)
	}
	list, _, err := s.Deliveries(context.Background(), app, r.ID, "", 1)
	if err != nil || len(list[0].Timeline) != 3 {
		t.Errorf("after the restart: %+v, %v", list, err)
	}
	stop()
}

// A batch that fails gives back what it took from the lane.
func TestTheLaneSurvivesAFailedBatch(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	stop := start(t, s)
	app, device := populate(t, s)
	r, err := s.Accept(context.Background(), sendTo(app, device))
	if err != nil {
		t.Fatal(err)
	}
	seq := r.Pending[0].Seq
	pragma := s.connection(t)
	pragma("query_only = 1")
	s.RecordWake(wakeOf(device, seq))
	if _, err := s.AckUpTo(context.Background(), device, seq-1, time.Now()); err == nil {
		t.Fatal("acked in a database that cannot be written")
	}
	s.RecordWake(wakeOf(device, seq))
	w, _, err := s.Waiting(context.Background(), device, time.Now())
	if err != nil || w.Woken.High != seq || w.Unanswered != 2 {
		t.Errorf("while it cannot be written: %+v, %v", w, err)
	}
	pragma("query_only = 0")
	waitFor(t, func() bool { return s.writers[0].lane.empty() && s.Ready(context.Background()) == nil })
	var wakes int
	if err := s.reads.get(context.Background(), &wakes, "SELECT COUNT(*) FROM wakes"); err != nil || wakes != 2 {
		t.Errorf("%d wakes are recorded, %v", wakes, err)
	}
	stop()
}

func TestTheLaneIsBounded(t *testing.T) {
	t.Parallel()
	l := newLane(1)
	for range maxLaneContacts + 10 {
		l.contact(ident.NewDevice(), 1)
	}
	if len(l.waiting) != maxLaneContacts {
		t.Errorf("%d contacts", len(l.waiting))
	}
	for range maxLanePages + 10 {
		l.hand(ident.NewDevice(), handed{from: 1, to: 1, at: 1}, 0, false)
	}
	if l.pages != maxLanePages {
		t.Errorf("%d pages: contacts must not crowd them out", l.pages)
	}
	one := ident.NewDevice()
	for range maxLaneWakes {
		if !l.wake(wakeOf(one, 1)) {
			t.Fatal("contacts and pages crowd out wakes")
		}
	}
	if l.wake(wakeOf(one, 1)) {
		t.Error("wakes are not bounded")
	}
	l.take(time.Now().Add(time.Hour), nil)
	l.restore()
	taken := l.take(time.Now().Add(time.Hour), nil)
	l.landed()
	if l.pages != 0 || l.wakes != 0 || !l.empty() || len(taken[one].wakes) != maxLaneWakes {
		t.Errorf("after all landed: %d pages, %d wakes", l.pages, l.wakes)
	}
}

func TestTheLaneTakesTheOldAndWhatOpsLand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, laneTakes) // none grows old by itself
}

func laneTakes(t *testing.T) {
	l := newLane(1)
	a, b, c := ident.NewDevice(), ident.NewDevice(), ident.NewDevice()
	for _, d := range []ident.Device{a, b, c} {
		l.wake(wakeOf(d, 1))
	}
	keys := func(e laneEntries) map[ident.Device]bool {
		set := map[ident.Device]bool{}
		for d := range e {
			set[d] = true
		}
		return set
	}
	now := time.Now()
	got := keys(l.take(now, []*op{{lands: a}, {}}))
	if diff := cmp.Diff(map[ident.Device]bool{a: true}, got); diff != "" {
		t.Error(diff)
	}
	l.landed()
	l.wake(wakeOf(a, 2)) // anew, and young: it must not hold up b and c
	l.waiting[a].since = now.Add(laneHold)
	got = keys(l.take(now.Add(laneHold+time.Millisecond), nil))
	if diff := cmp.Diff(map[ident.Device]bool{b: true, c: true}, got); diff != "" {
		t.Error(diff)
	}
	if e, _ := l.view(b); len(e.wakes) != 1 {
		t.Error("what flies is not seen")
	}
	l.landed()
	if e, _ := l.view(b); len(e.wakes) != 0 {
		t.Error("what landed is still seen")
	}
}

func TestMergingLaneEntries(t *testing.T) {
	t.Parallel()
	page := func(to messages.Seq) handed { return handed{from: 1, to: to, at: int64(to)} }
	d := ident.NewDevice()
	for _, c := range []struct {
		name         string
		older, newer func(l *lane)
		unanswered   int
		seen         messages.Seq
	}{
		{"wake, wake", func(l *lane) { l.wake(wakeOf(d, 1)) }, func(l *lane) { l.wake(wakeOf(d, 2)) }, 2, 0},
		{"wake, page", func(l *lane) { l.wake(wakeOf(d, 1)) }, func(l *lane) { l.hand(d, page(3), 0, false) }, 0, 3},
		{"page, wake", func(l *lane) { l.hand(d, page(3), 0, false) }, func(l *lane) { l.wake(wakeOf(d, 1)) }, 1, 3},
		{"page, older page", func(l *lane) { l.hand(d, page(3), 0, false) }, func(l *lane) { l.hand(d, page(2), 0, false) }, 0, 3},
		{"wake, item", func(l *lane) { l.wake(wakeOf(d, 1)) }, func(l *lane) { l.hand(d, page(3), 0, true) }, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLane(1)
			c.older(l)
			l.take(time.Now().Add(time.Hour), nil)
			c.newer(l)
			check := func(when string) {
				t.Helper()
				if e, _ := l.view(d); e.unanswered != c.unanswered || e.seen != c.seen || len(e.pages)+len(e.wakes) != 2 {
					t.Errorf("%s: %+v", when, e)
				}
			}
			check("in flight")
			l.restore()
			check("restored")
		})
	}
}

// While a commit is on its way nobody knows whether what it carries is durable: a reader that added it to what the database
// says would count it twice.
func TestAViewWaitsForACommitThatConcernsIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(l *lane)
		want int
	}{
		"landed":   {(*lane).landed, 0},
		"restored": {(*lane).restore, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLane(1)
				d, other := ident.NewDevice(), ident.NewDevice()
				l.wake(wakeOf(d, 1))
				_, before := l.view(d)
				l.take(time.Now().Add(time.Hour), nil)
				l.land()
				if l.still(d, before) || !l.still(other, before) {
					t.Error("a reader that began before the commit may trust what it read of others alone")
				}
				seen := make(chan int, 1)
				go func() {
					e, _ := l.view(d)
					seen <- len(e.wakes)
				}()
				l.view(other)
				synctest.Wait()
				if len(seen) != 0 {
					t.Fatal("it did not wait")
				}
				c.end(l)
				if got := <-seen; got != c.want {
					t.Errorf("it sees %d wakes, want %d", got, c.want)
				}
			})
		})
	}
}
