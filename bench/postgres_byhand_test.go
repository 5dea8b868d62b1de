package bench_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rouse/ident"
)

// pgHandful is PostgreSQL written by hand: the store's own schema, prepared statements, the rows the store writes for a message - the
// delivery and its inbox.
type pgHandful struct {
	pool  *pgxpool.Pool
	house *house
	data  []byte
}

const (
	pgTake   = `SELECT nextval('places') FROM generate_series(1, $1::bigint)`
	pgInsert = `INSERT INTO deliveries (seq, device, app, message, class, urgency, size, created_at, expires_at, shared, body)
		VALUES ($1, $2, $3, $4, 2, 1, $5, $6, $7, 0, $8)`
	pgUpdate     = `UPDATE inboxes SET pending = pending + 1, pending_bytes = pending_bytes + $1, head = GREATEST(head, $2) WHERE device = $3`
	pgInsertMany = `INSERT INTO deliveries (seq, device, app, message, class, urgency, size, created_at, expires_at, shared, body)
		SELECT seq, device, $3, message, 2, 1, $5, created_at, created_at + 604800000, 0, body
		FROM unnest($1::bigint[], $2::text[], $4::text[], $6::bigint[], $7::bytea[]) AS n (seq, device, message, created_at, body)`
	pgUpdateMany = `UPDATE inboxes AS i SET pending = i.pending + n.pending, pending_bytes = i.pending_bytes + n.bytes, head = GREATEST(i.head, n.head)
		FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS n (device, pending, bytes, head) WHERE i.device = n.device`
)

// newPGHandful has the store make the schema and the devices, and goes on without it, over size connections.
func newPGHandful(ctx context.Context, dsn string, size int) (*pgHandful, error) {
	h, err := newHouseOn(ctx, dsn, devices)
	if err != nil {
		return nil, err
	}
	if err := h.close(); err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(size)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	return &pgHandful{pool: pool, house: h, data: dataOf(dataSize)}, err
}

func (x *pgHandful) close() error {
	x.pool.Close()
	return nil
}

// one stores a message in a transaction of its own: a place, then everything else in one round trip.
func (x *pgHandful) one(ctx context.Context) error {
	conn, err := x.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var seq int64
	if err := conn.QueryRow(ctx, "SELECT nextval('places')").Scan(&seq); err != nil {
		return err
	}
	d := string(x.house.devices[rand.IntN(len(x.house.devices))])
	now := time.Now().UnixMilli()
	var b pgx.Batch
	b.Queue("BEGIN")
	b.Queue(pgInsert, seq, d, string(x.house.app), string(ident.NewMessage()), len(x.data), now, now+604800000, x.data)
	b.Queue(pgUpdate, len(x.data), seq, d)
	b.Queue("COMMIT")
	return conn.SendBatch(ctx, &b).Close()
}

// many stores n messages in one transaction: their places, then everything else in one round trip.
func (x *pgHandful) many(ctx context.Context, n int) error {
	rows, err := x.pool.Query(ctx, pgTake, n)
	if err != nil {
		return err
	}
	seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return err
	}
	var to, ids []string
	var created []int64
	var bodies [][]byte
	at := map[string]int{}
	var boxes []string
	var pending, bytes, heads []int64
	for _, seq := range seqs {
		d := string(x.house.devices[rand.IntN(len(x.house.devices))])
		to, ids, created, bodies = append(to, d), append(ids, string(ident.NewMessage())), append(created, time.Now().UnixMilli()), append(bodies, x.data)
		i, known := at[d]
		if !known {
			i = len(boxes)
			at[d] = i
			boxes, pending, bytes, heads = append(boxes, d), append(pending, 0), append(bytes, 0), append(heads, 0)
		}
		pending[i], bytes[i], heads[i] = pending[i]+1, bytes[i]+int64(len(x.data)), seq
	}
	var b pgx.Batch
	b.Queue("BEGIN")
	b.Queue(pgInsertMany, seqs, to, string(x.house.app), ids, len(x.data), created, bodies)
	b.Queue(pgUpdateMany, boxes, pending, bytes, heads)
	b.Queue("COMMIT")
	return x.pool.SendBatch(ctx, &b).Close()
}

// pgPools are the sizes of pools that single INSERTs are tried with; the fastest counts.
var pgPools = []int{8, 16, 32, 64}

// newPGSingle commits each message by itself, over a pool of the size that does best.
func newPGSingle(ctx context.Context, dsn string) (contender, error) {
	best, rate := pgPools[0], 0.0
	x, err := newPGHandful(ctx, dsn, best)
	if err != nil {
		return contender{}, err
	}
	round := func(ctx context.Context, n int) (time.Duration, error) {
		started := time.Now()
		err := share(n, pgCallers, func(int) error { return x.one(ctx) })
		return time.Since(started), err
	}
	for range 2 { // the second time all is warm
		for _, size := range pgPools {
			if err := errors.Join(x.close(), x.reopen(ctx, dsn, size)); err != nil {
				return contender{}, err
			}
			took, err := round(ctx, 1000)
			if err != nil {
				return contender{}, errors.Join(err, x.close())
			}
			if got := 1000 / took.Seconds(); got > rate {
				best, rate = size, got
			}
		}
	}
	if err := errors.Join(x.close(), x.reopen(ctx, dsn, best)); err != nil {
		return contender{}, err
	}
	return contender{name: pgSingle, close: x.close, round: round}, nil
}

// reopen goes on over a pool of another size, whose connections are there.
func (x *pgHandful) reopen(ctx context.Context, dsn string, size int) error {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return err
	}
	config.MaxConns, config.MinConns = int32(size), int32(size)
	x.pool, err = pgxpool.NewWithConfig(ctx, config)
	return err
}

func newPGByHand(ctx context.Context, dsn string) (contender, error) {
	x, err := newPGHandful(ctx, dsn, 1)
	if err != nil {
		return contender{}, err
	}
	return contender{name: pgHand, close: x.close, round: func(ctx context.Context, n int) (time.Duration, error) {
		started := time.Now()
		for done := 0; done < n; done += pgByHand {
			if err := x.many(ctx, min(pgByHand, n-done)); err != nil {
				return 0, err
			}
		}
		return time.Since(started), nil
	}}, nil
}
