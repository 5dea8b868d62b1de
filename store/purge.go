package store

import (
	"context"
	"sync"
	"time"

	"rouse/messages"
)

const (
	// purgeAtATime bounds the rows one operation removes, so that no batch is held up by it.
	purgeAtATime = 256
	// purgeSpan and purgeSpans bound the places one Purge looks at: most of them are still wanted, or gone.
	purgeSpan  = 5_000
	purgeSpans = 40
)

// purgeCursor is where the next Purge looks on. Losing it costs only time: it goes round and round.
type purgeCursor struct {
	mu  sync.Mutex
	seq messages.Seq // guarded by mu
}

// Purge removes what nobody will ask for: deliveries that ended, wakes, events, and messages with nothing pending, older than
// before; idempotency keys older than a day; and what an interrupted DeleteApp left. It looks at a bounded part at a time
// and returns how many rows it removed, about limit at most; call it again and again.
func (s *Store) Purge(ctx context.Context, before, now time.Time, limit int) (int, error) {
	total, err := s.finishDeletes(ctx)
	if err != nil {
		return total, err
	}
	n, err := s.purgeDeliveries(ctx, millis(before), limit-total)
	if total += n; err != nil {
		return total, err
	}
	for _, q := range []struct{ find, remove string }{
		{"SELECT id FROM wakes WHERE at < ? AND id <= (SELECT MIN(id) FROM wakes) + 10000 ORDER BY id LIMIT 0 + ?", "DELETE FROM wakes WHERE id IN "},
		{`SELECT id FROM messages WHERE created_at < ? AND pending = 0 AND NOT EXISTS
			(SELECT 1 FROM deliveries d WHERE d.message = messages.id) ORDER BY created_at LIMIT 0 + ?`, "DELETE FROM messages WHERE id IN "},
		{oldEvents, "DELETE FROM events WHERE seq IN "},
	} {
		n, err := s.purgeTable(ctx, q.find, q.remove, millis(before), limit-total)
		if total += n; err != nil {
			return total, err
		}
	}
	n, err = s.purgeReplays(ctx, millis(now.Add(-idempotencyLife)), limit-total)
	return total + n, err
}

// purgeDeliveries goes on from the cursor. It finds candidates among the reads, so that the writer only
// deletes: a row that ended never changes again.
func (s *Store) purgeDeliveries(ctx context.Context, before int64, limit int) (int, error) {
	s.purge.mu.Lock()
	defer s.purge.mu.Unlock()
	const young = "SELECT COALESCE(MIN(seq), 0) FROM deliveries WHERE seq > ? AND seq <= ? AND created_at >= ?"
	const over = "SELECT seq FROM deliveries WHERE seq > ? AND seq <= ? AND ended_at < ? ORDER BY seq"
	var newest messages.Seq
	if err := s.reads.get(ctx, &newest, s.dialect.newest); err != nil {
		return 0, s.readError("read the sequence counter", err)
	}
	total := 0
	for range purgeSpans {
		if total >= limit {
			return total, nil
		}
		from, to := s.purge.seq, s.purge.seq+purgeSpan
		var firstYoung messages.Seq
		var seqs []int64
		if err := s.reads.get(ctx, &firstYoung, young, int64(from), int64(to), before); err != nil {
			return total, s.readError("look for old deliveries", err)
		}
		if err := s.reads.list(ctx, &seqs, over, int64(from), int64(to), before); err != nil {
			return total, s.readError("look for old deliveries", err)
		}
		if err := s.deleteRows(ctx, "DELETE FROM deliveries WHERE seq IN ", anys(seqs)); err != nil {
			return total, err
		}
		total += len(seqs)
		s.purge.seq = to
		if firstYoung != 0 || to >= newest {
			s.purge.seq = 0 // all that is old was looked at
			return total, nil
		}
	}
	return total, nil
}

// purgeTable deletes what find names, a piece at a time.
func (s *Store) purgeTable(ctx context.Context, find, remove string, before int64, limit int) (int, error) {
	total := 0
	for total < limit {
		var ids []any
		want := min(limit-total, purgeAtATime)
		if err := s.reads.list(ctx, &ids, find, before, want); err != nil {
			return total, s.readError("look for old rows", err)
		}
		if err := s.deleteRows(ctx, remove, ids); err != nil {
			return total, err
		}
		total += len(ids)
		if len(ids) < want {
			break
		}
	}
	return total, nil
}

func anys[T any](list []T) []any {
	out := make([]any, 0, len(list))
	for _, v := range list {
		out = append(out, v)
	}
	return out
}

// deleteRows runs remove with lists of keys appended, purgeAtATime each.
func (s *Store) deleteRows(ctx context.Context, remove string, keys []any) error {
	for len(keys) > 0 {
		n := min(len(keys), purgeAtATime)
		piece := make([]any, purgeAtATime) // one length: one prepared statement
		for i := range piece {
			piece[i] = keys[min(i, n-1)]
		}
		err := s.write(ctx, "remove old rows", newOp(func(t *tx) error {
			_, err := t.exec(remove+"("+repeat("?", purgeAtATime)+")", piece...)
			return err
		}))
		if err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

func (s *Store) purgeReplays(ctx context.Context, before int64, limit int) (int, error) {
	total := 0
	for total < limit {
		var n int64
		want := min(limit-total, purgeAtATime)
		err := s.write(ctx, "remove old idempotency keys", newOp(func(t *tx) (err error) {
			n, err = t.exec(`DELETE FROM idempotency WHERE (app, key) IN
				(SELECT app, key FROM idempotency WHERE created_at < ? ORDER BY created_at LIMIT 0 + ?)`, before, want)
			return err
		}))
		if err != nil {
			return total, err
		}
		total += int(n)
		if int(n) < want {
			break
		}
	}
	return total, nil
}
