package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rouse/ident"
	"rouse/messages"
)

// scaleVariable is how many deliveries the plans are looked at with: 200,000 if it is not set. The figures of docs/scaling.md are of
// ROUSE_TEST_DELIVERIES=5000000.
const scaleVariable = "ROUSE_TEST_DELIVERIES"

// eachInbox is how many deliveries an inbox holds, of which a fifth is pending.
const eachInbox = 50

// fillAtScale fills a migrated database with so many deliveries as a week would leave. Indexes are made afterwards.
func fillAtScale(t *testing.T, s *Store, n int) {
	t.Helper()
	ctx := t.Context()
	db := s.dialect.patient(1)
	defer db.Close()
	var indexes []struct{ Name, Def string }
	if err := db.SelectContext(ctx, &indexes, `SELECT indexname AS name, indexdef AS def FROM pg_indexes WHERE tablename IN ('deliveries', 'devices', 'wakes')
		AND schemaname = current_schema() AND indexname NOT LIKE '%\_pkey'`); err != nil {
		t.Fatal(err)
	}
	do := func(query string, args ...any) {
		if _, err := db.ExecContext(ctx, query, args...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	for _, i := range indexes {
		do("DROP INDEX " + i.Name)
	}
	devices, now := n/eachInbox, time.Now().UnixMilli()
	// Ids are hashes, so that a device's neighbours in an index are none of its neighbours in time.
	do(`INSERT INTO devices (id, app, installation, platform, provider, environment, token_state, user_id, created_at, secret, token_hash)
		SELECT 'dev_' || md5(CAST(i AS TEXT)), 'app', 'installation ' || i, 'ios', 'apns', 'production', 'active', 'user ' || i / 2, $1,
		sha256(CAST(i AS TEXT)::bytea), sha256(CAST(i AS TEXT)::bytea) FROM generate_series(0, $2::int - 1) AS i`, now, devices)
	do(`INSERT INTO inboxes (device, app, contact_at, pending, pending_bytes, head, seen, woken_high, last_wake)
		SELECT 'dev_' || md5(CAST(i AS TEXT)), 'app', $1, $3::int / 5, $3::int / 5 * 200, $2::bigint * ($3::int - 1) + i + 1, $2::bigint * 40, $2::bigint * 40, i + 1
		FROM generate_series(0, $2::int - 1) AS i`, now, devices, eachInbox)
	// A place for each delivery; the last fifth of each inbox is pending, one in a thousand of those past its life.
	do(`INSERT INTO deliveries (device, seq, app, message, class, urgency, size, created_at, expires_at, fetched_at, ended_at, ended, shared, body)
		SELECT 'dev_' || md5(CAST((i - 1) % $2::bigint AS TEXT)), i, 'app', 'msg_' || i, 2, 3, 200, $1::bigint - ($3::bigint - i) * 604800000 / $3::bigint,
		CASE WHEN i % 1000 = 0 THEN $1::bigint - 1 ELSE $1::bigint + 604800000 END, i, CASE WHEN i <= $3::bigint * 4 / 5 THEN i END,
		CASE WHEN i <= $3::bigint * 4 / 5 THEN 'acked' END, 0, CASE WHEN i > $3::bigint * 4 / 5 THEN repeat('x', 200)::bytea END
		FROM generate_series(1, $3::bigint) AS i`, now, devices, n)
	do(`INSERT INTO wakes (device, previous, at, head_normal, head_high, accepted, background, took, provider, verdict, reason)
		SELECT 'dev_' || md5(CAST((i - 1) % $2::bigint AS TEXT)), GREATEST(i - $2::bigint, 0), $1, 0, i, 1, 0, 1, 'apns', 'accepted', ''
		FROM generate_series(1, $2::bigint * 5) AS i`, now, devices)
	do(`INSERT INTO messages (id, app, user_id, urgency, recipients, pending, created_at, expires_at)
		SELECT 'msg_shared_' || i, 'app', 'user ' || i, 3, 2, 0, $1, $1 FROM generate_series(1, $2::int) AS i`, now, n/20)
	do("SELECT setval('places', $1)", n)
	do("SET maintenance_work_mem = '512MB'")
	for _, i := range indexes {
		do(i.Def)
	}
	do("VACUUM (ANALYZE) deliveries, devices, inboxes, wakes, messages")
}

// growing are the tables that grow with devices and traffic; their indexes' names begin with theirs.
var growing = []string{"deliveries", "devices", "inboxes", "wakes", "messages"}

// narrow are those of which thousands of rows may be found faster by reading them all, while there are not many more.
var narrow = []string{"devices", "inboxes"}

// effort is what a statement cost when it was run once more.
type effort struct {
	nodes  []string
	rows   float64
	pages  float64 // of the cache or the disk
	millis float64
	walked []string // tables read from end to end
}

func (e *effort) add(node map[string]any) {
	kind, _ := node["Node Type"].(string)
	loops, _ := node["Actual Loops"].(float64)
	table, _ := node["Relation Name"].(string)
	index, _ := node["Index Name"].(string)
	if loops > 0 && (table != "" || index != "") && kind != "ModifyTable" {
		e.nodes = append(e.nodes, strings.TrimSpace(fmt.Sprint(kind, " ", index)))
	}
	of, _, _ := strings.Cut(cmp.Or(table, index), "_")
	if loops > 0 && slices.Contains(growing, of) && (kind == "Seq Scan" || index != "" && node["Index Cond"] == nil) {
		e.walked = append(e.walked, of)
	}
	children, _ := node["Plans"].([]any)
	for _, c := range children {
		e.add(c.(map[string]any))
	}
}

// measured runs a statement as it was sent once more, and takes it back.
func measured(t *testing.T, conn *pgx.Conn, s sent) (e effort) {
	t.Helper()
	ctx := t.Context()
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	read := conn.PgConn().ExecParams(ctx, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+s.query, s.args, nil, s.formats, nil).Read()
	if read.Err != nil {
		t.Fatalf("%v\n%s", read.Err, s.query)
	}
	var plans []struct {
		Plan          map[string]any
		ExecutionTime float64 `json:"Execution Time"`
	}
	if err := json.Unmarshal(read.Rows[0][0], &plans); err != nil {
		t.Fatal(err)
	}
	e.add(plans[0].Plan)
	number := func(key string) float64 { v, _ := plans[0].Plan[key].(float64); return v }
	e.rows, e.pages, e.millis = number("Actual Rows"), number("Shared Hit Blocks")+number("Shared Read Blocks"), plans[0].ExecutionTime
	return e
}

// What one device asks costs a few pages however many there are; what goes through all devices costs what it finds. With five million
// deliveries as with 200,000, every read goes by an index.
func TestPlansAtScale(t *testing.T) {
	n := 200_000
	if v := os.Getenv(scaleVariable); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil || n < 10_000 {
			t.Fatalf("%s is %q: it is a number of deliveries, 10000 or more", scaleVariable, v)
		}
	}
	t.Parallel()
	dsn := PostgresForTest(t)
	plain := openFile(t, "", func(o *Options) { o.DSN = dsn })
	began := time.Now()
	fillAtScale(t, plain, n)
	t.Logf("%d deliveries of %d devices, filled in %v", n, n/eachInbox, time.Since(began).Round(time.Second))
	if err := plain.Close(); err != nil {
		t.Fatal(err)
	}
	r := record(t, dsn)
	s := openFile(t, "", func(o *Options) { o.DSN = r.dsn })
	start(t, s)
	conn, err := pgx.Connect(t.Context(), r.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	v := scaleVisit{t, r, s, n / eachInbox, time.Now()}
	id := v.device(17)
	page := v.reads(id)
	v.judge(conn)
	v.writes(id, page)
	v.judge(conn)
	for _, query := range []string{"SELECT 1 FROM deliveries WHERE size > 1", "SELECT 1 FROM inboxes WHERE app = 'app'"} {
		if len(measured(t, conn, sent{query: query}).walked) == 0 {
			t.Errorf("%s: it was not noticed that this goes through all rows", query)
		}
	}
}

// pagesAllowed is how many pages one statement may touch, by whom it is for. A row that is read costs up to four pages in each of
// its indexes, and one that is written as many in all six of a delivery.
var pagesAllowed = map[string]float64{"one": 150, "hundred": 15_000, "thousand": 40_000, "all": 150_000}

// scaleVisit asks a filled store what is asked every day.
type scaleVisit struct {
	t *testing.T
	*recorder
	s       *Store
	devices int
	now     time.Time
}

func (v scaleVisit) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

// device is the id of the ith.
func (v scaleVisit) device(i int) (id ident.Device) {
	v.must(v.s.reads.get(context.Background(), &id, "SELECT 'dev_' || md5(CAST(CAST(? AS INT) AS TEXT))", i))
	return id
}

// size is that of a statement's parameters, in bytes.
func (s sent) size() (n int) {
	for _, a := range s.args {
		n += len(a)
	}
	return n
}

// judge has what was sent since it was last called run once more, and looks at what that took.
func (v scaleVisit) judge(conn *pgx.Conn) {
	v.t.Helper()
	all := v.all()
	// Of each statement the one with the longest lists.
	slices.SortStableFunc(all, func(a, b sent) int { return cmp.Compare(b.size(), a.size()) })
	seen := map[string]bool{}
	for _, was := range all {
		// What was inserted is there already.
		if seen[was.doing+was.query] || !plannable.MatchString(was.query) || strings.HasPrefix(was.query, "INSERT") {
			continue
		}
		seen[was.doing+was.query] = true
		e := measured(v.t, conn, was)
		if len(e.nodes) == 0 || !slices.ContainsFunc(growing, func(table string) bool { return strings.Contains(was.query, table) }) {
			continue
		}
		v.t.Logf("%-28s %6.0f rows %7.0f pages %8.2f ms  %s", was.doing, e.rows, e.pages, e.millis, strings.Join(e.nodes, ", "))
		whom, _, _ := strings.Cut(was.doing, ":")
		counting := was.doing == "all: count what is pending" // reads all inboxes, on purpose
		if slices.ContainsFunc(e.walked, func(table string) bool {
			return whom == "one" || whom == "hundred" && v.devices > 50_000 || !slices.Contains(narrow, table)
		}) {
			v.t.Errorf("%s goes through all of %v:\n%s", was.doing, e.walked, was.query)
		}
		if most := pagesAllowed[whom]; e.pages > most && !counting {
			v.t.Errorf("%s touches %.0f pages, more than %.0f:\n%s", was.doing, e.pages, most, was.query)
		}
	}
	v.forget()
}

// reads asks without changing anything; the last of it changes what no plan depends on.
func (v scaleVisit) reads(d ident.Device) (page messages.Page) {
	ctx := context.Background()
	v.during("one: check its secret", func() { _, _, _, err := v.s.DeviceAuth(ctx, d); v.must(err) })
	v.during("one: fetch", func() {
		var err error
		page, err = v.s.Inbox(ctx, messages.Query{Device: d, Limit: 100, Now: v.now})
		v.must(err)
		if len(page.Items) < eachInbox/5-1 {
			v.t.Errorf("the page holds %d messages", len(page.Items))
		}
	})
	v.during("one: fetch one message", func() { _, err := v.s.Item(ctx, d, page.Items[0].ID, v.now); v.must(err) })
	v.during("one: what waits", func() { _, _, err := v.s.Waiting(ctx, d, v.now); v.must(err) })
	v.during("one: what became of it", func() {
		_, err := v.s.Message(ctx, "app", page.Items[0].ID)
		v.must(err)
		_, _, err = v.s.Deliveries(ctx, "app", page.Items[0].ID, "", 10)
		v.must(err)
	})
	v.allDevices()
	return page
}

func (v scaleVisit) writes(d ident.Device, page messages.Page) {
	ctx := context.Background()
	v.during("one: accept", func() {
		_, err := v.s.Accept(ctx, sendTo("app", d))
		v.must(err)
	})
	v.during("one: accept, replacing", func() {
		m := sendTo("app", d)
		m.CollapseKey, m.Idempotency.Key = "key", "key"
		_, err := v.s.Accept(ctx, m)
		v.must(err)
	})
	v.during("one: accept to a user", func() {
		m := sendTo("app", "")
		m.To = messages.Target{User: fmt.Sprint("user ", 17/2)}
		r, err := v.s.Accept(ctx, m)
		v.must(err)
		if r.Recipients != 2 {
			v.t.Errorf("the user has %d devices", r.Recipients)
		}
	})
	v.during("one: ack by ids", func() {
		_, err := v.s.AckIDs(ctx, d, []ident.Message{page.Items[0].ID, page.Items[1].ID}, v.now)
		v.must(err)
	})
	v.during("one: wake, ack by cursor", func() {
		v.s.RecordWake(wakeOf(d, page.Last))
		_, err := v.s.AckUpTo(ctx, d, page.Last, v.now)
		v.must(err)
	})
	var batch []ident.Device
	for i := range 100 {
		batch = append(batch, v.device(i*(v.devices/100)))
	}
	v.during("hundred: accept", func() {
		each(batch, func(d ident.Device) { _, err := v.s.Accept(ctx, sendTo("app", d)); v.must(err) })
	})
	v.during("hundred: wake and ack", func() {
		each(batch, func(d ident.Device) {
			v.s.RecordWake(wakeOf(d, page.Last))
			_, err := v.s.AckUpTo(ctx, d, messages.Seq(v.devices*eachInbox*17/20), v.now)
			v.must(err)
		})
	})
	v.during("all: expire", func() {
		n, err := v.s.Expire(ctx, v.now, 256)
		v.must(err)
		if n == 0 {
			v.t.Error("nothing expired")
		}
	})
	v.during("all: purge", func() {
		n, err := v.s.Purge(ctx, v.now.Add(-6*24*time.Hour), v.now, 500)
		v.must(err)
		if n == 0 {
			v.t.Error("nothing was purged")
		}
	})
}

func (v scaleVisit) allDevices() {
	ctx := context.Background()
	var polls []messages.Poll
	for i := range 1000 {
		who := i * (v.devices / 1000)
		polls = append(polls, messages.Poll{Device: v.device(who), Proof: sha256.Sum256([]byte(strconv.Itoa(who)))})
	}
	v.during("thousand: parked polls", func() { _, err := v.s.Fresh(ctx, polls, v.now); v.must(err) })
	v.during("all: sweep", func() {
		due, _, _, err := v.s.Sweep(ctx, messages.SweepQuery{Class: messages.HighWake, After: messages.Seq(v.devices * eachInbox * 9 / 10), Before: v.now, Now: v.now, Limit: 1000})
		v.must(err)
		if len(due) == 0 {
			v.t.Error("nothing was due")
		}
	})
	v.during("all: count what is pending", func() { _, err := v.s.Pending(ctx); v.must(err) })
}
