package store_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

var acceptTests = map[string]func(*testing.T, *world){
	"a message to a device is in its inbox":                  acceptToDevice,
	"a user with no, one and several devices":                acceptToUser,
	"an unknown device is refused with a pointer":            acceptUnknown,
	"the same idempotency key answers the same":              acceptReplayed,
	"one idempotency key in many requests makes one message": acceptRacing,
	"a collapse key replaces what is pending":                acceptCollapsed,
	"an ack of the replaced leaves the new":                  acceptCollapsedAck,
	"many with one collapse key at once leave one":           acceptCollapsedTogether,
	"ttl 0 is for who is polling":                            acceptTTLZero,
	"a full inbox refuses":                                   acceptFull,
	"a full inbox drops the oldest if the app wants":         acceptDropsOldest,
	"a user's full device does not hold up the others":       acceptOneFull,
	"a shared body goes with its last delivery":              acceptSharedBody,
	"a canceled message is gone everywhere":                  cancelEverywhere,
	"canceling what is over changes nothing":                 cancelOver,
	"a summary says what was sent":                           messageSummary,
	"places only grow":                                       seqsGrow,
}

func acceptToDevice(t *testing.T, w *world) {
	d := w.device()
	m := w.send(d, collapsing("k"), func(m *messages.Send) { m.CorrelationID = "order-7" })
	r, err := w.Accept(w.ctx(), m)
	w.must(err)
	if len(r.Pending) != 1 || r.Pending[0].Seq == 0 {
		t.Fatalf("pending %+v", r.Pending)
	}
	seq := r.Pending[0].Seq
	want := messages.Receipt{ID: m.ID, Status: messages.Accepted, Recipients: 1, CreatedAt: w.now, ExpiresAt: w.now.Add(m.TTL),
		Pending: []messages.Pending{{Device: d, Seq: seq, Class: messages.HighWake}}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
	p := w.inbox(d, 10)
	item := messages.Item{ID: m.ID, Seq: seq, Data: m.Data, Urgency: messages.High, CollapseKey: "k", CreatedAt: w.now,
		ExpiresAt: w.now.Add(m.TTL), Attempt: 1}
	if diff := cmp.Diff(messages.Page{Items: []messages.Item{item}, Last: seq, Seen: seq}, p); diff != "" {
		t.Error(diff)
	}
}

func acceptToUser(t *testing.T, w *world) {
	none := w.acceptUser("anna")
	if none.Status != messages.NoRecipients || none.Recipients != 0 || len(none.Pending) != 0 {
		t.Errorf("without devices: %+v", none)
	}
	devices := w.userDevices("anna", 1)
	one := w.acceptUser("anna")
	devices = append(devices, w.userDevices("anna", 2)...)
	several := w.acceptUser("anna", normal)
	if one.Recipients != 1 || several.Recipients != 3 || len(several.Pending) != 3 {
		t.Errorf("recipients %d and %d", one.Recipients, several.Recipients)
	}
	for i, d := range devices {
		want := []ident.Message{several.ID}
		if i == 0 {
			want = []ident.Message{one.ID, several.ID}
		}
		p := w.inbox(d, 10)
		if diff := cmp.Diff(want, w.ids(p)); diff != "" {
			t.Error(diff)
		}
		if last := p.Items[len(p.Items)-1]; !bytes.Equal(last.Data, []byte(`{"hello":"world"}`)) {
			t.Errorf("device %d reads %q", i, last.Data)
		}
	}
	if diff := cmp.Diff(messages.Counters{messages.Fetched: 3}, w.counters(several.ID)); diff != "" {
		t.Error(diff)
	}
	if sum, err := w.Message(w.ctx(), w.app, none.ID); err != nil || sum.Status != messages.NoRecipients || sum.To.User != "anna" {
		t.Errorf("the one without recipients: %+v, %v", sum, err)
	}
	if sum, err := w.Message(w.ctx(), w.app, one.ID); err != nil || sum.To != (messages.Target{User: "anna"}) || sum.Recipients != 1 {
		t.Errorf("the one with one: %+v, %v", sum, err)
	}
}

func acceptUnknown(_ *testing.T, w *world) {
	_, err := w.Accept(w.ctx(), w.send(unknownDevice()))
	w.refused(err, fault.Invalid, "device_not_found", "/to/device_id")
	_, err = w.Message(w.ctx(), w.app, ident.NewMessage())
	w.refused(err, fault.NotFound, "message_not_found")
	_, _, err = w.Deliveries(w.ctx(), w.app, ident.NewMessage(), "", 1)
	w.refused(err, fault.NotFound, "message_not_found")
	_, err = w.Cancel(w.ctx(), w.app, ident.NewMessage(), w.now)
	w.refused(err, fault.NotFound, "message_not_found")
}

func keyed(key, request string) func(*messages.Send) {
	return func(m *messages.Send) {
		m.Idempotency = messages.Idempotency{Key: key, Request: tokens.HashOf(tokens.Secret(request))}
	}
}

func acceptReplayed(t *testing.T, w *world) {
	d := w.device()
	first := w.accept(d, keyed("k", "a"))
	again := w.accept(d, keyed("k", "a"))
	want := first
	want.Pending, want.Replayed = nil, true
	if diff := cmp.Diff(want, again); diff != "" {
		t.Error(diff)
	}
	_, err := w.Accept(w.ctx(), w.send(d, keyed("k", "b")))
	w.refused(err, fault.Invalid, "idempotency_key_reused")
	if n := len(w.inbox(d, 10).Items); n != 1 {
		t.Errorf("%d messages", n)
	}
	_, err = w.Accept(w.ctx(), w.send(unknownDevice(), keyed("failed", "a")))
	w.refused(err, fault.Invalid, "device_not_found")
	if r := w.accept(d, keyed("failed", "b")); r.Replayed {
		t.Error("a refused send was remembered")
	}
	w.now = w.now.Add(24 * time.Hour)
	if r := w.accept(d, keyed("k", "b")); r.Replayed {
		t.Error("a key was remembered for longer than a day")
	}
	if r := w.accept(d, keyed("k", "b")); !r.Replayed {
		t.Error("a key taken again was not remembered")
	}
}

func acceptRacing(t *testing.T, w *world) {
	d := w.device()
	const callers = 24
	receipts := make([]messages.Receipt, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			var err error
			if receipts[i], err = w.Accept(w.ctx(), w.send(d, keyed("k", "a"))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	made := 0
	for _, r := range receipts {
		if r.ID != receipts[0].ID {
			t.Errorf("answers speak of %s and %s", receipts[0].ID, r.ID)
		}
		if !r.Replayed {
			made++
		}
	}
	if made != 1 || len(w.inbox(d, 10).Items) != 1 {
		t.Errorf("%d made, %d in the inbox", made, len(w.inbox(d, 10).Items))
	}
}

func acceptCollapsed(t *testing.T, w *world) {
	d, other := w.device(), w.device()
	a := w.accept(d, collapsing("k"))
	b := w.accept(d, collapsing("other key"))
	c := w.accept(other, collapsing("k"))
	e := w.accept(d, collapsing("k"))
	if diff := cmp.Diff([]ident.Message{b.ID, e.ID}, w.ids(w.inbox(d, 10))); diff != "" {
		t.Error(diff)
	}
	w.is(a.ID, messages.Replaced)
	if got := w.ids(w.inbox(other, 10)); len(got) != 1 || got[0] != c.ID {
		t.Error("a collapse key reached into another inbox")
	}
	if w.pending() != 3 {
		t.Errorf("%d pending", w.pending())
	}
	w.ackUpTo(d, e.Pending[0].Seq)
	f := w.accept(d, collapsing("k"))
	w.is(e.ID, messages.Acked)
	w.is(f.ID, messages.Queued)
}

func acceptCollapsedAck(t *testing.T, w *world) {
	d := w.device()
	a := w.accept(d, collapsing("k"))
	page := w.inbox(d, 10)
	b := w.accept(d, collapsing("k"))
	if n := w.ackUpTo(d, page.Last); n != 0 {
		t.Errorf("acked %d of what was replaced", n)
	}
	if n, err := w.AckIDs(w.ctx(), d, []ident.Message{a.ID}, w.now); n != 0 || err != nil {
		t.Errorf("acked %d of what was replaced, %v", n, err)
	}
	if got := w.ids(w.inbox(d, 10)); len(got) != 1 || got[0] != b.ID {
		t.Errorf("the inbox holds %v", got)
	}
}

func acceptCollapsedTogether(t *testing.T, w *world) {
	d := w.device()
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			if _, err := w.Accept(w.ctx(), w.send(d, collapsing("k"))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := len(w.inbox(d, 100).Items); n != 1 || w.pending() != 1 {
		t.Errorf("%d in the inbox, %d counted", n, w.pending())
	}
}

func acceptTTLZero(t *testing.T, w *world) {
	polling, away := w.device(), w.device()
	instant := func(m *messages.Send) {
		m.TTL = 0
		m.Present = func(d ident.Device) bool { return d == polling }
	}
	here, gone := w.accept(polling, instant), w.accept(away, instant)
	if len(here.Pending) != 1 || here.Pending[0].Class != messages.NoWake || len(gone.Pending) != 0 {
		t.Errorf("pending %+v and %+v", here.Pending, gone.Pending)
	}
	w.is(gone.ID, messages.Dropped)
	list, _, err := w.Deliveries(w.ctx(), w.app, gone.ID, "", 10)
	w.must(err)
	if last := list[0].Timeline[len(list[0].Timeline)-1]; last.Event != "dropped" || last.Reason != "not_polling" {
		t.Errorf("dropped with %+v", last)
	}
	if p := w.inbox(away, 10); len(p.Items) != 0 || p.Gap != nil {
		t.Errorf("the one away reads %+v", p)
	}
	if p := w.inbox(polling, 10); len(p.Items) != 1 {
		t.Errorf("the one polling reads %d", len(p.Items))
	}
	w.now = w.now.Add(10 * time.Second)
	if p := w.inbox(polling, 10); len(p.Items) != 0 {
		t.Error("it outlived its ten seconds")
	}
}

func acceptFull(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { o.InboxMessages, o.InboxBytes = 3, 100 })
	d := w.device()
	first := w.accept(d, saying("1"))
	w.accept(d, saying("2"), collapsing("k"))
	w.accept(d, saying("3"))
	_, err := w.Accept(w.ctx(), w.send(d, saying("4")))
	w.refused(err, fault.TooMany, "inbox_full")
	if fault.From(err).RetryAfter != time.Minute {
		t.Errorf("retry after %v", fault.From(err).RetryAfter)
	}
	w.accept(d, saying("5"), collapsing("k")) // takes the place of another
	w.ackUpTo(d, first.Pending[0].Seq)
	w.accept(d, saying("6"))

	// What is dead takes no room, swept or not.
	brief := w.device()
	for range 3 {
		w.accept(brief, living(time.Minute))
	}
	w.now = w.now.Add(time.Minute)
	w.accept(brief)
	if p := w.inbox(brief, 10); len(p.Items) != 1 || p.Gap == nil || p.Gap.Count != 3 || p.Gap.Reason != "ttl" {
		t.Errorf("behind three dead messages: %+v", p)
	}

	big := w.device()
	w.accept(big, saying(string(make([]byte, 10)))) // 62 bytes of JSON
	_, err = w.Accept(w.ctx(), w.send(big, saying(string(make([]byte, 10)))))
	w.refused(err, fault.TooMany, "inbox_full")
	_, err = w.Accept(w.ctx(), w.send(w.device(), saying(string(make([]byte, 50)))))
	w.refused(err, fault.TooMany, "inbox_full")
}

func dropOldest(w *world) {
	overflow := tokens.OverflowDropOldest
	_, err := w.PatchApp(w.ctx(), w.app, tokens.AppPatch{InboxOverflow: &overflow})
	w.must(err)
}

func acceptDropsOldest(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { o.InboxMessages = 3 })
	dropOldest(w)
	d := w.device()
	var sent []messages.Receipt
	var all sync.WaitGroup
	for range 3 {
		sent = append(sent, w.accept(d))
	}
	brief := w.accept(d, living(time.Minute)) // drops sent[0]
	w.is(sent[0].ID, messages.Dropped)
	for range 40 {
		all.Go(func() {
			if _, err := w.Accept(w.ctx(), w.send(d)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	w.is(brief.ID, messages.Dropped)
	p := w.inbox(d, 10)
	if len(p.Items) != 3 || w.pending() != 3 {
		t.Fatalf("%d in the inbox, %d counted", len(p.Items), w.pending())
	}
	want := &messages.Gap{From: sent[0].Pending[0].Seq, To: p.Items[0].Seq - 1, Count: 41, Reason: "quota"}
	if diff := cmp.Diff(want, p.Gap); diff != "" {
		t.Error(diff)
	}
}

func acceptOneFull(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { o.InboxMessages = 1 })
	devices := w.userDevices("anna", 2)
	w.accept(devices[0])
	r := w.acceptUser("anna")
	if diff := cmp.Diff(messages.Counters{messages.Queued: 1, messages.Dropped: 1}, w.counters(r.ID)); diff != "" || len(r.Pending) != 1 {
		t.Error(diff, r.Pending)
	}
	if p := w.inbox(devices[0], 10); p.Gap == nil || p.Gap.Count != 1 || p.Gap.Reason != "quota" || p.Last < p.Gap.To {
		t.Errorf("the full one reads %+v", p)
	}
	m := w.send("")
	m.To = messages.Target{User: "anna"}
	_, err := w.Accept(w.ctx(), m)
	w.refused(err, fault.TooMany, "inbox_full")
}

func acceptSharedBody(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { t.Cleanup(func() { mustNotHold(t, o.DSN, "shared-secret-words") }) })
	devices := w.userDevices("anna", 3)
	r := w.acceptUser("anna", saying("shared-secret-words"))
	for i, d := range devices {
		if p := w.inbox(d, 1); len(p.Items) != 1 || !bytes.Contains(p.Items[0].Data, []byte("shared-secret-words")) {
			t.Errorf("device %d reads %+v", i, p.Items)
		}
		w.ackUpTo(d, w.inbox(d, 1).Last)
	}
	if diff := cmp.Diff(messages.Counters{messages.Acked: 3}, w.counters(r.ID)); diff != "" {
		t.Error(diff)
	}
}
