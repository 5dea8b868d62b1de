package store

import (
	"context"
	"fmt"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

const (
	// tellAtATime bounds the credentials one operation of TellExpiring tells of, so that no batch is held up by it.
	tellAtATime = 128
	day         = 24 * time.Hour
)

// expirySteps are the days before its end that a credential's app is told, each step once.
var expirySteps = [...]int{30, 7, 1, 0}

const (
	// selectExpiring reads what was told of no step and is within the first (1), of the first and is within the second (2), and so on.
	selectExpiring = `SELECT c.app, c.provider, c.expires_at FROM credentials c WHERE c.expires_at <= ?1
		AND c.expires_at <= CASE WHEN c.expiry_told IS NULL THEN ?1 WHEN c.expiry_told = 30 THEN ?2 WHEN c.expiry_told = 7 THEN ?3
		WHEN c.expiry_told = 1 THEN ?4 END ORDER BY c.expires_at LIMIT 0 + ?5`
	// noteExpiry changes nothing if another node has told meanwhile.
	noteExpiry     = "UPDATE credentials SET expiry_told = ?1 WHERE app = ?2 AND provider = ?3 AND (expiry_told IS NULL OR expiry_told > ?1)"
	selectExpiries = "SELECT c.app, c.provider, c.expires_at FROM credentials c WHERE c.expires_at > 0 ORDER BY c.expires_at"
)

type expiryRow struct {
	App       ident.App       `db:"app"`
	Provider  tokens.Provider `db:"provider"`
	ExpiresAt int64           `db:"expires_at"`
}

func (r expiryRow) credential() tokens.Credential {
	return tokens.Credential{App: r.App, Provider: r.Provider, ExpiresAt: fromMillis(r.ExpiresAt)}
}

// TellExpiring writes an event for each credential that has come within 30 days of its end, within 7, within 1, or to it,
// since it was last told or put; of several steps the last. It returns those it told of, soonest first: app, provider and
// ExpiresAt alone. After an error, what was returned was told all the same.
func (s *Store) TellExpiring(ctx context.Context, now time.Time) ([]tokens.Credential, error) {
	now = fromMillis(millis(now))
	var all []tokens.Credential
	for {
		// Most hours have nothing to tell: the writer is not asked to commit that.
		var some []expiryRow
		if err := s.reads.list(ctx, &some, selectExpiring, expiringArgs(now, 1)...); err != nil {
			return all, s.readError("look for expiring credentials", err)
		}
		if len(some) == 0 {
			return all, nil
		}
		var told []tokens.Credential
		err := s.write(ctx, "tell of expiring credentials", newOp(func(t *tx) (err error) {
			told, err = t.tellExpiring(now)
			return err
		}))
		if err != nil {
			return all, err
		}
		all = append(all, told...)
	}
}

func expiringArgs(now time.Time, limit int) (args []any) {
	for _, days := range expirySteps {
		args = append(args, millis(now.Add(time.Duration(days)*day)))
	}
	return append(args, limit)
}

func (t *tx) tellExpiring(now time.Time) ([]tokens.Credential, error) {
	var rows []expiryRow
	if err := t.list(&rows, selectExpiring, expiringArgs(now, tellAtATime)...); err != nil {
		return nil, fmt.Errorf("list expiring credentials: %w", err)
	}
	told := make([]tokens.Credential, 0, len(rows))
	for _, r := range rows {
		left := fromMillis(r.ExpiresAt).Sub(now)
		n, err := t.exec(noteExpiry, expiryStep(left), string(r.App), string(r.Provider))
		if err != nil {
			return nil, fmt.Errorf("note what was told of an expiry: %w", err)
		}
		if n == 0 {
			continue
		}
		data := expiryData{Provider: r.Provider, ExpiresAt: fromMillis(r.ExpiresAt), Days: daysLeft(left)}
		if err := t.event(r.App, messages.CredentialExpiring, data, now); err != nil {
			return nil, err
		}
		told = append(told, r.credential())
	}
	return told, nil
}

// expiryData is what an event tells of a credential that expires.
type expiryData struct {
	Provider  tokens.Provider `json:"provider"`
	ExpiresAt time.Time       `json:"expires_at"`
	Days      int             `json:"days"`
}

// expiryStep returns the last step that a credential with so much life left has come to.
func expiryStep(left time.Duration) (step int) {
	for _, days := range expirySteps {
		if left <= time.Duration(days)*day {
			step = days
		}
	}
	return step
}

// daysLeft counts begun days; 0 is over.
func daysLeft(left time.Duration) int { return int(max(0, (left+day-1)/day)) }

// Expiries returns the credentials that end some day, soonest first: app, provider and ExpiresAt alone.
func (s *Store) Expiries(ctx context.Context) ([]tokens.Credential, error) {
	var rows []expiryRow
	if err := s.reads.list(ctx, &rows, selectExpiries); err != nil {
		return nil, s.readError("list the ends of credentials", err)
	}
	list := make([]tokens.Credential, 0, len(rows))
	for _, r := range rows {
		list = append(list, r.credential())
	}
	return list, nil
}
