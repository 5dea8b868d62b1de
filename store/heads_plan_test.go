package store

import (
	"strings"
	"testing"
)

// Asking about a thousand polls walks nothing but the list of them.
func TestFreshUsesIndexes(t *testing.T) {
	t.Parallel()
	steps := planOf(t, openForPlans(t), quietOfJSON)
	for _, step := range steps {
		if strings.HasPrefix(step, "SCAN") && step != "SCAN j VIRTUAL TABLE INDEX 1:" {
			t.Errorf("walks: %s\n%s", step, strings.Join(steps, "\n"))
		}
	}
	if plan := strings.Join(steps, "\n"); !strings.Contains(plan, "SEARCH p USING COVERING INDEX") && !strings.Contains(plan, "SEARCH p USING INDEX deliveries_pending") {
		t.Errorf("unread messages are not found by their index:\n%s", plan)
	}
}

func TestFreshUsesIndexesOnPostgres(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1)[0]
	defer s.Close()
	furnishForPlans(t, s)
	s.onWriter(t, "INSERT INTO gaps (device, from_seq, to_seq, lost, reason) SELECT 'dev_' || i, i, i, 1, 'ttl' FROM generate_series(1, 2000) AS i")
	s.onWriter(t, "ANALYZE gaps")
	conn, err := s.writes.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	steps := planPG(t, s, conn, quietOfArrays)
	for _, step := range walks(steps) {
		t.Errorf("walks: %s\n%s", step, strings.Join(steps, "\n"))
	}
	if plan := strings.Join(steps, "\n"); !strings.Contains(plan, "deliveries_pending") && !strings.Contains(plan, "deliveries_pkey") {
		t.Errorf("unread messages are not found by their index:\n%s", plan)
	}
}
