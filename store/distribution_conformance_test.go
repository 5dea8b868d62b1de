package store_test

import (
	"context"
	"testing"

	"rouse/internal/testkit"
	"rouse/store"
)

// onDistributed opens a store on a fresh database whose tables are spread by device, by the stand-in for Citus.
func onDistributed(t testing.TB, change ...func(*store.Options)) *store.Store {
	t.Helper()
	o := store.Options{DSN: testkit.Postgres(t), Ring: testkit.Ring(t)}
	for _, f := range change {
		f(&o)
	}
	s, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	store.DistributeForTest(t, s)
	stop := testkit.Run(t, s)
	t.Cleanup(func() {
		stop()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestDistributed runs the suite every engine has to pass where no index knows of all devices, and keys start with the device or are
// none. It makes hundreds of tables for each test, and is left out with -short.
func TestDistributed(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	t.Parallel()
	conformance(t, onDistributed)
}
