package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
)

// ErrDeaf is a server that can be reached, and through which nothing arrives: PostgreSQL behind a pooler in transaction mode.
var ErrDeaf = errors.New("what is said there is not heard")

const (
	// probeChannel is a channel that no node listens to.
	probeChannel = "rouse_doctor"
	// probeWait is how long a word to oneself may take.
	probeWait = 2 * time.Second
)

// ProbePostgres listens, says a word to itself over another connection, and returns how long it took to be heard. pooled says
// that a pooler answers in the server's place. The error is ErrDeaf if it was not heard within 2 s, or says why there is no way to the
// server. No node hears of it.
func ProbePostgres(ctx context.Context, dsn string) (took time.Duration, pooled bool, err error) {
	return probePostgres(ctx, dsn, probeWait)
}

func probePostgres(ctx context.Context, dsn string, within time.Duration) (took time.Duration, pooled bool, err error) {
	config, err := parse(dsn)
	if err != nil {
		return 0, false, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	d := newDialer(ctx, config)
	defer d.end()
	err = d.with(ctx, func(ear *pgx.Conn) error {
		return d.with(ctx, func(mouth *pgx.Conn) (err error) {
			took, pooled, err = echo(ctx, ear, mouth, within)
			return err
		})
	})
	return took, pooled, err
}

// echo has one connection hear what the other says.
func echo(ctx context.Context, ear, mouth *pgx.Conn, within time.Duration) (took time.Duration, pooled bool, err error) {
	var process uint32
	if err := ear.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&process); err != nil {
		return 0, false, err
	}
	pooled = process != ear.PgConn().PID() // a pooler tells a number of its own
	if _, err := ear.Exec(ctx, "LISTEN "+probeChannel); err != nil {
		return 0, pooled, err
	}
	// A pooler may keep the session, and with it what it listens to.
	defer func() { _, _ = ear.Exec(ctx, "UNLISTEN "+probeChannel) }()
	word, begun := rand.Text(), time.Now()
	if _, err := mouth.Exec(ctx, "SELECT pg_notify($1, $2)", probeChannel, word); err != nil {
		return 0, pooled, err
	}
	wait, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		n, err := ear.WaitForNotification(wait)
		switch {
		case wait.Err() != nil && ctx.Err() == nil:
			return 0, pooled, ErrDeaf
		case err != nil:
			return 0, pooled, err
		case n.Payload == word:
			return time.Since(begun), pooled, nil
		}
	}
}

// ProbeNATS publishes a word under the subject of a node that does not exist, and returns how long it took to be heard, as
// ProbePostgres does. Nodes hear it, and pass over it.
func ProbeNATS(ctx context.Context, url string) (took time.Duration, err error) {
	return probeNATS(ctx, url, probeWait)
}

func probeNATS(ctx context.Context, url string, within time.Duration) (took time.Duration, err error) {
	conn, err := nats.Connect(url, nats.Name("rouse doctor"), nats.NoReconnect(), nats.Timeout(stallLimit))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	sub, err := conn.SubscribeSync(subject + "*")
	if err != nil {
		return 0, err
	}
	wait, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := conn.FlushWithContext(wait); err != nil {
		return 0, err
	}
	own, begun := subject+"doctor-"+rand.Text(), time.Now()
	if err := conn.Publish(own, nil); err != nil {
		return 0, err
	}
	for {
		m, err := sub.NextMsgWithContext(wait)
		switch {
		case conn.LastError() != nil:
			return 0, fmt.Errorf("the server refuses: %w", conn.LastError()) // what the user may not do is told here
		case wait.Err() != nil && ctx.Err() == nil:
			return 0, ErrDeaf
		case err != nil:
			return 0, err
		case m.Subject == own:
			return time.Since(begun), nil
		}
	}
}
