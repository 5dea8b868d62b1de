// Package testkit gives each test a database of its own and what belongs in one. Only tests import it.
package testkit

import (
	"context"
	"crypto/sha256"
	"path/filepath"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

// Ring returns a fresh key ring.
func Ring(t testing.TB) *tokens.Ring {
	t.Helper()
	ring, err := tokens.ParseRing(tokens.NewRingKey("test"))
	if err != nil {
		t.Fatalf("make a key ring: %v", err)
	}
	return ring
}

// Store returns a migrated store on a fresh SQLite file, its writer running until the test ends. change may set
// options.
func Store(t testing.TB, change ...func(*store.Options)) *store.Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rouse.db")
	own := "sqlite:" + path
	o := store.Options{DSN: own, Ring: Ring(t)}
	for _, f := range change {
		f(&o)
	}
	if o.DSN == own {
		PutSQLite(t, path)
	}
	s, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatalf("migrate the store: %v", err)
	}
	stop := Run(t, s)
	t.Cleanup(func() {
		stop()
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s
}

// Run runs the store's writer and returns what ends it: that waits until everything is written.
func Run(t testing.TB, s *store.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run the store: %v", err)
		}
	}
}

// App stores a new app.
func App(t testing.TB, s *store.Store) tokens.App {
	t.Helper()
	app := tokens.App{ID: ident.NewApp(), Name: "test", InboxOverflow: tokens.OverflowReject, CreatedAt: time.Now()}
	if err := s.CreateApp(context.Background(), app, nil); err != nil {
		t.Fatalf("create an app: %v", err)
	}
	return app
}

// Device registers a new device of the app, with an FCM token of its own; change may set anything.
func Device(t testing.TB, s *store.Store, app ident.App, change ...func(*tokens.Enrol)) tokens.Device {
	t.Helper()
	id := ident.NewDevice()
	e := tokens.Enrol{
		Registration: tokens.Registration{App: app, Installation: "installation of " + string(id), Platform: tokens.Android,
			Provider: tokens.FCM, Token: tokens.Token("token-of-" + string(id))},
		As: tokens.PublishableKey, ID: id, Secret: sha256.Sum256([]byte(id)), Now: time.Now(),
	}
	for _, f := range change {
		f(&e)
	}
	d, _, err := s.Register(context.Background(), e)
	if err != nil {
		t.Fatalf("register a device: %v", err)
	}
	return d
}

// Send returns a send to the device that the store would accept; change may set anything.
func Send(app ident.App, to ident.Device, change ...func(*messages.Send)) messages.Send {
	m := messages.Send{ID: ident.NewMessage(), App: app, To: messages.Target{Device: to}, Data: []byte(`{"hello":"world"}`),
		TTL: messages.DefaultTTL, Urgency: messages.High, CreatedAt: time.Now()}
	for _, f := range change {
		f(&m)
	}
	return m
}

// Accept stores a message and returns its receipt.
func Accept(t testing.TB, s *store.Store, m messages.Send) messages.Receipt {
	t.Helper()
	r, err := s.Accept(context.Background(), m)
	if err != nil {
		t.Fatalf("accept a message: %v", err)
	}
	return r
}
