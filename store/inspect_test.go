package store_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/store"
	"rouse/tokens"
)

// filesIn lists a folder.
func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// inspect opens an Inspection that the test closes.
func inspect(t *testing.T, path string, ring *tokens.Ring) *store.Inspection {
	t.Helper()
	i, err := store.Inspect(t.Context(), store.InspectOptions{DSN: "sqlite:" + path, Ring: ring})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	return i
}

// lived is a database that a node ran on until it stopped in order: an app with a credential and an open circuit.
func lived(t *testing.T, path string, ring *tokens.Ring) tokens.App {
	t.Helper()
	s, stop := node(t, path, ring)
	app := furnish(t, s)
	stop()
	return app
}

// node opens a store and runs it until stop.
func node(t *testing.T, path string, ring *tokens.Ring) (s *store.Store, stop func()) {
	t.Helper()
	s, err := store.Open(context.Background(), store.Options{DSN: "sqlite:" + path, Ring: ring})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	end := testkit.Run(t, s)
	return s, func() {
		end()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func furnish(t *testing.T, s *store.Store) tokens.App {
	t.Helper()
	app := testkit.App(t, s)
	now := time.Now()
	if err := s.PutCredential(t.Context(), tokens.Credential{App: app.ID, Provider: tokens.FCM, Fingerprint: "f", Secret: []byte(`"s"`), UpdatedAt: now}); err != nil {
		t.Fatal(err)
	}
	if err := s.NoteCircuit(t.Context(), tokens.Circuit{Outlet: tokens.Outlet{App: app.ID, Provider: tokens.FCM}, State: tokens.CircuitOpen,
		Cause: tokens.CauseThrottled, Reason: "QUOTA_EXCEEDED", OpenedAt: now, RetryAt: now.Add(time.Minute), Pauses: 1}, now); err != nil {
		t.Fatal(err)
	}
	testkit.Device(t, s, app.ID)
	return app
}

// readsAll checks that an Inspection sees what lived and furnish leave, and the files it lies in.
func readsAll(t *testing.T, i *store.Inspection, app ident.App) {
	t.Helper()
	readsTables(t, i, app)
	if wrong, err := i.Damage(t.Context()); err != nil || len(wrong) > 0 {
		t.Errorf("damage %v, %v", wrong, err)
	}
	if size, _, err := i.Sizes(); err != nil || size == 0 {
		t.Errorf("size %d, %v", size, err)
	}
	if _, err := i.Server(t.Context()); err == nil {
		t.Error("SQLite has a server")
	}
}

// readsTables checks that an Inspection sees what furnish leaves.
func readsTables(t *testing.T, i *store.Inspection, app ident.App) {
	t.Helper()
	ctx := t.Context()
	have, want, err := i.Schema(ctx)
	if err != nil || have != want || have == 0 {
		t.Errorf("schema %d of %d, %v", have, want, err)
	}
	apps, err := i.Apps(ctx, "", 10)
	if err != nil || len(apps) != 1 || apps[0].ID != app {
		t.Errorf("apps %v, %v", apps, err)
	}
	list, err := i.Credentials(ctx, app)
	if err != nil || len(list) != 1 {
		t.Errorf("credentials %v, %v", list, err)
	}
	c, err := i.Credential(ctx, app, tokens.FCM)
	if err != nil || string(c.Secret) != `"s"` {
		t.Errorf("the credential opens as %q, %v", c.Secret, err)
	}
	circuits, err := i.Circuits(ctx, app)
	if err != nil || len(circuits) != 1 || circuits[0].Reason != "QUOTA_EXCEEDED" {
		t.Errorf("circuits %v, %v", circuits, err)
	}
	states, err := i.TokenStates(ctx, app, tokens.FCM)
	if err != nil || states[tokens.TokenActive] != 1 || len(states) != 1 {
		t.Errorf("token states %v, %v", states, err)
	}
}

// TestInspectBesideARunningNode: it sees what is committed, makes nothing and holds nobody up.
func TestInspectBesideARunningNode(t *testing.T) {
	t.Parallel()
	dir, ring := t.TempDir(), testkit.Ring(t)
	path := filepath.Join(dir, "rouse.db")
	s, stop := node(t, path, ring)
	app := furnish(t, s)
	before := filesIn(t, dir)
	i := inspect(t, path, ring)
	readsAll(t, i, app.ID)
	another := testkit.App(t, s)
	if apps, err := i.Apps(t.Context(), "", 10); err != nil || len(apps) != 2 {
		t.Errorf("after another commit (%s): %v, %v", another.ID, apps, err)
	}
	if !i.Undisturbed() {
		t.Error("a node that writes disturbs it")
	}
	if after := filesIn(t, dir); !slices.Equal(before, after) {
		t.Errorf("files before %v, after %v", before, after)
	}
	_ = i.Close()
	stop()
	if after := filesIn(t, dir); slices.Contains(after, "rouse.db-wal") {
		t.Errorf("the node could not tidy up: %v", after)
	}
}

// TestInspectAStoppedDatabase: nobody has it open, and looking leaves no trace.
func TestInspectAStoppedDatabase(t *testing.T) {
	t.Parallel()
	dir, ring := t.TempDir(), testkit.Ring(t)
	path := filepath.Join(dir, "rouse.db")
	app := lived(t, path, ring)
	before := filesIn(t, dir)
	i := inspect(t, path, ring)
	readsAll(t, i, app.ID)
	if !i.Undisturbed() {
		t.Error("nobody was there, and it was disturbed")
	}
	if after := filesIn(t, dir); !slices.Equal(before, after) {
		t.Errorf("files before %v, after %v", before, after)
	}
	_, stop := node(t, path, ring) // the claim is free, too
	defer stop()
	if i.Undisturbed() {
		t.Error("a node has begun, and what is read is still believed")
	}
}

// TestInspectWhatAKilledNodeLeft reads what lies in the log alone.
func TestInspectWhatAKilledNodeLeft(t *testing.T) {
	t.Parallel()
	ring, dir := testkit.Ring(t), t.TempDir()
	running := filepath.Join(t.TempDir(), "rouse.db")
	s, stop := node(t, running, ring)
	defer stop()
	app := furnish(t, s)
	// The files as they are in the middle of its life are what a kill -9 leaves.
	for _, end := range []string{"", "-wal", "-shm"} {
		content, err := os.ReadFile(running + end)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "rouse.db"+end), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := filesIn(t, dir)
	i := inspect(t, filepath.Join(dir, "rouse.db"), ring)
	readsAll(t, i, app.ID)
	if _, log, err := i.Sizes(); err != nil || log == 0 {
		t.Errorf("a log of %d bytes, %v", log, err)
	}
	_ = i.Close()
	if after := filesIn(t, dir); !slices.Equal(before, after) {
		t.Errorf("files before %v, after %v", before, after)
	}
	if err := os.Remove(filepath.Join(dir, "rouse.db-shm")); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Inspect(t.Context(), store.InspectOptions{DSN: "sqlite:" + filepath.Join(dir, "rouse.db")}); !errors.Is(err, store.ErrLogWithoutIndex) {
		t.Errorf("a log without its index: %v", err)
	}
	if after := filesIn(t, dir); slices.Contains(after, "rouse.db-shm") {
		t.Errorf("it made files: %v", after)
	}
}

func TestInspectTellsWhatCannotBeOpened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	look := func(name string) error {
		_, err := store.Inspect(t.Context(), store.InspectOptions{DSN: "sqlite:" + filepath.Join(dir, name)})
		return err
	}
	if err := look("absent.db"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if names := filesIn(t, dir); len(names) > 0 {
		t.Errorf("it made %v", names)
	}
	if err := os.WriteFile(filepath.Join(dir, "text.db"), []byte(strings.Repeat("no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := look("text.db"); err == nil || errors.Is(err, store.ErrDamaged) {
		t.Error("a text was taken for a database")
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := look("folder.db"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := store.Inspect(t.Context(), store.InspectOptions{DSN: "postgres://db"}); err == nil {
		t.Error("another engine was taken")
	}
}

func TestInspectFindsASchemaOfAnotherProgram(t *testing.T) {
	t.Parallel()
	path, ring := filepath.Join(t.TempDir(), "rouse.db"), testkit.Ring(t)
	lived(t, path, ring)
	alter(t, path, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
	have, want, err := inspect(t, path, ring).Schema(t.Context())
	if err != nil || have != 9999 || want >= have {
		t.Errorf("%d of %d, %v", have, want, err)
	}
}

// alter changes a database that nobody runs on.
func alter(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestInspectFindsDamageAndObeysItsContext(t *testing.T) {
	t.Parallel()
	path, ring := filepath.Join(t.TempDir(), "rouse.db"), testkit.Ring(t)
	lived(t, path, ring)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := inspect(t, path, ring).Damage(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	for n := int64(3); n < 9; n++ { // the roots of tables
		if _, err := f.WriteAt([]byte("not what a page looks like"), n*page); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	found, err := inspect(t, path, ring).Damage(t.Context())
	if err != nil || len(found) == 0 {
		t.Errorf("damage %v, %v", found, err)
	}
}

func TestInspectProvesTheMasterKeys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rouse.db")
	ring := testkit.Ring(t)
	app := lived(t, path, ring)
	all, shut, err := inspect(t, path, ring).Sealers(t.Context(), ring)
	if err != nil || !slices.Equal(all, []string{"test"}) || len(shut) > 0 {
		t.Errorf("with the right key: %v, %v, %v", all, shut, err)
	}
	wrong := testkit.Ring(t) // the same id, another key
	all, shut, err = inspect(t, path, wrong).Sealers(t.Context(), wrong)
	if err != nil || !slices.Equal(shut, []string{"test"}) || len(all) != 1 {
		t.Errorf("with another key: %v, %v, %v", all, shut, err)
	}
	for _, r := range []*tokens.Ring{wrong, nil} {
		if _, err := inspect(t, path, r).Credential(t.Context(), app.ID, tokens.FCM); !errors.Is(err, tokens.ErrSealed) {
			t.Errorf("a credential opens with the wrong key: %v", err)
		}
	}
	alter(t, path, "DROP TABLE rings")
	if all, shut, err = inspect(t, path, ring).Sealers(t.Context(), ring); err != nil || len(all)+len(shut) > 0 {
		t.Errorf("in an older schema: %v, %v, %v", all, shut, err)
	}
}

const holderArg = "hold="

// TestHolder is no test: TestUserTellsWhoHasItOpen runs it in another process.
func TestHolder(t *testing.T) {
	t.Parallel()
	path, ok := strings.CutPrefix(os.Args[len(os.Args)-1], holderArg)
	if !ok {
		return
	}
	_, stop := node(t, path, testkit.Ring(t))
	defer stop()
	fmt.Println("held")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		t.Log(err)
	}
}

func TestUserTellsWhoHasItOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rouse.db")
	if _, _, err := store.User("sqlite:" + path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a database: %v", err)
	}
	if _, _, err := store.User("sqlite:" + filepath.Dir(path)); err == nil {
		t.Error("a folder has no user")
	}
	other := exec.Command(os.Args[0], "-test.run=^TestHolder$", "-test.count=1", "-test.v", "--", holderArg+path)
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "held") {
	}
	pid, used, err := store.User("sqlite:" + path)
	if err != nil || !used || pid != other.Process.Pid {
		t.Errorf("while process %d has it: %d, %v, %v", other.Process.Pid, pid, used, err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Error(err)
	}
	for lines.Scan() {
	}
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	if pid, used, err = store.User("sqlite:" + path); err != nil || used {
		t.Errorf("nobody has it any more: %d, %v, %v", pid, used, err)
	}
}
