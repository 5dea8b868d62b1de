package fcm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// mint is a token endpoint that takes its time and lives for an hour.
type mint struct {
	calls atomic.Int64
	takes time.Duration
	life  time.Duration
	fails func(call int64) error
}

func (m *mint) fetch(ctx context.Context) (grant, error) {
	n := m.calls.Add(1)
	select {
	case <-time.After(m.takes):
	case <-ctx.Done():
		return grant{}, givenUp(ctx)
	}
	if m.fails != nil {
		if err := m.fails(n); err != nil {
			return grant{}, err
		}
	}
	return grant{value: fmt.Sprintf("t%d", n), life: m.life}, nil
}

// pass lets the bubble's time go by.
func pass(d time.Duration) { <-time.After(d) }

func source(m *mint) *accessSource {
	if m.life == 0 {
		m.life = time.Hour
	}
	return newAccessSource(m.fetch, slog.New(slog.DiscardHandler))
}

func mustToken(t *testing.T, s *accessSource, want string) uint64 {
	t.Helper()
	got, generation, err := s.token(t.Context())
	if err != nil || got != want {
		t.Errorf("token %q, %v, want %q", got, err, want)
	}
	return generation
}

func TestOneFetchForMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &mint{takes: time.Second}
		s := source(m)
		for range 100 {
			go func() { mustToken(t, s, "t1") }()
		}
		synctest.Wait()
		if n := m.calls.Load(); n != 1 {
			t.Errorf("%d fetches under way", n)
		}
		pass(2 * time.Second)
		mustToken(t, s, "t1")
		if n := m.calls.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestRefreshWhileTheOldOneServes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &mint{takes: time.Second}
		s := source(m)
		mustToken(t, s, "t1")
		pass(54 * time.Minute)
		mustToken(t, s, "t1")
		if n := m.calls.Load(); n != 1 {
			t.Errorf("%d fetches after 54 minutes", n)
		}
		pass(2 * time.Minute)
		begun := time.Now()
		mustToken(t, s, "t1")
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("waited %v for a token that was there", waited)
		}
		synctest.Wait()
		pass(2 * time.Second)
		mustToken(t, s, "t2")
	})
}

func TestRefreshFailsAndTheOldOneServesToItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &mint{fails: func(call int64) error {
			if call > 1 {
				return errors.New("down")
			}
			return nil
		}}
		s := source(m)
		mustToken(t, s, "t1")
		pass(56 * time.Minute)
		for range 200 { // two minutes of pushes
			mustToken(t, s, "t1")
			pass(600 * time.Millisecond)
		}
		if n := m.calls.Load(); n < 30 || n > 121 {
			t.Errorf("%d fetches in two minutes of failure, want about one a second", n)
		}
		pass(2 * time.Minute)
		if _, _, err := s.token(t.Context()); ofAccess(err).bad || ofAccess(err).reason != "token_endpoint_unavailable" {
			t.Errorf("after its end: %v", err)
		}
	})
}

func TestFailureIsHeldBriefly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &mint{fails: func(call int64) error {
			if call == 1 {
				return &accessError{bad: true, reason: "invalid_grant"}
			}
			return nil
		}}
		s := source(m)
		for range 50 {
			if _, _, err := s.token(t.Context()); ofAccess(err).reason != "invalid_grant" {
				t.Errorf("%v", err)
			}
		}
		if n := m.calls.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		pass(2 * holdBad)
		mustToken(t, s, "t2")
	})
}

func TestWaitingObeysTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &mint{takes: time.Hour}
		s := source(m)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		begun := time.Now()
		_, _, err := s.token(ctx)
		if took := time.Since(begun); took != 300*time.Millisecond || ofAccess(err).reason != "token_timeout" {
			t.Errorf("%v after %v", err, took)
		}
		// The fetch itself ends on its own time and not later.
		pass(fetchTimeout)
		synctest.Wait()
		if s.flight != nil {
			t.Error("the fetch is still under way")
		}
	})
}

func TestRefusedTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := source(&mint{})
		first := mustToken(t, s, "t1")
		s.worked(first)
		for range 3 { // many pushes with one revoked token
			if s.refused(first) {
				t.Error("a first refusal counts as a second")
			}
		}
		second := mustToken(t, s, "t2")
		if s.refused(first) {
			t.Error("a late refusal of the first token counts against the second")
		}
		mustToken(t, s, "t2")
		if !s.refused(second) {
			t.Error("a second refusal in a row counts as a first")
		}
		third := mustToken(t, s, "t3")
		if !s.refused(third) {
			t.Error("a third refusal in a row counts as a first")
		}
		fourth := mustToken(t, s, "t4")
		s.worked(fourth)
		if s.refused(fourth) {
			t.Error("a refusal after a success counts as a second")
		}
	})
}

func TestCloseEndsAFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := source(&mint{takes: time.Hour})
		done := make(chan error, 1)
		go func() { _, _, err := s.token(t.Context()); done <- err }()
		synctest.Wait()
		s.close()
		if err := <-done; err == nil {
			t.Error("a token after all")
		}
		if _, _, err := s.token(t.Context()); ofAccess(err).reason != "closed" {
			t.Errorf("%v", err)
		}
	})
}

func TestShortLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &mint{life: 3 * time.Second}
		s := source(m)
		mustToken(t, s, "t1")
		pass(2 * time.Second)
		mustToken(t, s, "t1")
		pass(2 * time.Second)
		mustToken(t, s, "t2")
	})
}
