package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"rouse/ident"
	"rouse/tokens"
)

// deviceColumns are those of devices d and inboxes i.
const deviceColumns = `d.id, d.app, d.installation, d.platform, d.provider, d.environment, d.token_state, d.token_reason,
	d.generation, d.registered_at, d.user_id, d.app_version, d.locale, d.created_at, d.unregistered_at, d.token, i.contact_at,
	CASE WHEN d.struck_at IS NOT NULL OR d.demoted_at IS NOT NULL THEN d.strikes || ' ' || COALESCE(d.struck_at, 0) || ' ' || d.other_tried || ' ' ||
	d.demotions || ' ' || COALESCE(d.demoted_at, 0) || ' ' || COALESCE(CASE WHEN d.struck_at IS NOT NULL THEN
	(SELECT c.updated_at FROM credentials c WHERE c.app = d.app AND c.provider = d.provider) END, 0) END AS marks`

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
	Marks          *string // see readMarks; nearly always NULL: in one column, they cost those who have none next to nothing
}

// fields are where deviceColumns go. Every request of a device reads this row: it is scanned without reflection on names.
func (r *deviceRow) fields() []any {
	return []any{&r.ID, &r.App, &r.Installation, &r.Platform, &r.Provider, &r.Environment, &r.TokenState, &r.TokenReason,
		&r.Generation, &r.RegisteredAt, &r.User, &r.AppVersion, &r.Locale, &r.CreatedAt, &r.UnregisteredAt, &r.Token, &r.ContactAt, &r.Marks}
}

// device opens the row's token.
func (s *Store) device(r deviceRow) (tokens.Device, error) {
	d := tokens.Device{ID: r.ID, App: r.App, Installation: r.Installation, Platform: r.Platform, Provider: r.Provider,
		Environment: r.Environment, TokenState: r.TokenState, TokenReason: r.TokenReason, Generation: r.Generation,
		RegisteredAt: fromNull(r.RegisteredAt), User: r.User, AppVersion: r.AppVersion, Locale: r.Locale,
		CreatedAt: fromMillis(r.CreatedAt), LastContact: fromMillis(r.ContactAt), UnregisteredAt: fromNull(r.UnregisteredAt)}
	if r.Marks != nil {
		if err := readMarks(&d, *r.Marks); err != nil {
			return tokens.Device{}, err
		}
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

// anyDevice reads a device that is about to be changed: no other node changes it meanwhile.
func (t *tx) anyDevice(id ident.Device) (tokens.Device, error) {
	if err := t.lock([]ident.Device{id}); err != nil {
		return tokens.Device{}, err
	}
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
// registration: a new generation, active. An empty token takes it away. A user is as with BindUser, an empty one as with UnbindUser.
// NotFound "device_not_found", Gone "device_unregistered", Invalid as tokens.CheckPatch and BindUser.
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
		if p.User != nil {
			if err := t.bind(&d, *p.User, now); err != nil {
				return err
			}
		}
		before := d
		set(&d.Environment, p.Environment)
		set(&d.Token, p.Token)
		set(&d.AppVersion, p.AppVersion)
		set(&d.Locale, p.Locale)
		if p.Token != nil {
			if err := t.holdToken(before, &d, now); err != nil {
				return err
			}
		}
		return t.updateDevice(d)
	}).locking(id).weighing(patchBytes(p)))
	if err != nil {
		return tokens.Device{}, err
	}
	return d, nil
}

// patchBytes is what a patch counts for in a batch.
func patchBytes(p tokens.Patch) int {
	if p.User != nil {
		return leaveBytes
	}
	return claimBytes
}

func set[T any](field *T, to *T) {
	if to != nil {
		*field = *to
	}
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

const noteDemotion = "UPDATE devices SET demotions = 1 + CASE WHEN demoted_at > ? THEN demotions ELSE 0 END, demoted_at = ? WHERE id = ?"

// NotePush notes how a push of high priority arrived: demoted, which counts for tokens.DemotionLife, or not, which ends
// that. NotFound "device_not_found", Gone "device_unregistered".
func (s *Store) NotePush(ctx context.Context, id ident.Device, demoted bool, now time.Time) error {
	return s.write(ctx, "note how a push arrived", newOp(func(t *tx) error {
		d, err := t.needDevice(id)
		if err != nil {
			return err
		}
		if demoted {
			_, err = t.exec(noteDemotion, millis(now.Add(-tokens.DemotionLife)), millis(now), string(id))
		} else if d.Demotions > 0 {
			_, err = t.exec("UPDATE devices SET demotions = 0, demoted_at = NULL WHERE id = ?", string(id))
		}
		return err
	}).locking(id))
}

// Contact notes that the device spoke to us. It never waits; it is written at most once in five minutes a
// device, and may be lost.
func (s *Store) Contact(id ident.Device, now time.Time) { s.laneOf(id).contact(id, millis(now)) }
