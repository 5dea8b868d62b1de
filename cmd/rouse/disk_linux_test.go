package main

import (
	"errors"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"rouse/client"
)

// fileLimit changes how large a file another process may make, in bytes.
func fileLimit(pid int, soft uint64) error {
	limit := syscall.Rlimit{Cur: soft, Max: ^uint64(0)}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_FSIZE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// TestDiskFull lets the server run out of room: sends are refused in words, nothing that was accepted is lost, and with
// room again it goes on by itself.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.enrol("box", "none")
	accepted := []string{r.mustSend(p.device, `"before"`)}
	if err := fileLimit(r.child.cmd.Process.Pid, 1<<10); err != nil {
		t.Fatal(err)
	}
	var refusal *client.Error
	for range 3 {
		id, err := r.send(t.Context(), r.backend(), p.device, `"no room"`)
		if err == nil {
			t.Fatalf("%s was accepted without room for it", id)
		}
		if !errors.As(err, &refusal) || refusal.Status != http.StatusServiceUnavailable || refusal.RetryAfter <= 0 {
			t.Fatalf("the refusal is not a 503 that says when to come again: %v", err)
		}
	}
	t.Logf("without room: %v", refusal)
	if ready := r.get("/readyz"); !strings.HasPrefix(ready, "503") {
		t.Errorf("/readyz says %q without room", ready)
	}
	if live := r.get("/livez"); !strings.HasPrefix(live, "200") {
		t.Errorf("/livez says %q without room", live)
	}
	if err := fileLimit(r.child.cmd.Process.Pid, ^uint64(0)); err != nil {
		t.Fatal(err)
	}
	accepted = append(accepted, r.awaitAccepted(p))
	r.kill()
	r.start()
	r.again(p)
	compareIDs(t, 0, p.device, accepted, r.drain(p))
	if ready := r.get("/readyz"); !strings.HasPrefix(ready, "200") {
		t.Errorf("/readyz says %q with room again", ready)
	}
}

// awaitAccepted sends until the server takes it, and returns the id.
func (r *rig) awaitAccepted(p *testPhone) string {
	r.t.Helper()
	deadline := time.After(patient)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		id, err := r.send(r.t.Context(), r.backend(), p.device, `"after"`)
		if err == nil {
			return id
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("with room again it still says: %v", err)
		}
	}
}
