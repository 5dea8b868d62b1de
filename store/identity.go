package store

import (
	"context"
	"fmt"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

const (
	selectIdentityKeys = "SELECT app, kid, algorithm, fingerprint, material, created_at FROM identity_keys WHERE app = ? ORDER BY kid"
	countIdentityKeys  = "SELECT COUNT(*) FROM identity_keys WHERE app = ? AND kid <> ?"
	putIdentityKey     = `INSERT INTO identity_keys (app, kid, algorithm, fingerprint, material, created_at) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (app, kid) DO UPDATE SET algorithm = excluded.algorithm, fingerprint = excluded.fingerprint,
		material = excluded.material, created_at = excluded.created_at`
	deleteIdentityKey = "DELETE FROM identity_keys WHERE app = ? AND kid = ?"
)

type identityRow struct {
	App         ident.App        `db:"app"`
	Kid         string           `db:"kid"`
	Algorithm   tokens.Algorithm `db:"algorithm"`
	Fingerprint string           `db:"fingerprint"`
	Material    []byte           `db:"material"` // sealed
	CreatedAt   int64            `db:"created_at"`
}

// identityPlace binds sealed material to its row.
func identityPlace(app ident.App, kid string) string { return "identity:" + string(app) + ":" + kid }

// PutIdentityKey stores what user tokens are checked with, its material sealed, in place of what the app had under the same kid.
// NotFound "app_not_found"; Invalid "too_many_identity_keys" if it has 20 others.
func (s *Store) PutIdentityKey(ctx context.Context, k tokens.IdentityKey) error {
	sealed := s.ring.Seal(identityPlace(k.App, k.Kid), k.Material)
	return s.write(ctx, "store an identity key", newOp(func(t *tx) error {
		if err := t.lockApp(k.App); err != nil { // they are counted, and the app is not deleted meanwhile
			return err
		}
		if _, err := t.needApp(k.App); err != nil {
			return err
		}
		var others int
		if err := t.get(&others, countIdentityKeys, string(k.App), k.Kid); err != nil {
			return fmt.Errorf("count identity keys: %w", err)
		}
		if others >= tokens.MaxIdentityKeys {
			return fault.New(fault.Invalid, "too_many_identity_keys", "an app has at most %d identity keys; delete one that no token is signed with any more",
				tokens.MaxIdentityKeys)
		}
		_, err := t.exec(putIdentityKey, string(k.App), k.Kid, string(k.Algorithm), k.Fingerprint, sealed, millis(k.CreatedAt))
		return err
	}))
}

// IdentityKeys returns an app's keys by kid, with their material opened; NotFound "app_not_found". The error for one that does not open
// names it, and says what to look for.
func (s *Store) IdentityKeys(ctx context.Context, app ident.App) ([]tokens.IdentityKey, error) {
	if _, err := s.App(ctx, app); err != nil {
		return nil, err
	}
	var rows []identityRow
	if err := s.reads.list(ctx, &rows, selectIdentityKeys, string(app)); err != nil {
		return nil, s.readError("list identity keys", err)
	}
	list := make([]tokens.IdentityKey, 0, len(rows))
	for _, r := range rows {
		material, err := s.ring.Open(identityPlace(r.App, r.Kid), r.Material)
		if err != nil {
			return nil, fmt.Errorf("open the identity key %s of %s: %w", r.Kid, r.App, err)
		}
		list = append(list, tokens.IdentityKey{App: r.App, Kid: r.Kid, Algorithm: r.Algorithm, Fingerprint: r.Fingerprint,
			Material: material, CreatedAt: fromMillis(r.CreatedAt)})
	}
	return list, nil
}

// DeleteIdentityKey forgets a key: no token that names it is taken any more. NotFound "identity_key_not_found".
func (s *Store) DeleteIdentityKey(ctx context.Context, app ident.App, kid string) error {
	return s.write(ctx, "delete an identity key", newOp(func(t *tx) error {
		n, err := t.exec(deleteIdentityKey, string(app), kid)
		if err == nil && n == 0 {
			return fault.New(fault.NotFound, "identity_key_not_found", "the app has no identity key of this kid")
		}
		return err
	}))
}
