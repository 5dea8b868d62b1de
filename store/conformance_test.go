package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rouse/fault"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

func TestMain(m *testing.M) {
	store.PostgresForTest, store.PoolerForTest = testkit.QuickPostgres, testkit.Pooler
	store.MigratedForTest, store.PutSQLiteForTest = testkit.MigratedPostgres, testkit.PutSQLite
	goleak.VerifyTestMain(m)
}

// opener opens a fresh, migrated store whose writer runs until the test ends.
type opener func(t testing.TB, change ...func(*store.Options)) *store.Store

// TestSQLite runs the suite every engine has to pass.
func TestSQLite(t *testing.T) {
	t.Parallel()
	conformance(t, testkit.Store)
}

func conformance(t *testing.T, open opener) {
	for _, group := range []map[string]func(*testing.T, *world){
		appTests, deviceTests, userTests, topicTests, identityTests, fleetTests, tokenTests, circuitTests, eventTests, expiryTests, acceptTests, inboxTests, ackTests, wakeTests, sweepTests, memberTests, headTests,
		fanoutTests, webhookTests, listTests, receiptTests,
	} {
		for name, test := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, newWorld(t, open))
			})
		}
	}
}

// world is a store with an app in it, and a clock that the test moves.
type world struct {
	t    *testing.T
	open opener
	*store.Store
	app ident.App
	now time.Time
}

func newWorld(t *testing.T, open opener, change ...func(*store.Options)) *world {
	t.Helper()
	w := &world{t: t, open: open, Store: open(t, change...), now: time.Now().Truncate(time.Millisecond).UTC()}
	w.app = testkit.App(t, w.Store).ID
	return w
}

// with is the same world on a store with other options.
func (w *world) with(change func(*store.Options)) *world { return newWorld(w.t, w.open, change) }

func (w *world) device(change ...func(*tokens.Enrol)) ident.Device {
	w.t.Helper()
	return testkit.Device(w.t, w.Store, w.app, change...).ID
}

// userDevices registers n devices of the user.
func (w *world) userDevices(user string, n int) []ident.Device {
	w.t.Helper()
	var list []ident.Device
	for range n {
		d := w.device()
		w.must(w.BindUser(w.ctx(), w.app, user, d, w.now))
		list = append(list, d)
	}
	return list
}

func (w *world) ctx() context.Context { return w.t.Context() }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// send is a message to the device, made now.
func (w *world) send(to ident.Device, change ...func(*messages.Send)) messages.Send {
	m := testkit.Send(w.app, to)
	m.CreatedAt = w.now
	for _, f := range change {
		f(&m)
	}
	return m
}

func (w *world) accept(to ident.Device, change ...func(*messages.Send)) messages.Receipt {
	w.t.Helper()
	return testkit.Accept(w.t, w.Store, w.send(to, change...))
}

func (w *world) acceptUser(user string, change ...func(*messages.Send)) messages.Receipt {
	w.t.Helper()
	m := w.send("", change...)
	m.To = messages.Target{User: user}
	return testkit.Accept(w.t, w.Store, m)
}

func (w *world) inbox(d ident.Device, limit int) messages.Page {
	w.t.Helper()
	p, err := w.Inbox(w.ctx(), messages.Query{Device: d, Limit: limit, Now: w.now})
	w.must(err)
	return p
}

func (w *world) ids(p messages.Page) []ident.Message {
	var list []ident.Message
	for _, item := range p.Items {
		list = append(list, item.ID)
	}
	return list
}

func (w *world) ackUpTo(d ident.Device, seq messages.Seq) int {
	w.t.Helper()
	n, err := w.AckUpTo(w.ctx(), d, seq, w.now)
	w.must(err)
	return n
}

// counters are those of a message that are not zero.
func (w *world) counters(id ident.Message) messages.Counters {
	w.t.Helper()
	sum, err := w.Message(w.ctx(), w.app, id)
	w.must(err)
	if len(sum.Counters) != len(messages.States()) {
		w.t.Errorf("counters of %s name %d states", id, len(sum.Counters))
	}
	some := messages.Counters{}
	for state, n := range sum.Counters {
		if n != 0 {
			some[state] = n
		}
	}
	return some
}

func (w *world) is(id ident.Message, state messages.State) {
	w.t.Helper()
	if got := w.counters(id); len(got) != 1 || got[state] == 0 {
		w.t.Errorf("message is %v, want %s", got, state)
	}
}

// refused checks the code and kind of err, and where it points.
func (w *world) refused(err error, kind fault.Kind, code string, pointer ...string) {
	w.t.Helper()
	var e *fault.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Code != code {
		w.t.Fatalf("got %v, want %s", err, code)
	}
	if len(pointer) == 1 && (len(e.Fields) != 1 || e.Fields[0].Pointer != pointer[0]) {
		w.t.Errorf("%s points at %v, want %s", code, e.Fields, pointer[0])
	}
}

func (w *world) pending() int64 {
	w.t.Helper()
	n, err := w.Pending(w.ctx())
	w.must(err)
	return n
}

func low(m *messages.Send)    { m.Urgency = messages.Low }
func normal(m *messages.Send) { m.Urgency = messages.Normal }

func living(ttl time.Duration) func(*messages.Send) {
	return func(m *messages.Send) { m.TTL = ttl }
}

func collapsing(key string) func(*messages.Send) {
	return func(m *messages.Send) { m.CollapseKey = key }
}

func saying(data string) func(*messages.Send) {
	return func(m *messages.Send) {
		m.Data, _ = json.Marshal(data)
	}
}

func unknownDevice() ident.Device { return ident.NewDevice() }

// eventually waits for what is written without anyone waiting for it.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(time.Minute)
	for !done() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal("it did not come to that in a minute")
		}
	}
}
