package store_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

var inboxTests = map[string]func(*testing.T, *world){
	"pages follow each other without a hole":           inboxPages,
	"a page is bounded in bytes, but never empty":      inboxBytes,
	"attempts count the times it was handed out":       inboxAttempts,
	"a cursor beyond anything given is refused":        inboxBadCursor,
	"an empty page has a cursor that is good":          inboxEmpty,
	"an empty page answers the wake for what is gone":  inboxEmptyAnswers,
	"a page answers for what is gone beyond its end":   inboxShortAnswers,
	"a page with more behind it answers for itself":    inboxMoreAnswers,
	"a gap stays until the device was told and acked":  inboxGap,
	"a gap nobody was told of survives an ack":         inboxGapUntold,
	"a cursor passes a gap, but nothing unread":        inboxGapAhead,
	"a gap is passed by acks of ids":                   inboxGapIDs,
	"a gap of both reasons is mixed":                   inboxGapMixed,
	"one message is fetched by its id":                 inboxItem,
	"fetching one does not count as fetching the rest": inboxItemAlone,
}

func inboxPages(t *testing.T, w *world) {
	d, noise := w.device(), w.device()
	var want []ident.Message
	for range 25 {
		want = append(want, w.accept(d).ID)
		w.accept(noise)
	}
	var got []ident.Message
	var after *messages.Seq
	for {
		p, err := w.Inbox(w.ctx(), messages.Query{Device: d, After: after, Limit: 10, Now: w.now})
		w.must(err)
		got = append(got, w.ids(p)...)
		if p.More != (len(got) < len(want)) {
			t.Errorf("more is %t after %d", p.More, len(got))
		}
		after = &p.Last
		if !p.More {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[:3], w.ids(w.inbox(d, 3))); diff != "" {
		t.Errorf("without a cursor: %s", diff)
	}
}

func inboxBytes(t *testing.T, w *world) {
	d := w.device()
	large := func(m *messages.Send) { m.Data, _ = json.Marshal(strings.Repeat("x", messages.MaxData-2)) }
	for range 20 {
		w.accept(d, large)
	}
	p := w.inbox(d, 100)
	if len(p.Items) != messages.MaxPageBytes/messages.MaxData || !p.More {
		t.Errorf("%d items, more %t", len(p.Items), p.More)
	}
}

func inboxAttempts(t *testing.T, w *world) {
	d := w.device()
	r := w.accept(d)
	for want := 1; want < 6; want++ {
		if got := w.inbox(d, 1).Items[0].Attempt; got != want {
			t.Fatalf("attempt %d is called %d", want, got)
		}
		if want == 3 {
			w.flushed(d, r)
		}
	}
	if item, err := w.Item(w.ctx(), d, r.ID, w.now); err != nil || item.Attempt != 6 {
		t.Errorf("attempt 6 is called %d, %v", item.Attempt, err)
	}
}

// flushed waits until the lane was written: an ack that acks nothing takes the device's entry along.
func (w *world) flushed(d ident.Device, r messages.Receipt) {
	w.t.Helper()
	w.ackUpTo(d, r.Pending[0].Seq-1)
}

func inboxBadCursor(_ *testing.T, w *world) {
	d, noise := w.device(), w.device()
	r := w.accept(d)
	beyond := w.accept(noise).Pending[0].Seq
	_, err := w.Inbox(w.ctx(), messages.Query{Device: d, After: &beyond, Limit: 1, Now: w.now})
	w.refused(err, fault.Malformed, "bad_cursor")
	_, err = w.AckUpTo(w.ctx(), d, beyond, w.now)
	w.refused(err, fault.Malformed, "bad_cursor")
	w.is(r.ID, messages.Queued)
	_, err = w.Inbox(w.ctx(), messages.Query{Device: unknownDevice(), Limit: 1, Now: w.now})
	w.refused(err, fault.NotFound, "device_not_found")
	_, err = w.AckUpTo(w.ctx(), unknownDevice(), 0, w.now)
	w.refused(err, fault.NotFound, "device_not_found")
	_, err = w.AckIDs(w.ctx(), unknownDevice(), []ident.Message{r.ID}, w.now)
	w.refused(err, fault.NotFound, "device_not_found")
}

func inboxEmpty(t *testing.T, w *world) {
	d := w.device()
	if p := w.inbox(d, 10); len(p.Items) != 0 || p.Last != 0 {
		t.Errorf("a new inbox: %+v", p)
	}
	r := w.accept(d)
	w.ackUpTo(d, w.inbox(d, 10).Last)
	p := w.inbox(d, 10)
	if len(p.Items) != 0 || p.Last != r.Pending[0].Seq {
		t.Errorf("an emptied inbox: %+v", p)
	}
	next := w.accept(d)
	again, err := w.Inbox(w.ctx(), messages.Query{Device: d, After: &p.Last, Limit: 10, Now: w.now})
	w.must(err)
	if got := w.ids(again); len(got) != 1 || got[0] != next.ID {
		t.Errorf("after it: %v", got)
	}
	if n := w.ackUpTo(d, p.Last); n != 0 {
		t.Errorf("an old cursor acked %d", n)
	}
}

// answered checks how far the inbox is known to be handed out, and how many wakes wait for an answer.
func (w *world) answered(d ident.Device, seen messages.Seq, unanswered int) {
	w.t.Helper()
	waiting, _, err := w.Waiting(w.ctx(), d, w.now)
	w.must(err)
	if waiting.Seen != seen || waiting.Unanswered != unanswered {
		w.t.Errorf("seen up to %d with %d unanswered, want %d and %d", waiting.Seen, waiting.Unanswered, seen, unanswered)
	}
}

func inboxEmptyAnswers(t *testing.T, w *world) {
	d := w.device()
	var seq messages.Seq
	for _, end := range []func(messages.Receipt){
		func(messages.Receipt) { w.now = w.now.Add(time.Minute) }, // over, but not swept
		func(r messages.Receipt) {
			_, err := w.Cancel(w.ctx(), w.app, r.ID, w.now)
			w.must(err)
		},
	} {
		before := w.inbox(d, 10).Last
		r := w.accept(d, living(time.Minute))
		seq = seqOf(r)
		w.wake(d, messages.Marks{High: seq})
		w.answered(d, before, 1)
		end(r)
		p, err := w.Inbox(w.ctx(), messages.Query{Device: d, After: &before, Limit: 10, Now: w.now})
		w.must(err)
		if len(p.Items) != 0 || p.Seen != seq {
			t.Errorf("the page %+v, want an empty one that saw %d", p, seq)
		}
		w.answered(d, seq, 0)
		w.flushed(d, r)
		w.answered(d, seq, 0)
		if p := w.inbox(d, 10); p.Seen != 0 || p.Last != seq {
			t.Errorf("read again: %+v, want nothing new", p)
		}
	}
	w.wake(d, messages.Marks{High: seq})
	w.inbox(d, 10)
	w.answered(d, seq, 1) // nothing newer came: nothing is noted
}

func inboxShortAnswers(t *testing.T, w *world) {
	d := w.device()
	w.accept(d)
	gone := w.accept(d)
	_, err := w.Cancel(w.ctx(), w.app, gone.ID, w.now)
	w.must(err)
	if p := w.inbox(d, 10); len(p.Items) != 1 || p.Seen != seqOf(gone) {
		t.Errorf("the page %+v, want one that saw %d", p, seqOf(gone))
	}
	w.answered(d, seqOf(gone), 0)
	if p := w.inbox(d, 10); p.Seen != 0 {
		t.Errorf("read again: %d seen anew", p.Seen)
	}
}

func inboxMoreAnswers(t *testing.T, w *world) {
	d := w.device()
	first, second := w.accept(d), w.accept(d)
	if p := w.inbox(d, 1); !p.More || p.Seen != 0 {
		t.Errorf("the page %+v", p)
	}
	w.answered(d, seqOf(first), 0)
	if p := w.inbox(d, 2); p.More || p.Seen != seqOf(second) {
		t.Errorf("the page %+v", p)
	}
	w.answered(d, seqOf(second), 0)
}

// lose has messages for the device expire and returns their places.
func (w *world) lose(d ident.Device, n int) (seqs []messages.Seq) {
	w.t.Helper()
	for range n {
		seqs = append(seqs, w.accept(d, living(time.Second)).Pending[0].Seq)
	}
	w.now = w.now.Add(2 * time.Second)
	if got, err := w.Expire(w.ctx(), w.now, 1000); err != nil || got != n {
		w.t.Fatalf("expired %d, %v", got, err)
	}
	return seqs
}

func inboxGap(t *testing.T, w *world) {
	d := w.device()
	before := w.accept(d)
	lost := w.lose(d, 3)
	after := w.accept(d)
	want := &messages.Gap{From: lost[0], To: lost[2], Count: 3, Reason: "ttl"}
	p := w.inbox(d, 10)
	if diff := cmp.Diff(want, p.Gap); diff != "" || p.Last != after.Pending[0].Seq {
		t.Error(diff, p.Last)
	}
	w.ackUpTo(d, before.Pending[0].Seq)
	if p = w.inbox(d, 10); p.Gap == nil {
		t.Error("the gap went before it was acked past")
	}
	w.ackUpTo(d, p.Last)
	if p = w.inbox(d, 10); p.Gap != nil {
		t.Errorf("the gap outlived its ack: %+v", p.Gap)
	}
	lost = w.lose(d, 1)
	if p = w.inbox(d, 10); p.Gap == nil || p.Last != lost[0] {
		t.Errorf("an empty page ends at %d, before its gap %+v", p.Last, p.Gap)
	}
	w.ackUpTo(d, p.Last)
	if p = w.inbox(d, 10); p.Gap != nil {
		t.Errorf("the gap outlived its ack: %+v", p.Gap)
	}
}

// inboxGapAhead: the gap ends behind messages that the page had no room for.
func inboxGapAhead(t *testing.T, w *world) {
	d := w.device()
	want := []ident.Message{w.accept(d).ID, w.accept(d).ID, w.accept(d).ID}
	lost := w.lose(d, 2)
	var got []ident.Message
	var after *messages.Seq
	for more := true; more; {
		p, err := w.Inbox(w.ctx(), messages.Query{Device: d, After: after, Limit: 1, Now: w.now})
		w.must(err)
		end := lost[1]
		if more = p.More; more {
			end = p.Items[0].Seq
		}
		if p.Last != end || p.Gap == nil {
			t.Fatalf("the page %+v, want it to end at %d", p, end)
		}
		got, after = append(got, w.ids(p)...), &p.Last
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func inboxGapUntold(t *testing.T, w *world) {
	d := w.device()
	w.accept(d, living(time.Second))
	w.now = w.now.Add(2 * time.Second)
	r := w.accept(d)
	page := w.inbox(d, 10) // the first is over, but not swept yet: no gap to tell of
	if page.Gap != nil || len(page.Items) != 1 {
		t.Fatalf("read %+v", page)
	}
	_, err := w.Expire(w.ctx(), w.now, 10)
	w.must(err)
	w.ackUpTo(d, page.Last)
	w.is(r.ID, messages.Acked)
	if p := w.inbox(d, 10); p.Gap == nil || p.Gap.Count != 1 {
		t.Fatal("the device will never hear of what it lost")
	}
	w.ackUpTo(d, page.Last)
	if p := w.inbox(d, 10); p.Gap != nil {
		t.Error("the gap outlived its ack")
	}
}

func inboxGapIDs(t *testing.T, w *world) {
	d := w.device()
	first := w.accept(d)
	w.lose(d, 2)
	last := w.accept(d)
	w.inbox(d, 10)
	ack := func(r messages.Receipt) {
		t.Helper()
		if n, err := w.AckIDs(w.ctx(), d, []ident.Message{r.ID}, w.now); n != 1 || err != nil {
			t.Errorf("acked %d, %v", n, err)
		}
	}
	ack(last)
	if p := w.inbox(d, 10); p.Gap != nil {
		t.Error("a newer message was acked, the gap stays")
	}
	w.lose(d, 2)
	w.inbox(d, 10)
	ack(first)
	if p := w.inbox(d, 10); p.Gap != nil {
		t.Error("nothing is left before the gap's end, the gap stays")
	}
}

func inboxGapMixed(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { o.InboxMessages = 2 })
	dropOldest(w)
	d := w.device()
	w.lose(d, 1)
	for range 3 {
		w.accept(d)
	}
	if p := w.inbox(d, 10); p.Gap == nil || p.Gap.Reason != "mixed" || p.Gap.Count != 2 {
		t.Errorf("gap %+v", p.Gap)
	}
}

func inboxItem(t *testing.T, w *world) {
	d, other := w.device(), w.device()
	r := w.accept(d, saying("x"))
	item, err := w.Item(w.ctx(), d, r.ID, w.now)
	w.must(err)
	want := messages.Item{ID: r.ID, Seq: r.Pending[0].Seq, Data: []byte(`"x"`), Urgency: messages.High, CreatedAt: w.now,
		ExpiresAt: r.ExpiresAt, Attempt: 1}
	if diff := cmp.Diff(want, item); diff != "" {
		t.Error(diff)
	}
	w.is(r.ID, messages.Fetched)
	_, err = w.Item(w.ctx(), other, r.ID, w.now)
	w.refused(err, fault.NotFound, "message_not_found")
	_, err = w.Item(w.ctx(), d, r.ID, r.ExpiresAt)
	w.refused(err, fault.NotFound, "message_not_found")
	w.ackUpTo(d, item.Seq)
	_, err = w.Item(w.ctx(), d, r.ID, w.now)
	w.refused(err, fault.NotFound, "message_not_found")
}

func inboxItemAlone(t *testing.T, w *world) {
	d := w.device()
	first, second := w.accept(d), w.accept(d)
	_, err := w.Item(w.ctx(), d, second.ID, w.now)
	w.must(err)
	for range 2 {
		w.is(first.ID, messages.Queued)
		w.is(second.ID, messages.Fetched)
		if waiting, _, err := w.Waiting(w.ctx(), d, w.now); err != nil || waiting.Seen != 0 {
			t.Errorf("seen up to %d, %v", waiting.Seen, err)
		}
		w.flushed(d, first)
	}
}
