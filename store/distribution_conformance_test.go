package store_test

import (
	"context"
	"os"
	"testing"

	"rouse/internal/testkit"
	"rouse/store"
)

// onDistributed opens a store on a fresh database whose tables are spread by device, by the stand-in for Citus.
func onDistributed(t testing.TB, change ...func(*store.Options)) *store.Store {
	t.Helper()
	o := store.Options{DSN: testkit.MigratedPostgres(t), Ring: testkit.Ring(t)}
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

// distributedVariable has the whole suite run on distributed databases, if it is set to anything.
const distributedVariable = "ROUSE_TEST_DISTRIBUTED"

// TestDistributed runs the suite every engine has to pass where no index knows of all devices, and keys start with the device or are
// none. Each test has hundreds of tables made for it, so all of it takes minutes; without the variable it is what
// registers, accepts and acks.
func TestDistributed(t *testing.T) {
	t.Parallel()
	if os.Getenv(distributedVariable) != "" {
		conformance(t, onDistributed)
		return
	}
	for name, test := range map[string]func(*testing.T, *world){
		"one device holds a token": tokenTests["whatever happens, one device holds a token"],
		"a shared body":            acceptTests["a shared body goes with its last delivery"],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, onDistributed))
		})
	}
}
