package store

import (
	"context"
	"fmt"
	"slices"

	"rouse/ident"
	"rouse/messages"
)

// A list of messages is two lists in one order: the rows of messages, and the deliveries that are a message of their own. Each is read in
// stretches, and what a filter leaves of one may be nothing: a page reads listEffort rows at most and says how far it came.

const (
	listEffort = 5000
	listChunk  = 500
	// listLooked is up to how many recipients a list looks at the pending deliveries of a message one by one.
	listLooked = maxUserDevices
	// deviceWalk is how many deliveries one stretch passes over where there is no way from a device to what it was sent.
	deviceWalk = 20_000
)

// Messages returns a page of an app's messages, newest first. Those before q.From, or after q.Until, are looked for by the clock that gave
// them their ids, an hour more. Of a message with more than 200 recipients, whatever is pending counts as queued.
func (s *Store) Messages(ctx context.Context, q messages.ListQuery) (messages.MessageList, error) {
	l := newListing(s, q)
	found, err := l.page(ctx)
	if err != nil {
		return messages.MessageList{}, s.readError("list messages", err)
	}
	list := messages.MessageList{More: l.more()}
	if st := l.unread(); st != nil { // of what is not older than it came to, nothing is left
		list.Next = st.end
	}
	if len(found) > q.Limit {
		found, list.More = found[:q.Limit], true
	}
	if n := len(found); n > 0 && (n == q.Limit || list.Next == "") {
		list.Next = found[n-1].id
	}
	list.Messages, err = l.summaries(ctx, found)
	if err != nil {
		return messages.MessageList{}, s.readError("list messages", err)
	}
	return list, nil
}

// hit is a message that was found: by its row, or by its one delivery.
type hit struct {
	id     ident.Message
	post   *summaryRow
	single bool
}

// listing is a page on its way.
type listing struct {
	s       *Store
	q       messages.ListQuery
	low     ident.Message // only what is newer
	streams [2]*stream    // posts, deliveries
	effort  int
}

// stream is one of the two lists, as far as it was read.
type stream struct {
	read  func(ctx context.Context, below ident.Message, limit int) (found []hit, end ident.Message, err error)
	found []hit
	end   ident.Message // all that is not older was read
	done  bool
}

func newListing(s *Store, q messages.ListQuery) *listing {
	l := &listing{s: s, q: q, effort: listEffort}
	from := ident.Message(ident.MessagePrefix + "w") // beyond all
	if q.Before != "" {
		from = q.Before
	}
	if !q.Until.IsZero() {
		from = min(from, ident.MessageAt(q.Until.Add(clockSlack)))
	}
	if !q.From.IsZero() {
		l.low = ident.MessageAt(q.From.Add(-clockSlack))
	}
	l.streams = [2]*stream{{read: l.posts, end: from}, {read: l.singles, end: from}}
	if q.To.Topic != "" || q.To.Broadcast || q.Status != "" && q.Status != messages.Accepted && q.Status != messages.CanceledStatus {
		l.streams[1].done = true // no single delivery is that
	}
	return l
}

// page returns up to one more than was asked for.
func (l *listing) page(ctx context.Context) (found []hit, err error) {
	chunk := l.q.Limit + 1
	for len(found) <= l.q.Limit {
		if next := l.newest(); next != nil {
			found = append(found, next.found[0])
			next.found = next.found[1:]
			continue
		}
		st := l.unread()
		if st == nil || l.effort <= 0 {
			break
		}
		some, end, err := st.read(ctx, st.end, chunk)
		if err != nil {
			return nil, err
		}
		l.effort -= chunk
		if st.found, st.done = some, end == ""; !st.done {
			st.end = end
		}
		chunk = listChunk
	}
	return found, nil
}

// unread returns the stream that is to be read before anything more is known; nil if there is nothing more.
func (l *listing) unread() (next *stream) {
	for _, st := range l.streams {
		if len(st.found) == 0 && !st.done && (next == nil || st.end > next.end) {
			next = st
		}
	}
	return next
}

// newest returns the stream with the next message of both; nil if that is not known yet, or there is none.
func (l *listing) newest() (next *stream) {
	for _, st := range l.streams {
		if len(st.found) > 0 && (next == nil || st.found[0].id > next.found[0].id) {
			next = st
		}
	}
	for _, st := range l.streams {
		if next != nil && len(st.found) == 0 && !st.done && st.end > next.found[0].id {
			return nil
		}
	}
	return next
}

// more reports whether something is left, or may be.
func (l *listing) more() bool {
	return slices.ContainsFunc(l.streams[:], func(st *stream) bool { return len(st.found) > 0 || !st.done })
}

// fits reports whether a message is as asked for, in what no index says.
func (l *listing) fits(created int64, status messages.Status, correlation string) bool {
	q, at := l.q, fromMillis(created)
	return (q.From.IsZero() || !at.Before(q.From)) && (q.Until.IsZero() || at.Before(q.Until)) &&
		(q.Status == "" || q.Status == status) && (q.CorrelationID == "" || q.CorrelationID == correlation)
}

const (
	listPosts       = "SELECT " + postFields + " FROM messages WHERE app = ? AND "
	listRange       = "id < ? AND id > ? ORDER BY id DESC LIMIT 0 + ?"
	listAppsPosts   = listPosts + listRange
	listAudience    = listPosts + "audience = ? AND user_id = ? AND user_id <> '' AND " + listRange
	listCorrelation = listPosts + "correlation_id = ? AND " + listRange
)

// posts reads rows of messages.
func (l *listing) posts(ctx context.Context, below ident.Message, limit int) (found []hit, end ident.Message, err error) {
	query, args := listAppsPosts, []any{string(l.q.App)}
	switch audience, name := audienceOf(l.q.To); {
	case name != "":
		query, args = listAudience, append(args, audience, name)
	case l.q.CorrelationID != "":
		query, args = listCorrelation, append(args, l.q.CorrelationID)
	}
	var rows []summaryRow
	if err := l.s.reads.list(ctx, &rows, query, append(args, string(below), string(l.low), limit)...); err != nil {
		return nil, "", fmt.Errorf("list messages: %w", err)
	}
	for i := range rows {
		r := &rows[i]
		if (!l.q.To.Broadcast || r.Audience == toAll) && l.fits(r.CreatedAt, r.status(), r.CorrelationID) {
			found = append(found, hit{id: r.ID, post: r})
		}
	}
	if len(rows) == limit {
		end = rows[limit-1].ID
	}
	return found, end, nil
}

const (
	listSingles     = "SELECT message, app, created_at, shared, COALESCE(to_user, '') AS to_user, COALESCE(correlation_id, '') AS correlation_id, COALESCE(ended, '') AS ended FROM deliveries WHERE "
	singlesRange    = "message < ? AND message > ? ORDER BY message DESC LIMIT 0 + ?"
	listAllSingles  = listSingles + singlesRange
	listUserSingles = listSingles + "app = ? AND to_user = ? AND to_user IS NOT NULL AND " + singlesRange
	listCorrelated  = listSingles + "app = ? AND correlation_id = ? AND correlation_id IS NOT NULL AND " + singlesRange
	listDevice      = listSingles + "device = ? AND " + singlesRange
	// deviceStretch is where a stretch of deviceWalk deliveries ends, by the index alone.
	deviceStretch = "SELECT message FROM deliveries WHERE message < ? AND message > ? ORDER BY message DESC LIMIT 1 OFFSET 0 + ?"
)

// singleRow is a delivery, of which a list wants to know whether it is a message of its own.
type singleRow struct {
	ID          ident.Message  `db:"message"`
	App         ident.App      `db:"app"`
	Created     int64          `db:"created_at"`
	Shared      bool           `db:"shared"`
	User        string         `db:"to_user"`
	Correlation string         `db:"correlation_id"`
	Ended       messages.State `db:"ended"`
}

// singles reads deliveries. One that ends in the middle of a message's passes over the rest: a message that shares its body has a row.
func (l *listing) singles(ctx context.Context, below ident.Message, limit int) (found []hit, end ident.Message, err error) {
	low, query := l.low, listAllSingles
	var args []any
	switch {
	case l.q.To.Device != "":
		query, args = listDevice, []any{string(l.q.To.Device)}
		if end, err = l.stretch(ctx, below); err != nil {
			return nil, "", err
		}
		low = max(low, end)
	case l.q.To.User != "":
		query, args = listUserSingles, []any{string(l.q.App), l.q.To.User}
	case l.q.CorrelationID != "":
		query, args = listCorrelated, []any{string(l.q.App), l.q.CorrelationID}
	}
	var rows []singleRow
	if err := l.s.reads.list(ctx, &rows, query, append(args, string(below), string(low), limit)...); err != nil {
		return nil, "", fmt.Errorf("list deliveries: %w", err)
	}
	for _, r := range rows {
		status := messages.Accepted
		if r.Ended == messages.Canceled {
			status = messages.CanceledStatus
		}
		itself := l.q.To.Device == "" || r.User == ""
		if r.App == l.q.App && !r.Shared && itself && l.fits(r.Created, status, r.Correlation) {
			found = append(found, hit{id: r.ID, single: true})
		}
	}
	if len(rows) == limit {
		end = rows[limit-1].ID
	}
	return found, end, nil
}

// stretch bounds what is passed over to find a device's, where it is found by passing over: one place further than it goes.
func (l *listing) stretch(ctx context.Context, below ident.Message) (end ident.Message, err error) {
	if l.s.dialect.shared {
		return "", nil
	}
	var ends []ident.Message
	if err := l.s.reads.list(ctx, &ends, deviceStretch, string(below), string(l.low), deviceWalk); err != nil || len(ends) == 0 {
		return "", err
	}
	return ends[0], nil
}

// summaries reads what became of what was found.
func (l *listing) summaries(ctx context.Context, found []hit) (list []messages.Summary, err error) {
	ids := make([]string, 0, len(found))
	for _, f := range found {
		if f.single {
			ids = append(ids, string(f.id))
		}
	}
	singles, err := l.s.singlesOf(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if f.post != nil {
			sum, err := l.s.summed(ctx, *f.post, listLooked)
			if err != nil {
				return nil, err
			}
			list = append(list, sum)
		} else if sum, there := singles[f.id]; there { // otherwise it was purged meanwhile
			list = append(list, sum)
		}
	}
	return list, nil
}

const (
	selectSingles   = "SELECT d.message, " + deliveryFields + "WHERE d.message = ?"
	selectSinglesOf = "SELECT d.message, " + deliveryFields + "WHERE d.message " + anyOf
)

// singlesOf reads messages that have one delivery each and no row.
func (s *Store) singlesOf(ctx context.Context, ids []string) (map[ident.Message]messages.Summary, error) {
	query, asked := selectSingles, anys(ids)
	if s.dialect.shared {
		query, asked = selectSinglesOf, []any{ids}
	}
	list := map[ident.Message]messages.Summary{}
	for _, which := range asked {
		var rows []struct {
			ID ident.Message `db:"message"`
			messageDelivery
		}
		if err := s.reads.list(ctx, &rows, query, which); err != nil {
			return nil, fmt.Errorf("read deliveries: %w", err)
		}
		for _, r := range rows {
			e, _ := s.laneOf(r.Device).view(r.Device)
			list[r.ID] = r.asSummary(r.ID, e)
		}
	}
	return list, nil
}
