package store

import (
	"testing"
	"time"

	"rouse/tokens"
)

func TestAnInterruptedDeleteTakesNothingInAndIsFinishedByPurge(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	defer start(t, s)()
	now := time.Now()
	app, _ := populate(t, s)
	note := func(environment tokens.Environment) {
		t.Helper()
		c := tokens.Circuit{Outlet: tokens.Outlet{App: app, Provider: tokens.APNs, Environment: environment}, State: tokens.CircuitOpen,
			Cause: tokens.CauseCredential, OpenedAt: now, RetryAt: now}
		if err := s.NoteCircuit(t.Context(), c, now); err != nil {
			t.Fatal(err)
		}
	}
	count := func(want int) {
		t.Helper()
		var n int
		const query = "SELECT (SELECT COUNT(*) FROM events) + (SELECT COUNT(*) FROM apps)"
		if err := s.reads.get(t.Context(), &n, query); err != nil || n != want {
			t.Errorf("%d rows, want %d; %v", n, want, err)
		}
	}
	note(tokens.Sandbox)
	count(3) // the app, circuit.opened, credential.failing
	err := s.write(t.Context(), "die half way", newOp(func(x *tx) error {
		_, err := x.exec("UPDATE apps SET deleting = 1 WHERE id = ?", string(app))
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	note(tokens.Production)
	count(3)
	if _, err := s.Purge(t.Context(), now.Add(-time.Hour), now, 100); err != nil {
		t.Fatal(err)
	}
	count(0)
	if _, err := s.App(t.Context(), app); err == nil {
		t.Error("the app is still there")
	}
}
