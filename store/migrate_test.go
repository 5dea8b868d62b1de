package store

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"rouse/ident"
	"rouse/tokens"
)

// schema moves a database between schemas.
type schema struct {
	t *testing.T
	s *Store
	p *goose.Provider
}

func newSchema(t *testing.T) schema {
	t.Helper()
	ring, err := tokens.ParseRing(tokens.NewRingKey("test"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{DSN: "sqlite:" + filepath.Join(t.TempDir(), "rouse.db"), Ring: ring})
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(s.dialect.goose, s.writes.DB, s.dialect.files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	return schema{t, s, p}
}

func (x schema) to(version int64) {
	x.t.Helper()
	ctx := context.Background()
	have, err := x.p.GetDBVersion(ctx)
	if err == nil && have < version {
		_, err = x.p.UpTo(ctx, version)
	} else if err == nil {
		_, err = x.p.DownTo(ctx, version)
	}
	if err != nil {
		x.t.Fatalf("to schema %d: %v", version, err)
	}
}

func (x schema) do(query string, args ...any) {
	x.t.Helper()
	if _, err := x.s.writes.Exec(query, args...); err != nil {
		x.t.Fatal(err)
	}
}

// rows reads a text from each row.
func (x schema) rows(query string) (list []string) {
	x.t.Helper()
	if err := x.s.writes.Select(&list, query); err != nil {
		x.t.Fatal(err)
	}
	return list
}

// objects is the whole schema, as the engine tells it.
func (x schema) objects() []string {
	return x.rows("SELECT type || ' ' || name || ' ' || COALESCE(sql, '') FROM sqlite_master WHERE name NOT LIKE 'goose%' AND name NOT LIKE 'sqlite_%' ORDER BY name")
}

// columns are those of a table, in any order.
func (x schema) columns(table string) []string {
	return x.rows("SELECT name || ' ' || type || ' ' || \"notnull\" FROM pragma_table_info('" + table + "') ORDER BY name")
}

func TestSchemaSixKeepsWhatIsThereUpAndDown(t *testing.T) {
	t.Parallel()
	x := newSchema(t)
	defer x.s.Close()
	x.to(5)
	devices, credentials := x.columns("devices"), x.columns("credentials")
	x.do("INSERT INTO apps (id, name, inbox_overflow, created_at) VALUES ('app_1', 'shop', 'reject', 1)")
	x.do("INSERT INTO credentials (app, provider, fingerprint, public, secret, updated_at, failing, failing_since) VALUES ('app_1', 'apns', 'f', '{}', x'01', 5, 'word', 6)")
	for _, state := range []string{"active", "suspect", "dead"} {
		x.do(`INSERT INTO devices (id, app, installation, platform, provider, environment, token_state, token_reason, generation, created_at, secret, token_hash, token)
			VALUES (?1, 'app_1', ?1, 'ios', 'apns', 'production', ?1, 'word', 3, 1, x'02', CAST(?1 AS BLOB), x'03')`, state)
		x.do("INSERT INTO inboxes (device, app, contact_at) VALUES (?, 'app_1', 1)", state)
	}

	x.to(6)
	want := []string{"active active word 3", "dead dead word 3", "suspect active  3"}
	if got := x.rows("SELECT id || ' ' || token_state || ' ' || token_reason || ' ' || generation FROM devices ORDER BY id"); !slices.Equal(got, want) {
		t.Errorf("devices after the way up: %q", got)
	}
	if got := x.rows("SELECT app || provider || fingerprint || updated_at FROM credentials WHERE expires_at IS NULL AND expiry_told IS NULL"); !slices.Equal(got, []string{"app_1apnsf5"}) {
		t.Errorf("credentials after the way up: %q", got)
	}
	six := x.objects()
	x.fill()

	x.to(5)
	if got := x.columns("devices"); !slices.Equal(got, devices) {
		t.Errorf("devices on schema 5 again: %q, were %q", got, devices)
	}
	if got := x.columns("credentials"); !slices.Equal(got, credentials) {
		t.Errorf("credentials on schema 5 again: %q, were %q", got, credentials)
	}
	if got := x.rows("SELECT app || provider || fingerprint || updated_at || failing || COALESCE(failing_since, '') FROM credentials"); !slices.Equal(got, []string{"app_1apnsf5"}) {
		t.Errorf("credentials after the way down: %q", got)
	}
	if got := x.rows("SELECT id || ' ' || token_state FROM devices ORDER BY id"); !slices.Equal(got, []string{"active active", "dead dead", "suspect suspect"}) {
		t.Errorf("devices after the way down: %q", got)
	}
	if got := x.rows("SELECT name FROM sqlite_master WHERE name LIKE 'circuits%' OR name LIKE 'events%' OR name LIKE 'credentials_expiry%'"); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}

	x.to(6)
	if got := x.objects(); !slices.Equal(got, six) {
		t.Errorf("schema 6 the second time: %q, was %q", got, six)
	}
	if got := x.rows("SELECT id FROM events UNION ALL SELECT reason FROM circuits"); len(got) != 0 {
		t.Errorf("what was taken down came back: %q", got)
	}
}

// fill puts something into all that schema 6 brought.
func (x schema) fill() {
	x.t.Helper()
	x.do("UPDATE devices SET token_state = 'suspect', strikes = 2, struck_at = 7, other_tried = 1, demotions = 3, demoted_at = 8 WHERE id = 'suspect'")
	x.do("UPDATE credentials SET expires_at = 9, expiry_told = 7")
	x.do("INSERT INTO circuits (app, provider, environment, onward, state, cause, reason, opened_at, retry_at, pauses) VALUES ('app_1', 'apns', '', '', 'open', 'credential', 'word', 1, 2, 3)")
	x.do("INSERT INTO events (id, app, type, created_at, data) VALUES ('evt_1', 'app_1', 'circuit.opened', 1, '{}')")
}

// A device that was never refused is read without a look at its app's credential: every request and every wake reads one.
func TestOnlyARefusedTokenCostsALookAtTheCredential(t *testing.T) {
	t.Parallel()
	s := openFile(t, "")
	stop := start(t, s)
	defer stop()
	app, device := populate(t, s)
	now := time.Now()
	c := tokens.Credential{App: app, Provider: tokens.FCM, Fingerprint: "f", Secret: []byte("s"), UpdatedAt: now}
	if err := s.PutCredential(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	set := func(query string, args ...any) {
		t.Helper()
		err := s.write(t.Context(), "set", newOp(func(x *tx) error { _, err := x.exec(query, args...); return err }))
		if err != nil {
			t.Fatal(err)
		}
	}
	// Whoever looks at this stumbles over it.
	set("UPDATE credentials SET updated_at = 'a stone' WHERE app = ?", string(app))
	reads := map[string]func(ident.Device) error{
		"Device":     func(d ident.Device) error { _, err := s.Device(t.Context(), app, d); return err },
		"DeviceAuth": func(d ident.Device) error { _, _, _, err := s.DeviceAuth(t.Context(), d); return err },
		"Waiting":    func(d ident.Device) error { _, _, err := s.Waiting(t.Context(), d, now); return err },
	}
	for name, read := range reads {
		if err := read(device); err != nil {
			t.Errorf("%s of a device that was never refused: %v", name, err)
		}
	}
	set("UPDATE devices SET demotions = 1, demoted_at = 1 WHERE id = ?", string(device))
	for name, read := range reads {
		if err := read(device); err != nil {
			t.Errorf("%s of a device that reported a demoted push: %v", name, err)
		}
	}
	set("UPDATE devices SET strikes = 1, struck_at = 1 WHERE id = ?", string(device))
	for name, read := range reads {
		if err := read(device); err == nil {
			t.Errorf("%s of a refused one did not look", name)
		}
	}
}
