package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/tokens"
)

var fanoutTests = map[string]func(*testing.T, *world){
	"a broadcast reaches everybody once":                   fanBroadcast,
	"a topic reaches its subscribers once":                 fanTopic,
	"a scheduled message waits for its time":               fanScheduled,
	"a scheduled message finds whose the devices are then": fanScheduledUser,
	"a full inbox drops its delivery of a broadcast":       fanFull,
	"a broadcast past its life leaves gaps":                fanOver,
	"an audience of nobody is no recipients":               fanNobody,
	"jobs are listed by age, and each app has its share":   fanJobs,
	"a scheduled message is canceled before its time":      cancelScheduled,
	"a broadcast is canceled between two pages":            cancelFanning,
	"what is canceled is taken back page by page":          cancelPages,
	"counters count every way to end":                      fanCounters,
	"two callers of one fan-out":                           fanRace,
	"a fan-out ends with its app":                          fanDeleted,
	"what is due is not purged":                            fanPurge,
	"many are accepted in one commit":                      acceptMany,
	"a batch fills an inbox":                               acceptManyFull,
	"who fans out by another clock waits for nothing":      fanSkewed,
	"a node of the version before acks under a fan-out":    fanOldAck,
	"a node of the version before purges what is due":      fanOldPurge,
	"a node of the version before counts nothing":          fanOldCounts,
	"a canceled message holds no body":                     cancelBodies,
	"a person is erased where an old node left something":  eraseOld,
}

func everybody(m *messages.Send) { m.To = messages.Target{Broadcast: true} }

func toTopic(name string) func(*messages.Send) {
	return func(m *messages.Send) { m.To = messages.Target{Topic: name} }
}

func toUser(name string) func(*messages.Send) {
	return func(m *messages.Send) { m.To = messages.Target{User: name} }
}

func at(when time.Time) func(*messages.Send) {
	return func(m *messages.Send) { m.SendAt = when }
}

// fan stores pages of up to limit devices until the fan-out is done, and returns them.
func (w *world) fan(id ident.Message, limit int) (pages []messages.FanPage) {
	w.t.Helper()
	for range 1000 {
		p, err := w.FanOut(w.ctx(), id, limit, w.now)
		w.must(err)
		pages = append(pages, p)
		if p.Done {
			return pages
		}
	}
	w.t.Fatal("it does not end")
	return nil
}

func reached(pages []messages.FanPage) (n int, pending []messages.Pending) {
	for _, p := range pages {
		n, pending = n+p.Reached, append(pending, p.Pending...)
	}
	return n, pending
}

func (w *world) status(id ident.Message, status messages.Status, recipients int) {
	w.t.Helper()
	sum, err := w.Message(w.ctx(), w.app, id)
	w.must(err)
	if sum.Status != status || sum.Recipients != recipients {
		w.t.Errorf("it is %s to %d, want %s to %d", sum.Status, sum.Recipients, status, recipients)
	}
}

func (w *world) devices(n int) (list []ident.Device) {
	w.t.Helper()
	for range n {
		list = append(list, w.device(func(e *tokens.Enrol) { e.Now = w.now }))
	}
	return list
}

func (w *world) jobs(limit int) (ids []ident.Message) {
	w.t.Helper()
	list, err := w.FanJobs(w.ctx(), w.now, limit)
	w.must(err)
	for _, j := range list {
		ids = append(ids, j.Message)
	}
	return ids
}

func fanBroadcast(t *testing.T, w *world) {
	early := func(e *tokens.Enrol) { e.Now = w.now.Add(-time.Hour) }
	var devices []ident.Device
	for range 6 {
		devices = append(devices, w.device(early))
	}
	gone := w.device(early)
	w.must(w.Unregister(w.ctx(), w.app, gone, w.now))
	other := *w
	other.app = testkit.App(t, w.Store).ID
	stranger := other.device(early)

	m := w.send("", everybody, saying("all"), func(m *messages.Send) {
		m.CorrelationID, m.Notification = "order-7", &messages.Notification{Title: "T", Body: "B"}
	})
	r, err := w.Accept(w.ctx(), m)
	w.must(err)
	if r.Status != messages.FanningOut || r.Recipients != 0 || len(r.Pending) != 0 {
		t.Errorf("accepted as %+v", r)
	}
	w.status(m.ID, messages.FanningOut, 0)
	devices = append(devices, w.device(func(e *tokens.Enrol) { e.Now = w.now.Add(5 * time.Second) })) // before it, by a clock that is ahead
	late := w.device(func(e *tokens.Enrol) { e.Now = w.now.Add(6 * time.Second) })
	w.now = w.now.Add(time.Minute)
	jobs, err := w.FanJobs(w.ctx(), w.now, 10)
	w.must(err)
	want := []messages.FanJob{{Message: m.ID, App: w.app, Due: m.CreatedAt, Rate: 2000, Wakes: true}}
	if diff := cmp.Diff(want, jobs); diff != "" {
		t.Error(diff)
	}
	first, err := w.FanOut(w.ctx(), m.ID, 3, w.now)
	w.must(err)
	w.status(m.ID, messages.FanningOut, 3)
	n, pending := reached(append(w.fan(m.ID, 3), first))
	if n != 7 || len(pending) != 7 {
		t.Errorf("reached %d, hints for %d", n, len(pending))
	}
	for _, d := range devices {
		p := w.inbox(d, 10)
		if len(p.Items) != 1 || string(p.Items[0].Data) != `"all"` || !p.Items[0].ExpiresAt.Equal(r.ExpiresAt) || !p.Items[0].CreatedAt.Equal(w.now) {
			t.Errorf("one reads %+v", p.Items)
		}
	}
	for _, d := range []ident.Device{late, stranger} {
		if p := w.inbox(d, 10); len(p.Items) != 0 {
			t.Errorf("one that it is not for reads %+v", p.Items)
		}
	}
	waiting, _, err := w.Waiting(w.ctx(), devices[0], w.now)
	if err != nil || waiting.Notification == nil || waiting.Notification.Title != "T" {
		t.Errorf("it wakes with %+v, %v", waiting.Notification, err)
	}
	w.status(m.ID, messages.Accepted, 7)
	if diff := cmp.Diff(messages.Counters{messages.Fetched: 7}, w.counters(m.ID)); diff != "" {
		t.Error(diff)
	}
	if again := w.fan(m.ID, 3); again[0].Reached != 0 || w.pending() != 7 || len(w.jobs(10)) != 0 {
		t.Errorf("done again it reached %d", again[0].Reached)
	}
}

func fanTopic(t *testing.T, w *world) {
	devices := w.devices(6)
	w.subscribe("news", devices[:4]...)
	w.must(w.BindUser(w.ctx(), w.app, "anna", devices[0], w.now)) // who has it from anna as well
	w.must(w.SubscribeUser(w.ctx(), w.app, "news", "anna", w.now))
	_, err := w.Unsubscribe(w.ctx(), w.app, "news", devices[3:4])
	w.must(err)
	r := testkit.Accept(t, w.Store, w.send("", toTopic("news")))
	w.now = w.now.Add(6 * time.Second)
	w.subscribe("news", devices[4])
	if n, _ := reached(w.fan(r.ID, 1)); n != 3 {
		t.Errorf("reached %d", n)
	}
	for i, d := range devices {
		if n := len(w.inbox(d, 10).Items); n != map[bool]int{true: 1}[i < 3] {
			t.Errorf("device %d reads %d", i, n)
		}
	}
	// Whoever leaves between the look and the page is not reached.
	r = testkit.Accept(t, w.Store, w.send("", toTopic("news")))
	if _, err := w.FanOut(w.ctx(), r.ID, 2, w.now); err != nil {
		t.Fatal(err)
	}
	_, err = w.Unsubscribe(w.ctx(), w.app, "news", devices[2:3])
	w.must(err)
	w.fan(r.ID, 2)
	if n := len(w.inbox(devices[2], 10).Items); n != 1 {
		t.Errorf("one that left reads %d", n)
	}
	sum, err := w.Message(w.ctx(), w.app, r.ID)
	if err != nil || sum.To != (messages.Target{Topic: "news"}) || sum.Recipients != 3 {
		t.Errorf("%+v, %v", sum, err)
	}
}

func fanScheduled(t *testing.T, w *world) {
	d := w.device()
	_, err := w.Accept(w.ctx(), w.send(unknownDevice(), at(w.now.Add(time.Hour))))
	w.refused(err, fault.Invalid, "device_not_found", "/to/device_id")
	m := w.send(d, at(w.now.Add(time.Hour)), keyed("k", "a"), living(time.Minute))
	r, err := w.Accept(w.ctx(), m)
	w.must(err)
	if r.Status != messages.Scheduled || r.Recipients != 0 || !r.ExpiresAt.Equal(w.now.Add(time.Hour+time.Minute)) {
		t.Errorf("accepted as %+v", r)
	}
	again := testkit.Accept(t, w.Store, w.send(d, at(w.now.Add(time.Hour)), keyed("k", "a")))
	want := r
	if want.Replayed = true; !cmp.Equal(want, again) {
		t.Error(cmp.Diff(want, again))
	}
	sum, err := w.Message(w.ctx(), w.app, m.ID)
	if err != nil || sum.Status != messages.Scheduled || sum.To.Device != d || !sum.SendAt.Equal(m.SendAt) || !sum.CreatedAt.Equal(w.now) {
		t.Errorf("%+v, %v", sum, err)
	}
	w.now = w.now.Add(time.Hour - time.Millisecond)
	if p, err := w.FanOut(w.ctx(), m.ID, 10, w.now); err != nil || p.Reached != 0 || p.Done || len(w.jobs(10)) != 0 {
		t.Errorf("before its time: %+v, %v", p, err)
	}
	w.now = w.now.Add(time.Millisecond)
	if ids := w.jobs(10); len(ids) != 1 || ids[0] != m.ID {
		t.Errorf("due are %v", ids)
	}
	pages := w.fan(m.ID, 10)
	if n, pending := reached(pages); len(pages) != 1 || n != 1 || pending[0].Device != d {
		t.Errorf("at its time: %+v", pages)
	}
	w.is(m.ID, messages.Queued)
	w.status(m.ID, messages.Accepted, 1)
	w.ackUpTo(d, w.inbox(d, 10).Last)
	w.is(m.ID, messages.Acked)
	// Asked for again, its time has passed: it is no longer given.
	if after := w.accept(d, keyed("k", "a")); !cmp.Equal(want, after) {
		t.Error(cmp.Diff(want, after))
	}
}

func fanScheduledUser(t *testing.T, w *world) {
	before := w.userDevices("anna", 1)[0]
	r := testkit.Accept(t, w.Store, w.send("", toUser("anna"), at(w.now.Add(time.Hour))))
	now := w.userDevices("anna", 2)
	w.must(w.UnbindUser(w.ctx(), w.app, "anna", before, w.now))
	w.now = w.now.Add(time.Hour)
	w.fan(r.ID, 500)
	if len(w.inbox(before, 10).Items) != 0 || len(w.inbox(now[0], 10).Items) != 1 || len(w.inbox(now[1], 10).Items) != 1 {
		t.Error("it went to others than her devices")
	}
	w.status(r.ID, messages.Accepted, 2)
}

func fanFull(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { o.InboxMessages = 2 })
	devices := w.devices(3)
	old := w.accept(devices[1])
	w.accept(devices[1])
	r := testkit.Accept(t, w.Store, w.send("", everybody))
	n, pending := reached(w.fan(r.ID, 2))
	if n != 3 || len(pending) != 2 {
		t.Errorf("reached %d, hints for %d", n, len(pending))
	}
	if diff := cmp.Diff(messages.Counters{messages.Queued: 2, messages.Dropped: 1}, w.counters(r.ID)); diff != "" {
		t.Error(diff)
	}
	if p := w.inbox(devices[1], 10); len(p.Items) != 2 || p.Gap == nil || p.Gap.Count != 1 || p.Gap.Reason != "quota" {
		t.Errorf("the full one reads %+v", p)
	}
	dropOldest(w)
	r = testkit.Accept(t, w.Store, w.send("", everybody))
	w.fan(r.ID, 2)
	if diff := cmp.Diff(messages.Counters{messages.Queued: 3}, w.counters(r.ID)); diff != "" {
		t.Error(diff)
	}
	w.is(old.ID, messages.Dropped)
}

func fanOver(t *testing.T, w *world) {
	d := w.devices(1)[0]
	held := w.accept(d, collapsing("k"))
	r := testkit.Accept(t, w.Store, w.send("", everybody, living(time.Minute), collapsing("k")))
	w.now = w.now.Add(time.Minute)
	jobs, err := w.FanJobs(w.ctx(), w.now, 10)
	if err != nil || len(jobs) != 1 || jobs[0].Wakes {
		t.Errorf("%+v, %v", jobs, err)
	}
	if n, pending := reached(w.fan(r.ID, 10)); n != 1 || len(pending) != 0 {
		t.Errorf("reached %d, hints %v", n, pending)
	}
	w.is(r.ID, messages.Expired)
	w.is(held.ID, messages.Queued)
	if p := w.inbox(d, 10); p.Gap == nil || p.Gap.Count != 1 || p.Gap.Reason != "ttl" {
		t.Errorf("it reads %+v", p)
	}
}

func fanNobody(t *testing.T, w *world) {
	d := w.device()
	topic := testkit.Accept(t, w.Store, w.send("", toTopic("nobody")))
	later := testkit.Accept(t, w.Store, w.send(d, at(w.now.Add(time.Second))))
	w.must(w.Unregister(w.ctx(), w.app, d, w.now))
	w.now = w.now.Add(time.Second)
	for _, id := range []ident.Message{topic.ID, later.ID} {
		if n, _ := reached(w.fan(id, 10)); n != 0 {
			t.Errorf("reached %d", n)
		}
		w.status(id, messages.NoRecipients, 0)
	}
	if p, err := w.FanOut(w.ctx(), ident.NewMessage(), 10, w.now); !p.Done || err != nil {
		t.Errorf("one that does not exist: %+v, %v", p, err)
	}
}

func fanJobs(t *testing.T, w *world) {
	big := w.app
	var list []ident.Message
	for i := range 6 {
		list = append(list, testkit.Accept(t, w.Store, w.send("", everybody, func(m *messages.Send) { m.CreatedAt = w.now.Add(time.Duration(i) * time.Second) })).ID)
	}
	w.app = testkit.App(t, w.Store).ID
	small := testkit.Accept(t, w.Store, w.send("", everybody, low, func(m *messages.Send) { m.CreatedAt = w.now.Add(10 * time.Second) })).ID
	testkit.Accept(t, w.Store, w.send("", everybody, at(w.now.Add(time.Hour))))
	w.now = w.now.Add(time.Minute)
	if diff := cmp.Diff(append(list[:3:3], small), w.jobs(6)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]ident.Message{list[0]}, w.jobs(1)); diff != "" {
		t.Error(diff)
	}
	if got := w.jobs(100); len(got) != 7 {
		t.Errorf("%d of 7 are listed", len(got))
	}
	rate := 7
	if _, err := w.PatchApp(w.ctx(), big, tokens.AppPatch{BroadcastRate: &rate}); err != nil {
		t.Fatal(err)
	}
	jobs, err := w.FanJobs(w.ctx(), w.now, 100)
	w.must(err)
	for _, j := range jobs {
		if j.Wakes == (j.Message == small) || j.Rate != map[bool]int{true: 7, false: 2000}[j.App == big] {
			t.Errorf("%+v", j)
		}
	}
}
