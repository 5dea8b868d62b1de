package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"rouse/client"
)

// broadcastTo is how many devices TestABroadcastSurvivesKills reaches; `make broadcast` says 100,000.
var broadcastTo = flag.Int("broadcast", 6000, "devices of TestABroadcastSurvivesKills")

const (
	// flatMemory is what a node may need more while it fans out, whatever the audience.
	flatMemory = 64 << 20
	// remembered is what the worker needs for each device that it tried to wake, up to a bound: see Sizing in docs/operations.md.
	remembered = 1 << 10
	// manyDevices is from when on a broadcast that wakes nobody is tried, too: it shows what the audience costs without the wakes.
	manyDevices = 50_000
)

// arena is where a broadcast goes out: one node on SQLite, or two on PostgreSQL, each a process of its own.
type arena struct {
	t     *testing.T
	rig   *rig
	fleet *fleet // nil on SQLite
	db    *sql.DB
	most  float64 // memory of any node so far, in bytes; written by watch
}

// newArena starts the nodes; the app's fan-outs reach so many devices a second.
func newArena(t *testing.T, on engine, aSecond int) *arena {
	t.Helper()
	s := &arena{t: t}
	var driver, name string
	if on.name == onPostgres.name {
		s.fleet = newFleetOf(t, "postgres", 2)
		s.rig, driver, name = s.fleet.rig, "pgx", s.fleet.cluster.DSN()
	} else {
		s.rig = newRigOn(t, on, "--log-level", "info")
		driver, name = "sqlite", "file:"+s.rig.dir+"/rouse.db?_pragma=busy_timeout(10000)"
	}
	var err error
	if s.db, err = sql.Open(driver, name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.db.Close() })
	if _, err := answer[client.App](s.rig.client(s.rig.admin).UpdateApp(t.Context(), s.rig.app.Id, client.AppUpdate{BroadcastRate: &aSecond})); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *arena) nodes() []*child {
	if s.fleet == nil {
		return []*child{s.rig.child}
	}
	var all []*child
	for _, m := range s.fleet.nodes {
		all = append(all, m.child)
	}
	return all
}

// fill registers n devices in the database at once, all like one that registered itself.
func (s *arena) fill(n int) {
	s.t.Helper()
	like := s.rig.enrol("template", "none").device
	for _, statement := range []string{
		`INSERT INTO devices (id, app, installation, platform, provider, environment, token_state, created_at, secret)
			SELECT 'dev_' || ` + s.padded() + `, app, 'many-' || i, platform, provider, environment, token_state, created_at, secret
			FROM devices, numbers WHERE id = '` + like + `'`,
		`INSERT INTO inboxes (device, app, contact_at) SELECT 'dev_' || ` + s.padded() + `, app, contact_at FROM inboxes, numbers WHERE device = '` + like + `'`,
	} {
		numbers := fmt.Sprintf("WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < %d) ", n-1)
		if _, err := s.db.ExecContext(s.t.Context(), numbers+statement); err != nil {
			s.t.Fatal(err)
		}
	}
}

// padded is i as what follows a prefix.
func (s *arena) padded() string {
	if s.fleet == nil {
		return "printf('%026d', i)"
	}
	return "lpad(i::text, 26, '0')"
}

// numbers are what a query gives in its one row.
func (s *arena) numbers(query string, args ...any) []int {
	s.t.Helper()
	rows, err := s.db.QueryContext(s.t.Context(), query, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil || !rows.Next() {
		s.t.Fatalf("%s: no row (%v, %v)", query, err, rows.Err())
	}
	values, to := make([]int, len(names)), make([]any, len(names))
	for i := range values {
		to[i] = &values[i]
	}
	if err := rows.Scan(to...); err != nil {
		s.t.Fatal(err)
	}
	return values
}

// reached is how many devices the message has been stored for.
func (s *arena) reached(id string) int {
	s.t.Helper()
	return s.numbers("SELECT recipients FROM messages WHERE id = '" + id + "'")[0]
}

// awaitReached returns when the message has been stored for n devices.
func (s *arena) awaitReached(id string, n int) {
	s.t.Helper()
	eventually(s.t, patient+time.Duration(n)*time.Millisecond, func() (bool, string) {
		got := s.reached(id)
		return got >= n, fmt.Sprintf("%d of %d devices reached", got, n)
	})
}

// killFanner kills the node that fans out, and starts it again.
func (s *arena) killFanner() {
	s.t.Helper()
	if s.fleet == nil {
		s.rig.kill()
		s.rig.start()
		return
	}
	var fanner *machine
	eventually(s.t, patient, func() (bool, string) {
		id, err := s.fleet.dutyOf(s.t.Context(), "fanout")
		fanner = s.fleet.named(id)
		return fanner != nil, fmt.Sprintf("nobody fans out (lease: %q, %v)", id, err)
	})
	fanner.kill()
	fanner.start()
	s.rig.child = s.fleet.nodes[0].child
}

// resident is the most memory that a node has now.
func (s *arena) resident(ctx context.Context) (most float64) {
	for _, c := range s.nodes() {
		if v, err := c.vitals(ctx); err == nil {
			most = max(most, v.resident)
		}
	}
	return most
}

// watch notes how much memory nodes have, until it is ended.
func (s *arena) watch() (end func()) {
	ctx, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		for rest(ctx, 100*time.Millisecond) {
			s.most = max(s.most, s.resident(ctx))
		}
	})
	return func() { stop(); watching.Wait() }
}

// TestABroadcastSurvivesKills kills the node that fans a broadcast out, twice. In the end every device has the message exactly once, the
// message counts what is true, phones were woken, and no node needed more memory than for a small audience.
func TestABroadcastSurvivesKills(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, on engine) {
		testBroadcastSurvivesKills(t, on, "high", flatMemory+float64(*broadcastTo*remembered))
	})
}

func TestAQuietBroadcastNeedsNoMemory(t *testing.T) {
	t.Parallel()
	if *broadcastTo < manyDevices {
		return // the other test says as much
	}
	onEngines(t, func(t *testing.T, on engine) { testBroadcastSurvivesKills(t, on, "low", flatMemory) })
}

func testBroadcastSurvivesKills(t *testing.T, on engine, urgency client.MessageSendUrgency, memory float64) {
	const awake = 8
	n := *broadcastTo
	s := newArena(t, on, max(n/2, 1000))
	var phones []*testPhone
	for i := range awake {
		phones = append(phones, s.rig.enrol(fmt.Sprintf("phone-%d", i), []string{"fcm", "apns"}[i%2]))
	}
	s.fill(n - awake)
	before := s.resident(t.Context())
	begun := time.Now()
	broadcast, err := answer[client.MessageAccepted](s.rig.backend().SendMessage(t.Context(), &client.SendMessageParams{}, client.MessageSend{
		To: client.Recipient{Broadcast: ptr(client.RecipientBroadcast(true))}, Data: []byte(`{"to":"all"}`), Urgency: &urgency,
	}))
	if err != nil || broadcast.Status != "fanning_out" {
		t.Fatalf("%+v, %v", broadcast, err)
	}
	var killed []int
	for _, third := range []int{1, 2} {
		s.awaitReached(broadcast.Id, third*n/3)
		s.killFanner()
		killed = append(killed, s.reached(broadcast.Id))
	}
	end := s.watch()
	s.awaitReached(broadcast.Id, n)
	took := time.Since(begun)
	if urgency == "high" {
		for _, p := range phones {
			s.rig.awaitPush(p, 0)
		}
	}
	s.judge(broadcast.Id, n, phones)
	end()
	judged := time.Since(begun) - took
	if s.most > before+memory {
		t.Errorf("a node of %.0f MiB grew to %.0f MiB", before/(1<<20), s.most/(1<<20))
	}
	t.Logf("%d devices in %v with kills at %v; %.0f MiB before, at most %.0f MiB after the kills; all woken %v later", n, took.Round(time.Millisecond), killed, before/(1<<20), s.most/(1<<20), judged.Round(time.Millisecond))
}

// judge fails unless n devices have the message exactly once, and phones fetch it.
func (s *arena) judge(id string, n int, phones []*testPhone) {
	s.t.Helper()
	api := s.rig.backend()
	eventually(s.t, patient, func() (bool, string) {
		m, err := answer[client.Message](api.GetMessage(s.t.Context(), id))
		return err == nil && m.Status == "accepted", fmt.Sprintf("%+v, %v", m, err)
	})
	got := s.numbers("SELECT count(*), count(DISTINCT device), (SELECT count(*) FROM devices) FROM deliveries WHERE message = '" + id + "'")
	if got[0] != n || got[1] != n || got[2] != n {
		s.t.Errorf("%d deliveries to %d of %d devices, want each once", got[0], got[1], got[2])
	}
	for _, p := range phones {
		s.rig.again(p)
		if ids := s.rig.drain(p); len(ids) != 1 || ids[0] != id {
			s.t.Errorf("%s fetched %v", p.device, ids)
		}
	}
	got = s.numbers("SELECT recipients, pending, acked, dropped + expired + canceled + replaced, (SELECT sum(pending) FROM inboxes) FROM messages WHERE id = '" + id + "'")
	if want := []int{n, n - len(phones), len(phones), 0, n - len(phones)}; fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("recipients, pending, acked, ended otherwise, pending in inboxes: %v, want %v", got, want)
	}
}
