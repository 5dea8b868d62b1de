package store

import (
	"context"
	"sync"

	"rouse/ident"
)

// audience is whom a page may reach.
type audience struct {
	devices []ident.Device // in their order
	cursor  string         // where the page ends
	last    bool           // no page follows it
}

// fanAhead keeps the audience of the next page of fan-outs that are under way here: it is read while the page before is written. Who left
// since is looked at again with the page's inboxes; who came since came too late.
type fanAhead struct {
	mu   sync.Mutex
	next map[ident.Message]audienceAhead // guarded by mu
}

type audienceAhead struct {
	audience
	from  string
	limit int
}

// mostAhead bounds the fan-outs whose next audience is kept, each of maxFanPage devices at most.
const mostAhead = 64

// take returns the audience of a job's next page if it is known, once.
func (f *fanAhead) take(j fanRow, limit int) (audience, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.next[j.ID]
	delete(f.next, j.ID)
	return n.audience, ok && n.from == j.Cursor && n.limit == limit
}

func (f *fanAhead) put(j fanRow, limit int, a audience) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == nil || len(f.next) >= mostAhead {
		f.next = map[ident.Message]audienceAhead{}
	}
	f.next[j.ID] = audienceAhead{audience: a, from: j.Cursor, limit: limit}
}

// nextAudience is audience, unless that was read already.
func (s *Store) nextAudience(ctx context.Context, j fanRow, limit int) (audience, error) {
	if a, ok := s.fanAhead.take(j, limit); ok {
		return a, nil
	}
	return s.audience(ctx, j, limit)
}

// readAhead reads the audience of the page after this one, beside what else is done, and returns what waits for it. What cannot be read
// is read again in its turn.
func (s *Store) readAhead(ctx context.Context, j fanRow, this audience, limit int) (wait func()) {
	if this.last || j.Audience == toUser { // whose devices are the user's when their page is stored
		return func() {}
	}
	j.Cursor = this.cursor
	done := make(chan struct{})
	go func() {
		defer close(done)
		if a, err := s.audience(ctx, j, limit); err == nil {
			s.fanAhead.put(j, limit, a)
		}
	}()
	return func() { <-done }
}
