package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"rouse/ident"
	"rouse/messages"
)

// What nodes say of themselves goes around the writer and its queue: a node whose queue is full is slow, and not dead. On
// SQLite, where nobody else is, it goes through the writer like everything else.

// forgetNode is how long a row of a node that says nothing stays. It is far beyond what a node's life may be.
const forgetNode = time.Minute

// memberAnswer bounds each question of a node about nodes and leases, the wait for a connection included.
const memberAnswer = 2 * time.Second

// selectAlive counts the nodes that live, by PostgreSQL's clock.
var selectAlive = fmt.Sprintf("SELECT COUNT(*) FROM nodes WHERE beat_at > %s - %d", pgClock, messages.NodeLife.Milliseconds())

type nodeRow struct {
	ID       ident.Node `db:"id"`
	JoinedAt int64      `db:"joined_at"`
	BeatAt   int64      `db:"beat_at"`
	Now      int64      `db:"now"`
}

// The database's clock, in milliseconds: PostgreSQL's own, and on SQLite, which has none, this process's.
const (
	pgClock     = "CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT)"
	sqliteClock = "CAST(? AS BIGINT)"
)

// beatPostgres writes one row, forgets old ones and reads the rest, in one round trip. It reads what was committed when it
// began; its own row comes from what it wrote. Rows that others are about to forget it does not wait for.
const beatPostgres = `WITH clock AS MATERIALIZED (SELECT ` + pgClock + ` AS now),
	mine AS (INSERT INTO nodes (id, joined_at, beat_at) SELECT ?1, now, now FROM clock
		ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at RETURNING id, joined_at, beat_at),
	old AS (DELETE FROM nodes WHERE id IN (SELECT n.id FROM nodes n, clock
		WHERE n.id <> ?1 AND (n.beat_at < clock.now - ?2 OR n.beat_at > clock.now + ?2) FOR UPDATE OF n SKIP LOCKED))
	SELECT mine.id, mine.joined_at, mine.beat_at, clock.now FROM mine, clock
	UNION ALL SELECT n.id, n.joined_at, n.beat_at, clock.now FROM nodes n, clock
		WHERE n.id <> ?1 AND n.beat_at >= clock.now - ?2 AND n.beat_at <= clock.now + ?2`

// The same for SQLite, one after the other in one transaction.
const (
	beatMine = `INSERT INTO nodes (id, joined_at, beat_at) VALUES (?1, ?2, ?2)
		ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at`
	beatOld = "DELETE FROM nodes WHERE beat_at < ? OR beat_at > ?"
	beatAll = "SELECT id, joined_at, beat_at, CAST(? AS BIGINT) AS now FROM nodes"
)

// Beat says that the node lives, and returns what the database's clock showed meanwhile and the rows of all nodes, its own
// included. Without a row it has come just now. Rows of nodes that said nothing for a minute, or are a minute ahead of a clock that
// was set back, are forgotten. It answers within 2 s.
func (s *Store) Beat(ctx context.Context, node ident.Node) (now time.Time, all []messages.Node, err error) {
	var rows []nodeRow
	sent := time.Now()
	err = s.aside(ctx, "say that this node lives",
		func(ctx context.Context, db *sqlx.DB) error {
			return db.SelectContext(ctx, &rows, s.dialect.rebind(beatPostgres), storable([]any{string(node), forgetNode.Milliseconds()})...)
		},
		func(t *tx) error {
			at := millis(time.Now())
			rows = nil
			if _, err := t.exec(beatMine, string(node), at); err != nil {
				return err
			}
			if _, err := t.exec(beatOld, at-forgetNode.Milliseconds(), at+forgetNode.Milliseconds()); err != nil {
				return err
			}
			return t.list(&rows, beatAll, at)
		})
	if err != nil {
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) { // slow is not ill
			s.beating.Store(&err)
		}
		return time.Time{}, nil, err
	}
	s.beating.Store(nil)
	now, all = nodesOf(rows)
	s.skew.Store(int64(sent.Add(time.Since(sent) / 2).Sub(now)))
	return now, all, nil
}

// nodesOf returns the nodes of rows, and the database's clock when it read them.
func nodesOf(rows []nodeRow) (now time.Time, all []messages.Node) {
	for _, r := range rows {
		now = fromMillis(r.Now)
		all = append(all, messages.Node{ID: r.ID, JoinedAt: fromMillis(r.JoinedAt), BeatAt: fromMillis(r.BeatAt)})
	}
	return now, all
}

// ahead is how far this node's clock is ahead of the database's, as of the last beat; 0 for less than a second: that may be the way of
// the answer.
func (s *Store) ahead() time.Duration {
	if d := time.Duration(s.skew.Load()); d.Abs() >= time.Second {
		return d
	}
	return 0
}

const leaveNode = "DELETE FROM nodes WHERE id = ?"

// Leave takes the node's row away: the others need not wait until it counts as dead. It answers within 2 s.
func (s *Store) Leave(ctx context.Context, node ident.Node) error {
	return s.aside(ctx, "take this node's row away",
		func(ctx context.Context, db *sqlx.DB) error {
			_, err := db.ExecContext(ctx, s.dialect.rebind(leaveNode), string(node))
			return err
		},
		func(t *tx) error {
			_, err := t.exec(leaveNode, string(node))
			return err
		})
}

// takeLease takes a lease that is free, over, or its own. One that lasts longer than it could have been given for was given
// before the clock was set back.
const takeLease = `INSERT INTO leases (name, node, term, until) VALUES (?1, ?2, 1, %s + CAST(?3 AS BIGINT))
	ON CONFLICT (name) DO UPDATE SET node = excluded.node, until = excluded.until,
		term = leases.term + CASE WHEN leases.node = excluded.node THEN 0 ELSE 1 END
	WHERE leases.node = excluded.node OR leases.until <= excluded.until - CAST(?3 AS BIGINT) OR leases.until > excluded.until + CAST(?3 AS BIGINT)
	RETURNING term`

var (
	takeLeasePostgres = fmt.Sprintf(takeLease, pgClock)
	takeLeaseSQLite   = fmt.Sprintf(takeLease, "?4")
)

// TakeLease has the node hold the named lease for life from now on, if nobody else does; who holds it calls it again before
// that is over. term grows whenever the lease changes hands. It answers within 2 s.
func (s *Store) TakeLease(ctx context.Context, name string, node ident.Node, life time.Duration) (term int64, ok bool, err error) {
	args := []any{name, string(node), life.Milliseconds()}
	err = s.aside(ctx, "take a lease",
		func(ctx context.Context, db *sqlx.DB) error {
			return db.GetContext(ctx, &term, s.dialect.rebind(takeLeasePostgres), storable(args)...)
		},
		func(t *tx) error {
			t.writes++ // it is no exec, and has to be committed all the same
			err := t.get(&term, takeLeaseSQLite, append(args, millis(time.Now()))...)
			if errors.Is(err, sql.ErrNoRows) {
				term, err = 0, nil
			}
			return err
		})
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return term, term > 0, err
}

// releaseLease leaves the row: the next holder's term has to be another.
const releaseLease = "UPDATE leases SET until = 0 WHERE name = ? AND node = ?"

// ReleaseLease lets others take the lease at once, if the node holds it. It answers within 2 s.
func (s *Store) ReleaseLease(ctx context.Context, name string, node ident.Node) error {
	return s.aside(ctx, "release a lease",
		func(ctx context.Context, db *sqlx.DB) error {
			_, err := db.ExecContext(ctx, s.dialect.rebind(releaseLease), name, string(node))
			return err
		},
		func(t *tx) error {
			_, err := t.exec(releaseLease, name, string(node))
			return err
		})
}

// aside does shared beside the writer where nodes share a database, and alone with the writer where one has it for itself.
func (s *Store) aside(ctx context.Context, doing string, shared func(context.Context, *sqlx.DB) error, alone func(*tx) error) error {
	if !s.dialect.shared {
		return s.write(ctx, doing, newOp(alone))
	}
	ctx, cancel := context.WithTimeout(ctx, memberAnswer)
	defer cancel()
	return s.readError(doing, shared(ctx, s.writes))
}
