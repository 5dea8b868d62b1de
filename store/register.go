package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// Register stores an installation and returns its device; created says that it is new. Asked with a
// publishable key, a known installation is Conflict "installation_exists"; a secret key updates it and
// gives it the new secret; a device key updates its own device and is Forbidden "not_this_device" for any
// other. A token left out stays, unless provider or environment changed. A user is as with BindUser, topics are as with Subscribe.
// NotFound "app_not_found"; Invalid "too_many_devices" and "too_many_topics".
func (s *Store) Register(ctx context.Context, e tokens.Enrol) (tokens.Device, bool, error) {
	var d tokens.Device
	var created bool
	err := s.write(ctx, "register a device", newOp(func(t *tx) (err error) {
		d, created, err = t.enrol(e)
		return err
	}).weighing(enrolBytes(e)))
	if err != nil {
		return tokens.Device{}, false, err
	}
	return d, created, nil
}

// enrolBytes is what a registration counts for in a batch: it claims an installation and a token, and two users if it comes from another.
func enrolBytes(e tokens.Enrol) int {
	n := 2*claimBytes + len(e.Topics)*rowBytes
	if e.User != nil {
		n += leaveBytes / 2 // hardly any comes from another
	}
	return n
}

func (t *tx) enrol(e tokens.Enrol) (d tokens.Device, created bool, err error) {
	if err := t.shareApp(e.App); err != nil {
		return d, false, err
	}
	if _, err := t.needApp(e.App); err != nil {
		return d, false, err
	}
	known, err := t.installation(e.App, e.Installation)
	switch {
	case err != nil:
		return d, false, err
	case e.As == tokens.DeviceKey && known != e.Device:
		return d, false, fault.New(fault.Forbidden, "not_this_device", "a device's key registers that device alone; this is another installation")
	case e.As == tokens.PublishableKey && known != "":
		return d, false, fault.New(fault.Conflict, "installation_exists",
			"this installation_id is registered; use its own key, or a new installation_id if that is lost")
	}
	before := tokens.Device{ID: e.ID, App: e.App}
	if known != "" {
		if before, err = t.needDevice(known); err != nil {
			return d, false, err
		}
	}
	topics, err := t.mayEnrol(before, e)
	if err != nil {
		return d, false, err
	}
	if known == "" {
		d, err = t.insertDevice(e)
	} else {
		d, err = t.reenrol(before, e)
	}
	if err == nil {
		err = t.subscribeOwn(d, topics, e.Now)
	}
	return d, known == "", err
}

// mayEnrol says what stands in the way of the user and the topics that come with a registration, before anything is written, and
// which of the topics are new.
func (t *tx) mayEnrol(before tokens.Device, e tokens.Enrol) (topics []string, err error) {
	if e.User != nil && *e.User != before.User {
		if err := t.mayBind(before, *e.User); err != nil {
			return nil, err
		}
	}
	return t.ownSubscriptions(before.ID, e.Topics)
}

// installation returns the registered device of an installation, or "".
func (t *tx) installation(app ident.App, installation string) (ident.Device, error) {
	if err := t.claim([]byte(string(app) + " " + installation)); err != nil {
		return "", err
	}
	var id ident.Device
	err := t.get(&id, "SELECT id FROM devices WHERE app = ? AND installation = ? AND unregistered_at IS NULL", string(app), installation)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("look an installation up: %w", err)
	}
	return id, nil
}

func (t *tx) insertDevice(e tokens.Enrol) (tokens.Device, error) {
	now := fromMillis(millis(e.Now))
	d := tokens.Device{ID: e.ID, App: e.App, Installation: e.Installation, Platform: e.Platform, Provider: e.Provider,
		Environment: e.Environment, Token: e.Token, AppVersion: e.AppVersion, Locale: e.Locale, CreatedAt: now, LastContact: now}
	set(&d.User, e.User)
	if err := t.holdToken(tokens.Device{}, &d, now); err != nil {
		return tokens.Device{}, err
	}
	token, hash := t.sealed(d)
	const device = `INSERT INTO devices (id, app, installation, platform, provider, environment, token_state, generation,
		registered_at, user_id, app_version, locale, created_at, secret, token_hash, token) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	_, err := t.exec(device, string(d.ID), string(d.App), d.Installation, string(d.Platform), string(d.Provider),
		string(d.Environment), string(d.TokenState), d.Generation, millis(now), d.User, d.AppVersion, d.Locale, millis(now), e.Secret[:], hash, token)
	if err != nil {
		return tokens.Device{}, fmt.Errorf("insert a device: %w", err)
	}
	const inbox = "INSERT INTO inboxes (device, app, contact_at) VALUES (?, ?, ?)"
	if _, err := t.exec(inbox, string(d.ID), string(d.App), millis(now)); err != nil {
		return tokens.Device{}, fmt.Errorf("insert an inbox: %w", err)
	}
	if err := t.follow(d, now); err != nil {
		return tokens.Device{}, err
	}
	return d, t.tellDevice(messages.DeviceRegistered, d, "", now)
}

// reenrol brings a known device up to what e says.
func (t *tx) reenrol(before tokens.Device, e tokens.Enrol) (tokens.Device, error) {
	d, moved := before, before.Provider != e.Provider || before.Environment != e.Environment
	d.Platform, d.Provider, d.Environment, d.AppVersion, d.Locale = e.Platform, e.Provider, e.Environment, e.AppVersion, e.Locale
	if e.Token != "" || moved {
		d.Token = e.Token
		if err := t.holdToken(before, &d, e.Now); err != nil {
			return tokens.Device{}, err
		}
	}
	if e.User != nil && *e.User != d.User {
		if err := t.hand(&d, *e.User, e.Now); err != nil {
			return tokens.Device{}, err
		}
	}
	if err := t.updateDevice(d); err != nil {
		return tokens.Device{}, err
	}
	if e.As != tokens.SecretKey {
		return d, nil
	}
	if _, err := t.exec("UPDATE devices SET secret = ?, secret_previous = NULL WHERE id = ?", e.Secret[:], string(d.ID)); err != nil {
		return tokens.Device{}, fmt.Errorf("replace a device's secret: %w", err)
	}
	return d, nil
}

// RotateSecret gives the device a new secret. The one in use goes on working until ConfirmSecret: a
// client that never got the answer is not locked out, even if it asks again. NotFound, Gone.
func (s *Store) RotateSecret(ctx context.Context, id ident.Device, h tokens.Hash, _ time.Time) error {
	return s.write(ctx, "rotate a secret", newOp(func(t *tx) error {
		if _, err := t.needDevice(id); err != nil {
			return err
		}
		_, err := t.exec("UPDATE devices SET secret_previous = COALESCE(secret_previous, secret), secret = ? WHERE id = ?", h[:], string(id))
		return err
	}).locking(id))
}

// ConfirmSecret says that the secret with hash h was used: the one before it ends. It never waits; if the
// writer has too much to do it is forgotten, and told again with the next use. It
// keeps its place among the writes, so that a rotation asked for later knows which secret is in use.
func (s *Store) ConfirmSecret(id ident.Device, h tokens.Hash) {
	o := newOp(func(t *tx) error {
		const query = "UPDATE devices SET secret_previous = NULL WHERE id = ? AND secret = ? AND secret_previous IS NOT NULL"
		_, err := t.exec(query, string(id), h[:])
		return err
	}).locking(id)
	_ = s.enqueue(o) // full or stopping: the next use tells it again
}

// Unregister ends a device: its key is told 410 from now on, its token, its user and its subscriptions are forgotten, what was pending
// becomes dropped. It may be repeated. NotFound "device_not_found".
func (s *Store) Unregister(ctx context.Context, app ident.App, id ident.Device, now time.Time) error {
	return s.write(ctx, "unregister a device", newOp(func(t *tx) error {
		d, err := t.anyDevice(id)
		if err != nil {
			return err
		}
		if d.App != app {
			return deviceNotFound()
		}
		if !d.UnregisteredAt.IsZero() {
			return nil
		}
		if err := t.claimUsers(app, d.User); err != nil {
			return err
		}
		d.User = ""
		return t.unregister(d, now)
	}).locking(id).weighing(leaveBytes))
}

// unregister ends a device whose user, if it has one, is claimed.
func (t *tx) unregister(d tokens.Device, now time.Time) error {
	d.UnregisteredAt, d.Token, d.TokenState, d.TokenReason = now, "", tokens.TokenNone, ""
	d.Strikes, d.StruckAt, d.OtherTried = 0, time.Time{}, false
	if err := t.updateDevice(d); err != nil {
		return err
	}
	if _, err := t.exec("UPDATE inboxes SET gone_at = ? WHERE device = ?", millis(now), string(d.ID)); err != nil {
		return fmt.Errorf("close an inbox: %w", err)
	}
	var pending []ending
	if err := t.list(&pending, "SELECT "+endingColumns+" FROM deliveries WHERE device = ? AND ended_at IS NULL", string(d.ID)); err != nil {
		return fmt.Errorf("list what is pending: %w", err)
	}
	if err := t.endAll(pending, messages.Dropped, "device_unregistered", millis(now)); err != nil {
		return err
	}
	if _, err := t.exec("DELETE FROM gaps WHERE device = ?", string(d.ID)); err != nil {
		return fmt.Errorf("forget a gap: %w", err)
	}
	if _, err := t.exec(deleteSubscriptions, string(d.ID)); err != nil {
		return fmt.Errorf("end a device's subscriptions: %w", err)
	}
	return t.tellDevice(messages.DeviceUnregistered, d, "", now)
}
