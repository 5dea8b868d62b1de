package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"rouse/fault"
	"rouse/ident"
)

// Bounds of one batch, and the writer's patience.
const (
	maxBatchOps   = 512
	maxBatchBytes = 1 << 20
	// What operations count for in a batch beyond their data. A name that is claimed is a lock of the server's, which has room for some
	// thousand, of all sessions together. Who leaves an inbox, or closes it, may end all that is pending there.
	claimBytes = 4 << 10
	rowBytes   = 128
	leaveBytes = 64 << 10
	// flushEvery bounds, with laneHold, how long the lane keeps what no batch took along.
	flushEvery = 250 * time.Millisecond
	// probeEvery is how often a writer that failed tries again without being asked.
	probeEvery = time.Second
	// lastFlushes is how often the lane is tried at the end before it is given up.
	lastFlushes = 3
)

// States of an op. Whoever moves it from opQueued owns it: the writer takes, a tired caller leaves.
const (
	opQueued int32 = iota
	opTaken
	opLeft
)

// op is one caller's work for the writer. It may run several times and must have no effect outside the
// transaction until it is answered.
type op struct {
	// do works in the batch's transaction; nil for a send, or a batch of them, which are merged with the transaction's others.
	do    func(*tx) error
	send  *acceptance
	batch []*acceptance
	// ack is what do acks: merged with the batch's others where statements travel.
	ack *acking
	// app is whose line it stands in; empty for all that is no send.
	app ident.App
	// hurried says that its caller learns nothing at its deadline rather than the truth later: it can ask again.
	hurried bool
	// lands is a device whose lane entry is to be written along, empty for none.
	lands ident.Device
	// locks are the devices it reads and then changes: nobody else may between.
	locks []ident.Device
	// bytes is about what it adds to a batch.
	bytes int

	state atomic.Int32
	done  chan error // holds the one answer
	err   error      // the answer so far; the writer's
}

func newOp(do func(*tx) error) *op { return &op{do: do, done: make(chan error, 1)} }

// weighing says what the op adds to a batch.
func (o *op) weighing(bytes int) *op {
	o.bytes += bytes
	return o
}

// locking says what the op locks.
func (o *op) locking(devices ...ident.Device) *op {
	o.locks = devices
	return o
}

// write has the writer do o and waits for the commit. If ctx ends while o is queued, it is never done;
// once it was taken the caller learns the truth, unless it is hurried.
func (s *Store) write(ctx context.Context, doing string, o *op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.enqueue(o); err != nil {
		return err
	}
	select {
	case err := <-o.done:
		return s.readError(doing, err)
	case <-ctx.Done():
		if o.state.CompareAndSwap(opQueued, opLeft) {
			return ctx.Err()
		}
		if o.hurried && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return ctx.Err()
		}
		return s.readError(doing, <-o.done)
	}
}

func (s *Store) enqueue(o *op) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.ended {
		return stopping()
	}
	if !s.writerOf(o).queue.push(o) {
		return overloaded()
	}
	return nil
}

// Run is the writers: it serves the verbs that write until ctx ends, then what is queued, then the lanes.
// It may be called once, on a migrated database. The error says why it could not start, or what could
// not be written at the end.
func (s *Store) Run(ctx context.Context) error {
	if !s.running.CompareAndSwap(false, true) {
		return errors.New("the store's writer runs already")
	}
	defer s.running.Store(false)
	defer s.refuseRest()
	if err := s.checkSchema(context.WithoutCancel(ctx)); err != nil {
		return err // a sentence for the operator
	}
	release, err := s.dialect.claim()
	if err != nil {
		return err // the same
	}
	defer release()
	if err := s.startWriters(); err != nil {
		return fmt.Errorf("start the writer: %w", err)
	}
	s.starts.Do(func() { close(s.started) })
	ends := make([]error, len(s.writers))
	var all sync.WaitGroup
	for i, w := range s.writers {
		all.Go(func() {
			w.loop(ctx)
			ends[i] = errors.Join(w.finish(), w.disconnect())
		})
	}
	all.Wait()
	return errors.Join(ends...)
}

// startWriters connects all writers, or none.
func (s *Store) startWriters() (err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, w := range s.writers {
			err = errors.Join(err, w.disconnect())
		}
	}()
	for _, w := range s.writers {
		if err := w.connect(); err != nil {
			return err
		}
	}
	first := s.writers[0]
	if err := s.dialect.check(context.Background(), first.conn); err != nil {
		return err
	}
	for range maxTries {
		if err = first.proveRing(); !first.again(err) {
			break
		}
	}
	return err
}

// writer owns a writing connection and what waits for it. The fields from conn on are touched by its goroutine alone.
type writer struct {
	store *Store
	queue *queue
	lane  *lane
	sick  atomic.Pointer[fault.Error] // why the last batch failed, nil if it did not; the writer writes

	conn    *sqlx.Conn
	stmts   map[string]statement
	closers []func() error
	timer   *time.Timer

	waiting []errand  // for the next trip
	trips   int       // of this transaction
	part    error     // whom to blame for what is sent now
	spoke   time.Time // when the server was last asked something
}

func (w *writer) loop(ctx context.Context) {
	w.timer = time.NewTimer(time.Hour)
	w.timer.Stop()
	defer w.timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.queue.signal:
			if w.queue.len() > 0 { // the token may be older than the batch that took everything
				w.round()
			}
		case <-w.lane.signal:
			w.timer.Reset(flushEvery)
		case <-w.timer.C:
			w.tick()
		}
	}
}

// tick writes what the lane has kept long enough, and finds out whether a sick database is well again.
func (w *writer) tick() {
	w.round()
	switch {
	case w.sick.Load() != nil:
		w.timer.Reset(probeEvery)
	case !w.lane.empty():
		w.timer.Reset(flushEvery)
	}
}

// finish serves what is queued and the lane, once nothing new can come.
func (w *writer) finish() error {
	w.store.shut()
	for w.queue.len() > 0 {
		w.round()
	}
	w.lane.release()
	for range lastFlushes {
		if w.lane.empty() {
			return nil
		}
		w.round()
	}
	if w.lane.empty() {
		return nil
	}
	return fmt.Errorf("some wakes and fetches could not be recorded at the end: %w", w.sick.Load())
}

func (s *Store) shut() {
	s.gate.Lock()
	s.ended = true
	s.gate.Unlock()
}

// refuseRest answers whoever was queued for writers that could not start.
func (s *Store) refuseRest() {
	s.shut()
	for _, w := range s.writers {
		for o := w.queue.pop(); o != nil; o = w.queue.pop() {
			o.done <- stopping()
		}
	}
}

// round is one batch: whatever is queued by the time the lock is ours, up to the bounds.
func (w *writer) round() {
	started := time.Now()
	err := w.begin()
	ops := w.collect()
	entries := w.lane.take(started, ops)
	if err != nil {
		w.failed(ops, err)
		return
	}
	for _, o := range w.settle(ops, entries, started) {
		w.retryAlone(o)
	}
	if len(ops) > 1 {
		// Those just answered may be about to ask again: let them, so that the next batch has them all and not every
		// other one. With nobody else to run this returns at once.
		runtime.Gosched()
	}
}

// collect takes what is queued, up to the bounds; callers that left are passed over.
func (w *writer) collect() []*op {
	var ops []*op
	bytes, weight := 0, 0
	for weight < maxBatchOps && bytes < maxBatchBytes {
		o := w.queue.pop()
		if o == nil {
			return ops
		}
		if o.state.CompareAndSwap(opQueued, opTaken) {
			ops = append(ops, o)
			bytes += o.bytes
			weight += o.weight()
		}
	}
	w.queue.again()
	return ops
}

// settle does ops in one transaction, which has begun. One that fails after it wrote takes the batch
// back with it: the others are done again without it, and it is returned to be done again alone. All
// others are answered, and the lane's entries are written, given back or given up.
func (w *writer) settle(ops []*op, entries laneEntries, started time.Time) (alone []*op) {
	batch := ops
	for tries := 1; ; tries++ {
		t := newTx(w, entries)
		culprits, err := w.attempt(t, batch)
		switch {
		case err == nil:
			w.committed(batch, t, started)
			w.lane.landed()
			return alone
		case w.again(err) && tries < maxTries:
			// Nobody is to blame, and nothing of it was kept.
		case errors.Is(err, errLane):
			w.store.log.Error("wakes and fetches could not be recorded and are given up", slog.Any("error", err))
			w.lane.landed()
			entries = nil
		case len(culprits) == 0 || w.store.dialect.storageTrouble(err):
			w.failed(append(batch, alone...), err)
			return nil
		case len(ops) == 1 && !w.mayPass(err):
			culprits[0].done <- err
			batch = nil
		default:
			alone = append(alone, culprits...)
			batch = slices.DeleteFunc(slices.Clone(batch), func(o *op) bool { return slices.Contains(culprits, o) })
		}
		if len(batch) == 0 && len(entries) == 0 {
			w.lane.landed()
			return alone
		}
		if err := w.begin(); err != nil {
			w.failed(append(batch, alone...), err)
			return nil
		}
	}
}

// committed answers ops, whose work is durable.
func (w *writer) committed(ops []*op, t *tx, started time.Time) {
	if w.sick.Swap(nil) != nil {
		w.store.log.Info("the database can be written again")
	}
	for _, o := range ops {
		o.done <- o.err
	}
	if len(ops) > 0 {
		w.store.metrics.observe(len(ops), time.Since(started), t.done)
	}
}

// failed answers ops, of which nothing was kept, and goes on: the next batch may fare better.
func (w *writer) failed(ops []*op, err error) {
	w.lane.restore()
	if w.lostConnection(err) {
		err = errors.Join(err, w.disconnect(), w.connect())
	}
	f := storageUnavailable(err)
	if w.sick.Swap(f) == nil {
		w.store.log.Error("the database cannot be written; senders are asked to wait", slog.Any("error", err))
	}
	if w.timer != nil {
		w.timer.Reset(probeEvery)
	}
	for _, o := range ops {
		o.done <- f
	}
}

func (w *writer) lostConnection(err error) bool {
	return w.store.dialect.lost(w.conn, err)
}
