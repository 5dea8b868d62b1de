package store_test

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
)

// pollOf is a poll of a device that testkit registered.
func pollOf(d ident.Device, after messages.Seq) messages.Poll {
	return messages.Poll{Device: d, After: after, Proof: sha256.Sum256([]byte(d))}
}

// fresh says which of the polls should look now.
func (w *world) fresh(polls ...messages.Poll) []ident.Device {
	w.t.Helper()
	found, err := w.Fresh(w.ctx(), polls, w.now)
	w.must(err)
	return found
}

// looks waits until the poll should look, or should not: what was handed out is written down a moment later.
func (w *world) looks(p messages.Poll, want bool) {
	w.t.Helper()
	eventually(w.t, func() bool { return (len(w.fresh(p)) == 1) == want })
}

var headTests = map[string]func(*testing.T, *world){
	"polls that have nothing to say wait": func(t *testing.T, w *world) {
		empty, acked, behind := w.device(), w.device(), w.device()
		w.accept(acked)
		w.ackUpTo(acked, w.inbox(acked, 10).Last)
		w.accept(behind)
		last := w.inbox(behind, 10).Last
		for _, p := range []messages.Poll{pollOf(empty, 0), pollOf(acked, 0), pollOf(behind, last)} {
			w.looks(p, false)
		}
		// What is un-acked is read again by who does not say where it stands, and by who stands before it.
		w.looks(pollOf(behind, 0), true)
		w.looks(pollOf(behind, last-1), true)
		if found := w.fresh(); len(found) != 0 {
			t.Errorf("of no polls %v look", found)
		}
	},
	"a message beyond its place makes a poll look": func(_ *testing.T, w *world) {
		d := w.device()
		w.accept(d)
		last := w.inbox(d, 10).Last
		w.looks(pollOf(d, last), false)
		w.accept(d)
		w.looks(pollOf(d, last), true)
		w.inbox(d, 10) // by another poll of the device, which did not ack
		w.looks(pollOf(d, last), true)
	},
	"what is over is looked at once": func(_ *testing.T, w *world) {
		d := w.device()
		w.looks(pollOf(d, 0), false)
		w.accept(d, living(time.Minute))
		w.now = w.now.Add(time.Hour)
		w.looks(pollOf(d, 0), true) // the wake that called for it is to be answered
		w.inbox(d, 10)
		w.looks(pollOf(d, 0), false)
	},
	"a gap is told once": func(t *testing.T, w *world) {
		d := w.device()
		w.accept(d, living(time.Minute))
		last := w.inbox(d, 10).Last // or the poll would look for the sake of the wake alone
		w.looks(pollOf(d, last), false)
		w.now = w.now.Add(time.Hour)
		_, err := w.Expire(w.ctx(), w.now, 10)
		w.must(err)
		w.looks(pollOf(d, 0), true)
		if p := w.inbox(d, 10); p.Gap == nil {
			t.Fatal("no gap")
		}
		w.looks(pollOf(d, 0), false)
	},
	"who is gone looks": func(_ *testing.T, w *world) {
		d := w.device()
		w.looks(pollOf(d, 0), false)
		w.must(w.Unregister(w.ctx(), w.app, d, w.now))
		w.looks(pollOf(d, 0), true)
		w.looks(pollOf(unknownDevice(), 0), true)
	},
	"whose app is deleted looks": func(_ *testing.T, w *world) {
		d := w.device()
		w.must(w.DeleteApp(w.ctx(), w.app))
		w.looks(pollOf(d, 0), true)
	},
	"whose key is replaced looks": func(_ *testing.T, w *world) {
		d, next := w.device(), sha256.Sum256([]byte("next"))
		old, current := pollOf(d, 0), messages.Poll{Device: d, Proof: next}
		w.looks(current, true) // nobody's key yet
		w.must(w.RotateSecret(w.ctx(), d, next, w.now))
		w.looks(current, false)
		w.looks(old, false) // until the new one was used
		w.ConfirmSecret(d, next)
		w.looks(old, true)
		w.looks(current, false)
	},
	"a thousand polls are one question": func(t *testing.T, w *world) {
		var polls []messages.Poll
		var want []ident.Device
		for range 40 {
			d := w.device()
			polls = append(polls, pollOf(d, 0))
			if len(polls)%10 == 0 {
				w.accept(d)
				want = append(want, d)
			}
		}
		for range 960 {
			d := unknownDevice()
			polls, want = append(polls, pollOf(d, 0)), append(want, d)
		}
		got := w.fresh(polls...)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%d look, want %d", len(got), len(want))
		}
	},
}
