package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/messages"
)

func acceptMany(t *testing.T, w *world) {
	d, anna := w.device(), w.userDevices("anna", 2)
	list := []messages.Send{
		w.send(d), w.send(unknownDevice()), w.send("", toUser("anna")), w.send("", toUser("nobody")), w.send("", everybody),
		w.send(d, at(w.now.Add(time.Hour))), w.send(unknownDevice(), at(w.now.Add(time.Hour))),
		w.send(d, keyed("k", "a")), w.send(d, keyed("k", "a")), w.send(d, keyed("k", "b")), w.send("", toTopic("t")),
	}
	verdicts, err := w.AcceptAll(w.ctx(), list)
	w.must(err)
	var got []string
	for i, v := range verdicts {
		switch {
		case v.Err != nil:
			got = append(got, fault.From(v.Err).Code)
		case v.Receipt.Replayed:
			got = append(got, "replayed")
		default:
			got = append(got, fmt.Sprint(v.Receipt.Status, " ", v.Receipt.Recipients, " ", len(v.Receipt.Pending)))
			if v.Receipt.ID != list[i].ID {
				t.Errorf("verdict %d is of another send", i)
			}
		}
	}
	want := []string{"accepted 1 1", "device_not_found", "accepted 2 2", "no_recipients 0 0", "fanning_out 0 0", "scheduled 0 0",
		"device_not_found", "accepted 1 1", "replayed", "idempotency_key_reused", "fanning_out 0 0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(w.inbox(d, 10).Items) != 2 || len(w.inbox(anna[1], 10).Items) != 1 || w.pending() != 4 {
		t.Errorf("%d are pending", w.pending())
	}
	// A repeat sends only what was refused.
	again, err := w.AcceptAll(w.ctx(), []messages.Send{w.send(d, keyed("k", "a")), w.send(d)})
	if err != nil || !again[0].Receipt.Replayed || again[1].Receipt.Replayed {
		t.Errorf("%+v, %v", again, err)
	}
	if none, err := w.AcceptAll(w.ctx(), nil); none != nil || err != nil {
		t.Errorf("none: %v, %v", none, err)
	}
}

func acceptManyFull(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { o.InboxMessages = 3 })
	d, other := w.device(), w.device()
	w.accept(d)
	var list []messages.Send
	for range 4 {
		list = append(list, w.send(d), w.send(other, collapsing("k")))
	}
	verdicts, err := w.AcceptAll(w.ctx(), list)
	w.must(err)
	for i, v := range verdicts {
		if full := i == 4 || i == 6; full != (v.Err != nil) {
			t.Errorf("verdict %d: %+v", i, v)
		}
	}
	if len(w.inbox(d, 10).Items) != 3 || len(w.inbox(other, 10).Items) != 1 {
		t.Error("another number is stored than was accepted")
	}
}
