package bus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// channel is the one channel of all nodes.
	channel = "rouse_hints"
	// notifyLimit is what a payload may measure: PostgreSQL takes less than 8000 bytes.
	notifyLimit = 7999
)

// Postgres is the bus over LISTEN and NOTIFY of one PostgreSQL database. Hints go while Run runs.
type Postgres struct {
	far
	config  *pgx.ConnConfig
	silence time.Duration // silenceLimit, but in tests
}

// NewPostgres makes the bus over the database of dsn. That must be the server itself: through a pooler in transaction
// mode no notification arrives. log may be nil.
func NewPostgres(dsn string, log *slog.Logger) (*Postgres, error) {
	config, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["application_name"] = "rouse bus"
	return &Postgres{far: newFar(log), config: config, silence: silenceLimit}, nil
}

// parse reads a DSN. The error repeats nothing of it: there may be a password in it.
func parse(dsn string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("the bus's DSN is not of the form postgres://user:password@host:5432/name")
	}
	config.ConnectTimeout = stallLimit
	return config, nil
}

// Run carries hints between this node and the others until ctx is done, over two connections: one that listens cannot
// speak. Whatever happens to them, it connects again. It returns nil, when all its goroutines are gone.
func (b *Postgres) Run(ctx context.Context) error {
	d := newDialer(ctx, b.config)
	var ways sync.WaitGroup
	ways.Go(func() {
		b.keep(ctx, "listen", func(up func()) error { return d.with(ctx, func(c *pgx.Conn) error { return b.listen(ctx, c, up) }) })
	})
	ways.Go(func() {
		b.keep(ctx, "notify", func(up func()) error { return d.with(ctx, func(c *pgx.Conn) error { return b.notify(ctx, c, up) }) })
	})
	ways.Wait()
	d.end()
	return nil
}

// errNoEcho is a connection that looks well and carries nothing.
var errNoEcho = errors.New("this node did not hear itself: the connection is dead, or leads through a pooler in transaction mode")

// Connected reports whether hints go to the other nodes and come from them: both ways were used within the last 15 s. It is
// false for up to 5 s after a connection was made.
func (b *Postgres) Connected() bool { return b.connected(2) }

// listen hands on what other nodes notify. This node's own batches come back the same way, at least one every beat: if
// they do not, the connection is dead, though nobody says so.
func (b *Postgres) listen(ctx context.Context, conn *pgx.Conn, up func()) error {
	begin, cancel := context.WithTimeout(ctx, stallLimit)
	defer cancel()
	if _, err := conn.Exec(begin, "LISTEN "+channel); err != nil {
		return err
	}
	// After LISTEN: whoever looks now sees what was notified before it.
	b.listening()
	b.echoes.begin()
	echo := time.Now()
	for {
		wait, cancel := context.WithDeadline(ctx, echo.Add(b.silence))
		n, err := conn.WaitForNotification(wait)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return errNoEcho
		}
		if err != nil {
			return err
		}
		// Through a pooler LISTEN succeeds, and nothing ever comes but what its connection to the server has heard by then.
		if own := b.hear(n.Payload); b.echoes.proves(own) {
			echo = time.Now()
			up()
		}
	}
}

// notify tells what gathers. Several payloads are one statement: one round trip, one commit. That commit writes
// nothing, so it does not wait for the disk; and because it is not the store's, writers do not queue for the lock that
// PostgreSQL takes to put notifications in order.
func (b *Postgres) notify(ctx context.Context, conn *pgx.Conn, up func()) error {
	first := true
	return b.tell(ctx, notifyLimit, func(ctx context.Context, payloads []string) error {
		_, err := conn.Exec(ctx, "SELECT pg_notify($1, p) FROM unnest($2::text[]) AS p", channel, payloads)
		if err == nil && first {
			first = false
			up()
		}
		return err
	})
}
