package store

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"rouse/tokens"
)

// runsOn opens and runs a store on path with the master keys until it has started or refused, and returns what stops it.
func runsOn(t *testing.T, path, keys string) (stop func() error, err error) {
	t.Helper()
	ring, err := tokens.ParseRing(keys)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{DSN: "sqlite:" + path, Ring: ring})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	served := make(chan error, 1)
	go func() { served <- s.write(ctx, "ask whether anybody serves", newOp(func(*tx) error { return nil })) }()
	stop = func() error {
		cancel()
		err := <-ended
		if closing := s.Close(); closing != nil {
			t.Error(closing)
		}
		return err
	}
	if err := <-served; err != nil {
		return nil, stop()
	}
	return stop, nil
}

func TestAMissingMasterKeyIsToldAtTheStart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rouse.db")
	old, new := tokens.NewRingKey("old"), tokens.NewRingKey("new")
	for _, step := range []struct {
		keys, refused string
	}{
		{keys: old},
		{keys: old},
		{keys: new, refused: `"old"`},
		{keys: tokens.NewRingKey("old"), refused: `"old"`},
		{keys: new + "," + old},
		{keys: old, refused: `"new"`},
		{keys: old + "," + new},
	} {
		stop, err := runsOn(t, path, step.keys)
		switch {
		case step.refused == "" && err != nil:
			t.Fatalf("refused to start: %v", err)
		case step.refused == "":
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		case err == nil:
			t.Fatalf("started without the master key %s", step.refused)
		case !strings.Contains(err.Error(), step.refused) || !strings.Contains(err.Error(), "ROUSE_MASTER_KEYS"):
			t.Errorf("the error does not say which key to put back where: %v", err)
		}
	}
}

func TestOneProcessRunsOnADatabase(t *testing.T) {
	t.Parallel()
	path, key := filepath.Join(t.TempDir(), "rouse.db"), tokens.NewRingKey("a")
	first, err := runsOn(t, path, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runsOn(t, path, key); err == nil || !strings.Contains(err.Error(), "one at a time") {
		t.Errorf("a second one on the same file: %v", err)
	}
	if err := first(); err != nil {
		t.Fatal(err)
	}
	second, err := runsOn(t, path, key)
	if err != nil {
		t.Fatalf("the first has ended, and the next is refused: %v", err)
	}
	if err := second(); err != nil {
		t.Error(err)
	}
}
