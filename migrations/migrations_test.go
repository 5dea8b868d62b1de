package migrations_test

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rouse/migrations"
)

// read is the way up of each file, by its name.
func read(t *testing.T, files fs.FS) map[string]string {
	t.Helper()
	names, err := fs.Glob(files, "*.sql")
	if err != nil || len(names) == 0 {
		t.Fatalf("%v, %v", names, err)
	}
	all := map[string]string{}
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(content)
	}
	return all
}

func TestBothEnginesHaveTheSameMigrations(t *testing.T) {
	t.Parallel()
	sqlite, postgres := read(t, migrations.SQLite()), read(t, migrations.Postgres())
	for name := range sqlite {
		if _, both := postgres[name]; !both {
			t.Errorf("%s is SQLite's alone", name)
		}
	}
	for name := range postgres {
		if _, both := sqlite[name]; !both {
			t.Errorf("%s is PostgreSQL's alone", name)
		}
	}
}

// TestPostgresMigrationsHoldNobodyUp reads what the test with a million rows measures, and what it cannot: that programs of the
// version before go on beside nodes of the new one.
func TestPostgresMigrationsHoldNobodyUp(t *testing.T) {
	t.Parallel()
	for name, content := range read(t, migrations.Postgres()) {
		for _, wrong := range lint(content) {
			t.Errorf("%s: %s", name, wrong)
		}
	}
}

var (
	comment    = regexp.MustCompile(`--[^\n]*`)
	spaces     = regexp.MustCompile(`\s+`)
	block      = regexp.MustCompile(`^DO \$\$ BEGIN (.*) END \$\$$`)
	newTable   = regexp.MustCompile(`^CREATE TABLE (IF NOT EXISTS )?(\w+)`)
	newIndex   = regexp.MustCompile(`^CREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?(IF NOT EXISTS )?(\w+) ON (?:ONLY )?(\w+)`)
	dropIndex  = regexp.MustCompile(`^DROP INDEX CONCURRENTLY IF EXISTS (\w+)$`)
	alterTable = regexp.MustCompile(`^ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(\w+) (.*)$`)
	addColumn  = regexp.MustCompile(`^ADD COLUMN (IF NOT EXISTS )?\w+ \w+( NOT NULL)?( DEFAULT (\d+|'[^']*'))?$`)
	lockWait   = regexp.MustCompile(`^SET LOCAL lock_timeout = '([1-9]|[1-9]\d|[1-8]\d\d)ms'$`)
	harmless   = regexp.MustCompile(`^CREATE SEQUENCE |^INSERT INTO counters `)
)

// statements are those of the way up, in one line each.
func statements(content string) (list []string, transaction bool) {
	transaction = !strings.Contains(content, "+goose NO TRANSACTION")
	up, _, _ := strings.Cut(content, "-- +goose Down")
	inside := false
	var now strings.Builder
	end := func() {
		if s := strings.TrimSpace(spaces.ReplaceAllString(now.String(), " ")); s != "" {
			list = append(list, strings.TrimSuffix(s, ";"))
		}
		now.Reset()
	}
	for line := range strings.Lines(up) {
		switch {
		case strings.Contains(line, "+goose StatementBegin"):
			inside = true
			continue
		case strings.Contains(line, "+goose StatementEnd"):
			inside = false
			end()
			continue
		}
		line = comment.ReplaceAllString(line, "")
		now.WriteString(line)
		if !inside && strings.HasSuffix(strings.TrimSpace(line), ";") {
			end()
		}
	}
	end()
	return list, transaction
}

// lint says what is wrong with a migration of PostgreSQL.
func lint(content string) (wrong []string) {
	list, transaction := statements(content)
	l := &linter{transaction: transaction}
	for i, s := range list {
		if i > 0 {
			l.before = list[i-1]
		}
		if w := l.statement(s); w != "" {
			wrong = append(wrong, w+": "+s)
		}
	}
	return wrong
}

type linter struct {
	transaction bool
	before      string   // the statement before
	made        []string // tables of this migration, which nobody uses yet
}

// statement knows what is allowed: what it does not know is not.
func (l *linter) statement(s string) string {
	switch {
	case harmless.MatchString(s):
		return ""
	case newTable.MatchString(s):
		m := newTable.FindStringSubmatch(s)
		l.made = append(l.made, m[2])
		if !l.transaction && m[1] == "" {
			return "without a transaction a statement may come twice: IF NOT EXISTS"
		}
		return ""
	case newIndex.MatchString(s):
		return l.index(newIndex.FindStringSubmatch(s))
	case dropIndex.MatchString(s):
		if l.transaction {
			return "CONCURRENTLY needs -- +goose NO TRANSACTION"
		}
		return ""
	case block.MatchString(s):
		return l.block(block.FindStringSubmatch(s)[1])
	case alterTable.MatchString(s):
		if m := alterTable.FindStringSubmatch(s); !slices.Contains(l.made, m[1]) {
			return "a table that is used is altered in a DO block with a lock_timeout below 900 ms"
		}
		return ""
	}
	return "this may hold nodes up, or break those of the version before (additions alone are known to do neither)"
}

func (l *linter) index(m []string) string {
	concurrently, ifNotExists, name, table := m[1] != "", m[2] != "", m[3], m[4]
	switch {
	case slices.Contains(l.made, table):
		if !l.transaction && !ifNotExists {
			return "without a transaction a statement may come twice: IF NOT EXISTS"
		}
		return ""
	case !concurrently || l.transaction:
		return "an index of a table that is used is made CONCURRENTLY, under -- +goose NO TRANSACTION"
	}
	if d := dropIndex.FindStringSubmatch(l.before); d == nil || d[1] != name {
		return "what a run that was cut off left is no index: DROP INDEX CONCURRENTLY IF EXISTS comes before"
	}
	return ""
}

// block is a DO block: one transaction of its own.
func (l *linter) block(body string) string {
	list := strings.Split(strings.TrimSuffix(strings.TrimSpace(body), ";"), ";")
	if l.transaction {
		return "a lock is held until the migration ends: -- +goose NO TRANSACTION"
	}
	if len(list) != 2 || !lockWait.MatchString(strings.TrimSpace(list[0])) {
		return "a block is SET LOCAL lock_timeout below 900 ms, and one ALTER TABLE"
	}
	m := alterTable.FindStringSubmatch(strings.TrimSpace(list[1]))
	if m == nil {
		return "a block is SET LOCAL lock_timeout below 900 ms, and one ALTER TABLE"
	}
	for change := range strings.SplitSeq(m[2], ", ") {
		c := addColumn.FindStringSubmatch(change)
		switch {
		case c == nil:
			return "a used table only gets columns, with a constant default if any"
		case c[1] == "":
			return "without a transaction a statement may come twice: IF NOT EXISTS"
		case c[2] != "" && c[3] == "":
			return "programs of the version before do not know the column: NOT NULL needs a default"
		}
	}
	return ""
}

func TestLintBites(t *testing.T) {
	t.Parallel()
	const alone = "-- +goose NO TRANSACTION\n-- +goose Up\n"
	quick := func(alter string) string {
		return alone + "-- +goose StatementBegin\nDO $$ BEGIN\n SET LOCAL lock_timeout = '500ms';\n " + alter + ";\nEND $$;\n-- +goose StatementEnd\n"
	}
	for _, wrong := range []string{
		"-- +goose Up\nCREATE INDEX a ON devices (id);",
		"-- +goose Up\nCREATE INDEX CONCURRENTLY a ON devices (id);",
		alone + "CREATE INDEX CONCURRENTLY a ON devices (id);",
		alone + "DROP INDEX CONCURRENTLY IF EXISTS b;\nCREATE INDEX CONCURRENTLY a ON devices (id);",
		alone + "CREATE INDEX a ON devices (id);",
		alone + "CREATE TABLE a (id TEXT);",
		alone + "CREATE TABLE IF NOT EXISTS a (id TEXT);\nCREATE INDEX b ON a (id);",
		"-- +goose Up\nALTER TABLE devices ADD COLUMN a BIGINT;",
		alone + "ALTER TABLE devices ADD COLUMN a BIGINT;",
		quick("ALTER TABLE devices ADD COLUMN a BIGINT"),
		quick("ALTER TABLE devices ADD COLUMN IF NOT EXISTS a BIGINT NOT NULL"),
		quick("ALTER TABLE devices ADD COLUMN IF NOT EXISTS a BIGINT DEFAULT random()"),
		quick("ALTER TABLE devices ADD COLUMN IF NOT EXISTS a BIGINT UNIQUE"),
		quick("ALTER TABLE devices DROP COLUMN a"),
		quick("ALTER TABLE devices RENAME COLUMN a TO b"),
		quick("ALTER TABLE devices ALTER COLUMN a TYPE TEXT"),
		quick("ALTER TABLE devices ADD CONSTRAINT c CHECK (a > 0)"),
		strings.Replace(quick("ALTER TABLE devices ADD COLUMN IF NOT EXISTS a BIGINT"), "500ms", "5000ms", 1),
		strings.Replace(quick("ALTER TABLE devices ADD COLUMN IF NOT EXISTS a BIGINT"), "-- +goose NO TRANSACTION\n", "", 1),
		"-- +goose Up\nUPDATE devices SET a = 1;",
		"-- +goose Up\nDROP TABLE devices;",
		"-- +goose Up\nLOCK TABLE devices;",
		"-- +goose Up\nCREATE TRIGGER x AFTER INSERT ON devices EXECUTE FUNCTION y();",
	} {
		if len(lint(wrong)) == 0 {
			t.Errorf("let through:\n%s", wrong)
		}
	}
	for _, right := range []string{
		"-- +goose Up\nCREATE TABLE a (\n  id TEXT, -- words; and more\n  n BIGINT\n);\nCREATE INDEX b ON a (id);\n-- +goose Down\nDROP TABLE a;",
		alone + "DROP INDEX CONCURRENTLY IF EXISTS a;\nCREATE UNIQUE INDEX CONCURRENTLY a ON devices (id) WHERE id <> '';",
		quick("ALTER TABLE devices\n  ADD COLUMN IF NOT EXISTS a BIGINT NOT NULL DEFAULT 0,\n  ADD COLUMN IF NOT EXISTS b TEXT DEFAULT ''"),
	} {
		if wrong := lint(right); len(wrong) > 0 {
			t.Errorf("%v in:\n%s", wrong, right)
		}
	}
}
