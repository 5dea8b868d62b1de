package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"rouse/messages"
)

// A cursor over the places of all inboxes must not pass one that a transaction holds and has not committed. Where nodes share a
// database there is always somebody who does: so a sweep reads only up to a place of which it is known that
// everybody who might have held it, or a lower one, has ended since. That is asked of the locks, not of clocks.

const (
	// horizonWait is how long a sweep waits for the transactions of this moment; after that it makes do with those of a sweep before.
	horizonWait = time.Second
	horizonLook = 5 * time.Millisecond
)

// horizon is what is known of open transactions.
type horizon struct {
	mu      sync.Mutex
	settled messages.Seq    // nobody holds this place or a lower one any more; guarded by mu, as all below
	mark    messages.Seq    // the newest place when holders were asked for
	holders map[string]bool // of them, those that have not ended; nil if nobody was asked
}

// selectHolders names the transactions that may give places. Whoever does has its locks from before the first until the commit.
var selectHolders = fmt.Sprintf(`SELECT virtualtransaction FROM pg_locks WHERE locktype = 'advisory' AND classid = %d AND objsubid = 2
	AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, shardLocks)

// settledPlace returns a place up to which all that was ever given is committed, or never will be.
func (s *Store) settledPlace(ctx context.Context) (messages.Seq, error) {
	if !s.dialect.shared {
		var newest messages.Seq
		err := s.reads.get(ctx, &newest, s.dialect.newest)
		return newest, err
	}
	h := &s.horizon
	h.mu.Lock()
	defer h.mu.Unlock()
	look := time.NewTicker(horizonLook)
	defer look.Stop()
	for patience := int(horizonWait / horizonLook); ; patience-- {
		if err := s.lookAround(ctx); err != nil {
			return 0, err
		}
		if h.holders == nil || patience == 0 {
			return h.settled, nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// lookAround asks who is under way. The caller holds the horizon's mu.
func (s *Store) lookAround(ctx context.Context) error {
	h := &s.horizon
	// The place first: whoever gave it or a lower one has its locks already, and is found by the second question.
	var newest messages.Seq
	if err := s.reads.get(ctx, &newest, s.dialect.newest); err != nil {
		return err
	}
	var now []string
	if err := s.reads.list(ctx, &now, selectHolders); err != nil {
		return err
	}
	if h.holders == nil {
		h.mark, h.holders = newest, map[string]bool{}
		for _, holder := range now {
			h.holders[holder] = true
		}
	}
	left := map[string]bool{}
	for _, holder := range now {
		if h.holders[holder] {
			left[holder] = true
		}
	}
	h.holders = left
	if len(now) == 0 {
		h.mark = newest
	}
	if len(left) == 0 {
		h.settled, h.holders = max(h.settled, h.mark), nil
	}
	return nil
}
