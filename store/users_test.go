package store_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/tokens"
)

var userTests = map[string]func(*testing.T, *world){
	"who logs out leaves nothing behind":               userLeaves,
	"who comes next gets only what is theirs":          userFollows,
	"what a user was subscribed to goes with the user": topicOfUserLeaves,
	"a shared body goes when its users have left":      sharedBodyLeft,
	"a user has the devices and topics of the moment":  userRead,
	"a registration brings its user and topics":        userEnrolled,
	"a registration that is refused leaves nothing":    enrolmentRefused,
	"a patch binds and unbinds":                        userPatched,
}

// timelineEnd is the last moment of the one delivery of a message.
func (w *world) timelineEnd(id ident.Message, d ident.Device) messages.Moment {
	w.t.Helper()
	list, _, err := w.Deliveries(w.ctx(), w.app, id, "", 100)
	w.must(err)
	for _, delivery := range list {
		if delivery.Device == d {
			return delivery.Timeline[len(delivery.Timeline)-1]
		}
	}
	w.t.Fatalf("%s has no delivery of %s", d, id)
	return messages.Moment{}
}

func (w *world) topicsOf(d ident.Device) []string {
	w.t.Helper()
	list, err := w.DeviceTopics(w.ctx(), d)
	w.must(err)
	return list
}

func (w *world) hasTopics(d ident.Device, want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.topicsOf(d)); diff != "" && len(want)+len(w.topicsOf(d)) > 0 {
		w.t.Errorf("topics of %s: %s", d, diff)
	}
}

// crowd registers n devices that poll, at once, and binds them to the user, if there is one.
func (w *world) crowd(user string, n int) []ident.Device {
	w.t.Helper()
	list := make([]ident.Device, n)
	var all sync.WaitGroup
	for i := range list {
		list[i] = ident.NewDevice()
		all.Go(func() {
			_, _, err := w.Register(w.ctx(), tokens.Enrol{Registration: tokens.Registration{App: w.app, Installation: string(list[i]),
				Platform: tokens.Other, Provider: tokens.NoProvider}, As: tokens.PublishableKey, ID: list[i], User: &user, Now: w.now})
			if err != nil {
				w.t.Error(err)
			}
		})
	}
	all.Wait()
	return list
}

func userLeaves(t *testing.T, w *world) {
	for name, leave := range map[string]func(ident.Device) error{
		"logs out":      func(d ident.Device) error { return w.UnbindUser(w.ctx(), w.app, "anna", d, w.now) },
		"is logged out": func(d ident.Device) error { return w.UnbindUser(w.ctx(), w.app, "", d, w.now) },
		"is patched out": func(d ident.Device) error {
			_, err := w.PatchDevice(w.ctx(), d, tokens.Patch{User: new("")}, w.now)
			return err
		},
		"makes way": func(d ident.Device) error { return w.BindUser(w.ctx(), w.app, "bert", d, w.now) },
	} {
		d := w.device()
		w.must(w.BindUser(w.ctx(), w.app, "anna", d, w.now))
		hers, own := w.acceptUser("anna", collapsing("k"), saying("private")), w.accept(d, saying("yours"))
		w.inbox(d, 1) // a page that was handed out is no different
		w.must(leave(d))
		if got := w.ids(w.inbox(d, 10)); !slices.Equal(got, []ident.Message{own.ID}) {
			t.Errorf("who %s leaves %v, want %v", name, got, own.ID)
		}
		if gap := w.inbox(d, 10).Gap; gap != nil {
			t.Errorf("who %s leaves a gap: %+v", name, gap)
		}
		if end := w.timelineEnd(hers.ID, d); end.Event != "canceled" || end.Reason != "user_left" || !end.At.Equal(w.now) {
			t.Errorf("who %s leaves a message that ends as %+v", name, end)
		}
		if _, err := w.Item(w.ctx(), d, hers.ID, w.now); fault.KindOf(err) != fault.NotFound {
			t.Errorf("who %s leaves a message to be read: %v", name, err)
		}
		if n, err := w.AckIDs(w.ctx(), d, []ident.Message{hers.ID}, w.now); n != 0 || err != nil {
			t.Errorf("who %s leaves a message to be acked: %d, %v", name, n, err)
		}
		if none := w.acceptUser("anna"); none.Recipients != 0 {
			t.Errorf("who %s is reached on %d devices", name, none.Recipients)
		}
		w.must(w.Unregister(w.ctx(), w.app, d, w.now))
	}
	if n := w.pending(); n != 0 {
		t.Errorf("%d are pending", n)
	}
}

func userFollows(t *testing.T, w *world) {
	d := w.device()
	w.must(w.BindUser(w.ctx(), w.app, "anna", d, w.now))
	w.must(w.BindUser(w.ctx(), w.app, "anna", d, w.now))
	first := w.acceptUser("anna")
	w.must(w.BindUser(w.ctx(), w.app, "anna", d, w.now)) // again changes nothing
	if got := w.ids(w.inbox(d, 10)); !slices.Equal(got, []ident.Message{first.ID}) {
		t.Errorf("bound again she has %v", got)
	}
	w.must(w.UnbindUser(w.ctx(), w.app, "bert", d, w.now)) // it is not his
	if got := w.ids(w.inbox(d, 10)); !slices.Equal(got, []ident.Message{first.ID}) {
		t.Errorf("when somebody else logs out she has %v", got)
	}
	w.must(w.BindUser(w.ctx(), w.app, "bert", d, w.now))
	second := w.acceptUser("bert")
	w.must(w.BindUser(w.ctx(), w.app, "anna", d, w.now))
	third := w.acceptUser("anna")
	if got := w.ids(w.inbox(d, 10)); !slices.Equal(got, []ident.Message{third.ID}) {
		t.Errorf("back again she has %v, want %s", got, third.ID)
	}
	w.is(first.ID, messages.Canceled)
	w.is(second.ID, messages.Canceled)
}

func topicOfUserLeaves(t *testing.T, w *world) {
	through, itself := w.device(), w.device()
	for _, d := range []ident.Device{through, itself} {
		w.must(w.BindUser(w.ctx(), w.app, "anna", d, w.now))
	}
	w.must(w.SubscribeUser(w.ctx(), w.app, "orders", "anna", w.now))
	_, err := w.Subscribe(w.ctx(), w.app, "orders", []ident.Device{itself}, w.now)
	w.must(err)
	first, key := w.acceptLater("orders"), collapsing("k")
	w.fan(first, 10)
	replaced := w.acceptLater("orders", key)
	w.fan(replaced, 10)
	last := w.acceptLater("orders", key) // replaces: it takes another way in
	w.fan(last, 10)
	for _, d := range []ident.Device{through, itself} {
		w.must(w.BindUser(w.ctx(), w.app, "bert", d, w.now))
	}
	if got := w.ids(w.inbox(through, 10)); len(got) != 0 {
		t.Errorf("who comes next reads %v of what was for the user before", got)
	}
	if got := w.ids(w.inbox(itself, 10)); !slices.Equal(got, []ident.Message{first, last}) {
		t.Errorf("a device that is subscribed itself has %v, want %v and %v", got, first, last)
	}
	if end := w.timelineEnd(first, through); end.Event != "canceled" || end.Reason != "user_left" {
		t.Errorf("it ends as %+v", end)
	}
}

// acceptLater sends to a topic.
func (w *world) acceptLater(topic string, change ...func(*messages.Send)) ident.Message {
	w.t.Helper()
	m := w.send("", change...)
	m.To = messages.Target{Topic: topic}
	return testkit.Accept(w.t, w.Store, m).ID
}

func sharedBodyLeft(t *testing.T, w *world) {
	devices := w.userDevices("anna", 2)
	sent := w.acceptUser("anna", saying("for both"))
	w.must(w.UnbindUser(w.ctx(), w.app, "anna", devices[0], w.now))
	page := w.inbox(devices[1], 10)
	if len(page.Items) != 1 || string(page.Items[0].Data) != `"for both"` {
		t.Errorf("the other device has %+v", page.Items)
	}
	if got := w.counters(sent.ID); got[messages.Canceled] != 1 || got[messages.Canceled]+got[messages.Fetched] != 2 {
		t.Errorf("counted %v", got)
	}
	w.must(w.UnbindUser(w.ctx(), w.app, "anna", devices[1], w.now))
	w.is(sent.ID, messages.Canceled)
	if n := w.pending(); n != 0 {
		t.Errorf("%d are pending", n)
	}
}

func userRead(t *testing.T, w *world) {
	u, err := w.User(w.ctx(), w.app, "nobody")
	w.must(err)
	if u.ID != "nobody" || len(u.Devices)+len(u.Topics) != 0 {
		t.Errorf("nobody has %+v", u)
	}
	devices := w.userDevices("anna", 3)
	w.must(w.SubscribeUser(w.ctx(), w.app, "b", "anna", w.now))
	w.must(w.SubscribeUser(w.ctx(), w.app, "a", "anna", w.now))
	w.must(w.Unregister(w.ctx(), w.app, devices[1], w.now))
	u, err = w.User(w.ctx(), w.app, "anna")
	w.must(err)
	var got []ident.Device
	for _, d := range u.Devices {
		got = append(got, d.ID)
		if d.User != "anna" || d.Token != "" {
			t.Errorf("she has %+v", d)
		}
	}
	slices.Sort(got)
	want := []ident.Device{devices[0], devices[2]}
	slices.Sort(want)
	if !slices.Equal(got, want) || !slices.Equal(u.Topics, []string{"a", "b"}) {
		t.Errorf("she has %v and %v", got, u.Topics)
	}
	if u, err := w.User(w.ctx(), testkit.App(t, w.Store).ID, "anna"); err != nil || len(u.Devices)+len(u.Topics) != 0 {
		t.Errorf("another app's anna has %+v, %v", u, err)
	}
}

func userEnrolled(t *testing.T, w *world) {
	w.must(w.SubscribeUser(w.ctx(), w.app, "hers", "anna", w.now))
	d, _, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) { e.User, e.Topics = new("anna"), []string{"own", "news", "own"} }))
	w.must(err)
	if stored, err := w.Device(w.ctx(), w.app, d.ID); err != nil || stored.User != "anna" || d.User != "anna" {
		t.Errorf("registered for %q, stored for %q, %v", d.User, stored.User, err)
	}
	w.hasTopics(d.ID, "hers", "news", "own")
	again := func(change func(*tokens.Enrol)) {
		t.Helper()
		_, _, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) {
			e.As, e.Device = tokens.DeviceKey, d.ID
			change(e)
		}))
		w.must(err)
	}
	sent := w.acceptUser("anna")
	again(func(e *tokens.Enrol) { e.Topics = []string{"more", "news"} })
	w.hasTopics(d.ID, "hers", "more", "news", "own")
	w.is(sent.ID, messages.Queued)
	again(func(e *tokens.Enrol) { e.User = new("bert") })
	w.hasTopics(d.ID, "more", "news", "own")
	w.is(sent.ID, messages.Canceled)
	again(func(e *tokens.Enrol) { e.User = new("") })
	if stored, err := w.Device(w.ctx(), w.app, d.ID); err != nil || stored.User != "" {
		t.Errorf("stored for %q, %v", stored.User, err)
	}
	if topic, err := w.Topic(w.ctx(), w.app, "more"); err != nil || topic.Subscribers != 1 {
		t.Errorf("%+v, %v", topic, err)
	}
}

func enrolmentRefused(t *testing.T, w *world) {
	var many []string
	for i := range 201 {
		many = append(many, fmt.Sprint("t", i))
	}
	refused := func(code string, change func(*tokens.Enrol)) {
		t.Helper()
		_, _, err := w.Register(w.ctx(), enrol(w.app, change))
		w.refused(err, fault.Invalid, code)
	}
	refused("too_many_topics", func(e *tokens.Enrol) { e.Topics = many })
	d, _, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) { e.Topics = many[:200] }))
	w.must(err)
	known := func(change func(*tokens.Enrol)) func(*tokens.Enrol) {
		return func(e *tokens.Enrol) {
			e.As, e.Device, e.AppVersion = tokens.DeviceKey, d.ID, "refused"
			change(e)
		}
	}
	refused("too_many_topics", known(func(e *tokens.Enrol) { e.Topics = many[200:] }))
	w.crowd("crowd", 200)
	refused("too_many_devices", known(func(e *tokens.Enrol) { e.User = new("crowd") }))
	refused("too_many_devices", func(e *tokens.Enrol) { e.Installation, e.User = "inst-2", new("crowd") })
	if got, err := w.Device(w.ctx(), w.app, d.ID); err != nil || got.AppVersion == "refused" || got.User != "" || len(w.topicsOf(d.ID)) != 200 {
		t.Errorf("it is %+v with %d topics; %v", got, len(w.topicsOf(d.ID)), err)
	}
	_, created, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) { e.Installation = "inst-2" }))
	if err != nil || !created {
		t.Errorf("created %t, %v", created, err)
	}
}

func userPatched(t *testing.T, w *world) {
	d := w.device()
	got, err := w.PatchDevice(w.ctx(), d, tokens.Patch{User: new("anna"), Locale: new("de")}, w.now)
	w.must(err)
	if got.User != "anna" || got.Locale != "de" {
		t.Errorf("patched to %+v", got)
	}
	if got, err = w.PatchDevice(w.ctx(), d, tokens.Patch{Locale: new("fr")}, w.now); err != nil || got.User != "anna" {
		t.Errorf("patched to %+v, %v", got, err)
	}
	stored, err := w.Device(w.ctx(), w.app, d)
	w.must(err)
	if diff := cmp.Diff(got, stored); diff != "" {
		t.Error(diff)
	}
	w.crowd("crowd", 200)
	_, err = w.PatchDevice(w.ctx(), d, tokens.Patch{User: new("crowd"), Locale: new("it")}, w.now)
	w.refused(err, fault.Invalid, "too_many_devices")
	if got, err = w.PatchDevice(w.ctx(), d, tokens.Patch{User: new("")}, w.now.Add(time.Second)); err != nil || got.User != "" || got.Locale != "fr" {
		t.Errorf("patched to %+v, %v", got, err)
	}
}
