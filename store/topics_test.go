package store_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/tokens"
)

var topicTests = map[string]func(*testing.T, *world){
	"devices are subscribed together, each with a result": devicesSubscribed,
	"a device has a bounded number of topics":             topicsBounded,
	"a user's devices have the user's topics":             userSubscribed,
	"a user has a bounded number of topics":               userTopicsBounded,
	"topics are listed in pages":                          topicsInPages,
	"a deleted topic has nobody":                          topicDeleted,
	"a device that goes takes its subscriptions along":    subscriberGone,
	"a deleted app leaves no audience":                    audienceDeleted,
}

func (w *world) subscribe(topic string, devices ...ident.Device) {
	w.t.Helper()
	each, err := w.Subscribe(w.ctx(), w.app, topic, devices, w.now)
	w.must(err)
	for i, err := range each {
		if err != nil || len(each) != len(devices) {
			w.t.Errorf("subscribing %d of %d: %v", i, len(each), err)
		}
	}
}

// counted checks how many devices a topic has.
func (w *world) counted(topic string, want int) {
	w.t.Helper()
	if got, err := w.Topic(w.ctx(), w.app, topic); err != nil || got.Subscribers != want {
		w.t.Errorf("%s has %d, want %d; %v", topic, got.Subscribers, want, err)
	}
}

func devicesSubscribed(t *testing.T, w *world) {
	a, b, gone := w.device(), w.device(), w.device()
	w.must(w.Unregister(w.ctx(), w.app, gone, w.now))
	other := testkit.App(t, w.Store).ID
	foreign := testkit.Device(t, w.Store, other).ID
	_, err := w.Topic(w.ctx(), w.app, "news")
	w.refused(err, fault.NotFound, "topic_not_found")
	all := []ident.Device{a, gone, b, foreign, unknownDevice(), a}
	each, err := w.Subscribe(w.ctx(), w.app, "news", all, w.now)
	w.must(err)
	for i, known := range []bool{true, false, true, false, false, true} {
		if (each[i] == nil) != known || !known && fault.From(each[i]).Code != "device_not_found" {
			t.Errorf("device %d: %v", i, each[i])
		}
	}
	topic, err := w.Topic(w.ctx(), w.app, "news")
	w.must(err)
	if diff := cmp.Diff(tokens.Topic{Name: "news", Subscribers: 2, CreatedAt: w.now}, topic); diff != "" {
		t.Error(diff)
	}
	_, err = w.Topic(w.ctx(), other, "news")
	w.refused(err, fault.NotFound, "topic_not_found")
	w.subscribe("news", a) // again is no more
	w.counted("news", 2)
	for range 2 { // and so it ends
		each, err = w.Unsubscribe(w.ctx(), w.app, "news", []ident.Device{b, foreign})
		w.must(err)
		if each[0] != nil || fault.From(each[1]).Code != "device_not_found" {
			t.Errorf("unsubscribed: %v", each)
		}
	}
	w.hasTopics(a, "news")
	w.hasTopics(b)
	w.counted("news", 1)
	_, err = w.Unsubscribe(w.ctx(), w.app, "news", []ident.Device{a})
	w.must(err)
	w.counted("news", 0) // it stays until it is deleted
	if each, err := w.Subscribe(w.ctx(), w.app, "empty", []ident.Device{gone}, w.now); err != nil || each[0] == nil {
		t.Errorf("nobody subscribed: %v, %v", each, err)
	}
	_, err = w.Topic(w.ctx(), w.app, "empty")
	w.refused(err, fault.NotFound, "topic_not_found")
}

func topicsBounded(t *testing.T, w *world) {
	full, other := w.device(), w.device()
	var topics []string
	for i := range tokens.MaxDeviceTopics {
		topics = append(topics, fmt.Sprintf("t%03d", i))
	}
	d, _, err := w.Register(w.ctx(), enrol(w.app, func(e *tokens.Enrol) { e.Topics = topics }))
	w.must(err)
	each, err := w.Subscribe(w.ctx(), w.app, "one more", []ident.Device{full, d.ID, other}, w.now)
	w.must(err)
	if each[0] != nil || fault.From(each[1]).Code != "too_many_topics" || fault.KindOf(each[1]) != fault.Invalid || each[2] != nil {
		t.Errorf("got %v", each)
	}
	w.subscribe("t000", d.ID) // one that it has
	w.must(w.BindUser(w.ctx(), w.app, "anna", d.ID, w.now))
	w.must(w.SubscribeUser(w.ctx(), w.app, "one more", "anna", w.now)) // a user's are not counted
	w.counted("one more", 3)
	w.hasTopics(d.ID, append([]string{"one more"}, topics...)...)
}

func userSubscribed(t *testing.T, w *world) {
	devices := w.userDevices("anna", 2)
	w.must(w.SubscribeUser(w.ctx(), w.app, "hers", "anna", w.now))
	w.must(w.SubscribeUser(w.ctx(), w.app, "hers", "anna", w.now))
	w.subscribe("hers", devices[0]) // itself as well, which is its own
	w.counted("hers", 2)
	later := w.device()
	w.must(w.BindUser(w.ctx(), w.app, "anna", later, w.now))
	w.counted("hers", 3)
	for _, d := range append(devices, later) {
		w.hasTopics(d, "hers")
		w.must(w.UnbindUser(w.ctx(), w.app, "anna", d, w.now))
	}
	w.hasTopics(devices[0], "hers")
	w.hasTopics(devices[1])
	w.hasTopics(later)
	w.must(w.SubscribeUser(w.ctx(), w.app, "his", "bert", w.now)) // who has no device yet
	w.must(w.BindUser(w.ctx(), w.app, "anna", later, w.now))
	w.must(w.BindUser(w.ctx(), w.app, "bert", later, w.now))
	w.hasTopics(later, "his")
	w.must(w.UnsubscribeUser(w.ctx(), w.app, "his", "bert"))
	w.must(w.UnsubscribeUser(w.ctx(), w.app, "his", "bert"))
	w.hasTopics(later)
	if u, err := w.User(w.ctx(), w.app, "bert"); err != nil || len(u.Topics) != 0 {
		t.Errorf("he has %v, %v", u.Topics, err)
	}
	w.must(w.UnsubscribeUser(w.ctx(), w.app, "hers", "anna"))
	w.hasTopics(devices[0], "hers") // its own stays
	w.refused(w.SubscribeUser(w.ctx(), ident.NewApp(), "x", "anna", w.now), fault.NotFound, "app_not_found")
}

func userTopicsBounded(_ *testing.T, w *world) {
	for i := range tokens.MaxUserTopics {
		w.must(w.SubscribeUser(w.ctx(), w.app, fmt.Sprint("t", i), "anna", w.now))
	}
	w.refused(w.SubscribeUser(w.ctx(), w.app, "one more", "anna", w.now), fault.Invalid, "too_many_topics")
	w.must(w.SubscribeUser(w.ctx(), w.app, "t7", "anna", w.now))
	d := w.device()
	w.must(w.BindUser(w.ctx(), w.app, "anna", d, w.now))
	if n := len(w.topicsOf(d)); n != tokens.MaxUserTopics {
		w.t.Errorf("the device has %d topics", n)
	}
}

func topicsInPages(t *testing.T, w *world) {
	devices := []ident.Device{w.device(), w.device(), w.device()}
	for i, name := range []string{"c", "a", "b:x", "B"} {
		w.subscribe(name, devices[:i%3+1]...)
	}
	var got []tokens.Topic
	for after, more := "", true; more; {
		var page []tokens.Topic
		var err error
		page, more, err = w.Topics(w.ctx(), w.app, after, 3)
		w.must(err)
		got = append(got, page...)
		after = page[len(page)-1].Name
	}
	want := []tokens.Topic{{Name: "B", Subscribers: 1}, {Name: "a", Subscribers: 2}, {Name: "b:x", Subscribers: 3}, {Name: "c", Subscribers: 1}}
	for i := range want {
		want[i].CreatedAt = w.now
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if list, more, err := w.Topics(w.ctx(), testkit.App(t, w.Store).ID, "", 10); err != nil || more || len(list) != 0 {
		t.Errorf("another app has %v, %t, %v", list, more, err)
	}
}

func topicDeleted(t *testing.T, w *world) {
	devices := w.crowd("anna", 130)
	w.must(w.SubscribeUser(w.ctx(), w.app, "old", "anna", w.now))
	w.must(w.SubscribeUser(w.ctx(), w.app, "kept", "anna", w.now))
	w.subscribe("old", devices...)
	w.subscribe("old", w.crowd("", 140)...)
	w.counted("old", 270)
	w.must(w.DeleteTopic(w.ctx(), w.app, "old"))
	_, err := w.Topic(w.ctx(), w.app, "old")
	w.refused(err, fault.NotFound, "topic_not_found")
	w.refused(w.DeleteTopic(w.ctx(), w.app, "old"), fault.NotFound, "topic_not_found")
	w.hasTopics(devices[0], "kept")
	d := w.device()
	w.must(w.BindUser(w.ctx(), w.app, "bert", d, w.now))
	w.must(w.UnbindUser(w.ctx(), w.app, "anna", devices[0], w.now))
	w.must(w.BindUser(w.ctx(), w.app, "anna", devices[0], w.now))
	w.hasTopics(devices[0], "kept")
	w.subscribe("old", d) // it comes to be again, empty
	w.counted("old", 1)
}

func subscriberGone(t *testing.T, w *world) {
	d, own := w.device(), w.device()
	w.subscribe("news", d, own)
	w.must(w.BindUser(w.ctx(), w.app, "anna", d, w.now))
	w.must(w.SubscribeUser(w.ctx(), w.app, "hers", "anna", w.now))
	w.must(w.Unregister(w.ctx(), w.app, d, w.now))
	w.counted("news", 1)
	w.counted("hers", 0)
	w.hasTopics(d)
	if u, err := w.User(w.ctx(), w.app, "anna"); err != nil || len(u.Topics) != 1 {
		t.Errorf("the user has %v, %v", u.Topics, err)
	}
}

func audienceDeleted(_ *testing.T, w *world) {
	d := w.device()
	w.subscribe("news", d)
	w.must(w.SubscribeUser(w.ctx(), w.app, "hers", "anna", w.now))
	w.must(w.DeleteApp(w.ctx(), w.app))
	for _, topic := range []string{"news", "hers"} {
		_, err := w.Topic(w.ctx(), w.app, topic)
		w.refused(err, fault.NotFound, "topic_not_found")
	}
	w.hasTopics(d)
	if u, err := w.User(w.ctx(), w.app, "anna"); err != nil || len(u.Topics) != 0 {
		w.t.Errorf("the user has %v, %v", u.Topics, err)
	}
}
