package bench_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"rouse/ident"
)

// hand is SQLite written by hand: the store's own schema and settings, one connection, statements prepared once. It
// writes the rows the store writes for a message: the delivery, its inbox, and, once a transaction, the counter.
type hand struct {
	db                                       *sql.DB
	house                                    *house
	data                                     []byte
	begin, commit, insert, inbox, take, keep *sql.Stmt
}

const (
	insertDelivery = `INSERT INTO deliveries (seq, device, app, message, class, urgency, size, created_at, expires_at, shared, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	updateInbox = `UPDATE inboxes SET pending = pending + 1, pending_bytes = pending_bytes + ?, head = ? WHERE device = ?`
	takeSeq     = `SELECT value FROM counters WHERE name = 'seq'`
	keepSeq     = `UPDATE counters SET value = ? WHERE name = 'seq'`
)

// newHand has the store make the schema and the devices, and goes on without it.
func newHand(ctx context.Context, path string) (*hand, error) {
	h, err := newHouse(ctx, path, devices)
	if err != nil {
		return nil, err
	}
	if err := h.close(); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)"+
		"&_pragma=foreign_keys(0)&_pragma=temp_store(memory)&_pragma=cache_size(-16384)&_pragma=secure_delete(fast)&_pragma=wal_autocheckpoint(4000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	x := &hand{db: db, house: h, data: dataOf(dataSize)}
	for _, p := range []struct {
		to    **sql.Stmt
		query string
	}{
		{&x.begin, "BEGIN IMMEDIATE"}, {&x.commit, "COMMIT"}, {&x.insert, insertDelivery}, {&x.inbox, updateInbox},
		{&x.take, takeSeq}, {&x.keep, keepSeq},
	} {
		if *p.to, err = db.PrepareContext(ctx, p.query); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare %s: %w", p.query, err), db.Close())
		}
	}
	return x, nil
}

// batch writes n messages in one transaction.
func (x *hand) batch(n int) error {
	if _, err := x.begin.Exec(); err != nil {
		return err
	}
	var seq int64
	if err := x.take.QueryRow().Scan(&seq); err != nil {
		return err
	}
	for range n {
		seq++
		d := string(x.house.devices[rand.IntN(len(x.house.devices))])
		now := time.Now().UnixMilli()
		if _, err := x.insert.Exec(seq, d, string(x.house.app), string(ident.NewMessage()), 2, 1, len(x.data), now, now+604800000, 0, x.data); err != nil {
			return err
		}
		if _, err := x.inbox.Exec(len(x.data), seq, d); err != nil {
			return err
		}
	}
	if _, err := x.keep.Exec(seq); err != nil {
		return err
	}
	_, err := x.commit.Exec()
	return err
}

func newByHand(ctx context.Context, path string) (contender, error) {
	x, err := newHand(ctx, path)
	if err != nil {
		return contender{}, err
	}
	return contender{name: byHand, close: x.db.Close, round: func(_ context.Context, n int) (time.Duration, error) {
		started := time.Now()
		for done := 0; done < n; done += 128 {
			if err := x.batch(min(128, n-done)); err != nil {
				return 0, err
			}
		}
		return time.Since(started), nil
	}}, nil
}

// newSingleRow is the same with a commit for each message: the callers take turns on the one connection that can write.
func newSingleRow(ctx context.Context, path string) (contender, error) {
	x, err := newHand(ctx, path)
	if err != nil {
		return contender{}, err
	}
	turn := make(chan struct{}, 1)
	return contender{name: singleRow, close: x.db.Close, round: func(_ context.Context, n int) (time.Duration, error) {
		started := time.Now()
		err := share(n, 64, func(int) error {
			turn <- struct{}{}
			defer func() { <-turn }()
			return x.batch(1)
		})
		return time.Since(started), err
	}}, nil
}
