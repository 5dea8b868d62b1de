package store

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"
)

// furnishForPlans gives the planner something to choose by: an empty index looks as good as any.
func furnishForPlans(t *testing.T, s *Store) {
	t.Helper()
	for _, query := range []string{
		`INSERT INTO deliveries (device, seq, app, message, class, urgency, size, created_at, expires_at, ended_at, shared, collapse_key)
			SELECT 'dev_' || i % 2000, i, 'app', 'msg_' || i, 2, 3, 1, i, i + 1000, CASE WHEN i % 3 > 0 THEN i END, 0, CASE WHEN i % 5 = 0 THEN 'k' END
			FROM generate_series(1, 20000) AS i`,
		`INSERT INTO inboxes (device, app, contact_at) SELECT 'dev_' || i, 'app', i FROM generate_series(1, 2000) AS i`,
		`INSERT INTO devices (id, app, installation, platform, provider, environment, token_state, user_id, created_at, secret, token_hash)
			SELECT 'dev_' || i, 'app', i, 'ios', 'apns', 'production', 'active', 'user ' || i / 2, i, '', sha256(CAST(i AS TEXT)::bytea)
			FROM generate_series(1, 2000) AS i`,
		`INSERT INTO wakes (device, previous, at, head_normal, head_high, accepted, background, took, provider, verdict, reason)
			SELECT 'dev_' || i % 2000, 0, i, 0, i, 1, 0, 1, 'apns', 'accepted', '' FROM generate_series(1, 10000) AS i`,
		`INSERT INTO messages (id, app, user_id, urgency, recipients, pending, created_at, expires_at)
			SELECT 'msg_' || i, 'app', 'user', 3, 2, 0, i, i FROM generate_series(1, 5000) AS i`,
		`INSERT INTO events (id, app, type, created_at, data) SELECT 'evt_' || i, 'app_' || i % 50, 't', i, '' FROM generate_series(1, 5000) AS i`,
		`INSERT INTO credentials (app, provider, fingerprint, public, secret, updated_at)
			SELECT 'app_' || i, 'apns', '', '', '', i FROM generate_series(1, 2000) AS i`,
		`INSERT INTO subscriptions (device, topic, via, app, created_at)
			SELECT 'dev_' || i % 2000, 'topic_' || i / 2000, CASE WHEN i % 4 = 0 THEN 'user ' || i % 2000 / 2 ELSE '' END, 'app', i FROM generate_series(1, 10000) AS i`,
		`INSERT INTO user_topics (app, user_id, topic, created_at) SELECT 'app', 'user ' || i / 5, 'topic_' || i % 5, i FROM generate_series(1, 5000) AS i`,
		"ANALYZE",
	} {
		s.onWriter(t, query)
	}
}

// walks finds the steps of a plan that go through all of a table or of an index.
func walks(plan []string) (found []string) {
	for i, step := range plan {
		switch {
		case strings.Contains(step, "Seq Scan"):
			found = append(found, step)
		case strings.Contains(step, "Scan using") || strings.Contains(step, "Bitmap Index Scan"):
			if i+1 == len(plan) || !strings.Contains(plan[i+1], "Index Cond") {
				found = append(found, step)
			}
		}
	}
	return found
}

// planPG returns the steps in which PostgreSQL runs query whatever its parameters are.
func planPG(t *testing.T, s *Store, conn *sqlx.Conn, query string) (steps []string) {
	t.Helper()
	ctx := t.Context()
	args := ""
	if n := parameters(query); n > 0 {
		args = "(" + repeat("NULL", n) + ")"
	}
	for _, q := range []string{"SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan", "PREPARE hot AS " + s.dialect.rebind(query)} {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := conn.SelectContext(ctx, &steps, fmt.Sprintf("EXPLAIN (COSTS OFF) EXECUTE hot%s", args)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(ctx, "DEALLOCATE hot"); err != nil {
		t.Fatal(err)
	}
	return steps
}

// forPlans returns a store on PostgreSQL with enough in it for plans to mean something, and a connection to ask for them.
func forPlans(t *testing.T) (*Store, *sqlx.Conn) {
	t.Helper()
	s := nodes(t, 1)[0]
	t.Cleanup(func() { s.Close() })
	furnishForPlans(t, s)
	conn, err := s.writes.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return s, conn
}

// No statement of the daily work may walk a whole table or index that grows with traffic. The planner is told to avoid that, so that
// what is left cannot be avoided.
func TestEveryHotStatementUsesAnIndexOnPostgres(t *testing.T) {
	t.Parallel()
	s, conn := forPlans(t)
	all := maps.Clone(hotStatements)
	all["devices of a user"], all["others of a user"] = selectDevicesOf, countOthers
	all["boxes in one trip"], all["heads in one trip"], all["last wakes in one trip"] = selectBoxes.arrays, selectHeads, selectLastWakes
	all["users in one trip"], all["replays in one trip"], all["holders in one trip"] = selectDevicesOfAll, selectReplaysOf, selectHoldersOf
	all["counts at once"], all["inboxes at once"] = updateCountsAtOnce, updateInboxesAtOnce
	all["deliveries at once"], all["plain deliveries at once"] = insertSlotsAtOnce, insertPlainsAtOnce
	all["acks up to at once"], all["acks of ids at once"], all["gaps at once"] = ackUpToAtOnce, ackIDsAtOnce, closeGapsAtOnce
	all["pages at once"], all["told at once"], all["ends at once"], all["bodies at once"] = markPagesAtOnce, tellGapsAtOnce, endAtOnce, releaseBodies
	all["history"], all["erase history"] = selectHistory, deleteHistory
	all["a user at once"], all["standings at once"], all["own topics at once"] = userOf.arrays, standingsOf.arrays, ownTopicsOf.arrays
	all["registered at once"], all["unsubscribe at once"], all["subscribers at once"] = registeredOf.arrays, unsubscribesOf.arrays, subscribersOf.arrays
	for name, query := range all {
		plan := planPG(t, s, conn, query)
		for _, step := range walks(plan) {
			t.Errorf("%s: walks: %s\n%s", name, step, strings.Join(plan, "\n"))
		}
	}
	for _, query := range []string{"SELECT COUNT(*) FROM devices WHERE locale = ?", "SELECT COUNT(*) FROM deliveries WHERE size > ?"} {
		if plan := planPG(t, s, conn, query); len(walks(plan)) == 0 {
			t.Errorf("a walk was not noticed: %v", plan)
		}
	}
}
