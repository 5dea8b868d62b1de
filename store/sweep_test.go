package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

var sweepTests = map[string]func(*testing.T, *world){
	"a sweep finds what is old enough, once":         sweepFinds,
	"a sweep goes on where it ended":                 sweepInPieces,
	"a sweep passes over the silent and the acked":   sweepPasses,
	"a sweep finds the silent that were never woken": sweepUnwoken,
	"a sweep finds what no wake stood for":           sweepWhatNoWakeStoodFor,
	"a message from the future counts as old":        sweepFuture,
	"sweep cursors are kept":                         sweepCursors,
	"expiry ends, counts and bounds":                 expireBounded,
	"a purge removes what is over and nothing else":  purgeOver,
	"a purge forgets idempotency keys after a day":   purgeReplays,
	"a purge finishes what is far down the table":    purgeFar,
	"a purged wake is not taken for another's":       purgeWakes,
	"an hour back, an hour forth":                    clockBack,
	"what is not there costs no look":                sweepEmpty,
}

func (w *world) sweep(class messages.Class, after messages.Seq, age time.Duration, limit int) ([]messages.Due, messages.Seq, bool) {
	w.t.Helper()
	due, next, more, err := w.Sweep(w.ctx(), messages.SweepQuery{Class: class, After: after, Before: w.now.Add(-age), Now: w.now, Limit: limit})
	w.must(err)
	return due, next, more
}

func sweepFinds(t *testing.T, w *world) {
	a, b := w.device(), w.device()
	first, second := w.accept(a), w.accept(b)
	third := w.accept(a)
	ordinary := w.accept(b, normal)
	w.now = w.now.Add(time.Minute)
	young := w.accept(b)
	due, next, more := w.sweep(messages.HighWake, 0, time.Minute, 10)
	want := []messages.Due{
		{Device: a, Class: messages.HighWake, Seq: seqOf(third), Age: time.Minute},
		{Device: b, Class: messages.HighWake, Seq: seqOf(second), Age: time.Minute},
	}
	if diff := cmp.Diff(want, due); diff != "" || next != seqOf(ordinary) || more {
		t.Error(diff, next, more)
	}
	if due, next, _ = w.sweep(messages.HighWake, next, time.Minute, 10); len(due) != 0 || next != seqOf(ordinary) {
		t.Errorf("again: %+v up to %d", due, next)
	}
	if due, next, _ = w.sweep(messages.NormalWake, seqOf(first), time.Minute, 10); len(due) != 1 || due[0].Seq != seqOf(ordinary) {
		t.Errorf("normal: %+v", due)
	}
	if due, next, _ = w.sweep(messages.HighWake, next, 0, 10); len(due) != 1 || next != seqOf(young) {
		t.Errorf("of any age: %+v up to %d", due, next)
	}
}

func sweepInPieces(t *testing.T, w *world) {
	want := map[ident.Device]bool{}
	for range 7 {
		d := w.device()
		want[d] = true
		w.accept(d)
	}
	after, pieces := messages.Seq(0), 0
	for more := true; more; pieces++ {
		var due []messages.Due
		due, after, more = w.sweep(messages.HighWake, after, 0, 2)
		for _, d := range due {
			if !want[d.Device] {
				t.Errorf("%s comes twice", d.Device)
			}
			delete(want, d.Device)
		}
	}
	if len(want) != 0 || pieces != 4 {
		t.Errorf("%d left after %d pieces", len(want), pieces)
	}
}

// sweepEmpty: a restored database leaves out billions of places, and so does the purge in the course of years.
func sweepEmpty(t *testing.T, w *world) {
	w.wantsEvents()
	d := w.device()
	w.ackUpTo(d, seqOf(w.accept(d)))
	w.must(w.Leap(w.ctx(), 1<<40))
	far := w.accept(d)
	var found []messages.Due
	after, pieces := messages.Seq(0), 0
	for more := true; more; pieces++ {
		var due []messages.Due
		due, after, more = w.sweep(messages.HighWake, after, 0, 10)
		found = append(found, due...)
	}
	if len(found) != 1 || found[0].Seq != seqOf(far) || pieces > 2 {
		t.Errorf("found %+v in %d pieces", found, pieces)
	}
	w.ackUpTo(d, seqOf(far))
	n, err := w.Purge(w.ctx(), w.now.Add(time.Second), w.now, 100)
	w.must(err)
	if n != 2 {
		t.Errorf("purged %d in one turn", n)
	}
	w.accept(d)
	w.must(w.Leap(w.ctx(), 1<<40))
	w.must(w.DeleteApp(w.ctx(), w.app))
}

func sweepPasses(t *testing.T, w *world) {
	silent, acked, over := w.device(), w.device(), w.device()
	woken := w.accept(silent, living(messages.MaxTTL))
	w.wake(silent, messages.Marks{High: seqOf(woken)})
	w.ackUpTo(silent, 0) // takes what the lane holds along
	w.ackUpTo(acked, seqOf(w.accept(acked)))
	w.accept(over, living(time.Minute))
	w.now = w.now.Add(time.Hour)
	if due, _, _ := w.sweep(messages.HighWake, 0, 0, 10); len(due) != 1 || due[0].Device != silent {
		t.Errorf("due %+v", due)
	}
	w.now = w.now.Add(messages.SilentAfter)
	if due, _, _ := w.sweep(messages.HighWake, 0, 0, 10); len(due) != 0 {
		t.Errorf("silent for a week, and due: %+v", due)
	}
	w.Contact(silent, w.now)
	eventually(t, func() bool {
		due, _, _ := w.sweep(messages.HighWake, 0, 0, 10)
		return len(due) == 1
	})
}

// sweepUnwoken: an accepted wake stands for what came before it, a normal one not for what is high.
func sweepUnwoken(t *testing.T, w *world) {
	never, refused, newer, byNormal, byHigh := w.device(), w.device(), w.device(), w.device(), w.device()
	long := living(messages.MaxTTL)
	newest := map[ident.Device]messages.Receipt{}
	for _, d := range []ident.Device{never, refused, newer, byNormal, byHigh} {
		w.accept(d, long, normal)
		newest[d] = w.accept(d, long)
	}
	w.wake(refused, messages.Marks{High: seqOf(newest[refused])}, refusedWake)
	w.wake(newer, messages.Marks{Normal: seqOf(newest[newer]), High: seqOf(newest[newer])})
	w.wake(byNormal, messages.Marks{Normal: seqOf(newest[byNormal])})
	w.wake(byHigh, messages.Marks{High: seqOf(newest[byHigh])})
	for d := range newest {
		w.ackUpTo(d, 0) // takes what the lane holds along
	}
	w.now = w.now.Add(messages.SilentAfter + time.Hour)
	w.accept(newer)
	for class, want := range map[messages.Class][]ident.Device{
		messages.HighWake: {never, refused, byNormal, newer}, messages.NormalWake: {never, refused},
	} {
		due, _, _ := w.sweep(class, 0, 0, 10)
		var got []ident.Device
		for _, d := range due {
			got = append(got, d.Device)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("class %v: %s", class, diff)
		}
	}
}

func sweepFuture(t *testing.T, w *world) {
	d, e := w.device(), w.device()
	future := w.accept(d, func(m *messages.Send) { m.CreatedAt = w.now.Add(time.Hour) })
	old := w.accept(e, func(m *messages.Send) { m.CreatedAt = w.now.Add(-time.Hour) })
	w.accept(e)
	due, next, more := w.sweep(messages.HighWake, 0, time.Minute, 10)
	want := []messages.Due{{Device: d, Class: messages.HighWake, Seq: seqOf(future)}, {Device: e, Class: messages.HighWake, Seq: seqOf(old), Age: time.Hour}}
	if diff := cmp.Diff(want, due); diff != "" || next != seqOf(old) || more {
		t.Error(diff, next, more)
	}
}

func sweepCursors(t *testing.T, w *world) {
	for _, step := range []struct {
		name string
		want messages.Seq
	}{{"high/1m0s", 0}, {"high/1m0s", 7}, {"high/5m0s", 0}, {"high/5m0s", 9}, {"high/1m0s", 7}, {"high/1m0s", 12}} {
		if step.want != 0 {
			w.must(w.MoveSweepCursor(w.ctx(), step.name, step.want))
		}
		if got, err := w.SweepCursor(w.ctx(), step.name); got != step.want || err != nil {
			t.Errorf("%s is at %d, want %d; %v", step.name, got, step.want, err)
		}
	}
	w.must(w.MoveSweepCursor(w.ctx(), "high/1m0s", 3))
	if got, err := w.SweepCursor(w.ctx(), "high/1m0s"); got != 12 || err != nil {
		t.Errorf("a node that sweeps no longer moved a cursor back to %d; %v", got, err)
	}
}

// sweepWhatNoWakeStoodFor finds what homes may have had in memory, whether or not the device spoke lately.
func sweepWhatNoWakeStoodFor(t *testing.T, w *world) {
	never, refused, woken, newer := w.device(), w.device(), w.device(), w.device()
	newest := map[ident.Device]messages.Receipt{}
	for _, d := range []ident.Device{never, refused, woken, newer} {
		newest[d] = w.accept(d)
	}
	w.wake(refused, messages.Marks{High: seqOf(newest[refused])}, refusedWake)
	for _, d := range []ident.Device{woken, newer} {
		w.wake(d, messages.Marks{Normal: seqOf(newest[d]), High: seqOf(newest[d])})
	}
	for d := range newest {
		w.ackUpTo(d, 0) // takes what the lane holds along
	}
	w.accept(newer)
	due, _, _, err := w.Sweep(w.ctx(), messages.SweepQuery{Class: messages.HighWake, Unwoken: true, Before: w.now, Now: w.now, Limit: 10})
	w.must(err)
	var got []ident.Device
	for _, d := range due {
		got = append(got, d.Device)
	}
	if diff := cmp.Diff([]ident.Device{never, refused, newer}, got); diff != "" {
		t.Error(diff)
	}
}

func expireBounded(t *testing.T, w *world) {
	d := w.device()
	var briefs []messages.Receipt
	for range 5 {
		briefs = append(briefs, w.accept(d, living(time.Minute)))
	}
	stays := w.accept(d)
	if n, err := w.Expire(w.ctx(), w.now, 10); n != 0 || err != nil {
		t.Errorf("too early: %d, %v", n, err)
	}
	w.now = w.now.Add(time.Minute)
	for _, want := range []int{2, 2, 1, 0} {
		if n, err := w.Expire(w.ctx(), w.now, 2); n != want || err != nil {
			t.Errorf("expired %d, want %d; %v", n, want, err)
		}
	}
	for _, r := range briefs {
		w.is(r.ID, messages.Expired)
	}
	w.is(stays.ID, messages.Queued)
	if w.pending() != 1 {
		t.Errorf("%d pending", w.pending())
	}
}

func purgeOver(t *testing.T, w *world) {
	w.wantsEvents()
	d := w.device()
	several := w.userDevices("anna", 2)
	long := living(messages.MaxTTL)
	acked, pending := w.accept(d), w.accept(d, long)
	w.wake(d, messages.Marks{High: seqOf(pending)})
	w.ackUpTo(d, seqOf(acked))
	shared := w.acceptUser("anna", long)
	w.ackUpTo(several[0], w.inbox(several[0], 1).Last)
	nobody := w.acceptUser("nobody")
	w.now = w.now.Add(8 * 24 * time.Hour)
	w.ackUpTo(several[1], w.inbox(several[1], 1).Last)
	young := w.accept(d)
	w.ackUpTo(d, seqOf(pending)-1)
	before := w.now.Add(-7 * 24 * time.Hour)
	purge := func(want int) {
		t.Helper()
		if n, err := w.Purge(w.ctx(), before, w.now, 100); n != want || err != nil {
			t.Errorf("purged %d, want %d; %v", n, want, err)
		}
	}
	purge(4) // acked, one of shared's two, the wake, nobody's
	purge(0)
	for _, id := range []ident.Message{acked.ID, nobody.ID} {
		_, err := w.Message(w.ctx(), w.app, id)
		w.refused(err, fault.NotFound, "message_not_found")
	}
	w.is(pending.ID, messages.Woken)
	w.is(young.ID, messages.Queued)
	w.is(shared.ID, messages.Acked)
	before = w.now.Add(time.Minute)
	purge(2) // shared's other delivery, then its row
	_, err := w.Message(w.ctx(), w.app, shared.ID)
	w.refused(err, fault.NotFound, "message_not_found")
	w.is(pending.ID, messages.Woken)
}

func purgeReplays(t *testing.T, w *world) {
	d := w.device()
	w.accept(d, keyed("k", "a"))
	before := w.now.Add(-7 * 24 * time.Hour)
	w.now = w.now.Add(24 * time.Hour)
	if n, err := w.Purge(w.ctx(), before, w.now, 100); n != 0 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	if n, err := w.Purge(w.ctx(), before, w.now.Add(time.Second), 100); n != 1 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
}

func purgeFar(t *testing.T, w *world) {
	w.wantsEvents()
	d, other := w.device(), w.device()
	for range 300 {
		w.accept(d)
	}
	gone := w.accept(other)
	w.ackUpTo(other, seqOf(gone))
	w.ackUpTo(d, seqOf(gone)-1)
	left := 301
	for range 10 {
		n, err := w.Purge(w.ctx(), w.now.Add(time.Second), w.now, 100)
		w.must(err)
		left -= n
	}
	if left != 0 {
		t.Errorf("%d are left", left)
	}
}

// purgeWakes: the rows of purged wakes are given again.
func purgeWakes(t *testing.T, w *world) {
	w.wantsEvents()
	a, b := w.device(), w.device()
	ofA, ofB := w.accept(a), w.accept(b)
	all := messages.Marks{High: seqOf(ofB)}
	for range 3 {
		w.wake(a, all)
		w.flushed(a, ofA)
	}
	w.now = w.now.Add(time.Hour)
	if n, err := w.Purge(w.ctx(), w.now, w.now, 100); n != 3 || err != nil {
		t.Fatalf("purged %d, %v", n, err)
	}
	for _, d := range []ident.Device{b, a, b, a, a} {
		w.wake(d, all)
		w.flushed(d, ofA)
	}
	for r, want := range map[ident.Message]int{ofA.ID: 3, ofB.ID: 2} {
		if names, moments := w.events(r); len(names) != 1+want {
			t.Errorf("%d wakes, want %d: %+v", len(names)-1, want, moments)
		}
	}
	w.must(w.DeleteApp(w.ctx(), w.app))
	if n, err := w.Purge(w.ctx(), w.now.Add(time.Hour), w.now, 100); n != 0 || err != nil {
		t.Errorf("deleting the app left %d rows, %v", n, err)
	}
}

// clockBack: the clock jumps back an hour after messages were stored.
func clockBack(t *testing.T, w *world) {
	d := w.device()
	first := w.accept(d, living(30*time.Minute))
	w.now = w.now.Add(-time.Hour)
	second := w.accept(d, living(30*time.Minute))
	if diff := cmp.Diff([]ident.Message{first.ID, second.ID}, w.ids(w.inbox(d, 10))); diff != "" {
		t.Error(diff)
	}
	if n, err := w.Expire(w.ctx(), w.now, 10); n != 0 || err != nil {
		t.Errorf("expired %d, %v", n, err)
	}
	w.wake(d, messages.Marks{High: seqOf(second)})
	if names, _ := w.events(first.ID); len(names) != 3 || names[1] != "wake_sent" && names[2] != "wake_sent" {
		t.Errorf("the timeline of a message from the future: %v", names)
	}
	w.now = w.now.Add(30 * time.Minute)
	if n, err := w.Expire(w.ctx(), w.now, 10); n != 1 || err != nil {
		t.Errorf("expired %d, want the second; %v", n, err)
	}
	if n := w.ackUpTo(d, seqOf(second)); n != 1 {
		t.Errorf("acked %d", n)
	}
	w.is(first.ID, messages.Acked)
	w.is(second.ID, messages.Expired)
}
