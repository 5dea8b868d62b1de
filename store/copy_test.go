package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

// engines is where a database can be made.
var engines = map[string]func(testing.TB) (dsn string){
	"sqlite":   func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "rouse.db") },
	"postgres": testkit.QuickPostgres,
}

// openAt opens a migrated store at dsn and runs it until stop.
func openAt(t testing.TB, dsn string, ring *tokens.Ring, change ...func(*store.Options)) (s *store.Store, stop func()) {
	t.Helper()
	o := store.Options{DSN: dsn, Ring: ring}
	for _, f := range change {
		f(&o)
	}
	s, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(errors.Join(err, s.Close()))
	}
	end := testkit.Run(t, s)
	return s, func() {
		end()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// past is a database that was lived in, and what one must find in it.
type past struct {
	dsn     string
	ring    *tokens.Ring
	app     ident.App
	devices []ident.Device
	secrets map[ident.Device]tokens.Hash
	sent    map[ident.Device][]ident.Message
	keyed   messages.Send // went out under an Idempotency-Key
	receipt messages.Receipt
	webhook ident.Webhook
	now     time.Time
}

// live makes a database of what happens in one: devices of every kind, inboxes that overflowed, expired and were replaced, bodies
// that are shared, wakes, acks, events, keys and cursors.
func live(t testing.TB, dsn string, devices int) *past {
	t.Helper()
	p := &past{dsn: dsn, ring: testkit.Ring(t), secrets: map[ident.Device]tokens.Hash{}, sent: map[ident.Device][]ident.Message{},
		now: time.Now().Truncate(time.Millisecond).UTC()}
	s, stop := openAt(t, dsn, p.ring, func(o *store.Options) { o.InboxMessages = 6 })
	defer stop()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	p.app = testkit.App(t, s).ID
	oldest := tokens.OverflowDropOldest
	_, err := s.PatchApp(ctx, p.app, tokens.AppPatch{InboxOverflow: &oldest})
	must(err)
	must(s.AddKey(ctx, tokens.Key{ID: ident.NewKey(), App: p.app, Kind: tokens.SecretKey, Name: "käy ✓", Hash: tokens.Hash{1}, CreatedAt: p.now}))
	must(s.PutCredential(ctx, tokens.Credential{App: p.app, Provider: tokens.FCM, Fingerprint: "f", Public: []byte("{}"), Secret: []byte(`"s"`), UpdatedAt: p.now}))
	for i := range devices {
		d := testkit.Device(t, s, p.app, func(e *tokens.Enrol) {
			if i%5 == 0 {
				e.Provider, e.Token = tokens.NoProvider, ""
			}
		})
		p.devices = append(p.devices, d.ID)
		must(s.BindUser(ctx, p.app, fmt.Sprint("user ", i/3), d.ID, p.now))
	}
	p.send(t, s)
	must(s.NoteCircuit(ctx, tokens.Circuit{Outlet: tokens.Outlet{App: p.app, Provider: tokens.FCM}, State: tokens.CircuitOpen,
		Cause: tokens.CauseThrottled, Reason: "QUOTA_EXCEEDED", OpenedAt: p.now, RetryAt: p.now.Add(time.Minute), Pauses: 1}, p.now))
	must(s.MoveSweepCursor(ctx, "high/1m0s", 17))
	p.audiences(t, s)
	must(s.Unregister(ctx, p.app, p.devices[3], p.now))
	_, err = s.Expire(ctx, p.now.Add(2*time.Hour), 1000)
	must(err)
	return p
}

// audiences makes topics, subscriptions of devices and of users, what user tokens are checked with, and a webhook that has to post an
// event again.
func (p *past) audiences(t testing.TB, s *store.Store) {
	t.Helper()
	ctx := context.Background()
	each, err := s.Subscribe(ctx, p.app, "news", p.devices, p.now)
	if err = errors.Join(append(each, err)...); err != nil {
		t.Fatal(err)
	}
	p.webhook = ident.NewWebhook()
	list, _, err := s.Events(ctx, p.app, 0, 1)
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	err = errors.Join(s.SubscribeUser(ctx, p.app, "hers", "user 0", p.now),
		s.PutIdentityKey(ctx, identityKey(p.app, "k", p.now)),
		s.AddWebhook(ctx, messages.Webhook{ID: p.webhook, App: p.app, URL: "https://example.com/", Events: messages.EventFilter{"*"}, CreatedAt: p.now}, []byte("whsec")))
	if err == nil {
		_, err = s.Redeliver(ctx, p.app, p.webhook, messages.Redelivery{Event: list[0].ID})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// send fills inboxes, and has some devices fetch and ack.
func (p *past) send(t testing.TB, s *store.Store) {
	t.Helper()
	ctx := context.Background()
	for i, d := range p.devices {
		for n := range 2 + i%7 {
			m := testkit.Send(p.app, d, func(m *messages.Send) {
				m.CreatedAt = p.now
				switch {
				case n == 1:
					m.TTL = time.Hour
				case i%2 == 0:
					m.CollapseKey = "k"
				case i%3 == 0:
					m.Idempotency = messages.Idempotency{Key: fmt.Sprint(i, n), Request: tokens.Hash{byte(i)}}
				}
			})
			r := testkit.Accept(t, s, m)
			p.sent[d] = append(p.sent[d], r.ID)
			if m.Idempotency.Key != "" {
				p.keyed, p.receipt = m, r
			}
			s.RecordWake(messages.Wake{App: p.app, Device: d, At: p.now, Head: messages.Marks{High: r.Pending[0].Seq}, Accepted: true, Provider: "fcm", Verdict: "accepted"})
		}
		if i%3 == 0 {
			m := testkit.Send(p.app, "", func(m *messages.Send) {
				m.To, m.CreatedAt = messages.Target{User: fmt.Sprint("user ", i/3)}, p.now
			})
			testkit.Accept(t, s, m)
		}
		if i%4 == 0 {
			page, err := s.Inbox(ctx, messages.Query{Device: d, Limit: 2, Now: p.now})
			if err == nil && len(page.Items) > 0 {
				_, err = s.AckUpTo(ctx, d, page.Items[0].Seq, p.now)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// portrait is what verbs tell of a database that nobody changes.
type portrait struct {
	Devices    []tokens.Device
	Hashes     []tokens.Hash
	Waiting    []messages.Waiting
	Pages      []messages.Page
	Deliveries map[ident.Message][]messages.Delivery
	Events     []messages.Event
	Circuits   []tokens.Circuit
	Keys       []tokens.Key
	Secret     []byte
	Cursor     messages.Seq
	Pending    int64
	Topics     []tokens.Topic
	User       tokens.User
	Identities []tokens.IdentityKey
	Webhook    messages.WebhookDesk
}

// portray reads with a store whose writer does not run.
func (p *past) portray(t testing.TB, dsn string) (x portrait) {
	t.Helper()
	s, err := store.Open(context.Background(), store.Options{DSN: dsn, Ring: p.ring})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	x.Deliveries = map[ident.Message][]messages.Delivery{}
	for i, d := range p.devices {
		if i == 3 {
			continue // it is gone
		}
		device, current, previous, err := s.DeviceAuth(ctx, d)
		must(err)
		x.Devices, x.Hashes = append(x.Devices, device), append(x.Hashes, current, previous)
		waiting, _, err := s.Waiting(ctx, d, p.now)
		must(err)
		page, err := s.Inbox(ctx, messages.Query{Device: d, Limit: 100, Now: p.now})
		must(err)
		x.Waiting, x.Pages = append(x.Waiting, waiting), append(x.Pages, page)
		for _, m := range p.sent[d] {
			list, _, err := s.Deliveries(ctx, p.app, m, "", 100)
			must(err)
			x.Deliveries[m] = list
		}
	}
	x.Events, _, err = s.Events(ctx, p.app, 0, 1000)
	must(err)
	x.Circuits, err = s.Circuits(ctx, p.app)
	must(err)
	x.Keys, err = s.Keys(ctx, p.app)
	must(err)
	c, err := s.Credential(ctx, p.app, tokens.FCM)
	must(err)
	x.Secret = c.Secret
	x.Cursor, err = s.SweepCursor(ctx, "high/1m0s")
	must(err)
	x.Pending, err = s.Pending(ctx)
	must(err)
	x.Topics, _, err = s.Topics(ctx, p.app, "", 10)
	must(err)
	x.User, err = s.User(ctx, p.app, "user 0")
	must(err)
	x.Identities, err = s.IdentityKeys(ctx, p.app)
	must(err)
	x.Webhook, err = s.Webhook(ctx, p.app, p.webhook)
	must(err)
	if len(x.Topics) != 2 || len(x.User.Topics) != 1 || len(x.Identities) != 1 || x.Webhook.Retrying != 1 {
		t.Errorf("audiences are %v, %v, %d identity keys, %d retries", x.Topics, x.User.Topics, len(x.Identities), x.Webhook.Retrying)
	}
	return x
}

// goesOn runs a node on the copy: it replays what it answered before, and gives no place twice.
func (p *past) goesOn(t testing.TB, dsn string, before portrait) {
	t.Helper()
	s, stop := openAt(t, dsn, p.ring)
	defer stop()
	r, err := s.Accept(context.Background(), p.keyed)
	if err != nil || r.ID != p.receipt.ID || !r.Replayed {
		t.Errorf("a send under a key that is known: %+v, %v; was %s", r, err, p.receipt.ID)
	}
	var highest messages.Seq
	for _, w := range before.Pages {
		highest = max(highest, w.Last)
	}
	if r := testkit.Accept(t, s, testkit.Send(p.app, p.devices[0])); r.Pending[0].Seq <= highest {
		t.Errorf("place %d after %d", r.Pending[0].Seq, highest)
	}
	if err := s.PutCredential(context.Background(), tokens.Credential{App: p.app, Provider: tokens.FCM, Fingerprint: "g", Secret: []byte("1"), UpdatedAt: time.Now()}); err != nil {
		t.Error(err) // it closes the circuit, which is an event
	}
	last := before.Events[len(before.Events)-1].Seq
	if list, _, err := s.Events(context.Background(), p.app, last, 10); err != nil || len(list) != 1 {
		t.Errorf("after event %d came %v, %v", last, list, err)
	}
	s.RecordWake(messages.Wake{App: p.app, Device: p.devices[0], At: time.Now(), Head: messages.Marks{High: highest}, Accepted: true})
}

func TestACopyIsTheSameOnEveryPairOfEngines(t *testing.T) {
	t.Parallel()
	for from, source := range engines {
		for to, target := range engines {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				p := live(t, source(t), 24)
				o := store.CopyOptions{From: p.dsn, To: target(t), Ring: p.ring, PageRows: 7}
				report := copyInPieces(t, o)
				if !report.Resumed || report.Altered != 0 || len(report.Tables) == 0 {
					t.Errorf("report %+v", report)
				}
				before := p.portray(t, o.From)
				if diff := cmp.Diff(before, p.portray(t, o.To)); diff != "" {
					t.Errorf("the copy is another: %s", diff)
				}
				again, err := store.Copy(t.Context(), o)
				if err != nil || !again.Finished {
					t.Errorf("once more: %+v, %v", again, err)
				}
				p.goesOn(t, o.To, before)
			})
		}
	}
}

// copyInPieces copies and is cut off again and again, wherever it happens to be.
func copyInPieces(t *testing.T, o store.CopyOptions) (report store.CopyReport) {
	t.Helper()
	cuts := 0
	for pages := 1; ; pages += 7 {
		ctx, cut := context.WithCancel(t.Context())
		left := pages
		o.Progress = func(store.CopyProgress) {
			if left--; left == 0 {
				cut()
			}
		}
		report, err := store.Copy(ctx, o)
		cut()
		if err == nil {
			if cuts < 3 {
				t.Errorf("it was cut off only %d times", cuts)
			}
			return report
		}
		if cuts++; cuts > 100 || ctx.Err() == nil {
			t.Fatalf("after %d pages and %d cuts: %v", pages, cuts, err)
		}
		if s, err := store.Open(t.Context(), store.Options{DSN: o.To, Ring: o.Ring}); err != nil {
			t.Fatal(err)
		} else if err := errors.Join(s.Run(t.Context()), s.Close()); err == nil || !strings.Contains(err.Error(), "rouse copy") {
			t.Fatalf("a node on half a copy: %v", err)
		}
	}
}

// alterAt changes a database that nobody runs on.
func alterAt(t testing.TB, dsn string, statements ...string) {
	t.Helper()
	driver, name := "pgx", dsn
	if path, ok := strings.CutPrefix(dsn, "sqlite:"); ok {
		driver, name = "sqlite", path
	}
	db, err := sqlx.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// What the end of a copy finds must be found: each of these is one row that is not what it was.
func TestACopyThatIsNotTheSameIsFound(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct {
		end, statement string
	}{
		"a row is gone from the target": {"to", "DELETE FROM devices WHERE id = (SELECT MIN(id) FROM devices)"},
		"a mark moved in the target":    {"to", "UPDATE inboxes SET seen = seen + 1 WHERE device = (SELECT MIN(device) FROM inboxes)"},
		"a body changed in the target":  {"to", "UPDATE deliveries SET body = NULL WHERE seq = (SELECT MIN(seq) FROM deliveries WHERE body IS NOT NULL)"},
		"somebody acked in the source":  {"from", "UPDATE deliveries SET ended_at = 1, ended = 'acked' WHERE seq = (SELECT MIN(seq) FROM deliveries WHERE ended_at IS NULL)"},
	} {
		for to, target := range engines {
			t.Run(name+", "+to, func(t *testing.T) {
				t.Parallel()
				p := live(t, engines["sqlite"](t), 12)
				o := store.CopyOptions{From: p.dsn, To: target(t), Ring: p.ring}
				ctx, cut := context.WithCancel(t.Context())
				o.Progress = func(p store.CopyProgress) {
					if p.Verifying {
						cut()
					}
				}
				if _, err := store.Copy(ctx, o); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				alterAt(t, map[string]string{"from": o.From, "to": o.To}[change.end], change.statement)
				o.Progress = nil
				if _, err := store.Copy(t.Context(), o); err == nil || !strings.Contains(err.Error(), "not the same") {
					t.Errorf("it was not found: %v", err)
				}
			})
		}
	}
}

func TestACopyRefusesWhatItMustNotTouch(t *testing.T) {
	t.Parallel()
	p := live(t, engines["sqlite"](t), 4)
	refused := func(what, words string, change func(*store.CopyOptions)) {
		t.Helper()
		o := store.CopyOptions{From: p.dsn, To: engines["sqlite"](t), Ring: p.ring}
		change(&o)
		if _, err := store.Copy(t.Context(), o); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", what, err)
		}
	}
	other := live(t, testkit.QuickPostgres(t), 4)
	refused("other master keys", `master key "test"`, func(o *store.CopyOptions) { o.Ring = testkit.Ring(t) })
	refused("no source", "no database", func(o *store.CopyOptions) { o.From += "x" })
	refused("itself", "same file", func(o *store.CopyOptions) { o.To = o.From })
	refused("a target that was lived in", "holds data", func(o *store.CopyOptions) { o.To = other.dsn })
	refused("itself on PostgreSQL", "holds data", func(o *store.CopyOptions) { o.From, o.To, o.Ring = other.dsn, other.dsn, other.ring })
	refused("a password", "postgres", func(o *store.CopyOptions) { o.To = "postgres://u:hunter2@127.0.0.1:1/x?sslmode=maybe" })

	older := live(t, engines["sqlite"](t), 4)
	alterAt(t, older.dsn, "DELETE FROM goose_db_version WHERE version_id = (SELECT MAX(version_id) FROM goose_db_version)")
	refused("an older source", "rouse migrate up", func(o *store.CopyOptions) { o.From, o.Ring = older.dsn, older.ring })
	alterAt(t, older.dsn, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
	refused("a newer source", "9999", func(o *store.CopyOptions) { o.From, o.Ring = older.dsn, older.ring })
	refused("a newer target", "newer program", func(o *store.CopyOptions) { o.To = older.dsn })

	alterAt(t, other.dsn, "INSERT INTO nodes (id, joined_at, beat_at) SELECT 'node_1', 0, floor(extract(epoch FROM clock_timestamp()) * 1000)")
	refused("a source with a node on it", "stop them", func(o *store.CopyOptions) { o.From, o.Ring = other.dsn, other.ring })
	running, stop := openAt(t, p.dsn, p.ring)
	defer stop()
	testkit.App(t, running) // it runs
	refused("a file with a node on it", "stop it", func(*store.CopyOptions) {})
}

// A half copy of one database is not completed with another.
func TestACopyGoesOnOnlyFromItsOwnSource(t *testing.T) {
	t.Parallel()
	for engine, place := range engines {
		t.Run(engine, func(t *testing.T) { t.Parallel(); goesOnOnlyFromItsOwnSource(t, place) })
	}
}

func goesOnOnlyFromItsOwnSource(t *testing.T, place func(testing.TB) string) {
	a, b := live(t, engines["sqlite"](t), 4), live(t, engines["sqlite"](t), 4)
	o := store.CopyOptions{From: a.dsn, To: place(t), Ring: a.ring}
	ctx, cut := context.WithCancel(t.Context())
	o.Progress = func(store.CopyProgress) { cut() }
	if _, err := store.Copy(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := store.Copy(t.Context(), store.CopyOptions{From: o.To, To: engines["sqlite"](t), Ring: a.ring}); !errors.Is(err, store.ErrHalfCopied) {
		t.Errorf("a copy of the half copy: %v", err)
	}
	if _, err := store.Backup(t.Context(), store.BackupOptions{DSN: o.To, To: filepath.Join(t.TempDir(), "backup.db")}); !errors.Is(err, store.ErrHalfCopied) {
		t.Errorf("a backup of the half copy: %v", err)
	}
	if _, err := store.Copy(t.Context(), store.CopyOptions{From: b.dsn, To: o.To, Ring: b.ring}); err == nil || !strings.Contains(err.Error(), "another database") {
		t.Errorf("from another: %v", err)
	}
	s, stop := openAt(t, a.dsn, a.ring)
	testkit.Accept(t, s, testkit.Send(a.app, a.devices[0]))
	stop()
	o.Progress = nil
	if _, err := store.Copy(t.Context(), o); err == nil || !strings.Contains(err.Error(), "ran on it again") {
		t.Errorf("after a node ran on the source again: %v", err)
	}
}

// Texts that PostgreSQL does not take become what its store would have made of them.
func TestACopyAltersTextsThatPostgresDoesNotTake(t *testing.T) {
	t.Parallel()
	p := live(t, engines["sqlite"](t), 4)
	alterAt(t, p.dsn, "UPDATE apps SET name = 'a' || char(0) || 'b'", "UPDATE devices SET locale = CAST(x'61ff' AS TEXT)",
		"INSERT INTO idempotency (app, key, request, receipt, created_at) VALUES ('a', CAST(x'ff01' AS TEXT), x'', '{}', 1), ('a', CAST(x'ff02' AS TEXT), x'', '{}', 1)")
	o := store.CopyOptions{From: p.dsn, To: testkit.QuickPostgres(t), Ring: p.ring, PageRows: 1}
	report := copyInPieces(t, o)
	if report.Altered == 0 {
		t.Error("nobody was told")
	}
	s, err := store.Open(t.Context(), store.Options{DSN: o.To, Ring: p.ring})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if app, err := s.App(t.Context(), p.app); err != nil || app.Name != "a\uFFFDb" {
		t.Errorf("%q, %v", app.Name, err)
	}
	if d, err := s.Device(t.Context(), p.app, p.devices[0]); err != nil || d.Locale != "a\uFFFD" {
		t.Errorf("%q, %v", d.Locale, err)
	}
	sum := func(to string) (list []store.CopiedTable) {
		report, err := store.Copy(t.Context(), store.CopyOptions{From: o.To, To: to, Ring: p.ring})
		if err != nil {
			t.Fatal(err)
		}
		return report.Tables
	}
	if diff := cmp.Diff(sum(engines["sqlite"](t)), sum(testkit.QuickPostgres(t))); diff != "" {
		t.Errorf("engines sum up differently: %s", diff)
	}
}

// Whoever adds a table decides whether it is copied.
func TestEveryTableIsCopiedOrSaidNotToBe(t *testing.T) {
	t.Parallel()
	for engine, place := range engines {
		dsn := place(t)
		_, stop := openAt(t, dsn, testkit.Ring(t))
		stop()
		driver, name, query := "pgx", dsn, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
		if engine == "sqlite" {
			driver, name, query = "sqlite", strings.TrimPrefix(dsn, "sqlite:"), "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
		}
		db, err := sqlx.Open(driver, name)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var have []string
		if err := db.Select(&have, query); err != nil {
			t.Fatal(err)
		}
		copied, rest := store.TablesForTest()
		if diff := cmp.Diff(slices.Sorted(slices.Values(append(copied, rest...))), slices.Sorted(slices.Values(have))); diff != "" {
			t.Errorf("%s: %s", engine, diff)
		}
	}
}
