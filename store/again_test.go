package store

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rouse/fault"
	"rouse/ident"
)

// Transactions that wait for each other are done again, and nobody hears of it.
func TestADeadlockIsDoneAgain(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2)
	startAll(t, all)
	for _, name := range []string{"a", "b"} {
		if err := all[0].MoveSweepCursor(t.Context(), name, 1); err != nil {
			t.Fatal(err)
		}
	}
	var met, both sync.WaitGroup
	met.Add(2)
	var first [2]sync.Once
	for i, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		both.Go(func() {
			err := all[i].write(context.Background(), "deadlock", newOp(func(x *tx) error {
				for _, name := range order {
					if _, err := x.exec("UPDATE sweeps SET seq = seq + 1 WHERE name = ?", name); err != nil {
						return err
					}
					first[i].Do(func() { met.Done(); met.Wait() })
				}
				return nil
			}))
			if err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if a, b := sweepAt(t, all[0], "a"), sweepAt(t, all[0], "b"); a != 3 || b != 3 {
		t.Errorf("done %d and %d times", a-1, b-1)
	}
}

// kill ends the connections of a node's writer.
func kill(t testing.TB, s *Store, by *Store) {
	t.Helper()
	var pid int
	if err := s.write(context.Background(), "look", newOp(func(x *tx) error { return x.get(&pid, "SELECT pg_backend_pid()") })); err != nil {
		t.Fatal(err)
	}
	if _, err := by.writes.Exec("SELECT pg_terminate_backend($1)", pid); err != nil {
		t.Fatal(err)
	}
}

func TestALostConnectionCostsNobodyAnything(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2, roomy, single)
	startAll(t, all)
	s := all[0]
	app, device := populate(t, s)
	// While nobody needs it.
	kill(t, s, all[1])
	if _, err := s.Accept(t.Context(), sendTo(app, device)); err != nil {
		t.Error(err)
	}
	// In the middle of a batch.
	var once sync.Once
	breaks := newOp(func(x *tx) error {
		if _, err := x.exec("INSERT INTO sweeps (name, seq) VALUES ('once', 1)"); err != nil {
			return err
		}
		var pid int
		if err := x.get(&pid, "SELECT pg_backend_pid()"); err != nil {
			return err
		}
		once.Do(func() {
			if _, err := all[1].writes.Exec("SELECT pg_terminate_backend($1)", pid); err != nil {
				t.Error(err)
			}
		})
		return nil
	})
	receipts := together(t, s, 3, app, device, breaks)
	if len(receipts) != 3 || sweepAt(t, s, "once") != 1 {
		t.Errorf("%d were accepted", len(receipts))
	}
	if got := len(inInbox(t, s, device)); got != 4 {
		t.Errorf("%d are stored, 4 were accepted", got)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// The server counts a silence from its answer, which a node that is held up reads later: for the node it began when it asked.
func TestASilenceBeginsWithTheQuestion(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1)[0]
	travel := s.dialect.travel
	var asked time.Time // the writer's, as spoke
	s.dialect.travel = func(w *writer, list []errand) error {
		asked = time.Now()
		return travel(w, list)
	}
	start(t, s)
	if err := s.write(t.Context(), "ask", newOp(func(x *tx) error {
		x.w.send(errand{query: "SELECT 1"})
		err := x.w.travel()
		if x.w.spoke.After(asked) {
			t.Errorf("it began %v after the question", x.w.spoke.Sub(asked))
		}
		return err
	}).locking(ident.NewDevice())); err != nil {
		t.Fatal(err)
	}
}

// A connection that breaks while a node starts does not keep it from starting.
func TestAStartIsDoneAgainWhenItsConnectionBreaks(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2)
	s, travel := all[0], all[0].dialect.travel
	var once sync.Once
	s.dialect.travel = func(w *writer, list []errand) error {
		once.Do(func() {
			if err := w.driver(func(c *pgx.Conn) error {
				_, err := all[1].writes.Exec("SELECT pg_terminate_backend($1)", c.PgConn().PID())
				return err
			}); err != nil {
				t.Error(err)
			}
		})
		return travel(w, list)
	}
	t.Cleanup(func() {
		if err := all[1].Close(); err != nil {
			t.Error(err)
		}
	})
	start(t, s)
	if err := s.MoveSweepCursor(t.Context(), "started", 1); err != nil {
		t.Error(err)
	}
}

// A statement that fails spoils its transaction: those it was in with are done again without it.
func TestAStatementThatFailsHurtsNobodyElseOnPostgres(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1)[0]
	bad := newOp(func(x *tx) error {
		var n int
		return x.get(&n, "SELECT 1 / (SELECT COUNT(*) FROM rings WHERE id = 'none')")
	})
	good := newOp(setSweep("good", 7))
	queued(t, s, bad, good)
	start(t, s)
	if err := <-good.done; err != nil {
		t.Error(err)
	}
	if err := <-bad.done; err == nil || fault.KindOf(err) != fault.Internal {
		t.Errorf("the culprit was told %v", err)
	}
	if got := sweepAt(t, s, "good"); got != 7 {
		t.Errorf("stored %d", got)
	}
}

// A commit whose answer was lost may have been done: it is not done again, and its callers are asked to come again.
func TestACommitWithoutAnAnswerIsNotDoneAgain(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1, roomy)[0]
	commit := s.dialect.commit
	var cut atomic.Bool
	s.dialect.commit = func(w *writer) error {
		err := commit(w)
		if cut.CompareAndSwap(true, false) {
			return errors.Join(err, w.driver(func(c *pgx.Conn) error { return c.Close(context.Background()) }), io.ErrUnexpectedEOF)
		}
		return err
	}
	start(t, s)
	app, device := populate(t, s)
	cut.Store(true)
	_, err := s.Accept(t.Context(), sendTo(app, device))
	trouble(t, err)
	if got := len(inInbox(t, s, device)); got != 1 {
		t.Errorf("%d are stored", got)
	}
	if _, err := s.Accept(t.Context(), sendTo(app, device)); err != nil {
		t.Error(err)
	}
}

// A transaction that the server ended while its node was silent is done again: its commit had not been sent.
func TestATransactionEndedInItsSilenceIsDoneAgain(t *testing.T) {
	t.Parallel()
	all := nodes(t, 2, roomy, single)
	startAll(t, all)
	s := all[0]
	app, device := populate(t, s)
	var once sync.Once
	silent := newOp(func(x *tx) error {
		var pid int
		if err := x.get(&pid, "SELECT pg_backend_pid()"); err != nil {
			return err
		}
		o := &op{send: &acceptance{send: sendTo(app, device)}}
		if err := errors.Join(x.lock([]ident.Device{device}), x.accept(o), o.err); err != nil {
			return err
		}
		once.Do(func() {
			if _, err := all[1].writes.Exec("SELECT pg_terminate_backend($1)", pid); err != nil {
				t.Error(err)
			}
			x.w.spoke = time.Time{} // long ago
		})
		return nil
	})
	if err := s.write(t.Context(), "be silent", silent); err != nil {
		t.Error(err)
	}
	if got := len(inInbox(t, s, device)); got != 1 {
		t.Errorf("%d are stored", got)
	}
}
