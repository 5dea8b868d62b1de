// Package store keeps what was promised: whatever an answer speaks of is durable before the answer is
// given. It is the only room that speaks SQL.
//
// Everything that writes goes through the writers (Run): one goroutine on SQLite, a few on PostgreSQL, each with devices of its
// own. They commit what waits in groups, so that one fsync serves many callers. Reads use a pool of their own and see every
// commit that was answered.
// docs/storage.md describes the schema and the cost of a message.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"rouse/tokens"
)

// Defaults of Options.
const (
	defaultQueue         = 8192
	defaultInboxMessages = 1000
	defaultInboxBytes    = 10 << 20
)

// Options is what Open needs.
type Options struct {
	// DSN is "sqlite:" and the path of a file, which is made, with its folder, if missing; or "postgres://" and what PostgreSQL
	// calls a connection URI. Several processes may open that one at once.
	DSN string
	// Ring seals push tokens and credentials. Required.
	Ring *tokens.Ring
	// Log may be nil.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics prometheus.Registerer
	// Writers is how many transactions the store writes with at once; 0 is what the engine does best with. SQLite always has one.
	Writers int
	// Connections is how many a node may take to PostgreSQL in all, those of a bus not counted: one for each writer, one for what
	// the node says of itself, and the rest, at least one, for reads. 0 leaves 16 for reads. SQLite has no use for it.
	Connections int
	// Queue is how many operations may wait for the writers before callers are sent away; 0 is 8192.
	Queue int
	// InboxMessages limits the un-acked messages of one inbox; 0 is 1000.
	InboxMessages int
	// InboxBytes limits the un-acked data of one inbox, in bytes; 0 is 10 MiB.
	InboxBytes int64
}

// Store is an open database. Its methods are safe for concurrent use. Those that write wait until Run
// serves them or their context ends.
type Store struct {
	dialect dialect
	ring    *tokens.Ring
	log     *slog.Logger
	metrics *metrics
	limits  inboxLimits
	want    int64        // the schema this program knows
	skew    atomic.Int64 // nanoseconds that this node's clock is ahead of the database's; Beat writes

	writes *sqlx.DB // Migrate's connections, then one for each writer
	reads  *reader

	writers []*writer    // at least one, and never changed
	gate    sync.RWMutex // held for reading while an op is queued, for writing to set ended
	ended   bool         // guarded by gate: Run is over, nothing will be served

	running  atomic.Bool
	beating  atomic.Pointer[error] // why the last beat failed, nil if it did not; Beat writes
	starts   sync.Once
	started  chan struct{} // closed once Run serves
	keyUses  keyUses
	purge    purgeCursor
	horizon  horizon
	types    atomic.Pointer[eventTypes]
	fanAhead fanAhead
	// unlocked leaves shards unlocked: tests show with it what the locks are for.
	unlocked bool
}

type inboxLimits struct {
	messages int64
	bytes    int64
}

// Open opens the database. It starts nothing and changes no schema. An error
// says what is wrong with the options or the file.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Ring == nil {
		return nil, errors.New("store: no key ring to seal tokens and credentials with")
	}
	d, err := parseDSN(o.DSN)
	if err != nil {
		return nil, err
	}
	want, err := newestMigration(d.files)
	if err != nil {
		return nil, err
	}
	if d.writers == 1 || o.Writers <= 0 {
		o.Writers = d.writers
	}
	writes, reads, err := d.open(ctx, o.Writers, readersOf(o))
	if err != nil {
		return nil, err
	}
	s := &Store{
		dialect: d, ring: o.Ring, log: o.Log, want: want, started: make(chan struct{}),
		writes: writes, reads: newReader(reads, d),
		limits: inboxLimits{messages: int64(orDefault(o.InboxMessages, defaultInboxMessages)), bytes: orDefault(o.InboxBytes, defaultInboxBytes)},
	}
	s.newWriters(o.Writers, orDefault(o.Queue, defaultQueue))
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.metrics, err = newMetrics(o.Metrics, func() float64 { return float64(s.queued()) }); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// MinConnections is how few connections to PostgreSQL a node does its work with.
const MinConnections = pgWriters + pgAside + 2

// readersOf is how many connections are left for reads, 0 if nobody said.
func readersOf(o Options) int {
	if o.Connections <= 0 {
		return 0
	}
	return max(o.Connections-o.Writers-pgAside, 1)
}

func orDefault[T int | int64](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// Close lets go of the files. Call it once Run has returned.
func (s *Store) Close() error {
	return errors.Join(s.reads.close(), s.writes.Close())
}

// Started is closed once Run has looked at all that it refuses to run on, and serves. It never is if Run returns before.
func (s *Store) Started() <-chan struct{} { return s.started }

// Ready returns nil if the database answers, its schema is not older than the one this program knows, the writer is
// running, and neither its last batch nor the last beat failed. A newer one is that of a newer program which has begun beside this: a
// migration only adds, so this one goes on until it is replaced.
func (s *Store) Ready(ctx context.Context) error {
	have, want, err := s.MigrationStatus(ctx)
	if err != nil {
		return err
	}
	if have < want {
		return olderSchema(have, want)
	}
	if !s.running.Load() {
		return errors.New("the writer is not running")
	}
	if e := s.trouble(); e != nil {
		return fmt.Errorf("the last write failed: %w", e)
	}
	if e := s.beating.Load(); e != nil {
		return fmt.Errorf("this node cannot say that it lives: %w", *e)
	}
	return nil
}
