package main

import (
	"strings"
	"testing"

	"rouse/providers"
)

// TestDoctorTellsAServerThatCannotWrite: the server's own sentence is passed on.
func TestDoctorTellsAServerThatCannotWrite(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.enrol("box", "none")
	if err := fileLimit(r.child.cmd.Process.Pid, 1<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := r.send(t.Context(), r.backend(), p.device, `"no room"`); err == nil {
		t.Fatal("accepted without room for it")
	}
	code, x := r.doctor("--offline")
	if code != exitFailed {
		t.Errorf("exit %d", code)
	}
	if f := x.want(t, "server", providers.FindingFail, "not_ready"); !strings.Contains(f.Cause, "the last write failed") {
		t.Errorf("what the server says is not told: %s", f.Cause)
	}
	if err := fileLimit(r.child.cmd.Process.Pid, ^uint64(0)); err != nil {
		t.Fatal(err)
	}
}
