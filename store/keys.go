package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

const keyColumns = "id, app, kind, name, scopes, hash, expires_at, created_at, rate_milli, rate_burst"

type keyRow struct {
	ID        ident.Key      `db:"id"`
	App       ident.App      `db:"app"`
	Kind      tokens.KeyKind `db:"kind"`
	Name      string         `db:"name"`
	Scopes    string         `db:"scopes"`
	Hash      []byte         `db:"hash"`
	ExpiresAt *int64         `db:"expires_at"`
	CreatedAt int64          `db:"created_at"`
	RateMilli int64          `db:"rate_milli"`
	RateBurst int            `db:"rate_burst"`
	UsedAt    *int64         `db:"last_used_at"`
}

const (
	selectKey   = "SELECT " + keyColumns + ", last_used_at FROM keys WHERE id = ?"
	selectKeys  = "SELECT " + keyColumns + ", last_used_at FROM keys WHERE app = ? ORDER BY id"
	noteKeyUsed = "UPDATE keys SET last_used_at = ?1 WHERE id = ?2 AND (last_used_at IS NULL OR last_used_at < ?1)"
)

func (r keyRow) key() (tokens.Key, error) {
	hash, err := hashOf(r.Hash)
	if err != nil {
		return tokens.Key{}, err
	}
	k := tokens.Key{ID: r.ID, App: r.App, Kind: r.Kind, Name: r.Name, Hash: hash,
		ExpiresAt: fromNull(r.ExpiresAt), CreatedAt: fromMillis(r.CreatedAt), LastUsedAt: fromNull(r.UsedAt), Rate: rateOf(r.RateMilli, r.RateBurst)}
	for _, scope := range strings.Fields(r.Scopes) {
		k.Scopes = append(k.Scopes, tokens.Scope(scope))
	}
	return k, nil
}

func hashOf(b []byte) (tokens.Hash, error) {
	if len(b) != len(tokens.Hash{}) {
		return tokens.Hash{}, fmt.Errorf("a stored hash has %d bytes", len(b))
	}
	return tokens.Hash(b), nil
}

func (t *tx) insertKey(k tokens.Key) error {
	scopes := make([]string, 0, len(k.Scopes))
	for _, scope := range k.Scopes {
		scopes = append(scopes, string(scope))
	}
	const query = "INSERT INTO keys (" + keyColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	_, err := t.exec(query, string(k.ID), string(k.App), string(k.Kind), k.Name, strings.Join(scopes, " "), k.Hash[:],
		millisOrNull(k.ExpiresAt), millis(k.CreatedAt), milliOf(k.Rate), k.Rate.Burst)
	if err != nil {
		return fmt.Errorf("insert a key: %w", err)
	}
	return nil
}

// AddKey stores a key of an app; NotFound "app_not_found".
func (s *Store) AddKey(ctx context.Context, k tokens.Key) error {
	return s.write(ctx, "add a key", newOp(func(t *tx) error {
		if _, err := t.needApp(k.App); err != nil {
			return err
		}
		return t.insertKey(k)
	}))
}

// Keys returns all keys of an app, oldest first; NotFound "app_not_found".
func (s *Store) Keys(ctx context.Context, app ident.App) ([]tokens.Key, error) {
	if _, err := s.App(ctx, app); err != nil {
		return nil, err
	}
	var rows []keyRow
	if err := s.reads.list(ctx, &rows, selectKeys, string(app)); err != nil {
		return nil, s.readError("list keys", err)
	}
	list := make([]tokens.Key, 0, len(rows))
	for _, r := range rows {
		k, err := r.key()
		if err != nil {
			return nil, fmt.Errorf("read a key: %w", err)
		}
		list = append(list, k)
	}
	return list, nil
}

// RotateKey stores next, which gets the kind, name, scopes and rate of old, and returns it as it is stored; next says its app. old ends at until,
// if not before. NotFound "key_not_found", for a key that has ended by the time next was made as well: a key that nobody holds any more
// has no successor.
func (s *Store) RotateKey(ctx context.Context, old ident.Key, next tokens.Key, until time.Time) (tokens.Key, error) {
	err := s.write(ctx, "rotate a key", newOp(func(t *tx) error {
		if _, err := t.needApp(next.App); err != nil {
			return err
		}
		before, err := t.keyOf(next.App, old)
		if err != nil {
			return err
		}
		if !before.Live(next.CreatedAt) {
			return fault.New(fault.NotFound, "key_not_found", "this key has expired; create a new one instead")
		}
		next.Kind, next.Name, next.Scopes, next.Rate = before.Kind, before.Name, before.Scopes, before.Rate
		if before.ExpiresAt.IsZero() || until.Before(before.ExpiresAt) {
			before.ExpiresAt = until
		}
		if _, err := t.exec("UPDATE keys SET expires_at = ? WHERE id = ?", millis(before.ExpiresAt), string(old)); err != nil {
			return fmt.Errorf("end a key: %w", err)
		}
		return t.insertKey(next)
	}))
	if err != nil {
		return tokens.Key{}, err
	}
	return next, nil
}

func (t *tx) keyOf(app ident.App, id ident.Key) (tokens.Key, error) {
	var r keyRow
	err := t.get(&r, selectKey, string(id))
	if errors.Is(err, sql.ErrNoRows) || err == nil && r.App != app {
		return tokens.Key{}, keyNotFound()
	}
	if err != nil {
		return tokens.Key{}, fmt.Errorf("read a key: %w", err)
	}
	return r.key()
}

// DeleteKey forgets a key; NotFound "key_not_found".
func (s *Store) DeleteKey(ctx context.Context, app ident.App, key ident.Key) error {
	return s.write(ctx, "delete a key", newOp(func(t *tx) error {
		n, err := t.exec("DELETE FROM keys WHERE id = ? AND app = ?", string(key), string(app))
		if err == nil && n == 0 {
			return keyNotFound()
		}
		return err
	}))
}

// LookupKey returns a key for its holder to be checked against; expired ones
// too. Unauthenticated "unknown_key".
func (s *Store) LookupKey(ctx context.Context, key ident.Key) (tokens.Key, error) {
	var r keyRow
	err := s.reads.get(ctx, &r, selectKey, string(key))
	if errors.Is(err, sql.ErrNoRows) {
		return tokens.Key{}, unknownKey()
	}
	if err != nil {
		return tokens.Key{}, s.readError("look a key up", err)
	}
	return r.key()
}
