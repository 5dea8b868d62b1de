package main

import (
	"database/sql"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rouse/internal/testkit"
	"rouse/providers"
	"rouse/tokens"
)

// TestHalfACopyIsTold by all that look at a database, and nothing takes it for a whole one.
func TestHalfACopyIsTold(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, on engine) {
		dir := t.TempDir()
		db := "sqlite:" + filepath.Join(dir, "rouse.db")
		driver, name, keys := "sqlite", fileOf(db), tokens.NewRingKey("k1")
		if on.name == onPostgres.name {
			db = withPassword(t, testkit.QuickPostgres(t))
			driver, name = "pgx", db
		}
		env := []string{"ROUSE_DB=" + db, "ROUSE_MASTER_KEYS=" + keys, "ROUSE_ADMIN_KEY=" + firstLine(mustCommand(t, nil, "keys", "generate", "admin"))}
		mustCommand(t, env, "migrate", "up")
		pool, err := sql.Open(driver, name)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		if _, err := pool.Exec("INSERT INTO copies (part, source, last_key, copied) VALUES ('', 'x', '', 0)"); err != nil {
			t.Fatal(err)
		}
		backup := filepath.Join(dir, "backup.db")
		for _, args := range [][]string{
			{"backup", "--to", backup}, {"copy", "--from", db, "--to", "sqlite:" + backup}, {"migrate", "status"}, {"serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"},
		} {
			if code, out := command(t, env, args...); code != exitFailed || !strings.Contains(out, "run the same rouse copy again") {
				t.Errorf("%v: exit %d\n%s", args, code, out)
			}
		}
		if _, err := os.Stat(backup); err == nil {
			t.Error("a backup was written")
		}
		code, out := command(t, env, "doctor", "--offline", "--json")
		var x examined
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&x); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		x.want(t, "copy", providers.FindingFail, "not_finished")
		if code != exitFailed || x.has("apps") {
			t.Errorf("doctor: exit %d\n%s", code, out)
		}
	})
}
