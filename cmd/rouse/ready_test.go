package main

import (
	"strings"
	"testing"

	"rouse/internal/testkit"
	"rouse/tokens"
)

// awaitReady returns once /readyz answers so.
func (r *rig) awaitReady(prefix string) {
	r.t.Helper()
	eventually(r.t, patient, func() (bool, string) {
		said := r.get("/readyz")
		return strings.HasPrefix(said, prefix), said
	})
}

// TestANodeStaysReadyBesideANewerOne: one that runs goes on when a newer program has changed the schema, and one that starts refuses to.
func TestANodeStaysReadyBesideANewerOne(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres)
	r.inPostgres("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
	if said := r.get("/readyz"); !strings.HasPrefix(said, "200 ok") {
		t.Errorf("/readyz says %q", said)
	}
	p := r.enrol("phone", "fcm")
	id := r.mustSend(p.device, `1`)
	r.awaitPush(p, 0)
	compareIDs(t, 0, p.device, []string{id}, r.drain(p))
	r.mustNotServe(r.databaseURL().String(), "newer than the")
	r.inPostgres("DELETE FROM goose_db_version WHERE version_id = 9999")
	r.mustServe()
}

// mustServe starts the server anew and has it stop in order.
func (r *rig) mustServe() {
	r.t.Helper()
	r.kill()
	r.start()
	if code, _ := r.terminate(); code != exitOK {
		r.t.Errorf("exit %d", code)
	}
}

// TestANodeWithoutItsBusIsDegraded, and does its work all the same; it is well again by itself.
func TestANodeWithoutItsBusIsDegraded(t *testing.T) {
	t.Parallel()
	nats := newNATSProcess(t)
	url := strings.Replace(nats.url(), "://", "://rouse:"+dbPassword+"@", 1)
	r := newRigOn(t, onPostgres, "--bus", url)
	r.awaitReady("200 ok\n")
	r.awaitMetric("rouse_bus_connected", 1)
	nats.kill()
	r.awaitReady("200 ok\ndegraded: the bus is not connected")
	if n, err := metric(t.Context(), r.child.at.ops, "rouse_bus_connected"); err != nil || n != 0 {
		t.Errorf("rouse_bus_connected is %v, %v", n, err)
	}
	eventually(t, patient, func() (bool, string) {
		return strings.Contains(r.child.log.String(), "level=WARN msg=\"the bus is not connected"), "no warning in the log"
	})
	p := r.enrol("phone", "fcm")
	r.mustSend(p.device, `1`)
	r.awaitPush(p, 0)
	r.noSecret(r.get("/metrics"))
	nats.start()
	r.awaitMetric("rouse_bus_connected", 1)
	r.awaitReady("200 ok\n")
}

// TestANodeWithoutItsDatabaseIsNotReady, and is again once that is back.
func TestANodeWithoutItsDatabaseIsNotReady(t *testing.T) {
	t.Parallel()
	server := testkit.NewCluster(t)
	r := newRigOn(t, engine{"its own", func(t *testing.T, _ string) []string {
		return []string{"ROUSE_DB=" + withPassword(t, server.DSN()), "ROUSE_MASTER_KEYS=" + tokens.NewRingKey("k1")}
	}})
	p := r.enrol("phone", "fcm")
	server.Stop(t)
	r.awaitReady("503 not ready: ")
	if live := r.get("/livez"); !strings.HasPrefix(live, "200") {
		t.Errorf("/livez says %s", live)
	}
	server.Start(t)
	r.awaitReady("200 ok")
	r.mustSend(p.device, `1`)
	r.awaitPush(p, 0)
	if code, _ := r.terminate(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// TestASingleNodeOnPostgresIsTold what a bus in memory means.
func TestASingleNodeOnPostgresIsTold(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres, "--bus", "memory")
	if log := r.child.log.String(); !strings.Contains(log, "level=WARN msg=\"the bus is this process's memory") {
		t.Errorf("no warning in\n%s", log)
	}
	if log := r.child.log.String(); !strings.Contains(log, "db=\"postgres://rouse@") && !strings.Contains(log, "db=postgres://rouse@") {
		t.Errorf("which database is not told in\n%s", log)
	}
	p := r.enrol("phone", "fcm")
	r.mustSend(p.device, `1`)
	r.awaitPush(p, 0)
}
