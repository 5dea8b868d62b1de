package main

import (
	"bytes"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"rouse/internal/testkit"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
)

const healthyPostgres = `ok    configuration            Every setting is right.
ok    database                 PostgreSQL VERSION at DSN answers within TIME.
ok    durability               Commits wait for the disk (synchronous_commit is on).
ok    schema                   Schema N is what this program wants.
ok    master_keys              Every master key that sealed here opens ("k1").
ok    connections              N of N connections are taken; a node takes up to 22.
ok    database_clock           The clocks of this machine and of the database are within 5s.
ok    nodes                    1 node is alive; NODE climbs the ladder of retries for all.
ok    bus                      What one node says at DSN another hears within TIME.
ok    server                   A server runs and is ready.
ok    listen                   The API answers at 127.0.0.1:PORT.
`

// databaseURL is the DSN of the rig's PostgreSQL.
func (r *rig) databaseURL() *url.URL {
	r.t.Helper()
	u, err := url.Parse(strings.TrimPrefix(r.db[0], "ROUSE_DB="))
	if err != nil {
		r.t.Fatal(err)
	}
	return u
}

// inPostgres runs statements on the rig's database, whose name they have for %s.
func (r *rig) inPostgres(statements ...string) {
	r.t.Helper()
	db := r.databaseURL()
	for _, s := range statements {
		testkit.Command(r.t, db.String(), strings.ReplaceAll(s, "%s", strings.TrimPrefix(db.Path, "/")))
	}
}

// awaitDuty returns once a node does the duty of all.
func (r *rig) awaitDuty() {
	r.t.Helper()
	r.awaitMetric(`rouse_duty_held{duty="sweeps"}`, 1)
	r.awaitMetric("rouse_bus_connected", 1)
}

func TestDoctorOfAHealthyNodeOnPostgres(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres)
	r.awaitDuty()
	var out, log bytes.Buffer
	if code := run(t.Context(), []string{"doctor"}, r.doctorEnv(), strings.NewReader(""), &out, &log); code != exitOK || log.Len() > 0 {
		t.Errorf("exit %d\n%s", code, log.String())
	}
	r.noSecret(out.String())
	text := out.String()
	for _, c := range [][2]string{
		{`postgres://rouse@\S+`, "DSN"}, {`PostgreSQL [0-9.]+`, "PostgreSQL VERSION"}, {`within [0-9.]+[mµ]?s(\.?\n)`, "within TIME$1"}, {`\d+ of \d+ connections`, "N of N connections"},
		{`Schema \d+`, "Schema N"}, {`127\.0\.0\.1:\d+`, "127.0.0.1:PORT"}, {`node_\w+`, "NODE"},
	} {
		text = regexp.MustCompile(c[0]).ReplaceAllString(text, c[1])
	}
	text = strings.ReplaceAll(text, "are within TIME.", "are within 5s.")
	if !strings.HasPrefix(text, healthyPostgres) {
		t.Errorf("it says\n%s\nwant\n%s", text, healthyPostgres)
	}
	code, x := r.doctor()
	if code != exitOK || count(x.Findings, providers.FindingWarn) > 0 {
		t.Errorf("exit %d, %+v", code, x.Findings)
	}
	r.kill()
	code, x = r.doctor("--offline")
	x.want(t, "server", providers.FindingWarn, "not_running")
	x.want(t, "listen", providers.FindingOK, "")
	if code != exitOK {
		t.Errorf("exit %d, %+v", code, x.Findings)
	}
}

// TestDoctorTellsWhyPostgresCannotBeUsed: each is also why serve does not start, in words and without the password.
func TestDoctorTellsWhyPostgresCannotBeUsed(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres)
	r.kill()
	with := func(change func(*url.URL)) string {
		u := r.databaseURL()
		change(u)
		return u.String()
	}
	for reason, dsn := range map[string]string{
		"unreachable":  "postgres://rouse:" + dbPassword + "@127.0.0.1:1/rouse",
		"no_database":  with(func(u *url.URL) { u.Path = "/absent" }),
		"not_admitted": with(func(u *url.URL) { u.User = url.UserPassword("nobody-at-all", dbPassword) }),
	} {
		code, x := r.doctor("--offline", "--db", dsn)
		x.want(t, "database", providers.FindingFail, reason)
		if code != exitFailed {
			t.Errorf("%s: exit %d", reason, code)
		}
		r.mustNotServe(dsn, "opening the database")
	}
	code, x := r.doctor("--offline", "--db", with(func(u *url.URL) { u.Path = "/postgres" }))
	x.want(t, "schema", providers.FindingWarn, "older")
	x.want(t, "master_keys", providers.FindingOK, "")
	if code != exitOK || x.has("nodes") {
		t.Errorf("an empty database: exit %d: %+v", code, x.Findings)
	}
	_, x = r.doctor("--offline", "--master-keys", tokens.NewRingKey("k2"))
	x.want(t, "master_keys", providers.FindingFail, "key_missing")
	x.want(t, "credentials", providers.FindingFail, "sealed")
}

// mustNotServe starts a server that must refuse with these words.
func (r *rig) mustNotServe(dsn, words string) {
	r.t.Helper()
	code, out := command(r.t, append(r.env(), "ROUSE_DB="+dsn), "serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	r.noSecret(out)
	if code == exitOK || !strings.Contains(out, words) {
		r.t.Errorf("exit %d: %s", code, out)
	}
}

// TestDoctorTellsWhatAPostgresIsSetUpFor: durability, writes, connections, a schema of another program.
func TestDoctorTellsWhatAPostgresIsSetUpFor(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres)
	r.inPostgres("ALTER DATABASE %s CONNECTION LIMIT 60")
	_, x := r.doctor("--offline", "--db-conns", "1000")
	x.want(t, "connections", providers.FindingWarn, "none_left")
	r.kill()
	r.inPostgres("ALTER DATABASE %s SET synchronous_commit = off")
	_, x = r.doctor("--offline")
	x.want(t, "durability", providers.FindingFail, "not_durable")
	r.mustNotServe(r.databaseURL().String(), "synchronous_commit")
	r.inPostgres("ALTER DATABASE %s SET synchronous_commit = on", "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
	_, x = r.doctor("--offline")
	x.want(t, "durability", providers.FindingOK, "")
	x.want(t, "schema", providers.FindingFail, "newer")
	r.mustNotServe(r.databaseURL().String(), "run the newer program")
	r.inPostgres("ALTER DATABASE %s SET default_transaction_read_only = on")
	_, x = r.doctor("--offline")
	x.want(t, "database", providers.FindingFail, "read_only")
}

// TestDoctorTellsAboutTheOtherNodes: nobody alive, nobody for the duty, several on a bus that is one process's memory.
func TestDoctorTellsAboutTheOtherNodes(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres)
	r.awaitDuty()
	_, x := r.doctor("--offline", "--bus", "memory")
	x.want(t, "bus", providers.FindingWarn, "memory")
	x.want(t, "nodes", providers.FindingOK, "")
	// A row that is far ahead neither is a node nor is forgotten for a minute.
	beat := "INSERT INTO nodes (id, joined_at, beat_at) VALUES ('node_other', 0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 1000)"
	r.inPostgres(beat)
	_, x = r.doctor("--offline", "--bus", "memory")
	x.want(t, "nodes", providers.FindingFail, "alone")
	r.kill()
	r.inPostgres("UPDATE leases SET until = 0")
	_, x = r.doctor("--offline")
	if f := x.get(t, "nodes"); f.Status != providers.FindingWarn || f.Reason != "no_duty" && f.Reason != "none" {
		t.Errorf("a node that was killed: %+v", f)
	}
	r.inPostgres("DELETE FROM nodes")
	_, x = r.doctor("--offline")
	x.want(t, "nodes", providers.FindingWarn, "none")
}

// TestDoctorFindsThePoolerInTheWayOfTheBus, and that a bus of its own mends it.
func TestDoctorFindsThePoolerInTheWayOfTheBus(t *testing.T) {
	t.Parallel()
	direct := testkit.Postgres(t)
	pooled := engine{"pooled", func(t *testing.T, _ string) []string {
		return []string{"ROUSE_DB=" + withPassword(t, testkit.Pooler(t, direct, 8)), "ROUSE_MASTER_KEYS=" + tokens.NewRingKey("k1")}
	}}
	r := newRigOn(t, pooled)
	p := r.enrol("phone", "fcm")
	r.mustSend(p.device, `1`)
	r.awaitPush(p, 0) // all works, with a bus that carries nothing
	code, x := r.doctor("--offline")
	f := x.want(t, "bus", providers.FindingFail, "pooler")
	if code != exitFailed || !strings.Contains(f.Cure, "ROUSE_BUS") {
		t.Errorf("exit %d: %+v", code, f)
	}
	if f := x.want(t, "database", providers.FindingOK, ""); !strings.Contains(f.Cause, "pooler") {
		t.Errorf("%+v", f)
	}
	x.want(t, "server", providers.FindingWarn, "degraded")
	if said := r.get("/readyz"); !strings.HasPrefix(said, "200 ok\ndegraded: ") {
		t.Errorf("/readyz says %q", said)
	}
	r.kill()
	r.flags = append(r.flags, "--bus", withPassword(t, direct))
	r.start()
	r.awaitDuty()
	code, x = r.doctor("--offline", "--bus", withPassword(t, direct))
	x.want(t, "bus", providers.FindingOK, "")
	x.want(t, "server", providers.FindingOK, "")
	if code != exitOK {
		t.Errorf("exit %d: %+v", code, x.Findings)
	}
	if said := r.get("/readyz"); said != "200 ok\n" {
		t.Errorf("/readyz says %q", said)
	}
}

func TestDoctorTellsABusThatIsNotThere(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres)
	for _, bus := range []string{"nats://rouse:" + dbPassword + "@127.0.0.1:1", "postgres://rouse:" + dbPassword + "@127.0.0.1:1/rouse"} {
		code, x := r.doctor("--offline", "--bus", bus)
		x.want(t, "bus", providers.FindingFail, "unreachable")
		if code != exitFailed {
			t.Errorf("exit %d", code)
		}
	}
	_, x := r.doctor("--offline", "--bus", newNATSProcess(t).url())
	x.want(t, "bus", providers.FindingOK, "")
}

func TestDoctorJudgesWhatAServerSays(t *testing.T) {
	t.Parallel()
	e := examination{}
	e.cfg.DSN, e.cfg.DBConns = "postgres://rouse:"+dbPassword+"@db/rouse", 20
	good := store.Server{Version: "15.4", SynchronousCommit: "on", Fsync: "on", FullPageWrites: "on", Encoding: "UTF8", Most: 100, Used: 10}
	for _, c := range []struct {
		change func(*store.Server)
		judge  func(store.Server) found
		status providers.FindingStatus
		reason string
	}{
		{func(s *store.Server) {}, e.serverFinding, providers.FindingOK, ""},
		{func(s *store.Server) { s.TooOld = true }, e.serverFinding, providers.FindingFail, "too_old"},
		{func(s *store.Server) { s.Standby = true }, e.serverFinding, providers.FindingFail, "read_only"},
		{func(s *store.Server) { s.Encoding = "LATIN1" }, e.serverFinding, providers.FindingWarn, "encoding"},
		{func(s *store.Server) { s.SynchronousCommit = "remote_apply" }, durability, providers.FindingOK, ""},
		{func(s *store.Server) { s.Fsync = "off" }, durability, providers.FindingFail, "not_durable"},
		{func(s *store.Server) { s.FullPageWrites = "off" }, durability, providers.FindingFail, "not_durable"},
		{func(s *store.Server) { s.Used = 81 }, e.connections, providers.FindingWarn, "none_left"},
		{func(s *store.Server) { s.Used = 80 }, e.connections, providers.FindingWarn, "few_left"},
		{func(s *store.Server) { s.Used = 70 }, e.connections, providers.FindingOK, ""},
		{func(s *store.Server) { s.Used, s.Pooled = 100, true }, e.connections, providers.FindingOK, ""},
		{func(s *store.Server) { s.Ahead = clocksApart }, databaseClock, providers.FindingOK, ""},
		{func(s *store.Server) { s.Ahead = clocksApart + 1 }, databaseClock, providers.FindingWarn, "clock_skew"},
		{func(s *store.Server) { s.Ahead = -10 * time.Minute }, databaseClock, providers.FindingWarn, "clock_skew"},
	} {
		server := good
		c.change(&server)
		if f := c.judge(server); f.Status != c.status || f.Reason != c.reason || strings.Contains(fmt.Sprint(f), dbPassword) {
			t.Errorf("%+v: %+v", server, f)
		}
	}
}

// TestDoctorTellsANodeThatSaysNothing: on PostgreSQL only its port speaks for it.
func TestDoctorTellsANodeThatSaysNothing(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres)
	process := r.child.cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Signal(syscall.SIGCONT) }) // it may be over
	code, x := r.doctor("--offline")
	x.want(t, "server", providers.FindingFail, "silent")
	if code != exitFailed || x.has("listen") || x.has("ops_listen") {
		t.Errorf("exit %d: %+v", code, x.Findings)
	}
}

// TestDoctorTellsARoleThatMayOnlyRead: the schema is right, and no node can work with it.
func TestDoctorTellsARoleThatMayOnlyRead(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres)
	r.kill()
	r.inPostgres("CREATE ROLE %s_reader LOGIN", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO %s_reader", "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO %s_reader")
	t.Cleanup(func() { r.inPostgres("DROP OWNED BY %s_reader", "DROP ROLE %s_reader") })
	u := r.databaseURL()
	u.User = url.UserPassword(strings.TrimPrefix(u.Path, "/")+"_reader", dbPassword)
	code, x := r.doctor("--offline", "--db", u.String())
	f := x.want(t, "schema", providers.FindingFail, "forbidden")
	if code != exitFailed || !strings.Contains(f.Cause, "apps, circuits, credentials, deliveries and ") {
		t.Errorf("exit %d: %+v", code, f)
	}
	r.inPostgres("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO %s_reader")
	_, x = r.doctor("--offline", "--db", u.String())
	x.want(t, "schema", providers.FindingOK, "")
}

func TestDoctorAsksForTheOtherNodesMasterKeys(t *testing.T) {
	t.Parallel()
	_, out := command(t, []string{"ROUSE_DB=postgres://rouse@127.0.0.1:1/rouse", "ROUSE_ADMIN_KEY=" + firstLine(mustCommand(t, nil, "keys", "generate", "admin"))}, "doctor", "--offline")
	others, generate := strings.Index(out, "other nodes"), strings.Index(out, "keys generate master")
	if others < 0 || generate < others {
		t.Errorf("it says\n%s", out)
	}
}
