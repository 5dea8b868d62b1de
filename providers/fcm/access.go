package fcm

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"rouse/providers"
	"rouse/providers/wire"
)

const (
	// fetchTimeout bounds one call of the token endpoint.
	fetchTimeout = 10 * time.Second
	// refreshBefore is how long before its end a token is replaced while it still serves, a quarter of its life at most.
	refreshBefore = 5 * time.Minute
	// spare is how long before its end a token is no longer used, a tenth of its life at most.
	spare = 10 * time.Second
	// holdBad and holdDown are how long a failure is answered without asking again.
	holdBad  = 5 * time.Second
	holdDown = time.Second
)

// accessError is why there is no access token.
type accessError struct {
	// bad is whether the service account is at fault and not the way to Google.
	bad        bool
	reason     string
	status     int
	retryAfter time.Duration
	cause      error
	// way is what kept us from reaching the token endpoint at all, in wire's words; empty if it answered.
	way string
	// skew is how far our clock is ahead of the token endpoint's, 0 if it did not say.
	skew time.Duration
}

func (e *accessError) Error() string {
	if e.cause != nil {
		return "access token: " + e.reason + ": " + e.cause.Error()
	}
	return "access token: " + e.reason
}

func (e *accessError) Unwrap() error { return e.cause }

func (e *accessError) outcome() providers.Outcome {
	out := providers.Outcome{Verdict: providers.Unavailable, Reason: e.reason, Status: e.status, RetryAfter: e.retryAfter}
	if e.bad {
		out.Verdict, out.RetryAfter = providers.CredentialBad, 0
	}
	return out
}

func ofAccess(err error) *accessError {
	var e *accessError
	if errors.As(err, &e) {
		return e
	}
	return &accessError{reason: "token_endpoint_unavailable", cause: err}
}

// grant is one access token.
type grant struct {
	value string
	// life is how long it is good for, counted from when it was asked for.
	life time.Duration
}

// accessSource hands out an access token and fetches the next one before the present
// one ends. There is at most one fetch at a time; nobody waits for it longer
// than their own context. No goroutine outlives a fetch. It is safe for concurrent use.
type accessSource struct {
	fetch func(context.Context) (grant, error)
	log   *slog.Logger

	mu         sync.Mutex
	value      string // empty if there is none
	generation uint64 // counts tokens from 1
	refreshAt  time.Time
	endsAt     time.Time
	flight     *flight
	failure    error // of the last fetch, nil if it worked
	holdUntil  time.Time
	lastBad    uint64 // newest generation that FCM refused
	lastGood   uint64 // newest generation that FCM took
	closed     bool
}

// flight is one fetch under way. err is written before done is closed.
type flight struct {
	done   chan struct{}
	cancel context.CancelFunc
	err    error
}

func newAccessSource(fetch func(context.Context) (grant, error), log *slog.Logger) *accessSource {
	return &accessSource{fetch: fetch, log: log}
}

// token returns an access token and its generation, waiting for a fetch if it
// must. The error is an *accessError.
func (s *accessSource) token(ctx context.Context) (string, uint64, error) {
	for {
		s.mu.Lock()
		value, generation, wait, err := s.look(time.Now())
		s.mu.Unlock()
		if err != nil || wait == nil {
			return value, generation, err
		}
		select {
		case <-wait.done:
			if wait.err != nil {
				return "", 0, wait.err
			}
		case <-ctx.Done():
			return "", 0, givenUp(ctx)
		}
	}
}

// look returns the present token, or the fetch to wait for, or why there is neither. The caller holds mu.
func (s *accessSource) look(now time.Time) (value string, generation uint64, wait *flight, err error) {
	held := s.failure != nil && now.Before(s.holdUntil)
	switch {
	case s.closed:
		return "", 0, nil, &accessError{reason: wire.Closed}
	case s.value != "" && now.Before(s.endsAt):
		if now.After(s.refreshAt) && s.flight == nil && !held {
			s.start()
		}
		return s.value, s.generation, nil, nil
	case s.flight != nil:
		return "", 0, s.flight, nil
	case held:
		return "", 0, nil, s.failure
	default:
		return "", 0, s.start(), nil
	}
}

// start begins a fetch in a goroutine that ends within fetchTimeout, or when the source closes. The caller holds mu.
func (s *accessSource) start() *flight {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	f := &flight{done: make(chan struct{}), cancel: cancel}
	s.flight = f
	asked := time.Now()
	go func() {
		defer cancel()
		g, err := s.fetch(ctx)
		s.land(f, g, asked, err)
	}()
	return f
}

func (s *accessSource) land(f *flight, g grant, asked time.Time, err error) {
	defer close(f.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = nil
	s.failure = nil
	if err != nil {
		e := ofAccess(err)
		hold := holdDown
		if e.bad {
			hold = holdBad
		}
		s.failure, f.err = e, e
		s.holdUntil = time.Now().Add(hold + rand.N(hold/2))
		if !s.closed {
			s.log.Warn("FCM: no access token", "reason", e.reason, "status", e.status, "cause", e.cause)
		}
		return
	}
	s.value = g.value
	s.generation++
	s.endsAt = asked.Add(g.life - min(spare, g.life/10))
	s.refreshAt = asked.Add(g.life - min(refreshBefore, g.life/4))
}

// refused says that FCM refused the token of a generation, which is not used
// again. It reports whether an earlier one was refused too and none has worked since.
func (s *accessSource) refused(generation uint64) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	again = s.lastBad != 0 && generation > s.lastBad && s.lastGood <= s.lastBad
	s.lastBad = max(s.lastBad, generation)
	if s.generation == generation {
		s.value = ""
	}
	return again
}

// worked says that FCM knew the token of a generation, whatever else it answered.
func (s *accessSource) worked(generation uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastGood = max(s.lastGood, generation)
}

// close ends a fetch under way and refuses to begin another.
func (s *accessSource) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.flight != nil {
		s.flight.cancel()
	}
}

func givenUp(ctx context.Context) *accessError {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &accessError{reason: "token_timeout", cause: ctx.Err()}
	}
	return &accessError{reason: wire.Canceled, cause: ctx.Err()}
}
