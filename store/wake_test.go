package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

var wakeTests = map[string]func(*testing.T, *world){
	"what waits is told by class":                     waitingByClass,
	"wakes raise the marks and count until a page":    waitingAfterWakes,
	"the notification is the newest waking message's": waitingNotification,
	"a wake is in the timeline at once and for good":  wakeInTimeline,
	"the reason why nothing was woken":                wakeNotSent,
	"the reason why nothing was woken behind Google":  wakeNotSentOnward,
	"deliveries are listed in pages":                  deliveriesInPages,
}

func (w *world) waiting(d ident.Device) messages.Waiting {
	w.t.Helper()
	waiting, device, err := w.Waiting(w.ctx(), d, w.now)
	w.must(err)
	if device.ID != d {
		w.t.Errorf("the device is %s", device.ID)
	}
	return waiting
}

func seqOf(r messages.Receipt) messages.Seq { return r.Pending[0].Seq }

func waitingByClass(t *testing.T, w *world) {
	d := w.device()
	if diff := cmp.Diff(messages.Waiting{Device: d}, w.waiting(d)); diff != "" {
		t.Error(diff)
	}
	w.accept(d, low)
	n := w.accept(d, normal)
	h := w.accept(d, living(time.Hour))
	w.accept(d, low, living(2*messages.DefaultTTL))
	want := messages.Waiting{Device: d, Head: messages.Marks{Normal: seqOf(n), High: seqOf(h)}, Oldest: seqOf(n),
		ExpiresAt: w.now.Add(2 * messages.DefaultTTL)}
	if diff := cmp.Diff(want, w.waiting(d)); diff != "" {
		t.Error(diff)
	}
	page := w.inbox(d, 2)
	want.Seen, want.Oldest = page.Last, seqOf(h)
	if diff := cmp.Diff(want, w.waiting(d)); diff != "" {
		t.Errorf("after a page: %s", diff)
	}
	w.ackUpTo(d, page.Last)
	want.Head.Normal = 0
	if diff := cmp.Diff(want, w.waiting(d)); diff != "" {
		t.Errorf("after an ack: %s", diff)
	}
	w.now = w.now.Add(time.Hour)
	want.Head, want.Oldest = messages.Marks{}, 0
	if diff := cmp.Diff(want, w.waiting(d)); diff != "" {
		t.Errorf("after its life: %s", diff)
	}
	_, _, err := w.Waiting(w.ctx(), unknownDevice(), w.now)
	w.refused(err, fault.NotFound, "device_not_found")
}

func (w *world) wake(d ident.Device, head messages.Marks, change ...func(*messages.Wake)) messages.Wake {
	wake := messages.Wake{App: w.app, Device: d, At: w.now, Head: head, Accepted: true, Provider: "fcm", Verdict: "accepted", Took: 12 * time.Millisecond}
	for _, f := range change {
		f(&wake)
	}
	w.RecordWake(wake)
	return wake
}

func refusedWake(m *messages.Wake) {
	m.Accepted, m.Verdict, m.Reason = false, "unavailable", "timeout"
}

func background(m *messages.Wake) { m.Background = true }

func waitingAfterWakes(t *testing.T, w *world) {
	d := w.device()
	r := w.accept(d)
	check := func(what string, want messages.Waiting) {
		t.Helper()
		for _, when := range []string{"at once", "once written"} {
			got := w.waiting(d)
			got.Head, got.Oldest, got.ExpiresAt, got.Device = messages.Marks{}, 0, time.Time{}, ""
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s: %s", what, when, diff)
			}
			w.flushed(d, r)
		}
	}
	mark := messages.Marks{Normal: 1, High: seqOf(r)}
	w.wake(d, mark)
	first := w.now
	check("a wake", messages.Waiting{Woken: mark, WokenAt: first, Unanswered: 1})
	w.now = w.now.Add(time.Minute)
	w.wake(d, messages.Marks{High: seqOf(r) + 7}, refusedWake)
	check("a refused one", messages.Waiting{Woken: mark, WokenAt: first, Unanswered: 1})
	w.wake(d, mark, background)
	second := w.now
	check("a background one", messages.Waiting{Woken: mark, WokenAt: second, BackgroundAt: second, Unanswered: 2})
	w.inbox(d, 10)
	w.wake(d, mark)
	check("a page and a wake", messages.Waiting{Seen: seqOf(r), Woken: mark, WokenAt: second, BackgroundAt: second, Unanswered: 1})
	w.inbox(d, 10)
	check("a page", messages.Waiting{Seen: seqOf(r), Woken: mark, WokenAt: second, BackgroundAt: second})
}

func waitingNotification(t *testing.T, w *world) {
	d := w.device()
	note := func(title string) func(*messages.Send) {
		return func(m *messages.Send) { m.Notification = &messages.Notification{Title: title, Body: "b"} }
	}
	shows := func(want *messages.Notification) {
		t.Helper()
		if diff := cmp.Diff(want, w.waiting(d).Notification); diff != "" {
			t.Error(diff)
		}
	}
	w.accept(d, note("first"))
	shows(&messages.Notification{Title: "first", Body: "b"})
	second := w.accept(d, note("second"))
	shows(&messages.Notification{Title: "second", Body: "b"})
	w.accept(d, note("quiet"), low)
	shows(&messages.Notification{Title: "second", Body: "b"})
	_, err := w.AckIDs(w.ctx(), d, []ident.Message{second.ID}, w.now)
	w.must(err)
	shows(&messages.Notification{Title: "first", Body: "b"})
	w.accept(d)
	shows(nil)
}

func wakeInTimeline(t *testing.T, w *world) {
	d := w.device()
	old := w.accept(d)
	w.wake(d, messages.Marks{High: seqOf(old)})
	w.now = w.now.Add(time.Minute)
	r := w.accept(d)
	accepted := w.now
	w.now = w.now.Add(time.Second)
	failed := w.wake(d, messages.Marks{High: seqOf(r)}, refusedWake)
	w.now = w.now.Add(time.Second)
	sent := w.wake(d, messages.Marks{High: seqOf(r)})
	want := []messages.Moment{
		{At: accepted, Event: "accepted"},
		{At: failed.At, Event: "wake_failed", Provider: "fcm", Verdict: "unavailable", Reason: "timeout", Took: failed.Took},
		{At: sent.At, Event: "wake_sent", Provider: "fcm", Verdict: "accepted", Took: sent.Took},
	}
	check := func() {
		t.Helper()
		list, _, err := w.Deliveries(w.ctx(), w.app, r.ID, "", 10)
		w.must(err)
		if diff := cmp.Diff([]messages.Delivery{{Device: d, State: messages.Woken, Timeline: want}}, list); diff != "" {
			t.Error(diff)
		}
	}
	check()
	w.flushed(d, old)
	check()
	w.is(r.ID, messages.Woken)
	w.now = w.now.Add(time.Second)
	w.ackUpTo(d, seqOf(r))
	w.now = w.now.Add(time.Second)
	w.wake(d, messages.Marks{High: seqOf(r)}) // stood for others: this one was over
	if names, _ := w.events(r.ID); len(names) != 4 || names[3] != "acked" {
		t.Errorf("timeline %v", names)
	}
}

func wakeNotSent(t *testing.T, w *world) {
	why := func(r messages.Receipt, code string, words ...string) {
		t.Helper()
		list, _, err := w.Deliveries(w.ctx(), w.app, r.ID, "", 10)
		w.must(err)
		got := list[0].NotWoken
		if got == nil || got.Code != code || got.Detail == "" {
			t.Errorf("not woken because %+v, want %s", got, code)
			return
		}
		for _, word := range words {
			if !strings.Contains(got.Detail, word) {
				t.Errorf("%q does not say %q", got.Detail, word)
			}
		}
	}
	d := w.register(nil)
	r := w.accept(d.ID)
	why(r, "no_credentials")
	w.credential(tokens.APNs)
	why(r, "wake_due")
	soon, late := w.now.Add(time.Hour), w.now.Add(2*time.Hour)
	pause := func(cause tokens.CircuitCause, change ...func(*tokens.Circuit)) tokens.Circuit {
		t.Helper()
		return w.note(append([]func(*tokens.Circuit){func(c *tokens.Circuit) { c.Cause, c.RetryAt = cause, soon }}, change...)...)
	}
	pause(tokens.CauseCredential, in(tokens.Sandbox))
	pause(tokens.CauseCredential, of(tokens.FCM))
	pause(tokens.CauseMassDeath, in(""), watching)
	why(r, "wake_due") // none of these is on its way
	w.now = w.now.Add(time.Second)
	w.wake(d.ID, messages.Marks{High: seqOf(r)}, refusedWake)
	why(r, "wake_due", "apns", "timeout", "unavailable", w.now.UTC().Format(time.RFC3339))
	newer := w.accept(d.ID)
	why(newer, "wake_due", "apns", "timeout, unavailable", w.now.UTC().Format(time.RFC3339), "all that waits")
	w.ackUpTo(d.ID, 0) // takes what the lane holds along
	why(newer, "wake_due", "apns", "timeout, unavailable", w.now.UTC().Format(time.RFC3339), "all that waits")
	w.wake(d.ID, messages.Marks{High: seqOf(newer)}, refusedWake, func(m *messages.Wake) { m.Verdict, m.Reason = "token_dead", "Unregistered" })
	why(newer, "wake_due", "Unregistered", "not taken as proof")
	throttled := pause(tokens.CauseThrottled)
	why(r, "provider_paused", "slow down", "TooManyRequests", soon.Format(time.RFC3339))
	wide := pause(tokens.CauseThrottled, in(""), func(c *tokens.Circuit) { c.RetryAt = late })
	why(r, "provider_paused", late.Format(time.RFC3339))
	later := late.Add(time.Hour)
	pause(tokens.CauseThrottled, func(c *tokens.Circuit) { c.RetryAt = later })
	why(r, "provider_paused", later.Format(time.RFC3339))
	wave := pause(tokens.CauseMassDeath, in(""))
	why(r, "provider_paused", "too many", soon.Format(time.RFC3339))
	failing := pause(tokens.CauseCredential)
	why(r, "provider_failing", "TooManyRequests", soon.Format(time.RFC3339))
	why(w.accept(d.ID, low), "provider_failing")
	for _, c := range []tokens.Circuit{throttled, wide, wave, failing} {
		c.State = tokens.CircuitClosed
		w.must(w.NoteCircuit(w.ctx(), c, w.now))
	}
	why(w.accept(d.ID, low), "rides_along")
	w.mark(d, tokens.TokenSuspect, true, strike)
	why(r, "token_suspect", "once more")
	w.mark(d, tokens.TokenSuspect, true, strike)
	why(r, "token_suspect", "why", "quarantine", "registers a token")
	w.mark(d, tokens.TokenDead, true)
	why(r, "token_dead")
	poller := w.device(func(e *tokens.Enrol) { e.Provider, e.Token = tokens.NoProvider, "" })
	polled := w.accept(poller)
	why(polled, "no_provider")
	w.inbox(poller, 1)
	why(polled, "polling")
	w.ackUpTo(poller, seqOf(polled))
	why(polled, "final")
	fresh := w.device()
	w.credential(tokens.FCM)
	first := w.accept(fresh)
	w.wake(fresh, messages.Marks{High: seqOf(first)})
	why(w.accept(fresh), "wake_outstanding")
}

// Behind Google each carrier has circuits of its own: what Apple refuses does not keep Androids asleep.
func wakeNotSentOnward(t *testing.T, w *world) {
	w.credential(tokens.FCM)
	w.note(of(tokens.FCM), func(c *tokens.Circuit) { c.Cause, c.Onward = tokens.CauseCredential, tokens.OnwardApple })
	for platform, want := range map[tokens.Platform]string{tokens.Android: "wake_due", tokens.Web: "wake_due", tokens.IOS: "provider_failing",
		tokens.MacOS: "provider_failing"} {
		r := w.accept(w.device(func(e *tokens.Enrol) { e.Platform = platform }))
		list, _, err := w.Deliveries(w.ctx(), w.app, r.ID, "", 10)
		w.must(err)
		if got := list[0].NotWoken; got == nil || got.Code != want {
			t.Errorf("%s: not woken because %+v, want %s", platform, got, want)
		}
	}
}

func deliveriesInPages(t *testing.T, w *world) {
	devices := w.userDevices("anna", 5)
	r := w.acceptUser("anna")
	var got []ident.Device
	var after ident.Device
	for {
		list, more, err := w.Deliveries(w.ctx(), w.app, r.ID, after, 2)
		w.must(err)
		for _, d := range list {
			got = append(got, d.Device)
			after = d.Device
		}
		if !more {
			break
		}
	}
	if diff := cmp.Diff(devices, got); diff != "" {
		t.Error(diff)
	}
}
