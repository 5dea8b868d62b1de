package store

import (
	"errors"
	"testing"

	"rouse/tokens"
)

// notCopied is every table that Copy leaves out: schema, counter of places (which is set), nodes and their leases, and what
// copying itself keeps.
var notCopied = []string{"goose_db_version", "counters", "nodes", "leases", "copies"}

// TablesForTest names the tables that are copied, and the others.
func TablesForTest() (copies, others []string) {
	return append([]string(nil), copied...), append([]string(nil), notCopied...)
}

// SchemaForTest makes a database with an older schema.
func SchemaForTest(t testing.TB, dsn string, version int64) {
	t.Helper()
	s, err := Open(t.Context(), Options{DSN: dsn, Ring: &tokens.Ring{}})
	if err != nil {
		t.Fatal(err)
	}
	if version > 0 {
		err = s.migrateTo(t.Context(), s.writes, version)
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
}
