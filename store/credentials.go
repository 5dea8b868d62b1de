package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

// A credential fails since its oldest circuit says so.
const credentialColumns = `c.app, c.provider, c.fingerprint, c.public, c.updated_at, c.expires_at,
	COALESCE((SELECT f.reason FROM circuits f WHERE f.app = c.app AND f.provider = c.provider AND f.cause = 'credential'
		ORDER BY f.opened_at, f.environment, f.onward LIMIT 1), '') AS failing,
	(SELECT MIN(f.opened_at) FROM circuits f WHERE f.app = c.app AND f.provider = c.provider AND f.cause = 'credential') AS failing_since`

type credentialRow struct {
	App          ident.App       `db:"app"`
	Provider     tokens.Provider `db:"provider"`
	Fingerprint  string          `db:"fingerprint"`
	Public       []byte          `db:"public"`
	Secret       []byte          `db:"secret"` // sealed
	UpdatedAt    int64           `db:"updated_at"`
	ExpiresAt    *int64          `db:"expires_at"`
	Failing      string          `db:"failing"`
	FailingSince *int64          `db:"failing_since"`
}

func (r credentialRow) credential() tokens.Credential {
	return tokens.Credential{App: r.App, Provider: r.Provider, Fingerprint: r.Fingerprint, Public: r.Public,
		UpdatedAt: fromMillis(r.UpdatedAt), ExpiresAt: fromNull(r.ExpiresAt), Failing: r.Failing, FailingSince: fromNull(r.FailingSince)}
}

func noCredential(p tokens.Provider) *fault.Error {
	return fault.New(fault.NotFound, "no_credential", "this app has no credential for %s", p)
}

// credentialPlace binds a sealed secret to its row.
func credentialPlace(app ident.App, p tokens.Provider) string {
	return "credential:" + string(app) + ":" + string(p)
}

// PutCredential stores what an app gave, in place of what it gave before, as working: with it the provider's circuits are
// closed, refusals of tokens are forgiven, and its expiry is told anew. NotFound "app_not_found".
func (s *Store) PutCredential(ctx context.Context, c tokens.Credential) error {
	sealed := s.ring.Seal(credentialPlace(c.App, c.Provider), c.Secret)
	public := c.Public
	if public == nil {
		public = []byte("{}")
	}
	return s.write(ctx, "store a credential", newOp(func(t *tx) error {
		if err := t.lockApp(c.App); err != nil {
			return err
		}
		if _, err := t.needApp(c.App); err != nil {
			return err
		}
		const query = `INSERT INTO credentials (app, provider, fingerprint, public, secret, updated_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (app, provider) DO UPDATE SET fingerprint = excluded.fingerprint, public = excluded.public,
			secret = excluded.secret, updated_at = excluded.updated_at, expires_at = excluded.expires_at, expiry_told = NULL`
		_, err := t.exec(query, string(c.App), string(c.Provider), c.Fingerprint, public, sealed, millis(c.UpdatedAt), millisOrNull(c.ExpiresAt))
		if err != nil {
			return err
		}
		return t.closeCircuits(c.App, c.Provider, c.UpdatedAt)
	}))
}

// Credential returns an app's credential with its secret opened; NotFound "no_credential".
func (s *Store) Credential(ctx context.Context, app ident.App, p tokens.Provider) (tokens.Credential, error) {
	var r credentialRow
	err := s.reads.get(ctx, &r, "SELECT "+credentialColumns+", c.secret FROM credentials c WHERE c.app = ? AND c.provider = ?", string(app), string(p))
	if errors.Is(err, sql.ErrNoRows) {
		return tokens.Credential{}, noCredential(p)
	}
	if err != nil {
		return tokens.Credential{}, s.readError("read a credential", err)
	}
	c := r.credential()
	if c.Secret, err = s.ring.Open(credentialPlace(app, p), r.Secret); err != nil {
		return tokens.Credential{}, fmt.Errorf("open the %s credential of %s: %w", p, app, err)
	}
	return c, nil
}

// Credentials returns an app's credentials, without their secrets; NotFound "app_not_found".
func (s *Store) Credentials(ctx context.Context, app ident.App) ([]tokens.Credential, error) {
	if _, err := s.App(ctx, app); err != nil {
		return nil, err
	}
	var rows []credentialRow
	const query = "SELECT " + credentialColumns + " FROM credentials c WHERE c.app = ? ORDER BY c.provider"
	if err := s.reads.list(ctx, &rows, query, string(app)); err != nil {
		return nil, s.readError("list credentials", err)
	}
	list := make([]tokens.Credential, 0, len(rows))
	for _, r := range rows {
		list = append(list, r.credential())
	}
	return list, nil
}

// DeleteCredential forgets a credential and closes the provider's circuits; NotFound "no_credential".
func (s *Store) DeleteCredential(ctx context.Context, app ident.App, p tokens.Provider) error {
	now := time.Now()
	return s.write(ctx, "delete a credential", newOp(func(t *tx) error {
		if err := t.lockApp(app); err != nil {
			return err
		}
		n, err := t.exec("DELETE FROM credentials WHERE app = ? AND provider = ?", string(app), string(p))
		if err == nil && n == 0 {
			return noCredential(p)
		}
		if err != nil {
			return err
		}
		return t.closeCircuits(app, p, now)
	}))
}
