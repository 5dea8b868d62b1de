package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// setSweep is an operation that leaves a trace: the cursor name stands at seq.
func setSweep(name string, seq int) func(*tx) error {
	return func(t *tx) error {
		_, err := t.exec("INSERT INTO sweeps (name, seq) VALUES (?, ?)", name, seq)
		return err
	}
}

func sweepAt(t testing.TB, s *Store, name string) int {
	t.Helper()
	seq, err := s.SweepCursor(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return int(seq)
}

// queued puts operations into the queue before the writer starts, so that they make one batch.
func queued(t testing.TB, s *Store, ops ...*op) {
	t.Helper()
	for _, o := range ops {
		if err := s.enqueue(o); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatIsQueuedTogetherIsCommittedTogether(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	s := openFile(t, "", func(o *Options) { o.Metrics = reg })
	var ops []*op
	for i := range 100 {
		ops = append(ops, newOp(setSweep(fmt.Sprint(i), i+1)))
	}
	queued(t, s, ops...)
	stop := start(t, s)
	for i, o := range ops {
		if err := <-o.done; err != nil {
			t.Fatal(err)
		}
		if got := sweepAt(t, s, fmt.Sprint(i)); got != i+1 {
			t.Errorf("operation %d left %d behind when it was answered", i, got)
		}
	}
	stop()
	if n := testutil.CollectAndCount(s.metrics.batch); n != 1 {
		t.Fatalf("%d histograms", n)
	}
	if got := batches(t, reg); got != 1 {
		t.Errorf("100 operations took %d batches", got)
	}
}

func batches(t testing.TB, reg *prometheus.Registry) uint64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "rouse_store_batch_size" {
			return f.Metric[0].Histogram.GetSampleCount()
		}
	}
	t.Fatal("no such metric")
	return 0
}

func TestAFailingOperationHurtsNobodyElse(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	early := errors.New("before it wrote")
	late := errors.New("after it wrote")
	runs := map[string]int{}
	counted := func(name string, do func(*tx) error) *op {
		return newOp(func(t *tx) error {
			runs[name]++ // the writer alone runs operations
			return do(t)
		})
	}
	first := counted("first", setSweep("first", 1))
	failsEarly := counted("early", func(*tx) error { return early })
	failsLate := counted("late", func(t *tx) error { return errors.Join(setSweep("late", 1)(t), late) })
	clash := counted("clash", setSweep("first", 2)) // the statement itself fails
	last := counted("last", setSweep("last", 1))
	queued(t, s, first, failsEarly, failsLate, clash, last)
	stop := start(t, s)
	for o, want := range map[*op]error{first: nil, failsEarly: early, failsLate: late, last: nil} {
		if err := <-o.done; !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if err := <-clash.done; err == nil {
		t.Error("two rows of one name")
	}
	if sweepAt(t, s, "first") != 1 || sweepAt(t, s, "last") != 1 || sweepAt(t, s, "late") != 0 {
		t.Error("the wrong operations left a trace")
	}
	stop()
	if runs["late"] != 2 || runs["first"] < 2 || runs["early"] == 0 {
		t.Errorf("runs %v: a batch that failed is to be done again without the culprit, and that one alone", runs)
	}
}

// together runs others in one batch with n sends, whose receipts it returns.
func together(t testing.TB, s *Store, n int, app ident.App, device ident.Device, others ...*op) []messages.Receipt {
	t.Helper()
	entered, release := make(chan struct{}), make(chan struct{})
	queued(t, s, newOp(func(*tx) error { close(entered); <-release; return nil }))
	<-entered
	var all sync.WaitGroup
	receipts := make([]messages.Receipt, n)
	for i := range receipts {
		all.Go(func() {
			var err error
			if receipts[i], err = s.Accept(context.Background(), sendTo(app, device)); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return s.queued() == n })
	queued(t, s, others...)
	close(release)
	all.Wait()
	return receipts
}

// allThere checks that each receipt stands for one message in the inbox, and nothing else lies there.
func allThere(t testing.TB, s *Store, device ident.Device, receipts []messages.Receipt) {
	t.Helper()
	page, err := s.Inbox(context.Background(), messages.Query{Device: device, Limit: 100, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	places := map[messages.Seq]ident.Message{}
	for _, item := range page.Items {
		places[item.Seq] = item.ID
	}
	if len(places) != len(receipts) {
		t.Errorf("%d receipts, %d messages", len(receipts), len(places))
	}
	for _, r := range receipts {
		if len(r.Pending) != 1 || places[r.Pending[0].Seq] != r.ID {
			t.Errorf("receipt %+v finds %s", r, places[r.Pending[0].Seq])
		}
	}
	if n, err := s.Pending(context.Background()); n != int64(len(receipts)) || err != nil {
		t.Errorf("%d are counted, %v", n, err)
	}
}

func TestSendsAreDoneAgainWithoutTheCulprit(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	failed := false
	spoiler := newOp(func(t *tx) error {
		if failed {
			return nil
		}
		failed = true
		return errors.Join(setSweep("spoilt", 1)(t), errors.New("once"))
	})
	stop := start(t, s)
	app, device := populate(t, s)
	receipts := together(t, s, 20, app, device, spoiler)
	if err := <-spoiler.done; err != nil {
		t.Errorf("alone it should have done well: %v", err)
	}
	allThere(t, s, device, receipts)
	stop()
}

func TestASendThatFailsHurtsNoOther(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	stop := start(t, s)
	app, device := populate(t, s)
	// Two sends to a user under one id: the second cannot be stored, which is found out once all were decided and given places.
	twice := sendTo(app, "")
	twice.To.User = "nobody"
	var clash []*op
	for range 2 {
		clash = append(clash, &op{send: &acceptance{send: twice}, done: make(chan error, 1)})
	}
	receipts := together(t, s, 20, app, device, clash...)
	first, second := <-clash[0].done, <-clash[1].done
	if first != nil || fault.KindOf(second) != fault.Internal || second == nil {
		t.Errorf("the two were told %v and %v", first, second)
	}
	allThere(t, s, device, receipts)
	stop()
}

func populate(t testing.TB, s *Store) (ident.App, ident.Device) {
	t.Helper()
	app, device := ident.NewApp(), ident.NewDevice()
	if err := s.CreateApp(context.Background(), tokens.App{ID: app, CreatedAt: time.Now()}, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Register(context.Background(), tokens.Enrol{Registration: tokens.Registration{App: app, Installation: string(device),
		Platform: tokens.Android, Provider: tokens.FCM, Token: "token-of-a-device"}, As: tokens.PublishableKey, ID: device, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return app, device
}

func sendTo(app ident.App, device ident.Device) messages.Send {
	return messages.Send{ID: ident.NewMessage(), App: app, To: messages.Target{Device: device}, Data: []byte(`"x"`),
		TTL: messages.DefaultTTL, Urgency: messages.High, CreatedAt: time.Now()}
}

// waitFor looks until it is so.
func waitFor(t testing.TB, so func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	deadline := time.After(time.Minute)
	for !so() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal("it did not come to that in a minute")
		}
	}
}

func TestACallerThatLeavesInTimeHasDoneNothing(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() { left <- s.MoveSweepCursor(ctx, "left", 1) }()
	waitFor(t, func() bool { return s.queued() == 1 })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("it was told %v", err)
	}
	stop := start(t, s)
	if err := s.MoveSweepCursor(context.Background(), "stayed", 1); err != nil {
		t.Fatal(err)
	}
	if sweepAt(t, s, "left") != 0 || sweepAt(t, s, "stayed") != 1 {
		t.Error("the one that left was served")
	}
	if err := s.MoveSweepCursor(ctx, "late", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that came too late was told %v", err)
	}
	stop()
}

func TestACallerThatLeavesTooLateIsToldTheTruth(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	stop := start(t, s)
	entered, release := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	told := make(chan error, 1)
	go func() {
		told <- s.write(ctx, "wait", newOp(func(t *tx) error {
			close(entered)
			<-release
			return setSweep("done", 1)(t)
		}))
	}()
	<-entered
	cancel()
	close(release)
	if err := <-told; err != nil || sweepAt(t, s, "done") != 1 {
		t.Errorf("it was told %v, and found %d", err, sweepAt(t, s, "done"))
	}
	stop()
}

func TestAFullQueueSendsCallersAway(t *testing.T) {
	t.Parallel()
	s := openFile(t, "", func(o *Options) { o.Queue = 4 }) // of which one line may take half
	waiting := []*op{newOp(setSweep("a", 1)), newOp(setSweep("b", 1))}
	queued(t, s, waiting...)
	err := s.MoveSweepCursor(context.Background(), "c", 1)
	if e := fault.From(err); e.Kind != fault.Unavailable || e.Code != "overloaded" || e.RetryAfter != time.Second {
		t.Errorf("told %v", err)
	}
	stop := start(t, s)
	for _, o := range waiting {
		if err := <-o.done; err != nil {
			t.Error(err)
		}
	}
	stop()
}

func TestTheWriterServesWhatIsQueuedBeforeItEnds(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	var ops []*op
	for i := range 700 { // more than one batch
		ops = append(ops, newOp(setSweep(fmt.Sprint(i), i+1)))
	}
	queued(t, s, ops...)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	for i, o := range ops {
		if err := <-o.done; err != nil {
			t.Fatalf("operation %d: %v", i, err)
		}
	}
	if err := s.MoveSweepCursor(context.Background(), "late", 1); fault.From(err).Code != "shutting_down" {
		t.Errorf("a writer that has ended told %v", err)
	}
	if err := s.Ready(context.Background()); err == nil {
		t.Error("a store whose writer has ended calls itself ready")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOneWriterAtATime(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	stop := start(t, s)
	if err := s.MoveSweepCursor(context.Background(), "x", 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); err == nil {
		t.Error("two writers run")
	}
	if err := s.Migrate(context.Background()); err == nil {
		t.Error("migrated under the writer")
	}
	if err := s.Ready(context.Background()); err != nil {
		t.Error(err)
	}
	stop()
}

func TestMetricsCountWhatIsDurable(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	s := openFile(t, "", func(o *Options) { o.Metrics = reg })
	stop := start(t, s)
	app, device := populate(t, s)
	var last messages.Receipt
	for range 3 {
		var err error
		if last, err = s.Accept(context.Background(), sendTo(app, device)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Accept(context.Background(), sendTo(app, ident.NewDevice())); err == nil {
		t.Fatal("accepted for nobody")
	}
	if n, err := s.AckUpTo(context.Background(), device, last.Pending[0].Seq, time.Now()); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	stop()
	if got := testutil.ToFloat64(s.metrics.accepted.WithLabelValues("high")); got != 3 {
		t.Errorf("counted %v accepted", got)
	}
	if n, err := testutil.GatherAndCount(reg, "rouse_insert_to_ack_seconds", "rouse_store_commit_seconds", "rouse_store_queue_length"); n != 3 || err != nil {
		t.Errorf("%d metrics, %v", n, err)
	}
	if _, err := Open(context.Background(), Options{DSN: "sqlite:" + t.TempDir() + "/x.db", Ring: s.ring, Metrics: reg}); err == nil {
		t.Error("the same metrics twice in one registry")
	}
}
