package main

import (
	"strings"
	"testing"

	"rouse/internal/testkit"
	"rouse/tokens"
)

// What the calls do is tested where they are made, in store; here, what the operator types and reads.
func TestDistributeIsPrintedOrRefused(t *testing.T) {
	t.Parallel()
	dsn := withPassword(t, testkit.QuickPostgres(t))
	keys := "ROUSE_MASTER_KEYS=" + tokens.NewRingKey("k1")
	for _, c := range []struct {
		args []string
		env  []string
		code int
		says []string
	}{
		{[]string{"--distribute", "citus", "--dry-run", "--shards", "8"}, nil, 0, []string{"BEGIN;\n",
			"SELECT create_distributed_table('inboxes', 'device', colocate_with => 'none', shard_count => 8);\n",
			"SELECT create_distributed_table('deliveries', 'device', colocate_with => 'inboxes');\n", "SELECT create_reference_table('credentials');\n", "COMMIT;\n"}},
		{[]string{"--distribute", "citus"}, []string{"ROUSE_DB=" + dsn, keys}, 1, []string{"run rouse migrate"}},
		{[]string{"up"}, []string{"ROUSE_DB=" + dsn, keys}, 0, []string{"schema"}},
		{[]string{"--distribute", "citus"}, []string{"ROUSE_DB=" + dsn, keys}, 1, []string{"this database has no Citus", "CREATE EXTENSION citus"}},
		{[]string{"--distribute", "citus"}, []string{"ROUSE_DB=sqlite:" + t.TempDir() + "/x.db"}, 2, []string{"only PostgreSQL"}},
		{[]string{"--distribute", "citus"}, nil, 2, []string{"say which database", "postgres://"}},
		{[]string{"--distribute", "citus", "--dry-run", "--shards", "0"}, nil, 2, []string{"--shards is 0; it is 1 or more, and 64"}},
		{[]string{"--distribute", "other"}, nil, 2, []string{"citus"}},
		{[]string{"--help"}, nil, 0, []string{"distribute", "--distribute citus", "--dry-run", "--shards"}},
		{nil, nil, 2, []string{"rouse migrate --distribute citus"}},
	} {
		out := &strings.Builder{}
		code := run(t.Context(), append([]string{"migrate"}, c.args...), c.env, strings.NewReader(""), out, out)
		if code != c.code {
			t.Errorf("%v: exit code %d\n%s", c.args, code, out)
		}
		for _, want := range c.says {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%v does not say %q:\n%s", c.args, want, out)
			}
		}
		if strings.Contains(out.String(), dbPassword) {
			t.Errorf("%v shows the password", c.args)
		}
	}
}
