package store_test

import (
	"testing"
	"time"

	"rouse/internal/testkit"
	"rouse/messages"
)

func TestSmoke(t *testing.T) {
	t.Parallel()
	s := testkit.Store(t)
	app := testkit.App(t, s)
	d := testkit.Device(t, s, app.ID)
	r := testkit.Accept(t, s, testkit.Send(app.ID, d.ID))
	p, err := s.Inbox(t.Context(), messages.Query{Device: d.ID, Limit: 10, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", p)
	w, dev, err := s.Waiting(t.Context(), d.ID, time.Now())
	t.Logf("%+v %+v %v", w, dev, err)
	sum, err := s.Message(t.Context(), app.ID, r.ID)
	t.Logf("%+v %v", sum, err)
	n, err := s.AckUpTo(t.Context(), d.ID, p.Last, time.Now())
	t.Logf("%+v %v", n, err)
	sum, err = s.Message(t.Context(), app.ID, r.ID)
	t.Logf("%+v %v", sum, err)
	ds, _, err := s.Deliveries(t.Context(), app.ID, r.ID, "", 10)
	t.Logf("%+v %v", ds, err)
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Log(s.Purge(t.Context(), time.Now(), time.Now(), 1000))
	t.Log(s.Expire(t.Context(), time.Now(), 1000))
	t.Log(s.DeleteApp(t.Context(), app.ID))
}
