package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

// deviceColumns are those of devices d and inboxes i.
const deviceColumns = `d.id, d.app, d.installation, d.platform, d.provider, d.environment, d.token_state, d.token_reason,
	d.generation, d.registered_at, d.user_id, d.app_version, d.locale, d.created_at, d.unregistered_at, d.token, i.contact_at,
	d.strikes, d.struck_at, d.other_tried, d.demotions, d.demoted_at,
	CASE WHEN d.strikes > 0 THEN (SELECT c.updated_at FROM credentials c WHERE c.app = d.app AND c.provider = d.provider) END AS credential_at`

const (
	fromDevices  = " FROM devices d JOIN inboxes i ON i.device = d.id "
	selectDevice = "SELECT " + deviceColumns + fromDevices + "WHERE d.id = ?"
	selectAuth   = "SELECT " + deviceColumns + ", d.secret, d.secret_previous" + fromDevices + "WHERE d.id = ?"
)

type deviceRow struct {
	ID             ident.Device
	App            ident.App
	Installation   string
	Platform       tokens.Platform
	Provider       tokens.Provider
	Environment    tokens.Environment
	TokenState     tokens.TokenState
	TokenReason    string
	Generation     int64
	RegisteredAt   *int64
	User           string
	AppVersion     string
	Locale         string
	CreatedAt      int64
	UnregisteredAt *int64
	Token          []byte // sealed
	ContactAt      int64
	Strikes        int
	StruckAt       *int64
	OtherTried     bool
	Demotions      int
	DemotedAt      *int64
	CredentialAt   *int64 // of the app's present credential, read only if there are strikes
}

// fields are where deviceColumns go. Every request of a device reads this row: it is scanned without reflection on names.
func (r *deviceRow) fields() []any {
	return []any{&r.ID, &r.App, &r.Installation, &r.Platform, &r.Provider, &r.Environment, &r.TokenState, &r.TokenReason,
		&r.Generation, &r.RegisteredAt, &r.User, &r.AppVersion, &r.Locale, &r.CreatedAt, &r.UnregisteredAt, &r.Token, &r.ContactAt,
		&r.Strikes, &r.StruckAt, &r.OtherTried, &r.Demotions, &r.DemotedAt, &r.CredentialAt}
}

// device opens the row's token.
func (s *Store) device(r deviceRow) (tokens.Device, error) {
	d := tokens.Device{ID: r.ID, App: r.App, Installation: r.Installation, Platform: r.Platform, Provider: r.Provider,
		Environment: r.Environment, TokenState: r.TokenState, TokenReason: r.TokenReason, Generation: r.Generation,
		RegisteredAt: fromNull(r.RegisteredAt), User: r.User, AppVersion: r.AppVersion, Locale: r.Locale,
		CreatedAt: fromMillis(r.CreatedAt), LastContact: fromMillis(r.ContactAt), UnregisteredAt: fromNull(r.UnregisteredAt),
		Strikes: r.Strikes, StruckAt: fromNull(r.StruckAt), OtherTried: r.OtherTried, Demotions: r.Demotions, DemotedAt: fromNull(r.DemotedAt)}
	if r.StruckAt != nil && r.CredentialAt != nil && *r.StruckAt < *r.CredentialAt && d.TokenState == tokens.TokenSuspect {
		// The refusals were of another credential's pushes.
		d.TokenState, d.TokenReason, d.Strikes, d.StruckAt, d.OtherTried = tokens.TokenActive, "", 0, time.Time{}, false
	}
	if r.Token == nil {
		return d, nil
	}
	plain, err := s.ring.Open(tokenPlace(r.ID), r.Token)
	if err != nil {
		return tokens.Device{}, fmt.Errorf("open the token of %s: %w", r.ID, err)
	}
	d.Token = tokens.Token(plain)
	return d, nil
}

// tokenPlace binds a sealed token to its row.
func tokenPlace(id ident.Device) string { return "token:" + string(id) }

// hashToken is what makes two registrations of one token meet, without opening either.
func hashToken(app ident.App, p tokens.Provider, e tokens.Environment, t tokens.Token) []byte {
	h := sha256.New()
	for _, part := range []string{string(app), string(p), string(e), string(t)} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return h.Sum(nil)
}

// Device returns a registered device of the app; NotFound "device_not_found",
// for an unregistered one too.
func (s *Store) Device(ctx context.Context, app ident.App, id ident.Device) (tokens.Device, error) {
	var r deviceRow
	err := s.reads.scan(ctx, r.fields(), selectDevice, string(id))
	if errors.Is(err, sql.ErrNoRows) || err == nil && (r.App != app || r.UnregisteredAt != nil) {
		return tokens.Device{}, deviceNotFound()
	}
	if err != nil {
		return tokens.Device{}, s.readError("read a device", err)
	}
	return s.device(r)
}

// DeviceAuth returns a device, without its token, and the hashes of its key: the current one, and, if it was rotated and
// the new one was never used, the previous one, else zero. Unauthenticated "unknown_key"; Gone
// "device_unregistered", with the hashes, so that only the key's holder need be told.
func (s *Store) DeviceAuth(ctx context.Context, id ident.Device) (d tokens.Device, current, previous tokens.Hash, err error) {
	var r deviceRow
	var secret, secretPrevious []byte
	err = s.reads.scan(ctx, append(r.fields(), &secret, &secretPrevious), selectAuth, string(id))
	if errors.Is(err, sql.ErrNoRows) {
		return d, current, previous, unknownKey()
	}
	if err != nil {
		return d, current, previous, s.readError("look a device up", err)
	}
	if current, err = hashOf(secret); err != nil {
		return d, current, previous, fmt.Errorf("look a device up: %w", err)
	}
	if secretPrevious != nil {
		if previous, err = hashOf(secretPrevious); err != nil {
			return d, current, previous, fmt.Errorf("look a device up: %w", err)
		}
	}
	if r.UnregisteredAt != nil {
		return d, current, previous, deviceGone()
	}
	r.Token = nil // no request needs it, and one that does not open must not keep a phone from its messages
	d, err = s.device(r)
	return d, current, previous, err
}

// needDevice reads a device in a transaction. Unregistered ones are Gone "device_unregistered", unknown ones
// NotFound "device_not_found".
func (t *tx) needDevice(id ident.Device) (tokens.Device, error) {
	d, err := t.anyDevice(id)
	if err == nil && !d.UnregisteredAt.IsZero() {
		return tokens.Device{}, deviceGone()
	}
	return d, err
}

func (t *tx) anyDevice(id ident.Device) (tokens.Device, error) {
	var r deviceRow
	err := t.scan(r.fields(), selectDevice, string(id))
	if errors.Is(err, sql.ErrNoRows) {
		return tokens.Device{}, deviceNotFound()
	}
	if err != nil {
		return tokens.Device{}, fmt.Errorf("read a device: %w", err)
	}
	return t.w.store.device(r)
}

// PatchDevice changes a device and returns what it is now. A token, even the same one, is a fresh
// registration: a new generation, active. An empty token takes it away. NotFound "device_not_found", Gone "device_unregistered", Invalid as tokens.CheckPatch.
func (s *Store) PatchDevice(ctx context.Context, id ident.Device, p tokens.Patch, now time.Time) (tokens.Device, error) {
	var d tokens.Device
	err := s.write(ctx, "change a device", newOp(func(t *tx) (err error) {
		if d, err = t.needDevice(id); err != nil {
			return err
		}
		// Checked here, against the provider the device has now: whoever asked may have read an older one.
		p, err := tokens.CheckPatch(d.Provider, p)
		if err != nil {
			return err
		}
		set(&d.Environment, p.Environment)
		set(&d.Token, p.Token)
		set(&d.AppVersion, p.AppVersion)
		set(&d.Locale, p.Locale)
		if p.Token != nil {
			if err := t.holdToken(&d, now); err != nil {
				return err
			}
		}
		return t.updateDevice(d)
	}))
	if err != nil {
		return tokens.Device{}, err
	}
	return d, nil
}

func set[T any](field *T, to *T) {
	if to != nil {
		*field = *to
	}
}

// holdToken makes d the holder of d.Token, as registered now; whoever held it is superseded. The caller stores d.
func (t *tx) holdToken(d *tokens.Device, now time.Time) error {
	d.Generation++
	d.RegisteredAt = fromMillis(millis(now))
	d.TokenReason = ""
	d.Strikes, d.StruckAt, d.OtherTried = 0, time.Time{}, false
	if d.Token == "" {
		d.TokenState = tokens.TokenNone
		return nil
	}
	d.TokenState = tokens.TokenActive
	const query = `UPDATE devices SET token_state = ?, token_reason = '', token = NULL, token_hash = NULL
		WHERE token_hash = ? AND id <> ?`
	_, err := t.exec(query, string(tokens.TokenSuperseded), hashToken(d.App, d.Provider, d.Environment, d.Token), string(d.ID))
	if err != nil {
		return fmt.Errorf("take a token over: %w", err)
	}
	return nil
}

// sealed returns the two columns of a token.
func (t *tx) sealed(d tokens.Device) (token, hash []byte) {
	if d.Token == "" {
		return nil, nil
	}
	return t.w.store.ring.Seal(tokenPlace(d.ID), []byte(d.Token)), hashToken(d.App, d.Provider, d.Environment, d.Token)
}

func (t *tx) updateDevice(d tokens.Device) error {
	token, hash := t.sealed(d)
	const query = `UPDATE devices SET platform = ?, provider = ?, environment = ?, token_state = ?, token_reason = ?, generation = ?,
		registered_at = ?, user_id = ?, app_version = ?, locale = ?, unregistered_at = ?, token = ?, token_hash = ?,
		strikes = ?, struck_at = ?, other_tried = ? WHERE id = ?`
	_, err := t.exec(query, string(d.Platform), string(d.Provider), string(d.Environment), string(d.TokenState), d.TokenReason,
		d.Generation, millisOrNull(d.RegisteredAt), d.User, d.AppVersion, d.Locale, millisOrNull(d.UnregisteredAt), token, hash,
		d.Strikes, millisOrNull(d.StruckAt), d.OtherTried, string(d.ID))
	if err != nil {
		return fmt.Errorf("update a device: %w", err)
	}
	return nil
}

// MarkToken notes what a provider's verdict made of a token, if it is still of that generation; changed says whether
// anything did.
func (s *Store) MarkToken(ctx context.Context, m tokens.TokenMark) (changed bool, err error) {
	err = s.write(ctx, "mark a token", newOp(func(t *tx) error {
		changed, err = t.markToken(m)
		return err
	}))
	return changed && err == nil, err
}

func (t *tx) markToken(m tokens.TokenMark) (bool, error) {
	d, err := t.needDevice(m.Device)
	if fault.KindOf(err) == fault.NotFound || fault.KindOf(err) == fault.Gone {
		return false, nil
	}
	if err != nil || d.Generation != m.Generation {
		return false, err
	}
	switch {
	case d.TokenState == tokens.TokenActive, d.TokenState == tokens.TokenSuspect:
	case d.TokenState == tokens.TokenDead && m.State == tokens.TokenSuspect:
	default:
		return false, nil
	}
	d.TokenState, d.TokenReason = m.State, m.Reason
	switch {
	case m.State == tokens.TokenActive:
		d.Strikes, d.StruckAt, d.OtherTried = 0, time.Time{}, false
	case m.Strike:
		d.Strikes, d.StruckAt = d.Strikes+1, m.At
	}
	d.OtherTried = d.OtherTried || m.OtherTried
	const query = "UPDATE devices SET token_state = ?, token_reason = ?, strikes = ?, struck_at = ?, other_tried = ? WHERE id = ?"
	_, err = t.exec(query, string(d.TokenState), d.TokenReason, d.Strikes, millisOrNull(d.StruckAt), d.OtherTried, string(d.ID))
	return err == nil, err
}

// MoveToken notes that a token of that generation turned out to belong to another environment, and is active there. Of two
// devices with the same token the one that registered it last holds it.
func (s *Store) MoveToken(ctx context.Context, id ident.Device, generation int64, to tokens.Environment) (changed bool, err error) {
	err = s.write(ctx, "move a token", newOp(func(t *tx) error {
		d, err := t.needDevice(id)
		if fault.KindOf(err) == fault.NotFound || fault.KindOf(err) == fault.Gone {
			return nil
		}
		if err != nil || d.Generation != generation || d.Token == "" {
			return err
		}
		d.Environment = to
		registered := d.RegisteredAt
		if err := t.holdToken(&d, registered); err != nil {
			return err
		}
		changed = true
		return t.updateDevice(d)
	}))
	return changed && err == nil, err
}

// NotePush notes how a push of high priority arrived: demoted, or not.
func (s *Store) NotePush(ctx context.Context, id ident.Device, demoted bool, now time.Time) error {
	return s.write(ctx, "note how a push arrived", newOp(func(t *tx) error {
		if _, err := t.needDevice(id); err != nil {
			return err
		}
		if !demoted {
			_, err := t.exec("UPDATE devices SET demotions = 0, demoted_at = NULL WHERE id = ? AND demotions > 0", string(id))
			return err
		}
		_, err := t.exec("UPDATE devices SET demotions = demotions + 1, demoted_at = ? WHERE id = ?", millis(now), string(id))
		return err
	}))
}

// Contact notes that the device spoke to us. It never waits; it is written at most once in five minutes a
// device, and may be lost.
func (s *Store) Contact(id ident.Device, now time.Time) { s.lane.contact(id, millis(now)) }

// countOthers says what every row of a user has anyway: without it the index that holds those alone is not used.
const countOthers = "SELECT COUNT(*) FROM devices WHERE app = ? AND user_id = ? AND user_id <> '' AND id <> ?"

// BindUser makes the device one of the user's, and nobody else's; NotFound "device_not_found".
func (s *Store) BindUser(ctx context.Context, app ident.App, user string, id ident.Device) error {
	return s.write(ctx, "bind a device to a user", newOp(func(t *tx) error {
		if err := t.ownDevice(app, id); err != nil {
			return err
		}
		var others int
		if err := t.get(&others, countOthers, string(app), user, string(id)); err != nil {
			return fmt.Errorf("count a user's devices: %w", err)
		}
		if others >= maxUserDevices {
			return fault.New(fault.Invalid, "too_many_devices", "a user has at most %d devices; unbind one first", maxUserDevices)
		}
		_, err := t.exec("UPDATE devices SET user_id = ? WHERE id = ? AND user_id <> ?", user, string(id), user)
		return err
	}))
}

// maxUserDevices bounds the rows that one send to a user makes: a larger audience would hold up everybody's commits.
const maxUserDevices = 200

// UnbindUser ends that; a device that is not the user's stays as it is. NotFound "device_not_found".
func (s *Store) UnbindUser(ctx context.Context, app ident.App, user string, id ident.Device) error {
	return s.write(ctx, "unbind a device from a user", newOp(func(t *tx) error {
		if err := t.ownDevice(app, id); err != nil {
			return err
		}
		_, err := t.exec("UPDATE devices SET user_id = '' WHERE id = ? AND user_id = ?", string(id), user)
		return err
	}))
}

// ownDevice returns NotFound "device_not_found" unless the app has such a registered device.
func (t *tx) ownDevice(app ident.App, id ident.Device) error {
	d, err := t.needDevice(id)
	if err == nil && d.App != app || fault.KindOf(err) == fault.Gone {
		return deviceNotFound()
	}
	return err
}
