package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// These are testkit's, which knows this package and so cannot be imported here. TestMain sets them.
var (
	PostgresForTest  func(testing.TB) (dsn string) // an empty database
	MigratedForTest  func(testing.TB) (dsn string)
	PoolerForTest    func(t testing.TB, dsn string, size int) (through string)
	PutSQLiteForTest func(t testing.TB, path string)
)

// nodes opens n stores on one fresh database of PostgreSQL, unhurried. Nobody runs their writers yet.
func nodes(t testing.TB, n int, change ...func(*Options)) (all []*Store) {
	t.Helper()
	dsn := MigratedForTest(t)
	for range n {
		all = append(all, unhurried(openFile(t, "", append(change, func(o *Options) { o.DSN = dsn })...)))
	}
	return all
}

// unhurried has the server end no transaction of a store's writers for its silence, however long the machine holds a test up in the
// middle: most operations of tests may be done once only.
func unhurried(s *Store) *Store {
	begin := s.dialect.begin
	s.dialect.begin = func(w *writer) error {
		err := begin(w)
		if err == nil {
			w.send(errand{query: "SET LOCAL idle_in_transaction_session_timeout = 0"})
		}
		return err
	}
	return s
}

// startAll runs the nodes' writers until the test ends.
func startAll(t testing.TB, all []*Store) {
	t.Helper()
	for _, s := range all {
		start(t, s)
	}
}

// single has a node write with one writer, so that what is queued together is one batch.
func single(o *Options) { o.Writers = 1 }

func roomy(o *Options) { o.InboxMessages, o.InboxBytes = 1<<20, 1<<40 }

// accept does one send in the middle of another op, and writes it.
func (t *tx) accept(o *op) error {
	_, err := t.together(merged{sends: []*op{o}})
	return errors.Join(err, t.w.travel())
}

// holdOpen keeps the transaction open until done, or as long as the connection has for all its answers: a test that failed ends.
func (t *tx) holdOpen(done <-chan struct{}) error {
	speak := time.NewTicker(100 * time.Millisecond)
	defer speak.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-speak.C:
			var one int
			if err := t.get(&one, "SELECT 1"); err != nil {
				return err
			}
		}
	}
}

// A place that somebody holds and has not committed is not passed by a sweep, whatever came after it.
func TestASweepPassesNoOpenTransaction(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2, roomy)
	startAll(t, all)
	app, device := populate(t, all[0])
	other := another(t, all[1], app)
	for shardOf(string(other)) == shardOf(string(device)) {
		other = another(t, all[1], app)
	}
	placed, goOn := make(chan messages.Seq, 1), make(chan struct{})
	slow := newOp(func(x *tx) error {
		o := &op{send: &acceptance{send: sendTo(app, device)}}
		if err := errors.Join(x.lock([]ident.Device{device}), x.accept(o), o.err); err != nil {
			return err
		}
		placed <- o.send.receipt.Pending[0].Seq
		return x.holdOpen(goOn)
	})
	queued(t, all[0], slow)
	held := <-placed
	if _, err := all[1].Accept(t.Context(), sendTo(app, other)); err != nil {
		t.Fatal(err)
	}
	sweep := func(after messages.Seq) (due []messages.Due, next messages.Seq) {
		due, next, _, err := all[1].Sweep(t.Context(), messages.SweepQuery{Class: messages.HighWake, After: after, Before: time.Now().Add(time.Hour), Now: time.Now().Add(time.Hour), Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return due, next
	}
	due, next := sweep(0)
	if len(due) != 0 || next >= held {
		t.Errorf("while place %d is open: %v up to %d", held, due, next)
	}
	close(goOn)
	if err := <-slow.done; err != nil {
		t.Fatal(err)
	}
	if due, _ = sweep(next); len(due) != 2 {
		t.Errorf("afterwards: %v", due)
	}
}

func TestOneIdempotencyKeyOnTwoNodesIsOneMessage(t *testing.T) {
	t.Parallel()
	all := nodes(t, 4, roomy)
	startAll(t, all)
	app, device := populate(t, all[0])
	devices := []ident.Device{device} // of several shards: no lock but the key's own keeps the nodes apart
	for range 7 {
		devices = append(devices, another(t, all[0], app))
	}
	for round := range 20 {
		var ids sync.Map
		var sends sync.WaitGroup
		for i, s := range all {
			for j := range 2 {
				sends.Go(func() {
					m := sendTo(app, devices[i*2+j])
					m.Idempotency.Key = fmt.Sprint("key ", round)
					r, err := s.Accept(context.Background(), m)
					if err != nil {
						t.Error(err)
					}
					ids.Store(r.ID, true)
				})
			}
		}
		sends.Wait()
		n := 0
		ids.Range(func(any, any) bool { n++; return true })
		if n != 1 {
			t.Errorf("round %d made %d messages", round, n)
		}
	}
	if got, err := all[1].Pending(t.Context()); err != nil || got != 20 {
		t.Errorf("%d messages are stored, 20 were sent; %v", got, err)
	}
}

func TestOneInstallationOnTwoNodesIsOneDevice(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2)
	startAll(t, all)
	app, _ := populate(t, all[0])
	for round := range 20 {
		var made, refused int
		var mu sync.Mutex
		var both sync.WaitGroup
		for _, s := range all {
			both.Go(func() {
				_, created, err := s.Register(context.Background(), tokens.Enrol{Registration: tokens.Registration{App: app,
					Installation: fmt.Sprint("one ", round), Provider: tokens.FCM, Token: tokens.Token(fmt.Sprint("token ", round))}, As: tokens.PublishableKey, ID: ident.NewDevice(), Now: time.Now()})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && created:
					made++
				case isFault(err, "installation_exists"):
					refused++
				default:
					t.Error(err)
				}
			})
		}
		both.Wait()
		if made != 1 || refused != 1 {
			t.Errorf("round %d: %d made, %d refused", round, made, refused)
		}
	}
}

// Behind a pooler a session is somebody else's a moment later: what a node leaves in one is what it finds there.
func TestNothingIsLeftInASession(t *testing.T) {
	t.Parallel()
	s := openFile(t, "", func(o *Options) { o.DSN = PoolerForTest(t, PostgresForTest(t), 2) })
	start(t, s)
	app, device := populate(t, s)
	for range 3 {
		if _, err := s.Accept(t.Context(), sendTo(app, device)); err != nil {
			t.Fatal(err)
		}
	}
	inInbox(t, s, device)
	var left int
	const prepared = "SELECT COUNT(*) FROM pg_prepared_statements"
	look := func(x *tx) error { return x.get(&left, prepared) }
	if err := s.write(t.Context(), "look", newOp(look)); err != nil || left != 0 {
		t.Errorf("the writer's session holds %d things, %v", left, err)
	}
	const query = "SELECT (" + prepared + ") + (SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
	if err := s.reads.get(t.Context(), &left, query); err != nil || left != 0 {
		t.Errorf("a reader's session holds %d things, %v", left, err)
	}
	var timeout string
	if err := s.reads.get(t.Context(), &timeout, "SELECT current_setting('statement_timeout')"); err != nil || timeout != "0" {
		t.Errorf("statement_timeout is %s, %v", timeout, err)
	}
}

func TestAServerThatForgetsIsRefused(t *testing.T) {
	t.Parallel()
	dsn := PostgresForTest(t)
	on := func(o *Options) { o.DSN = dsn }
	s := openFile(t, "", on)
	var name string
	if err := s.writes.Get(&name, "SELECT current_database()"); err != nil {
		t.Fatal(err)
	}
	s.onWriter(t, "ALTER DATABASE "+name+" SET synchronous_commit = off")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openFile(t, "", on)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // one that does run ends at once
	if err := s.Run(ctx); err == nil || !strings.Contains(err.Error(), "synchronous_commit") {
		t.Errorf("runs all the same: %v", err)
	}
}

// What PostgreSQL does not take for text harms nobody, neither in a batch nor in the lane.
func TestTextThatPostgresDoesNotTakeIsReplaced(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1, roomy)[0]
	start(t, s)
	app, device := populate(t, s)
	m := sendTo(app, device)
	m.CorrelationID, m.CollapseKey = "a\x00b", "c\xff"
	r, err := s.Accept(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	w := wakeOf(device, r.Pending[0].Seq)
	w.Reason = "no\x00reason"
	s.RecordWake(w)
	if _, err := s.AckUpTo(t.Context(), device, r.Pending[0].Seq, time.Now()); err != nil { // it takes the lane along
		t.Fatal(err)
	}
	var reasons []string
	if err := s.reads.list(t.Context(), &reasons, "SELECT reason FROM wakes WHERE device = ?", string(device)); err != nil || !slices.Equal(reasons, []string{"no\uFFFDreason"}) {
		t.Errorf("the wake says %q, %v", reasons, err)
	}
	if sum, err := s.Message(t.Context(), app, m.ID); err != nil || sum.CorrelationID != "a\uFFFDb" || sum.CollapseKey != "c\uFFFD" {
		t.Errorf("stored as %q and %q, %v", sum.CorrelationID, sum.CollapseKey, err)
	}
}

// A verdict that one node is about to store does not meet a registration that another node stores meanwhile.
func TestAVerdictDoesNotOvertakeARegistrationOnAnotherNode(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2)
	startAll(t, all)
	app, device := populate(t, all[0])
	read, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	verdict := newOp(func(x *tx) error {
		d, ok, err := x.deviceOfGeneration(device, 1)
		if err != nil || !ok {
			return err
		}
		once.Do(func() {
			close(read)
			err = x.holdOpen(goOn)
		})
		if err != nil {
			return err
		}
		mark(&d, tokens.TokenMark{State: tokens.TokenDead, Reason: "Unregistered", At: time.Now()})
		return x.storeVerdict(d)
	})
	queued(t, all[0], verdict)
	<-read
	registered := make(chan error, 1)
	go func() {
		_, err := all[1].PatchDevice(context.Background(), device, tokens.Patch{Token: ref(tokens.Token(strings.Repeat("fresh", 20)))}, time.Now())
		registered <- err
	}()
	waitFor(t, func() bool {
		var waiting int
		if err := all[1].reads.get(context.Background(), &waiting, "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); err != nil {
			t.Fatal(err)
		}
		return waiting > 0 || len(registered) > 0
	})
	close(goOn)
	if err := errors.Join(<-verdict.done, <-registered); err != nil {
		t.Fatal(err)
	}
	if d, err := all[1].Device(t.Context(), app, device); err != nil || d.TokenState != tokens.TokenActive || d.Generation != 2 {
		t.Errorf("generation %d is %s, %v", d.Generation, d.TokenState, err)
	}
}

// What a device acks while another node ends it as expired leaves no gap.
func TestAnAckIsFasterThanTheExpiry(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2, roomy)
	startAll(t, all)
	app, device := populate(t, all[0])
	m := sendTo(app, device)
	m.TTL = time.Second
	r, err := all[0].Accept(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(inInbox(t, all[0], device)); got != 1 { // handed out: it may be acked though its life is over
		t.Fatalf("%d are there", got)
	}
	later := m.CreatedAt.Add(time.Minute)
	acked, goOn := make(chan struct{}), make(chan struct{})
	ack := newOp(func(x *tx) error {
		if _, err := x.ackUpTo(device, r.Pending[0].Seq, later); err != nil {
			return err
		}
		close(acked)
		return x.holdOpen(goOn)
	})
	ack.lands = device
	queued(t, all[0], ack)
	<-acked
	expired := make(chan error, 1)
	go func() {
		_, err := all[1].Expire(context.Background(), later, 10)
		expired <- err
	}()
	waitFor(t, func() bool {
		var waiting int
		if err := all[1].reads.get(context.Background(), &waiting, "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"); err != nil {
			t.Fatal(err)
		}
		return waiting > 0
	})
	close(goOn)
	if err := errors.Join(<-ack.done, <-expired); err != nil {
		t.Fatal(err)
	}
	page, err := all[1].Inbox(t.Context(), messages.Query{Device: device, Limit: 1, Now: later})
	if err != nil || page.Gap != nil || len(page.Items) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
}

// A node that may not say that it lives is home to nobody, and so it is not ready.
func TestANodeThatCannotBeatIsNotReady(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1)[0]
	start(t, s)
	beat := func() error { _, _, err := s.Beat(t.Context(), "node_1"); return err }
	if err := errors.Join(beat(), s.Ready(t.Context())); err != nil {
		t.Fatal(err)
	}
	s.onWriter(t, "ALTER TABLE nodes RENAME TO elsewhere")
	if err := beat(); err == nil {
		t.Error("it beats without a table")
	}
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "that it lives") {
		t.Errorf("ready all the same: %v", err)
	}
	s.onWriter(t, "ALTER TABLE elsewhere RENAME TO nodes")
	if err := errors.Join(beat(), s.Ready(t.Context())); err != nil {
		t.Error(err)
	}
}
