package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// engines are stores on a fresh database of each engine, their writers running.
func engines(t *testing.T, change ...func(*Options)) map[string]func(*testing.T) *Store {
	t.Helper()
	return map[string]func(*testing.T) *Store{
		"SQLite":     func(t *testing.T) *Store { return openFile(t, "", change...) },
		"PostgreSQL": func(t *testing.T) *Store { return nodes(t, 1, change...)[0] },
	}
}

func onEngines(t *testing.T, test func(*testing.T, *Store), change ...func(*Options)) {
	t.Helper()
	for name, open := range engines(t, change...) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			test(t, s)
		})
	}
}

// hall is an app whose devices are each in another state.
type hall struct {
	t       *testing.T
	s       *Store
	app     ident.App
	now     time.Time
	devices []ident.Device
}

func newHall(t *testing.T, s *Store, overflow tokens.Overflow, now time.Time) *hall {
	t.Helper()
	c := &hall{t: t, s: s, app: ident.NewApp(), now: now}
	c.must(s.CreateApp(t.Context(), tokens.App{ID: c.app, Name: "crowd", InboxOverflow: overflow, CreatedAt: now}, nil))
	for i := range 12 {
		d := c.join()
		for j := range i % 4 { // up to what fits
			c.send(d, func(m *messages.Send) {
				m.TTL = time.Duration(1+j) * time.Hour
				if i%3 == j {
					m.CollapseKey = "k"
				}
			})
		}
	}
	if _, err := s.AckUpTo(t.Context(), c.devices[7], c.head(c.devices[7]), now); err != nil {
		t.Fatal(err)
	}
	c.must(s.Unregister(t.Context(), c.app, c.devices[5], now))
	return c
}

func (c *hall) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// join registers a device of the user that has them all.
func (c *hall) join() ident.Device {
	c.t.Helper()
	d := ident.NewDevice()
	_, _, err := c.s.Register(c.t.Context(), tokens.Enrol{Registration: tokens.Registration{App: c.app, Installation: string(d), Provider: tokens.NoProvider},
		As: tokens.PublishableKey, ID: d, Now: c.now})
	c.must(err)
	c.must(c.s.BindUser(c.t.Context(), c.app, "all", d, c.now))
	c.devices = append(c.devices, d)
	return d
}

func (c *hall) send(d ident.Device, change func(*messages.Send)) messages.Receipt {
	c.t.Helper()
	m := sendTo(c.app, d)
	m.CreatedAt = c.now
	change(&m)
	r, err := c.s.Accept(c.t.Context(), m)
	c.must(err)
	return r
}

func (c *hall) head(d ident.Device) (seq messages.Seq) {
	c.t.Helper()
	c.must(c.s.reads.get(c.t.Context(), &seq, "SELECT head FROM inboxes WHERE device = ?", string(d)))
	return seq
}

// rows are what a query says of each device, or of the app, by the device's number; places are counted from the app's first.
func (c *hall) rows(query string) map[string]any {
	c.t.Helper()
	all := map[string]any{}
	read := func(name, key string) {
		rows, err := c.s.reads.rows(c.t.Context(), query, key)
		c.must(err)
		defer rows.Close()
		for n := 0; rows.Next(); n++ {
			row := map[string]any{}
			c.must(rows.MapScan(row))
			all[fmt.Sprint(name, ".", n)] = row
		}
		c.must(rows.Err())
	}
	for i, d := range c.devices {
		read(fmt.Sprint(i), string(d))
	}
	read("app", string(c.app))
	return all
}

// What a page of a fan-out changes is what a send to a user with the same devices changes, row by row.
func TestAFanOutIsTheSameAsSendsToEach(t *testing.T) {
	t.Parallel()
	const ofDevice = "(SELECT COUNT(*) FROM deliveries p WHERE p.device = d.device AND p.seq <= d.seq)"
	queries := map[string]string{
		"deliveries": "SELECT " + ofDevice + ` AS place, class, urgency, size, attempts, created_at, expires_at, fetched_at, ended_at, ended, reason, shared,
			collapse_key, correlation_id, notification, body FROM deliveries d WHERE device = ? ORDER BY seq`,
		"inboxes": `SELECT pending, pending_bytes, seen, woken_normal, woken_high, gone_at,
			head - COALESCE((SELECT MAX(seq) FROM deliveries d WHERE d.device = i.device), 0) AS head FROM inboxes i WHERE device = ?`,
		"gaps": `SELECT lost, told, reason, (SELECT COUNT(*) FROM deliveries d WHERE d.device = g.device AND d.seq BETWEEN g.from_seq AND g.to_seq) AS span
			FROM gaps g WHERE device = ?`,
		"messages": `SELECT urgency, recipients, pending, acked, expired, replaced, canceled, dropped, created_at, expires_at, canceled_at, collapse_key,
			correlation_id, body, due_at, notification FROM messages WHERE app = ? ORDER BY id`,
	}
	onEngines(t, func(t *testing.T, s *Store) {
		start(t, s)
		now := fromMillis(millis(time.Now()))
		for _, overflow := range []tokens.Overflow{tokens.OverflowReject, tokens.OverflowDropOldest} {
			for _, key := range []string{"", "k"} {
				fanned, each := newHall(t, s, overflow, now), newHall(t, s, overflow, now)
				m := func(m *messages.Send) {
					m.To, m.CollapseKey, m.CorrelationID = messages.Target{Broadcast: true}, key, "c"
					m.Notification = &messages.Notification{Title: "t"}
				}
				r := fanned.send("", m)
				each.send("", func(x *messages.Send) { m(x); x.To = messages.Target{User: "all"} })
				for done := false; !done; {
					page, err := s.FanOut(t.Context(), r.ID, 5, now)
					fanned.must(err)
					done = page.Done
				}
				for table, query := range queries {
					if diff := cmp.Diff(each.rows(query), fanned.rows(query)); diff != "" {
						t.Errorf("%s, key %q: %s: %s", overflow, key, table, diff)
					}
				}
			}
		}
	}, func(o *Options) { o.InboxMessages = 3 })
}

// A page whose commit fails leaves nothing behind: done again, nobody is passed over and nobody is reached twice.
func TestAPageThatIsNotCommittedIsDoneAgain(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *Store) {
		inner := s.dialect.commit
		var broken atomic.Bool
		s.dialect.commit = func(w *writer) error {
			if broken.Load() {
				return errors.New("the power is out")
			}
			return inner(w)
		}
		start(t, s)
		now := fromMillis(millis(time.Now()))
		c := newHall(t, s, tokens.OverflowReject, now)
		r := c.send("", func(m *messages.Send) { m.To = messages.Target{Broadcast: true} })
		reached := 0
		for round, done := 0, false; !done; round++ {
			broken.Store(round%2 == 0)
			page, err := s.FanOut(t.Context(), r.ID, 2, now)
			if (err != nil) != broken.Load() || err != nil && page.Reached+len(page.Pending) > 0 {
				t.Fatalf("round %d: %+v, %v", round, page, err)
			}
			reached, done = reached+page.Reached, page.Done
		}
		var twice, rows int
		c.must(s.reads.get(t.Context(), &rows, "SELECT COUNT(*) FROM deliveries WHERE message = ?", string(r.ID)))
		c.must(s.reads.get(t.Context(), &twice, "SELECT COUNT(*) - COUNT(DISTINCT device) FROM deliveries WHERE message = ?", string(r.ID)))
		if reached != len(c.devices)-1 || rows != reached || twice != 0 {
			t.Errorf("reached %d of %d, %d rows, %d twice", reached, len(c.devices)-1, rows, twice)
		}
	}, roomy, single)
}

// A page that somebody began before another node did the same page comes to nothing.
func TestAPageFromBeforeComesToNothing(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *Store) {
		start(t, s)
		now := fromMillis(millis(time.Now()))
		c := newHall(t, s, tokens.OverflowReject, now)
		r := c.send("", func(m *messages.Send) { m.To = messages.Target{Broadcast: true} })
		var j fanRow
		c.must(s.reads.get(t.Context(), &j, selectFan, string(r.ID)))
		frozen := fanning{job: j, now: now}
		var err error
		frozen.audience, err = s.audience(t.Context(), j, 4)
		c.must(err)
		for range 2 {
			_, err := s.FanOut(t.Context(), r.ID, 4, now)
			c.must(err)
		}
		c.must(s.write(t.Context(), "be late", newOp(frozen.store).locking(frozen.devices...)))
		if frozen.page.Reached != 0 || len(frozen.page.Pending) != 0 || frozen.page.Done {
			t.Errorf("late it came to %+v", frozen.page)
		}
		// And one from before it was canceled.
		c.must(s.reads.get(t.Context(), &j, selectFan, string(r.ID)))
		frozen = fanning{job: j, now: now}
		frozen.audience, err = s.audience(t.Context(), j, 4)
		c.must(err)
		_, err = s.Cancel(t.Context(), c.app, r.ID, now)
		c.must(err)
		c.must(s.write(t.Context(), "be late", newOp(frozen.store).locking(frozen.devices...)))
		if frozen.page.Reached != 0 {
			t.Errorf("canceled it came to %+v", frozen.page)
		}
		var pending int
		c.must(s.reads.get(t.Context(), &pending, "SELECT COUNT(*) FROM deliveries WHERE message = ? AND ended_at IS NULL", string(r.ID)))
		if pending != 0 {
			t.Errorf("%d are pending", pending)
		}
	}, roomy)
}

// Two nodes store the pages of one broadcast, beside sends and acks to the same devices.
func TestTwoNodesFanOutTogether(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2, roomy)
	startAll(t, all)
	now := fromMillis(millis(time.Now()))
	c := newHall(t, all[0], tokens.OverflowReject, now)
	for range 60 {
		c.join()
	}
	r := c.send("", func(m *messages.Send) { m.To = messages.Target{Broadcast: true} })
	ctx, cancel := context.WithCancel(t.Context())
	busy := make(chan error, len(all))
	for i, s := range all {
		go func() {
			for n := i; ctx.Err() == nil; n++ {
				d := c.devices[6+n%(len(c.devices)-6)]
				if _, err := s.Accept(t.Context(), sendTo(c.app, d)); err != nil {
					busy <- err
					return
				}
				if _, err := s.AckIDs(t.Context(), d, []ident.Message{r.ID}, now); err != nil {
					busy <- err
					return
				}
			}
			busy <- nil
		}()
	}
	counts := make(chan int, 4)
	for i := range cap(counts) {
		go func() {
			reached := 0
			for {
				page, err := all[i%2].FanOut(t.Context(), r.ID, 5, now)
				if reached += page.Reached; err != nil || page.Done {
					if err != nil {
						t.Error(err)
					}
					counts <- reached
					return
				}
			}
		}()
	}
	reached := 0
	for range cap(counts) {
		reached += <-counts
	}
	cancel()
	c.must(errors.Join(<-busy, <-busy))
	sum, err := all[1].Message(t.Context(), c.app, r.ID)
	c.must(err)
	total := 0
	for _, n := range sum.Counters {
		total += n
	}
	if want := len(c.devices) - 1; reached != want || sum.Recipients != want || total != want || sum.Status != messages.Accepted {
		t.Errorf("reached %d of %d: %+v", reached, want, sum)
	}
	var wrong int
	c.must(all[0].reads.get(t.Context(), &wrong, `SELECT COUNT(*) FROM inboxes i WHERE i.pending <> (SELECT COUNT(*) FROM deliveries d
		WHERE d.device = i.device AND d.ended_at IS NULL) OR i.head <> (SELECT COALESCE(MAX(d.seq), 0) FROM deliveries d WHERE d.device = i.device)`))
	if wrong != 0 {
		t.Errorf("%d inboxes are not as their deliveries are", wrong)
	}
}

// A batch has its weight in the queue: the queues bound messages, not requests.
func TestABatchHasItsWeightInTheQueue(t *testing.T) {
	t.Parallel()
	s := openFile(t, "", func(o *Options) { o.Queue = 20 })
	batch := func(app ident.App, n int) *op {
		o := &op{app: app, done: make(chan error, 1)}
		for range n {
			o.batch = append(o.batch, newAcceptance(sendTo(app, "")))
		}
		return o
	}
	big := ident.NewApp()
	queued(t, s, batch(big, 500)) // one is taken as long as there is room
	if err := s.enqueue(batch(big, 1)); !isFault(err, "overloaded") {
		t.Errorf("beyond its half: %v", err)
	}
	if err := s.enqueue(newOp(func(*tx) error { return nil })); !isFault(err, "overloaded") {
		t.Errorf("beyond the whole: %v", err)
	}
	start(t, s)
	waitFor(t, func() bool { return s.queued() == 0 })
	if err := s.write(t.Context(), "go on", newOp(func(*tx) error { return nil })); err != nil {
		t.Errorf("once it is done: %v", err)
	}
}

// What other operations of its batch have changed counts for a page: an ack makes room, another page takes it.
func TestPagesAndAcksOfOneBatch(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *Store) {
		start(t, s)
		now := fromMillis(millis(time.Now()))
		c := newHall(t, s, tokens.OverflowReject, now)
		full := c.devices[11] // it holds three, and that is all it may
		var jobs []ident.Message
		for range 3 {
			jobs = append(jobs, c.send("", func(m *messages.Send) { m.To = messages.Target{Broadcast: true} }).ID)
		}
		var first messages.Seq
		c.must(s.reads.get(t.Context(), &first, "SELECT MIN(seq) FROM deliveries WHERE device = ?", string(full)))
		ack := newOp(func(x *tx) error {
			n, err := x.ackUpTo(full, first, now)
			if n != 1 {
				t.Errorf("acked %d", n)
			}
			return err
		})
		ack.lands = full
		ops := []*op{ack}
		for _, id := range jobs {
			f := c.look(id, now)
			ops = append(ops, newOp(f.store).locking(f.devices...))
		}
		inOneBatch(t, s, ops)
		var states []string
		for _, id := range jobs {
			var state string
			c.must(s.reads.get(t.Context(), &state, "SELECT COALESCE(ended, 'pending') FROM deliveries WHERE message = ? AND device = ?", string(id), string(full)))
			states = append(states, state)
		}
		if diff := cmp.Diff([]string{"pending", "dropped", "dropped"}, states); diff != "" {
			t.Error(diff)
		}
		var wrong int
		c.must(s.reads.get(t.Context(), &wrong, "SELECT COUNT(*) FROM inboxes WHERE pending > 3 OR pending <> (SELECT COUNT(*) FROM deliveries d WHERE d.device = inboxes.device AND d.ended_at IS NULL)"))
		if wrong != 0 {
			t.Errorf("%d inboxes are not as their deliveries are", wrong)
		}
	}, func(o *Options) { o.InboxMessages, o.Writers = 3, 1 })
}

// Whoever leaves between the look for a page's devices and the page is not reached.
func TestWhoeverLeavesBeforeThePageIsNotReached(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *Store) {
		start(t, s)
		now := fromMillis(millis(time.Now()))
		for name, c := range map[string]struct {
			to    messages.Target
			leave func(*hall, ident.Device) error
		}{
			"unsubscribed": {messages.Target{Topic: "news"}, func(c *hall, d ident.Device) error {
				_, err := s.Unsubscribe(t.Context(), c.app, "news", []ident.Device{d})
				return err
			}},
			"logged out":   {messages.Target{User: "all"}, func(c *hall, d ident.Device) error { return s.UnbindUser(t.Context(), c.app, "all", d, now) }},
			"unregistered": {messages.Target{Broadcast: true}, func(c *hall, d ident.Device) error { return s.Unregister(t.Context(), c.app, d, now) }},
		} {
			hall := newHall(t, s, tokens.OverflowReject, now)
			_, err := s.Subscribe(t.Context(), hall.app, "news", hall.devices[8:], now)
			hall.must(err)
			r := hall.send("", func(m *messages.Send) { m.To, m.SendAt = c.to, now.Add(time.Millisecond) })
			f := hall.look(r.ID, now.Add(time.Second))
			leaver := hall.devices[9]
			hall.must(c.leave(hall, leaver))
			hall.must(s.write(t.Context(), "store a page", newOp(f.store).locking(f.devices...)))
			if len(f.devices) < 4 || f.page.Reached != len(hall.reachable(f.devices))-1 {
				t.Errorf("%s: of %d it reached %d", name, len(f.devices), f.page.Reached)
			}
			for _, p := range f.page.Pending {
				if p.Device == leaver {
					t.Errorf("%s: it reached who had left", name)
				}
			}
		}
	}, roomy)
}

// look begins a page.
func (c *hall) look(id ident.Message, now time.Time) *fanning {
	c.t.Helper()
	f := &fanning{now: now}
	c.must(c.s.reads.get(c.t.Context(), &f.job, selectFan, string(id)))
	var err error
	f.audience, err = c.s.audience(c.t.Context(), f.job, 100)
	c.must(err)
	return f
}

// reachable leaves out the one that was unregistered at the beginning.
func (c *hall) reachable(devices []ident.Device) []ident.Device {
	return slices.DeleteFunc(slices.Clone(devices), func(d ident.Device) bool { return d == c.devices[5] })
}

// A body stays until all pages are stored, whatever becomes of the first ones.
func TestABodyStaysUntilItIsStoredForAll(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *Store) {
		start(t, s)
		now := fromMillis(millis(time.Now()))
		c := newHall(t, s, tokens.OverflowReject, now)
		r := c.send("", func(m *messages.Send) { m.To = messages.Target{Broadcast: true} })
		ack := func(page messages.FanPage) {
			for _, p := range page.Pending {
				item, err := s.Item(t.Context(), p.Device, r.ID, now)
				if err != nil || string(item.Data) != string(sendTo("", "").Data) {
					t.Errorf("one reads %q, %v", item.Data, err)
				}
				_, err = s.AckIDs(t.Context(), p.Device, []ident.Message{r.ID}, now)
				c.must(err)
			}
		}
		bodies := func() (n int) {
			c.must(s.reads.get(t.Context(), &n, "SELECT COUNT(*) FROM messages WHERE id = ? AND body IS NOT NULL", string(r.ID)))
			return n
		}
		for done := false; !done; {
			page, err := s.FanOut(t.Context(), r.ID, 4, now)
			c.must(err)
			ack(page)
			if done = page.Done; bodies() != map[bool]int{false: 1}[done] {
				t.Errorf("done: %t, and there are %d bodies", done, bodies())
			}
		}
	}, roomy)
}

// What an earlier page of the batch did to an inbox, and is not written yet, counts.
func TestPagesOfOneBatchFillAnInboxOnce(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *Store) {
		start(t, s)
		now := fromMillis(millis(time.Now()))
		c := &hall{t: t, s: s, app: ident.NewApp(), now: now}
		c.must(s.CreateApp(t.Context(), tokens.App{ID: c.app, Name: "hall", InboxOverflow: tokens.OverflowDropOldest, CreatedAt: now}, nil))
		d := c.join()
		sized := func(n int, to messages.Target) ident.Message {
			return c.send("", func(m *messages.Send) { m.To, m.Data = to, []byte(strings.Repeat("1", n)) }).ID
		}
		for range 3 {
			sized(30, messages.Target{Device: d})
		}
		var ops []*op
		for _, n := range []int{40, 8} { // the first drops one of 30, and leaves no room for the second
			f := c.look(sized(n, messages.Target{Broadcast: true}), now)
			ops = append(ops, newOp(f.store).locking(f.devices...))
		}
		inOneBatch(t, s, ops)
		var bytes, there int64
		c.must(s.reads.get(t.Context(), &bytes, "SELECT pending_bytes FROM inboxes WHERE device = ?", string(d)))
		c.must(s.reads.get(t.Context(), &there, "SELECT CAST(SUM(size) AS BIGINT) FROM deliveries WHERE device = ? AND ended_at IS NULL", string(d)))
		if bytes != there || bytes != 78 {
			t.Errorf("%d bytes are counted, %d are there; the limit is 100", bytes, there)
		}
	}, func(o *Options) { o.InboxBytes, o.Writers = 100, 1 })
}

// An app that is being deleted has nobody reached any more, though its devices are still there.
func TestAFanOutOfAnAppThatGoesReachesNobody(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *Store) {
		start(t, s)
		now := fromMillis(millis(time.Now()))
		c := newHall(t, s, tokens.OverflowReject, now)
		r := c.send("", func(m *messages.Send) { m.To = messages.Target{Broadcast: true} })
		c.must(s.write(t.Context(), "begin to delete", newOp(func(x *tx) error {
			_, err := x.exec("UPDATE apps SET deleting = 1 WHERE id = ?", string(c.app))
			return err
		})))
		page, err := s.FanOut(t.Context(), r.ID, 4, now)
		if err != nil || page.Reached != 0 || !page.Done {
			t.Errorf("%+v, %v", page, err)
		}
		if jobs, err := s.FanJobs(t.Context(), now, 10); err != nil || len(jobs) != 0 {
			t.Errorf("due are %+v, %v", jobs, err)
		}
	}, roomy)
}

// A cancel waits for the page that is being stored, and takes it back as well.
func TestACancelWaitsForThePageUnderWay(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2, roomy, single)
	inner := all[0].dialect.travel
	var before atomic.Pointer[func()] // the page's deliveries are inserted
	canceled := make(chan error, 1)
	all[0].dialect.travel = func(w *writer, list []errand) error {
		inserts := func(e errand) bool { return strings.HasPrefix(e.query, fanInsert) }
		if do := before.Load(); do != nil && slices.ContainsFunc(list, inserts) {
			before.Store(nil)
			(*do)()
		}
		return inner(w, list)
	}
	startAll(t, all)
	now := fromMillis(millis(time.Now()))
	c := newHall(t, all[0], tokens.OverflowReject, now)
	r := c.send("", func(m *messages.Send) { m.To = messages.Target{Broadcast: true} })
	page := func() {
		_, err := all[0].FanOut(t.Context(), r.ID, 4, now)
		c.must(err)
	}
	page()
	cancel := func() {
		go func() {
			_, err := all[1].Cancel(context.Background(), c.app, r.ID, now)
			canceled <- err
		}()
		waitFor(t, func() bool {
			var waits int
			err := all[1].reads.get(context.Background(), &waits, "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
			return err != nil || waits > 0 || len(canceled) > 0
		})
	}
	before.Store(&cancel)
	page()
	c.must(<-canceled)
	var pending int
	c.must(all[0].reads.get(t.Context(), &pending, "SELECT COUNT(*) FROM deliveries WHERE message = ? AND ended_at IS NULL", string(r.ID)))
	sum, err := all[0].Message(t.Context(), c.app, r.ID)
	if err != nil || pending != 0 || sum.Recipients != 7 || sum.Counters[messages.Canceled] != 7 { // of two pages of 4, one has left
		t.Errorf("%d are pending: %+v, %v", pending, sum, err)
	}
}
