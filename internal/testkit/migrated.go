package testkit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"rouse/store"
	"rouse/tokens"
)

// template is the one database of the quick server that the others are copies of.
const template = "rouse_template"

// emptyFile is an empty SQLite database of the newest schema: a test process migrates once.
var emptyFile = sync.OnceValues(func() (content []byte, err error) {
	dir, err := os.MkdirTemp("", "rouse-empty-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "rouse.db")
	if err := migrate("sqlite:" + path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// templateName is that of a migrated database on the quick server, made once; "" on a server that outlives this process.
var templateName = sync.OnceValues(func() (name string, err error) {
	kept, err := quick()
	if err != nil {
		return "", err
	}
	if _, ours := kept.(*Cluster); !ours {
		return "", nil
	}
	dsn, err := onDatabase(kept.DSN(), template)
	if err != nil {
		return "", err
	}
	if err := command(kept.DSN(), "CREATE DATABASE "+template); err != nil {
		return "", err
	}
	return template, migrate(dsn)
})

// migrate brings an empty database to the newest schema.
func migrate(dsn string) error {
	ring, err := tokens.ParseRing(tokens.NewRingKey("test"))
	if err != nil {
		return err
	}
	s, err := store.Open(context.Background(), store.Options{DSN: dsn, Ring: ring})
	if err != nil {
		return err
	}
	return errors.Join(s.Migrate(context.Background()), s.Close())
}

// SQLite returns the DSN of a fresh, migrated database.
func SQLite(t testing.TB) (dsn string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rouse.db")
	PutSQLite(t, path)
	return "sqlite:" + path
}

// PutSQLite makes path a fresh, migrated database, unless there is one.
func PutSQLite(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	content, err := emptyFile()
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		t.Fatalf("make a database: %v", err)
	}
}

// MigratedPostgres is QuickPostgres with the newest schema; on a server that was given it is empty still, so that Store.Migrate
// has to be called on either.
func MigratedPostgres(t testing.TB) (dsn string) {
	t.Helper()
	name, err := templateName()
	need(t, err)
	kept, err := quick()
	need(t, err)
	return database(t, kept.DSN(), name)
}
