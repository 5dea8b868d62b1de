package store

import (
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// people has users and audiences come and go.
func (j *journey) people() {
	d, other := j.list[10], j.list[11]
	j.during("seldom: bind users, and subscribe them", func() {
		j.must(j.s.SubscribeUser(j.ctx, j.app, "hers", "anna", j.now))
		for _, id := range []ident.Device{d, other} {
			j.must(j.s.BindUser(j.ctx, j.app, "anna", id, j.now))
		}
		j.must(j.s.SubscribeUser(j.ctx, j.app, "hers too", "anna", j.now))
		j.must(j.s.UnsubscribeUser(j.ctx, j.app, "hers too", "anna"))
		_, err := j.s.User(j.ctx, j.app, "anna")
		j.must(err)
		j.accept(j.to("", func(m *messages.Send) { m.To = messages.Target{User: "anna"} }))
	})
	j.during("one: subscribe a device, and read it", func() {
		_, err := j.s.Subscribe(j.ctx, j.app, "news", []ident.Device{d}, j.now)
		j.must(err)
		_, err = j.s.DeviceTopics(j.ctx, d)
		j.must(err)
		_, err = j.s.Standing(j.ctx, j.app, d)
		j.must(err)
		_, err = j.s.Unsubscribe(j.ctx, j.app, "news", []ident.Device{d})
		j.must(err)
	})
	j.during("many: subscribe devices, and log out", func() {
		_, err := j.s.Subscribe(j.ctx, j.app, "news", j.list[4:8], j.now)
		j.must(err)
		_, err = j.s.Unsubscribe(j.ctx, j.app, "news", j.list[4:6])
		j.must(err)
		j.must(j.s.UnbindUser(j.ctx, j.app, "", d, j.now))
	})
	j.during("seldom: register with a user and topics", func() {
		e := j.enrol()
		e.User, e.Topics = new("anna"), []string{"news", "more"}
		_, _, err := j.s.Register(j.ctx, e)
		j.must(err)
	})
	j.during("seldom: list topics and devices", func() {
		_, _, err := j.s.Topics(j.ctx, j.app, "", 10)
		j.must(err)
		for _, q := range []tokens.DeviceQuery{{}, {User: "anna"}, {Topic: "news"}, {User: "anna", Topic: "news"}} {
			q.App, q.Limit = j.app, 10
			_, err := j.s.Devices(j.ctx, q)
			j.must(err)
		}
	})
	j.during("seldom: erase a person, and delete a topic", func() {
		j.accept(j.to(other))
		j.accept(j.to("", func(m *messages.Send) {
			m.To, m.SendAt = messages.Target{User: "anna"}, j.now.Add(time.Hour)
		}))
		_, err := j.s.EraseUser(j.ctx, j.app, "anna", j.now)
		j.must(err)
		j.must(j.s.DeleteTopic(j.ctx, j.app, "news"))
	})
}
