package testkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Pooler puts a PgBouncer in transaction mode before the database of dsn, and returns the DSN that leads through it, without a password. It
// ends with the test, which is skipped where there is no PgBouncer. size is how many connections it keeps to the server.
func Pooler(t testing.TB, dsn string, size int) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("skipped: PgBouncer is not installed: `apt-get install pgbouncer` (or your system's package)")
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "rouse-pooler-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	host := u.Query().Get("host")
	if host == "" {
		host = u.Hostname() + " port=" + u.Port()
	}
	settings := filepath.Join(folder, "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\n* = host=%s user=%s\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = %s\n"+
		"auth_type = any\npool_mode = transaction\ndefault_pool_size = %d\nmax_client_conn = 500\n", host, u.User.Username(), folder, size)
	if err := os.WriteFile(settings, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), program, settings)
	cmd.Dir = folder
	if err := errors.Join(os.Chmod(folder, 0o755), unprivileged(cmd, folder)); err != nil { //nolint:gosec // others have to reach the socket
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(folder)
	})
	through := url.URL{Scheme: "postgres", User: url.User(u.User.Username()), Path: u.Path,
		RawQuery: url.Values{"host": {folder}, "port": {"6432"}}.Encode()}
	awaitPooler(t, through.String())
	return through.String()
}

func awaitPooler(t testing.TB, dsn string) {
	t.Helper()
	deadline, again := time.After(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer again.Stop()
	for {
		err := command(dsn, "SELECT 1")
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("start PgBouncer: %v", err)
		}
	}
}

// Command runs one statement on a connection of its own, outside of any transaction.
func Command(t testing.TB, dsn, statement string) {
	t.Helper()
	if err := command(dsn, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
