package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Bounds of a page, which is one commit in the target and lies in memory meanwhile.
const (
	pageRows  = 4000
	pageBytes = 4 << 20
	pageLeast = 16
)

// kind is what a column holds, whatever its engine calls it.
type kind byte

const (
	holdsNumber kind = 'n'
	holdsText   kind = 't'
	holdsBytes  kind = 'b'
)

// kinds is what the engines call them.
var kinds = map[string]kind{"BIGINT": holdsNumber, "INTEGER": holdsNumber, "TEXT": holdsText, "BLOB": holdsBytes, "BYTEA": holdsBytes}

// column is one of a table, as an engine's catalogue tells it.
type column struct {
	Table   string `db:"tab"`
	Name    string `db:"col"`
	Type    string `db:"typ"`
	Primary int    `db:"prim"` // its place in the primary key, from 1; 0 if it is none of it
}

// table is one that is copied.
type table struct {
	name    string
	columns []string // in the order of their names, the same on both sides
	kinds   []kind
	key     []int // of columns: what the source is read in the order of
	rows    int64 // in the source
	plain   bool  // texts must be such as PostgreSQL takes
}

// matchTables makes sure that both databases have the tables that are copied, with the same columns.
func matchTables(ctx context.Context, from, to *end) ([]*table, error) {
	source, err := from.catalogue(ctx)
	if err != nil {
		return nil, fmt.Errorf("the source: read its catalogue: %w", err)
	}
	target, err := to.catalogue(ctx)
	if err != nil {
		return nil, fmt.Errorf("the target: read its catalogue: %w", err)
	}
	plain := from.dialect.shared || to.dialect.shared
	var all []*table
	for _, name := range copied {
		t, err := newTable(name, source[name])
		if err != nil {
			return nil, fmt.Errorf("the source: %w", err)
		}
		other, err := newTable(name, target[name])
		if err != nil {
			return nil, fmt.Errorf("the target: %w", err)
		}
		if !slices.Equal(t.columns, other.columns) || !slices.Equal(t.kinds, other.kinds) {
			return nil, fmt.Errorf("table %s differs: %s in the source, %s in the target", name, strings.Join(t.columns, " "), strings.Join(other.columns, " "))
		}
		t.plain = plain
		if err := from.get(ctx, &t.rows, "SELECT COUNT(*) FROM "+name); err != nil {
			return nil, fmt.Errorf("the source: count %s: %w", name, err)
		}
		all = append(all, t)
	}
	return all, nil
}

func newTable(name string, list []column) (*table, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("it has no table %s", name)
	}
	slices.SortFunc(list, func(a, b column) int { return strings.Compare(a.Name, b.Name) })
	t := &table{name: name}
	primary := map[int]int{}
	for i, c := range list {
		k, known := kinds[strings.ToUpper(c.Type)]
		if !known {
			return nil, fmt.Errorf("column %s of %s is a %s, which cannot be copied", c.Name, name, c.Type)
		}
		t.columns, t.kinds = append(t.columns, c.Name), append(t.kinds, k)
		if c.Primary > 0 {
			primary[c.Primary] = i
		}
	}
	for i := range len(primary) {
		t.key = append(t.key, primary[i+1])
	}
	if other := copyKeys[name]; other != nil {
		t.key = nil
		for _, c := range other {
			t.key = append(t.key, slices.Index(t.columns, c))
		}
	}
	if len(t.key) == 0 || slices.Contains(t.key, -1) {
		return nil, fmt.Errorf("table %s has no key to copy it in the order of", name)
	}
	return t, nil
}

func (t *table) selecting() string {
	return "SELECT " + strings.Join(t.columns, ", ") + " FROM " + t.name
}

// keyColumns is the key's columns, for a comparison with as many values.
func (t *table) keyColumns() (columns, marks string) {
	var list []string
	for _, i := range t.key {
		list = append(list, t.columns[i])
	}
	return strings.Join(list, ", "), strings.TrimSuffix(strings.Repeat("?, ", len(list)), ", ")
}

// normal makes what a driver read the same for both engines.
func (t *table) normal(row []any) (altered int64, err error) {
	for i, v := range row {
		switch v := v.(type) {
		case nil:
			continue
		case int64:
			if t.kinds[i] == holdsNumber {
				continue
			}
		case string:
			if t.kinds[i] == holdsBytes {
				row[i] = []byte(v)
				continue
			}
			row[i] = v
		case []byte:
			if t.kinds[i] == holdsText {
				row[i] = string(v)
			} else if v == nil {
				row[i] = []byte{} // empty, and no NULL
			}
		}
		switch v := row[i].(type) {
		case string:
			if t.kinds[i] != holdsText {
				return altered, t.strange(i, row)
			}
			if t.plain {
				if p := plainText(v); p != v {
					row[i] = p
					altered++
				}
			}
		case []byte:
			if t.kinds[i] != holdsBytes {
				return altered, t.strange(i, row)
			}
		default:
			return altered, t.strange(i, row)
		}
	}
	return altered, nil
}

func (t *table) strange(i int, row []any) error {
	return fmt.Errorf("column %s of %s holds a %T where its type says otherwise", t.columns[i], t.name, row[i])
}

// table copies what is missing of one, page by page.
func (c *copying) table(ctx context.Context, t *table) error {
	var at struct {
		Key    string `db:"last_key"`
		Copied int64  `db:"copied"`
	}
	if err := c.to.get(ctx, &at, "SELECT last_key, copied FROM copies WHERE part = ?", t.name); err != nil {
		return fmt.Errorf("ask the target how far it is: %w", err)
	}
	limit := c.pageRows
	for {
		p, err := c.page(ctx, t, at.Key, limit)
		if err != nil {
			return err
		}
		if len(p.rows) == 0 {
			return nil
		}
		if err := c.land(ctx, t, at.Key, p); err != nil {
			return err
		}
		at.Key, at.Copied = p.last, at.Copied+int64(len(p.rows))
		// Rows that were read in vain, because a page was full before, are read again.
		limit = min(c.pageRows, max(pageLeast, pageBytes/max(1, p.bytes/len(p.rows))))
		c.tell(CopyProgress{Table: t.name, Rows: at.Copied, Of: t.rows})
	}
}

// page is some rows of a table.
type page struct {
	rows  [][]any
	last  string // the key of the last of them
	bytes int
}

// page reads what follows a key.
func (c *copying) page(ctx context.Context, t *table, after string, limit int) (p page, err error) {
	columns, marks := t.keyColumns()
	query, args := t.selecting(), []any(nil)
	if after != "" {
		if args, err = t.parseKey(after); err != nil {
			return p, err
		}
		query += fmt.Sprintf(" WHERE (%s) > (%s)", columns, marks)
	}
	query += fmt.Sprintf(" ORDER BY %s LIMIT %d", columns, limit)
	rows, err := c.from.rows(ctx, query, args...)
	if err != nil {
		return p, fmt.Errorf("read the source: %w", err)
	}
	defer rows.Close()
	var buffer []byte
	for p.bytes < pageBytes && rows.Next() {
		row, err := rows.SliceScan()
		if err != nil {
			return p, fmt.Errorf("read the source: %w", err)
		}
		if p.last, err = t.formatKey(row); err != nil { // before a text in it is altered
			return p, err
		}
		if _, err := t.normal(row); err != nil {
			return p, err
		}
		buffer = encode(buffer[:0], row)
		p.rows, p.bytes = append(p.rows, row), p.bytes+len(buffer)
	}
	if err := rows.Err(); err != nil {
		return p, fmt.Errorf("read the source: %w", err)
	}
	return p, nil
}

// formatKey is the key of a row as the target keeps it. Its parts are numbers and texts, whose bytes JSON must not change.
func (t *table) formatKey(row []any) (string, error) {
	parts := make([]any, len(t.key))
	for i, at := range t.key {
		switch v := row[at].(type) {
		case string:
			parts[i] = []byte(v)
		default:
			parts[i] = v
		}
	}
	key, err := json.Marshal(parts)
	if err != nil {
		return "", fmt.Errorf("note a key: %w", err)
	}
	return string(key), nil
}

func (t *table) parseKey(key string) ([]any, error) {
	var parts []json.RawMessage
	if err := json.Unmarshal([]byte(key), &parts); err != nil || len(parts) != len(t.key) {
		return nil, fmt.Errorf("the target's note of how far %s has come cannot be read", t.name)
	}
	args := make([]any, len(parts))
	for i, at := range t.key {
		var err error
		if t.kinds[at] == holdsNumber {
			var n int64
			err = json.Unmarshal(parts[i], &n)
			args[i] = n
		} else {
			var s []byte
			err = json.Unmarshal(parts[i], &s)
			args[i] = string(s)
		}
		if err != nil {
			return nil, fmt.Errorf("the target's note of how far %s has come cannot be read: %w", t.name, err)
		}
	}
	return args, nil
}

// land writes a page and how far the table is with it. Nobody else may have come further meanwhile.
func (c *copying) land(ctx context.Context, t *table, before string, p page) error {
	return c.to.write(ctx, func() error {
		if err := c.to.insert(ctx, t, p.rows); err != nil {
			return fmt.Errorf("write the target: %w", err)
		}
		const query = "UPDATE copies SET last_key = ?, copied = copied + ? WHERE part = ? AND last_key = ?"
		n, err := c.to.change(ctx, query, p.last, len(p.rows), t.name, before)
		if err == nil && n != 1 {
			err = fmt.Errorf("somebody else copies into it at the same time")
		}
		if err != nil {
			return fmt.Errorf("write the target: %w", err)
		}
		return nil
	})
}
