package store

// notCopied is every table that Copy leaves out: schema, counter of places (which is set), nodes and their leases, and what
// copying itself keeps.
var notCopied = []string{"goose_db_version", "counters", "nodes", "leases", "copies"}

// TablesForTest names the tables that are copied, and the others.
func TablesForTest() (copies, others []string) {
	return append([]string(nil), copied...), append([]string(nil), notCopied...)
}
