package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"rouse/api/contract"
	"rouse/fault"
	"rouse/messages"
)

// ndjson is the media type of a stream: a JSON object a line.
const ndjson = "application/x-ndjson"

const (
	// A part of a stream is stored in one commit: what has come meanwhile, up to so many lines or, about, bytes.
	partLines = messages.MaxBatch
	partBytes = 1 << 20
	// streamWeight is what a stream may hold in memory: a part that is being stored, and one that is being read.
	streamWeight = 2*partBytes + 2*maxBody
	// lineTime is how long a line may take to come.
	lineTime = 60 * time.Second
	// answerTime is how long the client may take to read what became of a part.
	answerTime = 30 * time.Second
	// storePatience is how long a part waits for a store that has no room for it.
	storePatience = 30 * time.Second
	// lingering is how long the end of a stream that has not come to its own waits for what is on its way: the client might
	// not read the answer to its end otherwise.
	lingering = 300 * time.Millisecond
)

// stream is a batch that is answered while it is read. One goroutine reads, the call's own stores and answers.
type stream struct {
	batch
	w    http.ResponseWriter
	r    *http.Request
	conn *http.ResponseController
	feed *feed
	// next is the place of the message after those that are answered.
	next int
}

// stream answers a batch that comes a message a line.
func (b batch) stream(w http.ResponseWriter, r *http.Request) {
	s := &stream{batch: b, w: w, r: r, conn: http.NewResponseController(w), feed: newFeed()}
	leave, err := s.begin()
	if err != nil {
		b.api.fail(w, r, err)
		return
	}
	defer leave()
	var reader sync.WaitGroup
	reader.Go(s.read)
	err = s.answer(r.Context())
	s.close()
	reader.Wait()
	if err != nil && exchangeOf(r.Context()).status == 0 {
		b.api.fail(w, r, err)
	}
}

// close has the reader end soon.
func (s *stream) close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	close(s.feed.closed)
	_ = s.conn.SetReadDeadline(time.Now().Add(lingering)) // a connection that cannot be told has ended
}

// await gives the next line its time; false if nobody takes it any more. It is told under the lock, so that it does not come after close.
func (s *stream) await(until time.Time) bool {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	select {
	case <-s.feed.closed:
		return false
	default:
		return s.conn.SetReadDeadline(until) == nil
	}
}

// begin waits until the stream may, and has the connection read and write at once.
func (s *stream) begin() (leave func(), err error) {
	select {
	case <-s.api.deps.Draining:
		return nil, errStopping
	default:
	}
	if s.r.ProtoMajor == 1 {
		if err := s.conn.EnableFullDuplex(); err != nil {
			return nil, err
		}
		// What is left of a body that was not read to its end must never be taken for a request.
		s.w.Header().Set("Connection", "close")
	}
	done, err := s.api.batches.enter(s.r.Context(), s.app, streamWeight)
	if err != nil {
		return nil, err
	}
	release, err := s.alone(s.r.Context())
	if err != nil {
		done()
		return nil, err
	}
	return func() {
		release()
		done()
	}, nil
}

var errStopping = fault.New(fault.Unavailable, "shutting_down", "this server is stopping; come again").After(time.Second)

// answer stores part after part, and tells what became of each. It returns when the body or the patience of somebody ends; the
// error is for a client that was told nothing yet.
func (s *stream) answer(ctx context.Context) error {
	most := partLines
	for _, m := range exchangeOf(ctx).meters {
		most = min(most, m.rate.Burst)
	}
	for {
		lines, err := s.feed.take(ctx, s.api.deps.Draining)
		for part := range slices.Chunk(lines, most) {
			if err := s.store(ctx, part); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return s.write(nil) // there may have been nothing in it
		case err != nil:
			return err
		}
	}
}

// store stores one part, tells what became of it, and waits until what it owes to the limits has come.
func (s *stream) store(ctx context.Context, part []item) error {
	n := len(part)
	if s.next == 0 {
		n-- // the call itself counted
	}
	owed := time.Now().Add(exchangeOf(ctx).countMore(s.w, n, time.Now()))
	results, err := s.acceptPatiently(ctx, part)
	if err != nil {
		return err
	}
	if err := s.write(results); err != nil {
		return err
	}
	s.next += len(part)
	return s.pause(ctx, time.Until(owed))
}

// acceptPatiently stores a part as soon as the store has room for it. An error of the whole part becomes that of each of its messages.
func (s *stream) acceptPatiently(ctx context.Context, part []item) ([]contract.MessageBatchResult, error) {
	end := time.Now().Add(storePatience)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		results, err := s.accept(ctx, part, s.next)
		switch {
		case err == nil:
			return results, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !nothingStored(err) || time.Now().After(end):
			return s.allRefused(ctx, len(part), err), nil
		}
		if err := s.pause(ctx, pause/2+rand.N(pause)); err != nil {
			return nil, err
		}
	}
}

// nothingStored reports whether an error passes and says for certain that nothing was stored.
func nothingStored(err error) bool {
	var e *fault.Error
	return errors.As(err, &e) && (e.Code == "overloaded" || e.Code == "storage_unavailable")
}

func (s *stream) allRefused(ctx context.Context, n int, err error) []contract.MessageBatchResult {
	status, problem := s.api.itemProblem(ctx, err)
	results := make([]contract.MessageBatchResult, n)
	for i := range results {
		results[i] = contract.MessageBatchResult{Index: s.next + i, Status: status, Error: problem}
	}
	return results
}

// pause waits, and fails if the client leaves or the server stops meanwhile.
func (s *stream) pause(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.api.deps.Draining:
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write sends results on their way.
func (s *stream) write(results []contract.MessageBatchResult) error {
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	for _, result := range results {
		if err := lines.Encode(result); err != nil {
			return err
		}
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	s.w.Header().Set("Content-Type", ndjson)
	if _, err := s.w.Write(out.Bytes()); err != nil {
		return err
	}
	return s.conn.Flush()
}

// read reads lines until the body ends, or nobody takes them any more.
func (s *stream) read() {
	in := bufio.NewReaderSize(s.r.Body, 32<<10)
	var begun time.Time
	for {
		if now := time.Now(); now.Sub(begun) > time.Second {
			if begun = now; !s.await(now.Add(lineTime)) {
				return
			}
		}
		line, err := readLine(in)
		if (line.err != nil || len(bytes.TrimSpace(line.raw)) > 0) && !s.feed.put(line) {
			return
		}
		if errors.Is(err, io.EOF) {
			// From here on the connection is only watched for its end, for as long as the last part takes.
			s.await(time.Time{})
			s.feed.end(io.EOF)
			return
		}
		if err != nil {
			s.feed.end(fault.New(fault.Malformed, "malformed_json", "the body ended early, or a line took longer than %v", lineTime).Because(err))
			return
		}
	}
}

// readLine reads up to the next line feed or the end. A line that is too long is read over; one that broke off is not returned.
func readLine(in *bufio.Reader) (item, error) {
	var line item
	for {
		some, err := in.ReadSlice('\n')
		switch {
		case len(line.raw)+len(some) > maxBody+len("\r\n"):
			line = item{err: tooLong()}
		case line.err == nil:
			line.raw = append(line.raw, some...)
		}
		switch {
		case err == nil, errors.Is(err, io.EOF):
			return line, err
		case !errors.Is(err, bufio.ErrBufferFull):
			return item{}, err
		}
	}
}

// feed hands lines from the goroutine that reads them to the one that stores them. It holds no more than a part.
type feed struct {
	mu    sync.Mutex
	lines []item // guarded by mu
	size  int    // in bytes; guarded by mu
	err   error  // how the body ended; guarded by mu
	// more and room hold a token each: there is something to take, something was taken.
	more, room chan struct{}
	// closed is closed by whoever took, when nobody will any more.
	closed chan struct{}
}

func newFeed() *feed {
	return &feed{more: make(chan struct{}, 1), room: make(chan struct{}, 1), closed: make(chan struct{})}
}

// put waits for room. It returns false when nobody takes any more.
func (f *feed) put(line item) bool {
	for !f.tryPut(line) {
		select {
		case <-f.room:
		case <-f.closed:
			return false
		}
	}
	select {
	case <-f.closed:
		return false
	default:
		return true
	}
}

func (f *feed) tryPut(line item) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lines) >= partLines || f.size >= partBytes {
		return false
	}
	f.lines, f.size = append(f.lines, line), f.size+len(line.raw)
	token(f.more)
	return true
}

// end says that nothing more comes, and why.
func (f *feed) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	token(f.more)
}

// take waits for lines, and takes all there are. The error says that there will be no more, why; a server that stops takes none.
func (f *feed) take(ctx context.Context, stopping <-chan struct{}) ([]item, error) {
	for {
		select {
		case <-stopping:
			return nil, errStopping
		default:
		}
		if lines, err := f.tryTake(); len(lines) > 0 || err != nil {
			return lines, err
		}
		select {
		case <-f.more:
		case <-stopping:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *feed) tryTake() ([]item, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines := f.lines
	f.lines, f.size = nil, 0
	token(f.room)
	return lines, f.err
}

// token puts one into a channel that holds one.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
