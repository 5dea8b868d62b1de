package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// A device belongs to one user at most, and whoever leaves it leaves nothing there.
//
// What concerns a user has their name claimed: whom they are bound to and what they are subscribed to change one after the other, so
// that a device which comes while a topic does has it. Claims come in one order: an installation, users, topics, a token.

const (
	// maxUserDevices bounds the rows that one send to a user makes: a larger audience would hold up everybody's commits.
	maxUserDevices = 200
	// userLeft is why a delivery is canceled whose user the device is no longer.
	userLeft = "user_left"
)

const (
	// countOthers says what every row of a user has anyway: without it the index that holds those alone is not used.
	countOthers = "SELECT COUNT(*) FROM devices WHERE app = ? AND user_id = ? AND user_id <> '' AND id <> ?"
	// selectLeft reads what is pending for anyone but a user. It does not say plainly that there is one: PostgreSQL would go through the
	// index of all that was sent to users.
	selectLeft       = "SELECT " + endingColumns + " FROM deliveries WHERE device = ?1 AND ended_at IS NULL AND COALESCE(to_user, ?2) <> ?2"
	deleteLeft       = "DELETE FROM subscriptions WHERE device = ? AND via <> '' AND via <> ?"
	selectUserTopics = "SELECT topic FROM user_topics WHERE app = ? AND user_id = ? ORDER BY topic"
	insertFollowed   = `INSERT INTO subscriptions (device, topic, via, app, created_at) SELECT ?, topic, user_id, app, ?
		FROM user_topics WHERE app = ? AND user_id = ? ON CONFLICT (device, topic, via) DO NOTHING`
)

// userOf reads those of the devices that are the user's.
var userOf = ofDevices("SELECT "+deviceColumns+fromDevices+"WHERE d.app = ? AND d.user_id = ? AND d.unregistered_at IS NULL AND d.id ", "")

// BindUser makes the device one of the user's, and nobody else's: for whoever had it, it is as UnbindUser. From this commit on the
// device has the user's subscriptions. Binding again changes nothing. NotFound "device_not_found"; Invalid "too_many_devices" if
// the user has 200 others.
func (s *Store) BindUser(ctx context.Context, app ident.App, user string, id ident.Device, now time.Time) error {
	return s.write(ctx, "bind a device to a user", newOp(func(t *tx) error {
		d, err := t.ownDevice(app, id)
		if err != nil {
			return err
		}
		return t.bind(&d, user, now)
	}).locking(id).weighing(leaveBytes))
}

// UnbindUser ends that: what is pending there for the user is canceled, without a gap, and what the device was subscribed to through
// the user goes; what was sent to the device itself stays. A device that is not the user's stays as it is; "" is any user.
// NotFound "device_not_found".
func (s *Store) UnbindUser(ctx context.Context, app ident.App, user string, id ident.Device, now time.Time) error {
	return s.write(ctx, "unbind a device from a user", newOp(func(t *tx) error {
		d, err := t.ownDevice(app, id)
		if err != nil || user != "" && d.User != user {
			return err
		}
		return t.bind(&d, "", now)
	}).locking(id).weighing(leaveBytes))
}

// ownDevice returns NotFound "device_not_found" unless the app has such a registered device.
func (t *tx) ownDevice(app ident.App, id ident.Device) (tokens.Device, error) {
	d, err := t.needDevice(id)
	if err == nil && d.App != app || fault.KindOf(err) == fault.Gone {
		return tokens.Device{}, deviceNotFound()
	}
	return d, err
}

// bind makes the device, which is locked, the user's, and nobody else's; an empty user is nobody.
func (t *tx) bind(d *tokens.Device, user string, now time.Time) error {
	if d.User == user {
		return nil
	}
	if err := t.mayBind(*d, user); err != nil {
		return err
	}
	return t.hand(d, user, now)
}

// hand is bind for those who may.
func (t *tx) hand(d *tokens.Device, user string, now time.Time) error {
	if err := t.leave(d.ID, user, now); err != nil {
		return err
	}
	if _, err := t.exec("UPDATE devices SET user_id = ? WHERE id = ?", user, string(d.ID)); err != nil {
		return fmt.Errorf("bind a device to a user: %w", err)
	}
	d.User = user
	return t.follow(*d, now)
}

// mayBind claims both users, who was and who comes, and says whether there is room for one more device.
func (t *tx) mayBind(d tokens.Device, user string) error {
	if err := t.claimUsers(d.App, d.User, user); err != nil || user == "" {
		return err
	}
	var others int
	if err := t.get(&others, countOthers, string(d.App), user, string(d.ID)); err != nil {
		return fmt.Errorf("count a user's devices: %w", err)
	}
	if others >= maxUserDevices {
		return fault.New(fault.Invalid, "too_many_devices", "a user has at most %d devices; unbind one first", maxUserDevices)
	}
	return nil
}

// claimUsers has what changes users come one after the other. An empty name is nobody.
func (t *tx) claimUsers(app ident.App, users ...string) error {
	slices.Sort(users)
	for _, user := range slices.Compact(users) {
		if user == "" {
			continue
		}
		if err := t.claim([]byte("user " + string(app) + " " + plainText(user))); err != nil {
			return fmt.Errorf("claim a user: %w", err)
		}
	}
	return nil
}

// leave ends what is on the device for anyone but the user who is to have it. Nobody who stays has lost anything: there is no gap.
func (t *tx) leave(id ident.Device, user string, now time.Time) error {
	var pending []ending
	if err := t.list(&pending, selectLeft, string(id), user); err != nil {
		return fmt.Errorf("list what is pending for a user: %w", err)
	}
	if err := t.endAll(pending, messages.Canceled, userLeft, millis(now)); err != nil {
		return err
	}
	if _, err := t.exec(deleteLeft, string(id), user); err != nil {
		return fmt.Errorf("end a user's subscriptions: %w", err)
	}
	return nil
}

// follow subscribes the device to what its user is subscribed to.
func (t *tx) follow(d tokens.Device, now time.Time) error {
	if d.User == "" {
		return nil
	}
	var topics []string
	if err := t.list(&topics, selectUserTopics, string(d.App), d.User); err != nil {
		return fmt.Errorf("list a user's topics: %w", err)
	}
	if len(topics) == 0 {
		return nil
	}
	// One of them may be deleted before it is shared: what there is by then is what counts.
	if err := t.shareTopics(d.App, topics); err != nil {
		return err
	}
	if _, err := t.exec(insertFollowed, string(d.ID), millis(now), string(d.App), d.User); err != nil {
		return fmt.Errorf("subscribe a user's device: %w", err)
	}
	return nil
}

// User returns a user's registered devices, without their tokens, in the order of their ids, and what they are subscribed to by
// themselves, by name. A user nobody heard of has none.
func (s *Store) User(ctx context.Context, app ident.App, user string) (tokens.User, error) {
	u := tokens.User{ID: user}
	var devices []ident.Device
	if err := s.reads.list(ctx, &devices, selectDevicesOf, string(app), user); err != nil {
		return tokens.User{}, s.readError("list a user's devices", err)
	}
	err := s.eachPiece(userOf, devices, func(query string, args ...any) error {
		rows, err := s.reads.rows(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r deviceRow
			if err := rows.Scan(r.fields()...); err != nil {
				return err
			}
			r.Token = nil // nobody shows it, and one that does not open must not hide the others
			d, err := s.device(r)
			if err != nil {
				return err
			}
			u.Devices = append(u.Devices, d)
		}
		return rows.Err()
	}, string(app), user)
	if err != nil {
		return tokens.User{}, s.readError("read a user's devices", err)
	}
	slices.SortFunc(u.Devices, func(a, b tokens.Device) int { return strings.Compare(string(a.ID), string(b.ID)) })
	if err := s.reads.list(ctx, &u.Topics, selectUserTopics, string(app), user); err != nil {
		return tokens.User{}, s.readError("read a user's topics", err)
	}
	return u, nil
}
