package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
)

var listTests = map[string]func(*testing.T, *world){
	"messages are listed newest first":                 listAll,
	"messages are listed as they were sent":            listFiltered,
	"a list passes over what is not asked for":         listPassesOver,
	"a list says of each message what Message says":    listSays,
	"a list of a device has what was sent to it alone": listDevice,
}

// listed reads all pages of up to limit and returns what they hold.
func (w *world) listed(limit int, change func(*messages.ListQuery)) (ids []ident.Message) {
	w.t.Helper()
	q := messages.ListQuery{App: w.app, Limit: limit}
	change(&q)
	for range 1000 {
		list, err := w.Messages(w.ctx(), q)
		w.must(err)
		if len(list.Messages) > limit {
			w.t.Fatalf("a page of %d", len(list.Messages))
		}
		for _, m := range list.Messages {
			ids = append(ids, m.ID)
		}
		if !list.More {
			return ids
		}
		if list.Next == "" || q.Before != "" && list.Next >= q.Before {
			w.t.Fatalf("after %q comes %q", q.Before, list.Next)
		}
		q.Before = list.Next
	}
	w.t.Fatal("it does not end")
	return nil
}

func newestFirst(ids ...ident.Message) []ident.Message {
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids
}

// several sends one message of each kind.
func (w *world) several() (list map[string]ident.Message) {
	w.t.Helper()
	list = map[string]ident.Message{}
	d := w.devices(2)
	w.must(w.BindUser(w.ctx(), w.app, "one", d[0], w.now))
	w.userDevices("two", 2)
	sent := func(name string, change ...func(*messages.Send)) {
		m := w.send("", change...)
		m.CorrelationID = name
		list[name] = testkit.Accept(w.t, w.Store, m).ID
	}
	to := func(d ident.Device) func(*messages.Send) {
		return func(m *messages.Send) { m.To = messages.Target{Device: d} }
	}
	sent("device", to(d[0]))
	sent("one", toUser("one"))
	sent("two", toUser("two"))
	sent("nobody", toUser("nobody"))
	sent("topic", toTopic("t"))
	sent("all", everybody)
	sent("later", to(d[0]), at(w.now.Add(time.Hour)))
	sent("canceled", to(d[1]))
	w.fan(list["all"], 3)
	_, err := w.Cancel(w.ctx(), w.app, list["canceled"], w.now)
	w.must(err)
	return list
}

func listAll(t *testing.T, w *world) {
	other := *w
	other.app = testkit.App(t, w.Store).ID
	var want []ident.Message
	for range 3 {
		for _, id := range w.several() {
			want = append(want, id)
		}
		other.accept(other.device())
	}
	want = newestFirst(want...)
	for _, limit := range []int{1, 2, 5, 24, 100} {
		if diff := cmp.Diff(want, w.listed(limit, func(*messages.ListQuery) {})); diff != "" {
			t.Errorf("in pages of %d: %s", limit, diff)
		}
	}
}

func listFiltered(t *testing.T, w *world) {
	m := w.several()
	w.now = w.now.Add(time.Minute)
	later := w.acceptUser("one").ID
	for name, c := range map[string]struct {
		q    messages.ListQuery
		want []ident.Message
	}{
		"a user":                   {messages.ListQuery{To: messages.Target{User: "one"}}, newestFirst(m["one"], later)},
		"a user of several":        {messages.ListQuery{To: messages.Target{User: "two"}}, newestFirst(m["two"])},
		"a user without devices":   {messages.ListQuery{To: messages.Target{User: "nobody"}}, newestFirst(m["nobody"])},
		"a stranger":               {messages.ListQuery{To: messages.Target{User: "x"}}, nil},
		"a topic":                  {messages.ListQuery{To: messages.Target{Topic: "t"}}, newestFirst(m["topic"])},
		"everybody":                {messages.ListQuery{To: messages.Target{Broadcast: true}}, newestFirst(m["all"])},
		"correlation of one":       {messages.ListQuery{CorrelationID: "one"}, newestFirst(m["one"])},
		"correlation of all":       {messages.ListQuery{CorrelationID: "all"}, newestFirst(m["all"])},
		"both":                     {messages.ListQuery{CorrelationID: "one", To: messages.Target{User: "two"}}, nil},
		"no recipients":            {messages.ListQuery{Status: messages.NoRecipients}, newestFirst(m["nobody"])},
		"scheduled":                {messages.ListQuery{Status: messages.Scheduled}, newestFirst(m["later"])},
		"fanning out":              {messages.ListQuery{Status: messages.FanningOut}, newestFirst(m["topic"])},
		"canceled":                 {messages.ListQuery{Status: messages.CanceledStatus}, newestFirst(m["canceled"])},
		"accepted":                 {messages.ListQuery{Status: messages.Accepted}, newestFirst(m["device"], m["one"], m["two"], m["all"], later)},
		"since":                    {messages.ListQuery{From: w.now}, newestFirst(later)},
		"before":                   {messages.ListQuery{Until: w.now, To: messages.Target{User: "one"}}, newestFirst(m["one"])},
		"long ago":                 {messages.ListQuery{Until: w.now.Add(-3 * time.Hour)}, nil},
		"what is not long ago":     {messages.ListQuery{From: w.now.Add(-3 * time.Hour), To: messages.Target{User: "two"}}, newestFirst(m["two"])},
		"a time that has not come": {messages.ListQuery{From: w.now.Add(3 * time.Hour)}, nil},
	} {
		got := w.listed(2, func(q *messages.ListQuery) {
			c.q.App, c.q.Limit = q.App, q.Limit
			*q = c.q
		})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// listPassesOver has more behind what is asked for than one page looks at.
func listPassesOver(t *testing.T, w *world) {
	w = w.with(func(o *storeOptions) { o.InboxMessages = 1 << 20 })
	d := w.devices(2)
	wanted := w.accept(d[0], func(m *messages.Send) { m.CorrelationID = "wanted" }).ID
	other := *w
	other.app = testkit.App(t, w.Store).ID
	crowd := other.device()
	for range 12 {
		var list []messages.Send
		for range 500 {
			list = append(list, other.send(crowd))
		}
		_, err := w.AcceptAll(w.ctx(), list)
		w.must(err)
	}
	if diff := cmp.Diff([]ident.Message{wanted}, w.listed(10, func(*messages.ListQuery) {})); diff != "" {
		t.Error(diff)
	}
	first, err := w.Messages(w.ctx(), messages.ListQuery{App: w.app, Limit: 10})
	if err != nil || len(first.Messages) != 0 || !first.More || first.Next == "" {
		t.Errorf("the first page: %+v, %v", first, err)
	}
	one, err := w.Messages(w.ctx(), messages.ListQuery{App: w.app, Limit: 10, CorrelationID: "wanted"})
	if err != nil || len(one.Messages) != 1 || one.More {
		t.Errorf("by its index: %+v, %v", one, err)
	}
}

func listSays(t *testing.T, w *world) {
	for name, id := range w.several() {
		want, err := w.Message(w.ctx(), w.app, id)
		w.must(err)
		list, err := w.Messages(w.ctx(), messages.ListQuery{App: w.app, Limit: 1, CorrelationID: name})
		w.must(err)
		if diff := cmp.Diff([]messages.Summary{want}, list.Messages); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func listDevice(t *testing.T, w *world) {
	d := w.devices(2)
	w.must(w.BindUser(w.ctx(), w.app, "anna", d[0], w.now))
	var want []ident.Message
	for i := range 5 {
		r := w.accept(d[0], saying(fmt.Sprint(i)))
		want = append(want, r.ID)
		w.accept(d[1])
		w.acceptUser("anna")
		if i%2 == 0 {
			w.ackUpTo(d[0], r.Pending[0].Seq)
		}
	}
	want = append(want, w.accept(d[0], at(w.now.Add(time.Hour))).ID)
	w.fan(testkit.Accept(t, w.Store, w.send("", everybody)).ID, 10)
	for _, limit := range []int{1, 3, 100} {
		got := w.listed(limit, func(q *messages.ListQuery) { q.To.Device = d[0] })
		if diff := cmp.Diff(newestFirst(slices.Clone(want)...), got); diff != "" {
			t.Errorf("in pages of %d: %s", limit, diff)
		}
	}
}
