package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Statements that name no device, each with the reason. What follows is compared with the beginning of a statement's text and of what
// the checker says of it. Whatever is not here has to name the key of every distributed table it touches.
var acrossDevices = []struct{ statement, fault, why string }{
	{"select d.app, d.user_id, d.id from unnest", "no key for devices", "who a user's devices are: every machine is asked, by an index"},
	{"select count(*) from devices where app = $1 and user_id = $2", "no key for devices", "binding a device to a user"},
	{"select id from devices where app = $1 and user_id = $2", "no key for devices", "subscribing, listing and erasing a user"},
	{"select id from devices where app = $1 and id > $2", "no key for devices", "listing an app's devices"},
	{"select distinct device from subscriptions where app = $1 and topic = $2", "no key for subscriptions", "who is in an audience: every machine is asked, by an index"},
	{"select topic, count(distinct device)", "no key for subscriptions", "counting an audience"},
	{"select device, seq from deliveries where app = $1 and to_user = $2", "no key for deliveries", "erasing a person"},
	{"select id from messages where app = $1 and audience = $2", "no key for messages", "erasing a person"},
	{"select id from devices where app = $1 and installation = $2", "no key for devices", "registering: every machine is asked, by an index"},
	{"update devices set token_state = $1, token_reason = '', token = null", "no key for devices", "a token that is new to its device is taken from any other: every machine, by an index"},
	{"select id, registered_at from devices where token_hash = $1", "no key for devices", "moving a token to the other environment of APNs, once in its life"},
	{"select id from devices where app = $1 and provider = $2 and token_state = 'dead'", "no key for devices", "taking a wave of deaths back"},
	{"select id from devices where app = $1 order by id", "no key for devices", "deleting an app"},
	{"select d.device, d.app, d.seq, d.class", "no key", "what became of a message is asked by the message"},
	{"select (select count(*) from messages where id = $1", "no key for deliveries", "what became of a message is asked by the message"},
	{"select device, seq, message, size, shared, expires_at, app, coalesce(correlation_id, '') as correlation_id from deliveries where message = $1", "no key for deliveries", "canceling a message"},
	{"select d.seq, d.device, d.created_at", "no key", "the sweep goes through all devices, one stretch of places at a time; one node does it"},
	{"select device, seq, message, size, shared, expires_at, app, coalesce(correlation_id, '') as correlation_id from deliveries where ended_at is null and expires_at <= $1", "no key for deliveries", "expiry goes through all devices; one node does it"},
	{"select coalesce(min(seq), 0) from deliveries where seq > $1", "no key for deliveries", "the purge goes through all devices; one node does it"},
	{"select seq from deliveries where seq > $1", "no key for deliveries", "the purge, and deleting an app"},
	{"delete from deliveries where seq in", "no key for deliveries", "the purge, and deleting an app"},
	{"select id from wakes where at < $1", "no key for wakes", "the purge"},
	{"delete from wakes where id in", "no key for wakes", "the purge"},
	{"select id, created_at from messages where created_at", "no key for messages", "the purge"},
	{"select distinct message from deliveries where message in", "no key for deliveries", "the purge"},
	{"delete from messages where id in (select id from messages where app", "no key for messages", "deleting an app"},
	{"delete from idempotency where (app, key) in", "no key for idempotency", "the purge, and deleting an app"},
	{"with recursive a (app) as (select min(app) from messages", "no key for messages", "what is due goes through all messages; one node does it"},
	{"select m.id, coalesce(m.canceled_at, m.send_at, m.created_at)", "no key for messages", "what is due goes through all messages; one node does it"},
	{"select s.device as id, 1 = 1 as early", "no key for subscriptions", "a topic's page: every machine is asked, by an index"},
	{"select d.id, d.created_at <= $1 and d.unregistered_at is null as early", "no key for devices", "a broadcast's page: every machine is asked, by an index"},
	{"select d.id, 1 = 1 as early from devices", "no key for devices", "who a user's devices are at the time that was chosen"},
	{"select device, seq, message, size, shared, expires_at, app, coalesce(correlation_id, '') as correlation_id, ended_at is not null", "no key for deliveries", "taking a canceled message back"},
	{"select id, app, audience, user_id, urgency", "no key for messages", "listing messages, newest first"},
	{"select message, app, created_at, shared", "no key for deliveries", "listing messages of one delivery, newest first"},
	{"select d.message, d.device, d.app, d.seq", "no key", "what became of listed messages is asked by the messages"},
	{"select cast(coalesce(sum(pending), 0) as bigint) from inboxes", "no key for inboxes", "the gauge of what is pending, every now and then"},
}

var spaces = regexp.MustCompile(`\s+`)

// excused says why a statement may have a fault, or any, if none is named; "" if it may not.
func excused(query, fault string) string {
	query = strings.ToLower(spaces.ReplaceAllString(strings.TrimSpace(query), " "))
	for _, x := range acrossDevices {
		if strings.HasPrefix(query, x.statement) && (fault == "" || strings.HasPrefix(fault, x.fault)) {
			return x.why
		}
	}
	return ""
}

// travel has the store do all it does, and returns what it sent.
func travel(t *testing.T) *journey {
	j := onPieces(t, func(o *Options) { o.InboxMessages = 4 })
	j.s.limits.messages = 1000
	j.one(j.list[0])
	j.many(j.list[4:8])
	j.s.limits.messages = 4
	j.full(j.list[9])
	j.people()
	j.audiences()
	j.seldom()
	return j
}

// Every statement that is really sent names the device of every row it touches, or is on the list.
func TestEachStatementNamesItsDevices(t *testing.T) {
	t.Parallel()
	j := travel(t)
	seen, tables, used := map[string]bool{}, map[string]int{}, map[string]bool{}
	for _, s := range j.all() {
		for _, sc := range parseSQL(s.query) {
			for _, r := range sc.refs {
				tables[r.table]++
			}
		}
		if seen[s.query] {
			continue
		}
		seen[s.query] = true
		for _, fault := range faults(s.query) {
			why := excused(s.query, fault)
			if why == "" {
				t.Errorf("%s: %s\n%s", s.doing, fault, s.query)
			}
			if strings.HasPrefix(s.doing, "one: ") {
				t.Errorf("%s: %s, though it is for one device\n%s", s.doing, fault, s.query)
			}
			used[why] = true
		}
	}
	for _, p := range placements {
		if tables[p.table] == 0 && p.table != "apps" {
			t.Errorf("nothing touched %s: the journey leaves it out", p.table)
		}
	}
	for _, x := range acrossDevices {
		if !used[x.why] {
			t.Errorf("nothing needs the excuse %q any more", x.statement)
		}
	}
	t.Logf("%d statements, %d of them different", len(j.all()), len(seen))
}

// piece is the end of a partition's name.
var piece = regexp.MustCompile(`^(.*)_piece_(\d+)$`)

// touched adds to pieces what a plan that was run has touched: table to the pieces of it.
func touched(node map[string]any, pieces map[string]map[string]bool) {
	loops, _ := node["Actual Loops"].(float64)
	name, _ := node["Relation Name"].(string)
	if m := piece.FindStringSubmatch(name); m != nil && loops > 0 && node["Node Type"] != "ModifyTable" {
		if pieces[m[1]] == nil {
			pieces[m[1]] = map[string]bool{}
		}
		pieces[m[1]][m[2]] = true
	}
	children, _ := node["Plans"].([]any)
	for _, c := range children {
		touched(c.(map[string]any), pieces)
	}
}

// pieces runs a statement again as it was sent, takes it back, and returns which pieces of which tables it touched.
func (j *journey) pieces(conn *pgx.Conn, s sent) map[string]map[string]bool {
	j.t.Helper()
	tx, err := conn.Begin(j.ctx)
	j.must(err)
	defer func() { j.must(tx.Rollback(j.ctx)) }()
	// As Citus would: it asks the pieces that the keys say, and each by an index.
	_, err = conn.Exec(j.ctx, "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_material = off")
	j.must(err)
	read := conn.PgConn().ExecParams(j.ctx, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, FORMAT JSON) "+s.query, s.args, nil, s.formats, nil).Read()
	if read.Err != nil {
		j.t.Fatalf("%s: %v\n%s", s.doing, read.Err, s.query)
	}
	var plans []struct{ Plan map[string]any }
	j.must(json.Unmarshal(read.Rows[0][0], &plans))
	found := map[string]map[string]bool{}
	touched(plans[0].Plan, found)
	return found
}

var plannable = regexp.MustCompile(`(?i)^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b`)

// What is done for one device touches one piece of every table, and the same of all; what is done for four devices touches four at
// most. PostgreSQL says so itself, of tables that are spread by the device's hash.
func TestAStatementForOneDeviceTouchesOnePiece(t *testing.T) {
	t.Parallel()
	j := travel(t)
	conn, err := pgx.Connect(j.ctx, j.dsn)
	j.must(err)
	defer func() { j.must(conn.Close(context.WithoutCancel(j.ctx))) }()
	checked := 0
	for _, s := range j.all() {
		most := map[bool]int{true: 1, false: 4}[strings.HasPrefix(s.doing, "one: ")]
		if strings.HasPrefix(s.doing, "seldom") || !plannable.MatchString(s.query) || excused(s.query, "") != "" {
			continue
		}
		found := j.pieces(conn, s)
		all := map[string]bool{}
		for table, pieces := range found {
			if at, _ := placementOf(table); at.group() == placements[0].table {
				maps.Copy(all, pieces)
			}
		}
		if len(all) > most {
			t.Errorf("%s touches %d pieces: %v\n%s", s.doing, len(all), found, s.query)
		}
		checked += len(all)
	}
	if checked < 50 {
		t.Errorf("only %d pieces were touched: the plans are read wrongly", checked)
	}
	// And it is noticed if more are touched.
	for _, query := range []string{"UPDATE inboxes SET head = head WHERE app <> ''", "SELECT 1 FROM deliveries WHERE seq > 0",
		fmt.Sprintf("SELECT 1 FROM deliveries WHERE device = '%s' OR seq = 1", j.list[0])} {
		n := 0
		for _, pieces := range j.pieces(conn, sent{query: query}) {
			n = max(n, len(pieces))
		}
		if n < 2 {
			t.Errorf("%s touches %d pieces, it seems", query, n)
		}
	}
}

// Each excuse is for a statement that needs one.
func TestExcusesAreForFaults(t *testing.T) {
	t.Parallel()
	for _, x := range acrossDevices {
		if x.why == "" || !slices.ContainsFunc([]string{"select", "update", "delete", "with"}, func(verb string) bool { return strings.HasPrefix(x.statement, verb) }) {
			t.Errorf("%+v", x)
		}
	}
}
