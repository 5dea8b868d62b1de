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
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

var errNoPrograms = errors.New("PostgreSQL is not installed: `apt-get install postgresql` (or your system's package), or set " +
	PostgresVariable + " to the DSN of a server whose role may create databases")

// keeper is the shell script that owns a server, made and run in folder $3. It says when the cluster is made, and does
// what its standard input says, line by line; when that ends, as it does however the test process dies, the server is
// stopped and the folder removed. The cluster is new with every run, so its first files need not reach the disk; whether what
// the server writes does is $4, on or off.
const keeper = `
trap '' PIPE
start() { # unless it runs
	[ -z "$server" ] || ! kill -0 "$server" 2>>"$3/log" || return 0
	"$2" -D "$3/data" -k "$3" -c listen_addresses= -c max_connections=400 -c shared_buffers=64MB \
		-c log_min_messages=warning -c fsync="$4" >>"$3/log" 2>&1 &
	server=$!
}
end() {
	[ -z "$server" ] || { kill "-$1" "$server"; wait "$server"; }
	server=
}
server=
"$1" -D "$3/data" -U rouse --auth=trust --encoding=UTF8 --locale=C --no-sync >>"$3/log" 2>&1 && echo made && start "$@"
exec >&-
while read -r verb; do
	case $verb in
	start) start "$@" ;;
	stop) end QUIT ;;
	kill) end KILL ;;
	esac
done
end QUIT
rm -rf "$3"
`

// Cluster is a PostgreSQL server that a test may stop and start again. It listens on a Unix socket alone.
type Cluster struct {
	folder string
	keeper *exec.Cmd
	orders io.WriteCloser
}

// NewCluster starts a server for this test alone, and ends it with the test. See Postgres for when the test is skipped.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	c, err := newCluster("on")
	need(t, err)
	t.Cleanup(func() {
		if err := errors.Join(c.orders.Close(), c.keeper.Wait()); err != nil {
			t.Errorf("end PostgreSQL: %v", err)
		}
	})
	return c
}

// DSN is that of the server's first database.
func (c *Cluster) DSN() string {
	return "postgres://rouse@/postgres?" + url.Values{"host": {c.folder}}.Encode()
}

// Stop ends the server as a crash would: every connection is cut, nothing is finished. It returns when no connection
// can be made.
func (c *Cluster) Stop(t testing.TB) {
	t.Helper()
	c.order(t, "stop")
	if err := c.until(nil, func(err error) bool { return err != nil }); err != nil {
		t.Fatalf("stop PostgreSQL: %v", err)
	}
}

// Kill ends the server's first process with kill -9, and returns when no connection can be made. Its other processes end by
// themselves, each when it looks for the first one.
func (c *Cluster) Kill(t testing.TB) {
	t.Helper()
	c.order(t, "kill")
	if err := c.until(nil, func(err error) bool { return err != nil }); err != nil {
		t.Fatalf("kill PostgreSQL: %v", err)
	}
}

// Start starts the server after Stop or Kill, and returns when it takes connections.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	again := func() { c.order(t, "start") }
	again()
	if err := c.until(again, func(err error) bool { return err == nil }); err != nil {
		t.Fatalf("start PostgreSQL again: %v", err)
	}
}

// Folder holds the server's Unix socket, .s.PGSQL.5432.
func (c *Cluster) Folder() string { return c.folder }

// Ask returns what a query gives, every value as text, NULL as nothing.
func (c *Cluster) Ask(ctx context.Context, query string) (rows [][]string, err error) {
	conn, err := pgx.Connect(ctx, c.DSN())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	results, err := conn.PgConn().Exec(ctx, query).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, result := range results {
		for _, values := range result.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (c *Cluster) order(t testing.TB, verb string) {
	t.Helper()
	if _, err := io.WriteString(c.orders, verb+"\n"); err != nil {
		t.Fatalf("tell PostgreSQL's keeper to %s: %v", verb, err)
	}
}

// newCluster starts a server with a new, empty cluster in a folder of its own. fsync is on or off.
func newCluster(fsync string) (*Cluster, error) {
	initdb, server, err := programs()
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	if c.folder, err = os.MkdirTemp("", "rouse-pg-"); err != nil {
		return nil, err
	}
	c.keeper = exec.CommandContext(context.Background(), "sh", "-c", keeper, "keeper", initdb, server, c.folder, fsync)
	c.keeper.Dir = c.folder
	if err := c.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.folder))
	}
	return c, nil
}

// start starts the keeper and waits until its server takes connections.
func (c *Cluster) start() (err error) {
	if err := unprivileged(c.keeper, c.folder); err != nil {
		return err
	}
	if c.orders, err = c.keeper.StdinPipe(); err != nil {
		return err
	}
	said, err := c.keeper.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.keeper.Start(); err != nil {
		return err
	}
	words, err := io.ReadAll(said)
	if err == nil && string(words) != "made\n" {
		err = errors.New("initdb failed")
	}
	if err == nil {
		err = c.until(nil, func(err error) bool { return err == nil })
	}
	if err == nil {
		return nil
	}
	log, _ := os.ReadFile(filepath.Join(c.folder, "log"))
	return errors.Join(fmt.Errorf("%w\n%s", err, log), c.orders.Close(), c.keeper.Wait())
}

// until tries to connect until the outcome is as wanted, and calls repeat, if there is one, every second.
func (c *Cluster) until(repeat func(), wanted func(error) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	every := time.NewTicker(time.Second)
	defer every.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := command(c.DSN(), "SELECT 1")
		if wanted(err) {
			return nil
		}
		select {
		case <-again.C:
		case <-every.C:
			if repeat != nil {
				repeat()
			}
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// programs finds PostgreSQL's own: in PATH, else where Debian keeps them, the newest first.
func programs() (initdb, server string, err error) {
	folders, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", "", err
	}
	slices.Sort(folders)
	slices.Reverse(folders)
	for _, f := range append([]string{""}, folders...) {
		initdb, err = exec.LookPath(filepath.Join(f, "initdb"))
		if err != nil {
			continue
		}
		if server, err = exec.LookPath(filepath.Join(f, "postgres")); err == nil {
			return initdb, server, nil
		}
	}
	return "", "", errNoPrograms
}
