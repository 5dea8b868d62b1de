package store

import (
	"context"
	"slices"
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
	seq messages.Seq // guarded by mu, as all below
	// created and post are those of the send to a user that was looked at last.
	created int64
	post    string
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
		{oldEvents, "DELETE FROM events WHERE seq IN "},
	} {
		n, err := s.purgeTable(ctx, q.find, q.remove, millis(before), limit-total)
		if total += n; err != nil {
			return total, err
		}
	}
	n, err = s.purgePosts(ctx, millis(before), limit-total)
	if total += n; err != nil {
		return total, err
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
		from, err := s.skipEmpty(ctx, s.purge.seq, newest)
		if err != nil {
			return total, s.readError("look for old deliveries", err)
		}
		to := from + purgeSpan
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

const (
	// oldPosts are over for long enough: since they were canceled, or else since they were to be sent.
	oldPosts = `SELECT id, created_at FROM messages WHERE created_at >= ?1 AND created_at < ?2 AND pending = 0 AND due_at IS NULL
		AND COALESCE(canceled_at, send_at, created_at) < ?2 AND (created_at > ?1 OR id > ?3) ORDER BY created_at, id LIMIT 0 + ?4`
	spokenFor = "SELECT DISTINCT message FROM deliveries WHERE message IN "
)

// purgePosts goes on from the cursor through the sends to users, and removes those that no delivery speaks of any more. Their
// deliveries are asked about apart: in a distributed database they are on other machines.
func (s *Store) purgePosts(ctx context.Context, before int64, limit int) (int, error) {
	s.purge.mu.Lock()
	defer s.purge.mu.Unlock()
	total := 0
	for pages := 0; total < limit && pages < purgeSpans; pages++ {
		var page []struct {
			ID      string `db:"id"`
			Created int64  `db:"created_at"`
		}
		at := &s.purge
		if err := s.reads.list(ctx, &page, oldPosts, at.created, before, at.post, purgeAtATime); err != nil {
			return total, s.readError("look for old messages", err)
		}
		ids := make([]string, 0, len(page))
		for _, p := range page {
			ids = append(ids, p.ID)
			at.created, at.post = p.Created, p.ID
		}
		n, err := s.purgeUnspoken(ctx, ids)
		if total += n; err != nil {
			return total, err
		}
		if len(page) < purgeAtATime {
			at.created, at.post = 0, "" // all that is old was looked at
			return total, nil
		}
	}
	return total, nil
}

// purgeUnspoken removes those of up to purgeAtATime sends that no delivery speaks of.
func (s *Store) purgeUnspoken(ctx context.Context, ids []string) (int, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	var kept []string
	query, args := withKeys(spokenFor, anys(ids))
	if err := s.reads.list(ctx, &kept, query, args...); err != nil {
		return 0, s.readError("look for messages' deliveries", err)
	}
	gone := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(kept, id) })
	return len(gone), s.deleteRows(ctx, "DELETE FROM messages WHERE id IN ", anys(gone))
}

// withKeys appends a list of up to purgeAtATime keys to query. It has always as many: one prepared statement.
func withKeys(query string, keys []any) (whole string, args []any) {
	args = make([]any, purgeAtATime)
	for i := range args {
		args[i] = keys[min(i, len(keys)-1)]
	}
	return query + "(" + repeat("?", purgeAtATime) + ")", args
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
		query, piece := withKeys(remove, keys[:n])
		err := s.write(ctx, "remove old rows", newOp(func(t *tx) error {
			_, err := t.exec(query, piece...)
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
