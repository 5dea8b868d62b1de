package store_test

import (
	"testing"
	"time"

	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
)

// What a node of the version before does, while it runs beside the first of this one.

// ackAsBefore acks a delivery whose message lies apart. That version knew of no counters but pending.
func (w *world) ackAsBefore(p messages.Pending, id ident.Message) {
	w.t.Helper()
	now := w.now.UnixMilli()
	w.must(w.Alter(w.ctx(), "UPDATE deliveries SET ended_at = ?, ended = 'acked', body = NULL, notification = NULL WHERE device = ? AND seq = ?", now, string(p.Device), int64(p.Seq)))
	w.must(w.Alter(w.ctx(), "UPDATE inboxes SET pending = pending - 1 WHERE device = ?", string(p.Device)))
	w.must(w.Alter(w.ctx(), "UPDATE messages SET pending = pending - 1, body = CASE WHEN pending <= 1 THEN NULL ELSE body END WHERE id = ?", string(id)))
}

func fanOldAck(t *testing.T, w *world) {
	devices := w.devices(3)
	r := testkit.Accept(t, w.Store, w.send("", everybody, saying("all")))
	for range devices {
		page, err := w.FanOut(w.ctx(), r.ID, 1, w.now)
		w.must(err)
		for _, p := range page.Pending {
			if got := w.inbox(p.Device, 1).Items; len(got) != 1 || string(got[0].Data) != `"all"` {
				t.Errorf("one reads %+v", got)
			}
			w.ackAsBefore(p, r.ID)
		}
	}
	w.fan(r.ID, 1)
	w.status(r.ID, messages.Accepted, 3)
	if c := w.counters(r.ID); c[messages.Acked] != 3 {
		t.Errorf("it counts %v", c)
	}
}

func fanOldPurge(t *testing.T, w *world) {
	d := w.device()
	r := testkit.Accept(t, w.Store, w.send(d, at(w.now.Add(time.Hour))))
	w.must(w.Alter(w.ctx(), "DELETE FROM messages WHERE pending = 0"))
	w.now = w.now.Add(time.Hour)
	if n, _ := reached(w.fan(r.ID, 10)); n != 1 {
		t.Error("it is lost")
	}
}

func fanOldCounts(t *testing.T, w *world) {
	w.devices(2)
	r := testkit.Accept(t, w.Store, w.send("", everybody))
	_, pending := reached(w.fan(r.ID, 10))
	w.ackUpTo(pending[0].Device, pending[0].Seq)
	w.ackAsBefore(pending[1], r.ID)
	if c := w.counters(r.ID); c[messages.Acked] != 2 || len(c) != 1 {
		t.Errorf("few are counted as %v", c)
	}
	w.must(w.Alter(w.ctx(), "UPDATE messages SET recipients = 20000, pending = 15000 WHERE id = ?", string(r.ID)))
	if c := w.counters(r.ID); c[messages.Acked] != 5000 || c[messages.Queued] != 15000 {
		t.Errorf("many are counted as %v", c)
	}
}

// cancelBodies: however it is canceled and taken back, the body goes with the last who needed it.
func cancelBodies(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { t.Cleanup(func() { mustNotHold(t, o.DSN, "canceled-words") }) })
	devices := w.devices(3)
	for _, m := range []messages.Send{w.send("", everybody, saying("canceled-words")), w.send("", everybody, saying("canceled-words"))} {
		r := testkit.Accept(t, w.Store, m)
		_, err := w.FanOut(w.ctx(), r.ID, 2, w.now)
		w.must(err)
		w.must(w.CancelOnly(w.ctx(), w.app, r.ID, w.now))
		w.ackUpTo(devices[0], w.inbox(devices[0], 1).Last) // or it is the next one's
		w.fan(r.ID, 1)
		w.ackUpTo(devices[1], w.inbox(devices[1], 1).Last)
		w.status(r.ID, messages.CanceledStatus, 2)
		w.now = w.now.Add(time.Second)
	}
	if w.pending() != 0 || len(w.jobs(10)) != 0 {
		t.Errorf("%d are pending, %v due", w.pending(), w.jobs(10))
	}
}

// eraseOld: who takes a device from a user as that version did leaves what is pending there.
func eraseOld(t *testing.T, w *world) {
	d := w.userDevices("anna", 1)[0]
	w.acceptUser("anna")
	kept := w.accept(d)
	w.must(w.Alter(w.ctx(), "UPDATE devices SET user_id = '' WHERE id = ?", string(d)))
	got, err := w.EraseUser(w.ctx(), w.app, "anna", w.now)
	w.must(err)
	if p := w.inbox(d, 10); got.Deliveries != 1 || got.Devices != 0 || len(p.Items) != 1 || p.Items[0].ID != kept.ID || w.pending() != 1 {
		t.Errorf("%+v, left %+v, %d pending", got, p, w.pending())
	}
}
