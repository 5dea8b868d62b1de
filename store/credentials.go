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

const credentialColumns = "app, provider, fingerprint, public, updated_at, failing, failing_since"

type credentialRow struct {
	App          ident.App       `db:"app"`
	Provider     tokens.Provider `db:"provider"`
	Fingerprint  string          `db:"fingerprint"`
	Public       []byte          `db:"public"`
	Secret       []byte          `db:"secret"` // sealed
	UpdatedAt    int64           `db:"updated_at"`
	Failing      string          `db:"failing"`
	FailingSince *int64          `db:"failing_since"`
}

func (r credentialRow) credential() tokens.Credential {
	return tokens.Credential{App: r.App, Provider: r.Provider, Fingerprint: r.Fingerprint, Public: r.Public,
		UpdatedAt: fromMillis(r.UpdatedAt), Failing: r.Failing, FailingSince: fromNull(r.FailingSince)}
}

func noCredential(p tokens.Provider) *fault.Error {
	return fault.New(fault.NotFound, "no_credential", "this app has no credential for %s", p)
}

// credentialPlace binds a sealed secret to its row.
func credentialPlace(app ident.App, p tokens.Provider) string {
	return "credential:" + string(app) + ":" + string(p)
}

// PutCredential stores what an app gave, in place of what it gave before, as working; NotFound "app_not_found".
func (s *Store) PutCredential(ctx context.Context, c tokens.Credential) error {
	sealed := s.ring.Seal(credentialPlace(c.App, c.Provider), c.Secret)
	public := c.Public
	if public == nil {
		public = []byte("{}")
	}
	return s.write(ctx, "store a credential", newOp(func(t *tx) error {
		if _, err := t.needApp(c.App); err != nil {
			return err
		}
		const query = `INSERT INTO credentials (app, provider, fingerprint, public, secret, updated_at) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (app, provider) DO UPDATE SET fingerprint = excluded.fingerprint, public = excluded.public,
			secret = excluded.secret, updated_at = excluded.updated_at, failing = '', failing_since = NULL`
		_, err := t.exec(query, string(c.App), string(c.Provider), c.Fingerprint, public, sealed, millis(c.UpdatedAt))
		return err
	}))
}

// Credential returns an app's credential with its secret opened; NotFound "no_credential".
func (s *Store) Credential(ctx context.Context, app ident.App, p tokens.Provider) (tokens.Credential, error) {
	var r credentialRow
	err := s.reads.get(ctx, &r, "SELECT "+credentialColumns+", secret FROM credentials WHERE app = ? AND provider = ?", string(app), string(p))
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
	const query = "SELECT " + credentialColumns + " FROM credentials WHERE app = ? ORDER BY provider"
	if err := s.reads.list(ctx, &rows, query, string(app)); err != nil {
		return nil, s.readError("list credentials", err)
	}
	list := make([]tokens.Credential, 0, len(rows))
	for _, r := range rows {
		list = append(list, r.credential())
	}
	return list, nil
}

// DeleteCredential forgets a credential; NotFound "no_credential".
func (s *Store) DeleteCredential(ctx context.Context, app ident.App, p tokens.Provider) error {
	return s.write(ctx, "delete a credential", newOp(func(t *tx) error {
		n, err := t.exec("DELETE FROM credentials WHERE app = ? AND provider = ?", string(app), string(p))
		if err == nil && n == 0 {
			return noCredential(p)
		}
		return err
	}))
}

// SetFailing notes why an app's credential does not work, and since when; an empty reason says that it
// works. A credential that is gone meanwhile is no error.
func (s *Store) SetFailing(ctx context.Context, app ident.App, p tokens.Provider, reason string, since time.Time) error {
	var from any
	if reason != "" {
		from = millis(since)
	}
	return s.write(ctx, "note a failing credential", newOp(func(t *tx) error {
		const query = "UPDATE credentials SET failing = ?, failing_since = ? WHERE app = ? AND provider = ?"
		_, err := t.exec(query, reason, from, string(app), string(p))
		return err
	}))
}
