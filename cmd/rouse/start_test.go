package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

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
