package store

import (
	"context"
	"testing"
	"time"

	"rouse/ident"
	"rouse/tokens"
)

// What claims names, leaves inboxes or is about many devices counts for more than one in a batch: its locks are few of those that all sessions share,
// and nobody waits for its commit for long.
func TestFewOfWhatIsHeavyAreOneBatch(t *testing.T) {
	t.Parallel()
	user, now := "anna", time.Now()
	for what, test := range map[string]struct {
		call func(context.Context, *Store) error
		most int
	}{
		"registrations": {func(ctx context.Context, s *Store) error {
			_, _, err := s.Register(ctx, tokens.Enrol{Registration: tokens.Registration{App: "app"}, Now: now})
			return err
		}, 128},
		"registrations of a user": {func(ctx context.Context, s *Store) error {
			_, _, err := s.Register(ctx, tokens.Enrol{Registration: tokens.Registration{App: "app"}, User: &user, Now: now})
			return err
		}, 32},
		"logins":  {func(ctx context.Context, s *Store) error { return s.BindUser(ctx, "app", user, "dev", now) }, 16},
		"logouts": {func(ctx context.Context, s *Store) error { return s.UnbindUser(ctx, "app", user, "dev", now) }, 16},
		"patches": {func(ctx context.Context, s *Store) error {
			_, err := s.PatchDevice(ctx, "dev", tokens.Patch{User: &user}, now)
			return err
		}, 16},
		"ends": {func(ctx context.Context, s *Store) error { return s.Unregister(ctx, "app", "dev", now) }, 16},
		"imports": {func(ctx context.Context, s *Store) error {
			_, err := s.Subscribe(ctx, "app", "news", make([]ident.Device, 500), now)
			return err
		}, 17},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := openFile(t, "", func(o *Options) { o.Queue = 1000 })
			defer func() { _ = s.Close() }()
			const calls = 200
			answers := make(chan error, calls)
			for range calls {
				go func() { answers <- test.call(context.Background(), s) }()
			}
			waitFor(t, func() bool { return s.queued() == calls })
			biggest := 0
			for s.queued() > 0 {
				ops := s.writers[0].collect()
				biggest = max(biggest, len(ops))
				for _, o := range ops {
					o.done <- overloaded()
				}
			}
			for range calls {
				if err := <-answers; !isFault(err, "overloaded") {
					t.Error(err)
				}
			}
			if biggest == 0 || biggest > test.most {
				t.Errorf("%d are one batch, want up to %d", biggest, test.most)
			}
		})
	}
}
