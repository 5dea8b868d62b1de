package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"rouse/internal/testkit"
	"rouse/providers/sim"
	"rouse/tokens"
)

// TestANodeThatCannotStartJoinsNobody: it is refused before it says that it serves, before it has a row, a home or a duty.
func TestANodeThatCannotStartJoinsNobody(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, onPostgres)
	if code, _ := r.terminate(); code != exitOK {
		t.Fatalf("exit %d", code)
	}
	r.inPostgres("ALTER DATABASE %s SET synchronous_commit = off")
	r.refused("synchronous_commit")
	r.inPostgres("ALTER DATABASE %s SET synchronous_commit = on")
	r.refused("ROUSE_MASTER_KEYS", "ROUSE_MASTER_KEYS="+tokens.NewRingKey("k2"))
	r.inPostgres("INSERT INTO copies (part, source, last_key, copied) VALUES ('', '', '', 0)")
	r.refused("rouse copy")
	r.inPostgres("DELETE FROM copies")
	r.inPostgres("DO $$ BEGIN IF EXISTS (SELECT FROM nodes) OR EXISTS (SELECT FROM leases WHERE until > extract(epoch FROM clock_timestamp()) * 1000) THEN RAISE EXCEPTION 'somebody joined'; END IF; END $$")
	r.mustServe()
}

// TestASecondNodeOnOneFileIsRefused before it answers anybody.
func TestASecondNodeOnOneFileIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.refused("at a time on SQLite")
}

// refused starts a server that must end by itself with these words, and have begun nothing.
func (r *rig) refused(words string, env ...string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patient) // one that does run is stopped
	defer cancel()
	var b bytes.Buffer
	code := run(ctx, []string{"serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, append(r.env(), env...), strings.NewReader(""), &b, &b)
	out := b.String()
	r.noSecret(out)
	if code != exitFailed || !strings.Contains(out, words) {
		r.t.Errorf("exit %d, without %q:\n%s", code, words, out)
	}
	for _, begun := range []string{"serving", "joined", "duty", "the bus is"} {
		if strings.Contains(out, begun) {
			r.t.Errorf("%q is in the log of a node that was refused:\n%s", begun, out)
		}
	}
}

// TestAStopWithoutTheDatabaseIsInTime: with a poll that waits, and pushes in flight that nobody answers and nobody can note.
func TestAStopWithoutTheDatabaseIsInTime(t *testing.T) {
	t.Parallel()
	server := testkit.NewCluster(t)
	r := newRigOn(t, engine{"its own", func(t *testing.T, _ string) []string {
		return []string{"ROUSE_DB=" + withPassword(t, server.DSN()), "ROUSE_MASTER_KEYS=" + tokens.NewRingKey("k1")}
	}})
	r.awaitDuty()
	r.sim.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Fault: sim.FaultHang}})
	box, p := r.enrol("box", "none"), r.enrol("phone", "apns")
	r.mustSend(p.device, `1`)
	r.awaitMetric(`rouse_pushes_in_flight{provider="apns"}`, 1)
	answered := make(chan error, 1)
	go func() {
		_, err := box.page(t.Context(), "", maxPage, 50)
		answered <- err
	}()
	r.awaitMetric("rouse_waiters", 1)
	server.Stop(t)
	r.awaitReady("503 not ready: ")
	code, took := r.terminate()
	if took > stopLimit {
		t.Errorf("it took %v", took)
	}
	if code != exitOK && code != exitFailed {
		t.Errorf("exit %d", code)
	}
	if out := r.child.log.String(); !strings.Contains(out, "msg=stopped") {
		t.Error("it did not end in order")
	}
	t.Logf("exit %d after %v; the poll: %v", code, took, <-answered)
}
