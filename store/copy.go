package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rouse/tokens"
)

// Copying takes a whole database into another, of whichever engine. The source does not change; the target is empty at
// first and keeps with every page how far it has come, in one commit, so that a copy that was cut off goes on there.

// copied is every table that is copied. What else there is speaks of one engine, of the nodes that run on it, or of copying.
var copied = []string{
	"rings", "apps", "keys", "credentials", "circuits", "devices", "inboxes", "messages", "deliveries", "gaps", "idempotency", "wakes",
	"sweeps", "events", "topics", "subscriptions", "user_topics", "identity_keys", "webhooks", "webhook_retries",
}

// copyKeys orders a table by another key than its engine's primary one: by a number that both engines have an index of.
var copyKeys = map[string][]string{"deliveries": {"seq"}, "wakes": {"id"}}

// CopyOptions is what Copy needs.
type CopyOptions struct {
	// From and To are as Options.DSN. From must be there; To is made, if it is a file, and must hold nothing yet, or the unfinished
	// copy of From.
	From, To string
	// Ring has to open everything that is sealed in From. Required.
	Ring *tokens.Ring
	// PageRows is how many rows are one commit at most; 0 is 4000. 4 MiB are another bound.
	PageRows int
	// Progress is called after every page, from Copy's own goroutine. It may be nil.
	Progress func(CopyProgress)
}

// CopyProgress is how far a copy is.
type CopyProgress struct {
	Table string
	// Verifying says that the table is compared and no longer copied.
	Verifying bool
	// Rows is how many of the table's are done, Of how many there are.
	Rows, Of int64
}

// CopyReport is what a copy came to.
type CopyReport struct {
	Tables []CopiedTable `json:"tables"`
	// Resumed says that an earlier run had begun it; Finished that one had finished it, and nothing was done.
	Resumed  bool `json:"resumed"`
	Finished bool `json:"finished_before"`
	// Altered counts texts that hold U+0000 or are no UTF-8, which PostgreSQL does not take: each such character became U+FFFD.
	Altered int64 `json:"altered_texts"`
}

// CopiedTable is one table, the same on both sides.
type CopiedTable struct {
	Name string `json:"name"`
	Rows int64  `json:"rows"`
	// Checksum is over all rows in whatever order, the same for both engines.
	Checksum string `json:"checksum,omitempty"`
}

// Copy takes all that one database keeps into another, and compares both at the end: devices keep ids, secrets, cursors and
// what is pending. No node may run on either. It may be killed at any time and called again, as long as nothing ran on the
// source meanwhile. No node starts on the target before it is finished. It says what is wrong with the databases, or the keys; a
// copy that turns out not to be the same is an error, and the target is of no use then.
func Copy(ctx context.Context, o CopyOptions) (report CopyReport, err error) {
	if o.Ring == nil {
		return report, errors.New("store: no key ring to prove the source's secrets with")
	}
	defer func() {
		if err != nil && ctx.Err() != nil { // connections that broke are not the reason
			err = interrupted{"run the same copy again, which goes on from here", ctx.Err()}
		}
	}()
	from, err := openSource(ctx, o.From, unfitToCopy)
	if err != nil {
		return report, fmt.Errorf("the source: %w", err)
	}
	defer func() { err = errors.Join(err, from.close()) }()
	if err := from.alone(ctx); err != nil {
		return report, fmt.Errorf("the source: %w", err)
	}
	if err := from.proveKeys(ctx, o.Ring); err != nil {
		return report, fmt.Errorf("the source: %w", err)
	}
	to, err := openTarget(ctx, o.To, o.Ring, from)
	if err != nil {
		return report, fmt.Errorf("the target: %w", err)
	}
	defer func() { err = errors.Join(err, to.close()) }()
	if err := to.alone(ctx); err != nil {
		return report, fmt.Errorf("the target: %w", err)
	}
	c := &copying{from: from, to: to, tell: o.Progress, pageRows: orDefault(o.PageRows, pageRows)}
	return c.run(ctx)
}

// interrupted is work whose context ended before it was done.
type interrupted struct {
	then  string // what becomes of it
	cause error
}

func (i interrupted) Error() string { return "interrupted: " + i.then }

func (i interrupted) Unwrap() error { return i.cause }

// copying is one run of a copy.
type copying struct {
	from, to *end
	tell     func(CopyProgress)
	pageRows int
	tables   []*table
	source   string // its mark
	altered  int64
}

func (c *copying) run(ctx context.Context) (report CopyReport, err error) {
	if c.tell == nil {
		c.tell = func(CopyProgress) {}
	}
	if err := c.from.snapshot(ctx); err != nil {
		return report, fmt.Errorf("the source: %w", err)
	}
	if c.tables, err = matchTables(ctx, c.from, c.to); err != nil {
		return report, err
	}
	if c.source, err = c.from.mark(ctx); err != nil {
		return report, fmt.Errorf("the source: %w", err)
	}
	report.Resumed, report.Finished, err = c.enter(ctx)
	if err != nil || report.Finished {
		report.Tables = []CopiedTable{}
		return report, err
	}
	for _, t := range c.tables {
		if err := c.table(ctx, t); err != nil {
			return report, fmt.Errorf("copy %s: %w", t.name, err)
		}
	}
	if report.Tables, err = c.verify(ctx); err != nil {
		return report, err
	}
	report.Altered = c.altered
	if err := c.finish(ctx); err != nil {
		return report, fmt.Errorf("the target: %w", err)
	}
	return report, nil
}

// enter finds out what the target is to this source: empty, half a copy of it, or whole.
func (c *copying) enter(ctx context.Context) (resumed, finished bool, err error) {
	var marks []struct {
		Source string `db:"source"`
		DoneAt *int64 `db:"done_at"`
	}
	if err := c.to.list(ctx, &marks, "SELECT source, done_at FROM copies WHERE part = ''"); err != nil {
		return false, false, fmt.Errorf("the target: %w", err)
	}
	if len(marks) == 1 {
		if marks[0].Source != c.source {
			return false, false, errors.New("the target holds a copy of another database, or of this one before something ran on it again: " +
				"copy into an empty database")
		}
		return true, marks[0].DoneAt != nil, nil
	}
	var full []string
	for _, t := range c.tables {
		var n int64
		if err := c.to.get(ctx, &n, "SELECT COUNT(*) FROM (SELECT 1 FROM "+t.name+" LIMIT 1) AS one"); err != nil {
			return false, false, fmt.Errorf("the target: look at %s: %w", t.name, err)
		}
		if n > 0 {
			full = append(full, t.name)
		}
	}
	if len(full) > 0 {
		return false, false, fmt.Errorf("the target holds data already (in %s): copy into a database on which no node ever ran", listed(full))
	}
	return false, false, c.to.write(ctx, func() error {
		for _, part := range append([]string{""}, tableNames(c.tables)...) {
			if err := c.to.exec(ctx, "INSERT INTO copies (part, source, last_key, copied) VALUES (?, ?, '', 0)", part, c.source); err != nil {
				return fmt.Errorf("the target: begin the copy: %w", err)
			}
		}
		return nil
	})
}

// finish has the target give no place and no number that the source ever gave, and lets nodes run on it.
func (c *copying) finish(ctx context.Context) error {
	given, err := c.from.given(ctx)
	if err != nil {
		return err
	}
	return c.to.write(ctx, func() error {
		if err := c.to.giveAfter(ctx, given); err != nil {
			return err
		}
		if err := c.to.exec(ctx, "DELETE FROM copies WHERE part <> ''"); err != nil {
			return err
		}
		return c.to.exec(ctx, "UPDATE copies SET done_at = ?, copied = ? WHERE part = ''", millis(time.Now()), rowsOf(c.tables))
	})
}

func tableNames(tables []*table) (list []string) {
	for _, t := range tables {
		list = append(list, t.name)
	}
	return list
}

func rowsOf(tables []*table) (n int64) {
	for _, t := range tables {
		n += t.rows
	}
	return n
}

// listed names a few, and says if there are more.
func listed(list []string) string {
	const most = 4
	slices.Sort(list)
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}
