package store

import (
	"testing"
	"time"

	"rouse/ident"
)

// What a node says of itself needs neither a writer's nor a reader's connection; and a node takes no more than it was given.
func TestANodeThatIsBusyStillLives(t *testing.T) {
	t.Parallel()
	dsn := MigratedForTest(t)
	const most = MinConnections + 1
	s := openFile(t, "", func(o *Options) { o.DSN, o.Connections = dsn, most })
	start(t, s)
	for range most - pgWriters - pgAside {
		conn, err := s.reads.db.Connx(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	begun := time.Now()
	if _, all, err := s.Beat(t.Context(), ident.NewNode()); err != nil || len(all) != 1 {
		t.Errorf("with every reader busy: %v, %v", all, err)
	}
	if took := time.Since(begun); took > memberAnswer {
		t.Errorf("it took %v", took)
	}
	waitFor(t, func() bool { // the server takes its time to end those that were closed before
		var n int
		const query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
		if err := s.writes.Get(&n, query); err != nil {
			t.Fatal(err)
		}
		return n <= most
	})
	if most := s.writes.Stats().MaxOpenConnections + s.reads.db.Stats().MaxOpenConnections; most != MinConnections+1 {
		t.Errorf("it may take %d", most)
	}
}
