package api

import (
	"bytes"
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
)

const (
	// maxBatchKey is the longest Idempotency-Key of a batch, in bytes: the place of a message comes behind it.
	maxBatchKey = 240
	// inHand is how much the batches of one app may hold in memory at once on a node, in bytes of bodies.
	inHand = 64 << 20
)

// batch is a request of several messages.
type batch struct {
	api *API
	app ident.App
	// key is the caller's Idempotency-Key, empty for none.
	key string
}

// item is one message of a batch as it came, or why it could not be read.
type item struct {
	raw []byte
	err error
}

// sendMessages takes a batch. It is written by hand because each message is checked by itself, and because a stream is
// answered while it is read.
func (a *API) sendMessages(w http.ResponseWriter, r *http.Request) {
	b := batch{api: a, app: callerOf(r.Context()).app}
	kind, err := batchMediaType(r.Header)
	if err == nil {
		b.key, err = batchKey(r.Header)
	}
	switch {
	case err != nil:
		a.fail(w, r, err)
	case kind == ndjson:
		b.stream(w, r)
	default:
		b.whole(w, r)
	}
}

// batchMediaType is application/json or ndjson.
func batchMediaType(h http.Header) (string, error) {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err == nil && kind == ndjson && plain(h) {
		return kind, nil
	}
	if checkMediaType(h) != nil {
		return "", fault.New(fault.Invalid, "unsupported_media_type",
			"send JSON with Content-Type: application/json, or a JSON object a line with application/x-ndjson, and no Content-Encoding")
	}
	return kind, nil
}

// batchKey is the caller's Idempotency-Key, empty for none.
func batchKey(h http.Header) (string, error) {
	given := h.Values("Idempotency-Key")
	switch len(given) {
	case 0:
		return "", nil
	case 1:
		return given[0], checkIdempotencyKey(given[0], maxBatchKey)
	}
	return "", badIdempotencyKey(maxBatchKey)
}

// alone makes a repeated batch wait for the first one with its key.
func (b batch) alone(ctx context.Context) (release func(), err error) {
	if b.key == "" {
		return func() {}, nil
	}
	return b.api.sending.enter(ctx, string(b.app)+"/"+b.key+"[]")
}

// whole answers a batch that comes as one JSON object.
func (b batch) whole(w http.ResponseWriter, r *http.Request) {
	results, err := b.answer(w, r)
	var body []byte
	if err == nil {
		body, err = json.Marshal(contract.MessageBatchResults{Results: results})
	}
	if err != nil {
		b.api.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// The client may be gone; there is nobody else to tell.
	_, _ = w.Write(body)
}

func (b batch) answer(w http.ResponseWriter, r *http.Request) ([]contract.MessageBatchResult, error) {
	// Before a byte is read: what waits in line waits in the caller's memory.
	done, err := b.api.batches.enter(r.Context(), b.app, weightOf(r))
	if err != nil {
		return nil, err
	}
	defer done()
	list, err := b.items(w, r)
	if err != nil {
		return nil, err
	}
	exchangeOf(r.Context()).countMore(w, len(list)-1, time.Now())
	release, err := b.alone(r.Context())
	if err != nil {
		return nil, err
	}
	defer release()
	return b.accept(r.Context(), list, 0)
}

// items reads the body.
func (b batch) items(w http.ResponseWriter, r *http.Request) ([]item, error) {
	form := b.api.document.bodies["sendMessages"]
	raw, err := form.read(w, r)
	if err != nil {
		return nil, err
	}
	fields, err := form.checked(raw)
	if err != nil {
		return nil, err
	}
	var each []json.RawMessage
	if err := json.Unmarshal(fields["messages"], &each); err != nil {
		return nil, undecodable(err)
	}
	list := make([]item, len(each))
	for i := range each {
		list[i].raw = each[i]
	}
	return list, nil
}

// accept stores what can be of a part of the batch, in one commit, and says what became of each; first is the place of the
// part in the batch. The error is of the whole part.
func (b batch) accept(ctx context.Context, part []item, first int) ([]contract.MessageBatchResult, error) {
	results := make([]contract.MessageBatchResult, len(part))
	sends, places := make([]messages.Send, 0, len(part)), make([]int, 0, len(part))
	for i, it := range part {
		send, err := b.compose(it, first+i)
		if err != nil {
			results[i] = b.refused(ctx, first+i, err)
			continue
		}
		sends, places = append(sends, send), append(places, i)
	}
	if len(sends) == 0 {
		return results, nil
	}
	verdicts, err := b.api.deps.Messages.AcceptAll(ctx, sends)
	if err != nil {
		return nil, err
	}
	var hints []messages.Hint
	for j, v := range verdicts {
		i := places[j]
		if v.Err != nil {
			results[i] = b.refused(ctx, first+i, v.Err)
			continue
		}
		results[i] = accepted(first+i, v.Receipt)
		hints = news(hints, sends[j], v.Receipt)
	}
	b.api.hint(slices.Compact(hints)...) // sends to topics say the same, one after the other
	return results, nil
}

// compose makes a message of what came, as sendMessage does.
func (b batch) compose(it item, index int) (messages.Send, error) {
	if it.err != nil {
		return messages.Send{}, it.err
	}
	if len(bytes.TrimSpace(it.raw)) > maxBody {
		return messages.Send{}, tooLong()
	}
	known, err := b.api.document.bodies["sendMessage"].check(it.raw)
	if err != nil {
		return messages.Send{}, err
	}
	var body contract.MessageSend
	if err := json.Unmarshal(known, &body); err != nil {
		return messages.Send{}, undecodable(err)
	}
	key := ""
	if b.key != "" {
		key = b.key + "[" + strconv.Itoa(index) + "]"
	}
	return b.api.compose(b.app, &body, key)
}

func tooLong() error {
	return fault.New(fault.TooLarge, "body_too_large", "the message is over %d bytes", maxBody)
}

func (b batch) refused(ctx context.Context, index int, err error) contract.MessageBatchResult {
	status, problem := b.api.itemProblem(ctx, err)
	return contract.MessageBatchResult{Index: index, Status: status, Error: problem}
}

func accepted(index int, r messages.Receipt) contract.MessageBatchResult {
	result := contract.MessageBatchResult{Index: index, Status: http.StatusAccepted, Message: new(wireAccepted(r))}
	if r.Replayed {
		result.Replayed = new(true)
	}
	return result
}

// weightOf is how much a request may hold in memory, in bytes of body. One that is no larger than that of a single message counts nothing.
func weightOf(r *http.Request) int64 {
	switch n := r.ContentLength; {
	case n >= 0 && n <= maxBody:
		return 0
	case n > 0 && n <= maxBatch:
		return n
	}
	return maxBatch
}

// batchLine has the large batches of each app wait in line, so that they hold no more than inHand. The zero value is ready.
type batchLine struct {
	mu sync.Mutex
	by map[ident.App]*share // guarded by mu
}

// share is what one app's batches have; users counts them, and is guarded by the line's mu.
type share struct {
	*semaphore.Weighted
	users int
}

// enter waits until there is room for n bytes. It fails with fault.Unavailable after patience.
func (l *batchLine) enter(ctx context.Context, app ident.App, n int64) (leave func(), err error) {
	if n == 0 {
		return func() {}, nil
	}
	s := l.join(app)
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.Acquire(wait, n); err != nil {
		l.leave(app, s)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fault.New(fault.Unavailable, "overloaded", "too many large batches of this app are under way; come again").After(time.Second)
	}
	return func() {
		s.Release(n)
		l.leave(app, s)
	}, nil
}

func (l *batchLine) join(app ident.App) *share {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.by[app]
	if s == nil {
		if l.by == nil {
			l.by = map[ident.App]*share{}
		}
		s = &share{Weighted: semaphore.NewWeighted(inHand)}
		l.by[app] = s
	}
	s.users++
	return s
}

func (l *batchLine) leave(app ident.App, s *share) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(l.by, app)
	}
}
