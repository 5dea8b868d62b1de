package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

var receiptTests = map[string]func(*testing.T, *world){
	"the first report of each kind counts":      reportsOnce,
	"a report is of its own inbox, and of then": reportsOfTheirTime,
	"reports of a shared message are added up":  reportsAddedUp,
	"what happens to devices is told":           devicesTold,
	"only what an app wants is told":            wantedTold,
	"events are found by their time":            toldSince,
}

func (w *world) report(d ident.Device, list ...messages.Report) int {
	w.t.Helper()
	n, err := w.Report(w.ctx(), d, list, w.now)
	w.must(err)
	return n
}

// toldAs is what was told of types, in order.
func (w *world) toldAs(types ...string) (list []messages.Event) {
	w.t.Helper()
	q := messages.EventQuery{App: w.app, Limit: 100, Types: types}
	p, err := w.EventPage(w.ctx(), q)
	w.must(err)
	if p.More {
		w.t.Error("there are more")
	}
	return p.Events
}

func (w *world) reports(id ident.Message) [3]int {
	w.t.Helper()
	sum, err := w.Message(w.ctx(), w.app, id)
	w.must(err)
	return [3]int{sum.Reports[messages.Displayed], sum.Reports[messages.Opened], sum.Reports[messages.Dismissed]}
}

func reportsOnce(t *testing.T, w *world) {
	d := w.device()
	id := w.accept(d).ID
	at := w.now
	w.now = w.now.Add(time.Minute)
	last := w.inbox(d, 1).Last
	if n := w.report(d, messages.Report{Message: id, Kind: messages.Displayed, At: at.Add(time.Second)}, messages.Report{Message: id, Kind: messages.Displayed, At: at.Add(2 * time.Second)}); n != 1 {
		t.Errorf("%d were new", n)
	}
	w.ackUpTo(d, last)
	w.now = w.now.Add(time.Minute)
	if n := w.report(d, messages.Report{Message: id, Kind: messages.Displayed}, messages.Report{Message: id, Kind: messages.Opened}); n != 1 {
		t.Errorf("%d were new", n)
	}
	names, moments := w.events(id)
	if !slices.Equal(names, []string{"accepted", "displayed", "fetched", "acked", "opened"}) || !moments[1].At.Equal(at.Add(time.Second)) || !moments[4].At.Equal(w.now) {
		t.Errorf("%+v", moments)
	}
	w.is(id, messages.Acked)
	if got := w.reports(id); got != [3]int{1, 1, 0} {
		t.Errorf("counted %v", got)
	}
	if told := w.toldAs("message.displayed", "message.opened", "message.dismissed"); len(told) != 2 || told[0].Type != messages.MessageDisplayed || told[0].Device != d || !told[1].At.Equal(w.now) {
		t.Errorf("told %+v", told)
	}
}

func reportsOfTheirTime(t *testing.T, w *world) {
	d, other := w.device(), w.device()
	mine, theirs := w.accept(d).ID, w.accept(other).ID
	many := []messages.Report{{Message: theirs, Kind: messages.Opened}, {Message: ident.NewMessage(), Kind: messages.Opened}, {Message: mine, Kind: "liked"},
		{Message: "msg_\x00", Kind: messages.Opened}, {Message: mine, Kind: messages.Opened, At: w.now.Add(-time.Hour)}, {Message: mine, Kind: messages.Dismissed, At: w.now.Add(time.Hour)}}
	if n := w.report(d, many...); n != 2 {
		t.Errorf("%d were new", n)
	}
	if n := w.report(unknownDevice(), many...); n != 0 {
		t.Errorf("nobody reported %d", n)
	}
	_, moments := w.events(mine)
	for _, m := range moments {
		if !m.At.Equal(w.now) {
			t.Errorf("%s at %s, now is %s", m.Event, m.At, w.now)
		}
	}
	if w.reports(theirs) != [3]int{} {
		t.Error("one device reported for another")
	}
}

func reportsAddedUp(t *testing.T, w *world) {
	devices := w.userDevices("anna", 3)
	id := w.acceptUser("anna").ID
	for i, d := range devices {
		w.report(d, messages.Report{Message: id, Kind: messages.Displayed})
		if i > 0 {
			w.report(d, messages.Report{Message: id, Kind: messages.Dismissed}, messages.Report{Message: id, Kind: messages.Displayed})
		}
	}
	if got := w.reports(id); got != [3]int{3, 0, 2} {
		t.Errorf("counted %v", got)
	}
}

func devicesTold(t *testing.T, w *world) {
	d := w.register(func(e *tokens.Enrol) { e.Installation = "phone \"1\"" })
	_, created, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) {
		e.Installation, e.As, e.Token = "phone \"1\"", tokens.SecretKey, "another-token"
	}))
	if w.must(err); created {
		t.Fatal("a known installation is new")
	}
	d, err = w.Device(w.ctx(), w.app, d.ID)
	w.must(err)
	w.mark(d, tokens.TokenSuspect, true)
	w.mark(d, tokens.TokenDead, true)
	w.mark(d, tokens.TokenDead, false)
	w.must(w.Unregister(w.ctx(), w.app, d.ID, w.now))
	w.must(w.Unregister(w.ctx(), w.app, d.ID, w.now))
	const data = `{"device_id":"%s","installation_id":"phone \"1\"","provider":"apns"%s}`
	var types []messages.EventType
	for _, e := range w.toldAs("device.*") {
		types = append(types, e.Type)
		if why := map[bool]string{true: `,"reason":"why"`}[e.Type == messages.DeviceTokenDead]; string(e.Data) != fmt.Sprintf(data, d.ID, why) || e.Device != d.ID {
			t.Errorf("%s of %s: %s", e.Type, e.Device, e.Data)
		}
	}
	if !slices.Equal(types, []messages.EventType{messages.DeviceRegistered, messages.DeviceTokenDead, messages.DeviceUnregistered}) {
		t.Errorf("told %v", types)
	}
}

func wantedTold(t *testing.T, w *world) {
	d := w.device()
	w.wantsEvents("message.expired", "device.*")
	for range 2 {
		w.ackUpTo(d, seqOf(w.accept(d)))
		w.report(d, messages.Report{Message: w.accept(d, living(time.Minute)).ID, Kind: messages.Opened})
	}
	w.happen(2)
	w.now = w.now.Add(time.Hour)
	_, err := w.Expire(w.ctx(), w.now, 10)
	w.must(err)
	var types []messages.EventType
	for _, e := range w.toldAs("*") {
		types = append(types, e.Type)
	}
	if !slices.Equal(types, []messages.EventType{messages.DeviceRegistered, messages.MessageExpired}) {
		t.Errorf("told %v", types)
	}
}

func toldSince(t *testing.T, w *world) {
	behind := func(since time.Time) int {
		t.Helper()
		place, err := w.EventPlace(w.ctx(), w.app, since)
		w.must(err)
		list, _ := w.eventsAfter(place, 100)
		return len(list)
	}
	begin := w.now
	if n := behind(time.Time{}); n != 0 {
		t.Errorf("%d events before any", n)
	}
	w.happen(4)
	w.now = begin.Add(time.Minute)
	w.happen(2)
	for since, want := range map[time.Time]int{{}: 0, begin.Add(-time.Hour): 6, begin: 6, begin.Add(30 * time.Second): 2, w.now: 2, w.now.Add(time.Hour): 0} {
		if n := behind(since); n != want {
			t.Errorf("since %v: %d events, want %d", since, n, want)
		}
	}
	end, err := w.EventPlace(w.ctx(), w.app, time.Time{})
	w.must(err)
	w.happen(1)
	if list, _ := w.eventsAfter(end, 100); len(list) != 1 {
		t.Errorf("behind the end: %+v", list)
	}
}
