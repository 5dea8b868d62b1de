package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// A person is erased in several transactions, each of them short. Until its row goes, last, a device can be found by its user's name: whoever is
// cut off goes on where it was when it is called again.

const (
	selectErasable    = "SELECT id FROM devices WHERE app = ? AND user_id = ? AND user_id <> '' ORDER BY id LIMIT 0 + ?"
	countOwnTopics    = "SELECT COUNT(*) FROM subscriptions WHERE device = ? AND via = ''"
	forgetUserTopics  = "DELETE FROM user_topics WHERE app = ? AND user_id = ?"
	selectSentTo      = "SELECT device, seq FROM deliveries WHERE app = ? AND to_user = ? ORDER BY message LIMIT 0 + ?"
	selectSent        = "SELECT " + endingColumns + " FROM deliveries WHERE device = ? AND seq = ? AND ended_at IS NULL"
	deleteSent        = "DELETE FROM deliveries WHERE device = ? AND seq = ?"
	sentOf            = "unnest(CAST(? AS TEXT[]), CAST(? AS BIGINT[])) AS n (device, seq) WHERE d.device = n.device AND d.device = ANY (CAST(?1 AS TEXT[])) AND d.seq = n.seq"
	selectSentAtOnce  = "SELECT d.device, d.seq, d.message, d.size, d.shared, d.expires_at, d.app, COALESCE(d.correlation_id, '') AS correlation_id FROM deliveries d, " + sentOf + " AND d.ended_at IS NULL"
	deleteSentAtOnce  = "DELETE FROM deliveries AS d USING " + sentOf
	selectHistory     = "SELECT seq FROM deliveries WHERE device = ? ORDER BY seq LIMIT 0 + ?"
	deleteHistory     = "DELETE FROM deliveries WHERE device = ? AND seq <= ?"
	selectAudienceFor = "SELECT id FROM messages WHERE app = ? AND audience = ? AND user_id = ? AND user_id <> '' ORDER BY id LIMIT 0 + ?"
)

// closeAtATime bounds the inboxes one operation closes: a thousand messages may be pending in each.
const closeAtATime = 4

// walkHistory reads a stretch of places where no index has those of a device that are over.
var walkHistory = ofDevices("SELECT seq FROM deliveries WHERE seq > ? AND seq <= ? AND device ", "")

// EraseUser erases everything of a person, wherever it lies: the user's devices with tokens and inboxes, what was sent to the user on
// any device, the records of those sends, subscriptions. On SQLite it walks through all deliveries once for every 64 devices, a million in one or two seconds. After an
// error, what it counts is erased all the same, and calling it again goes on. A user nobody heard of has nothing.
func (s *Store) EraseUser(ctx context.Context, app ident.App, user string, now time.Time) (tokens.Erasure, error) {
	e := erasing{s: s, app: app, user: user, now: now}
	for _, step := range []func(context.Context) error{e.topics, e.devices, e.sentElsewhere, e.sends} {
		if err := step(ctx); err != nil {
			return e.done, err
		}
	}
	return e.done, nil
}

// erasing is one EraseUser under way.
type erasing struct {
	s    *Store
	app  ident.App
	user string
	now  time.Time
	done tokens.Erasure
}

// topics forgets what the user is subscribed to, with whatever devices.
func (e *erasing) topics(ctx context.Context) error {
	var n int64
	err := e.s.write(ctx, "erase a user's subscriptions", newOp(func(t *tx) (err error) {
		if err := t.claimUsers(e.app, e.user); err != nil {
			return err
		}
		n, err = t.exec(forgetUserTopics, string(e.app), e.user)
		return err
	}))
	if err == nil {
		e.done.Subscriptions += int(n)
	}
	return err
}

// devices erases the user's devices, some at a time.
func (e *erasing) devices(ctx context.Context) error {
	for {
		var list []ident.Device
		if err := e.s.reads.list(ctx, &list, selectErasable, string(e.app), e.user, boxesAtATime); err != nil {
			return e.s.readError("list a user's devices", err)
		}
		if len(list) == 0 {
			return nil
		}
		var closed []ident.Device
		for piece := range slices.Chunk(list, closeAtATime) {
			some, err := e.close(ctx, piece)
			if err != nil {
				return err
			}
			closed = append(closed, some...)
		}
		if err := e.history(ctx, closed); err != nil {
			return err
		}
		for _, d := range closed {
			if err := e.sendsTo(ctx, toDevice, string(d)); err != nil {
				return err
			}
		}
		if err := e.remove(ctx, closed); err != nil {
			return err
		}
	}
}

// close unregisters those devices that are still the user's: from this commit on nothing comes into their inboxes, and nothing is pending
// there. They go on to be found by the user's name.
func (e *erasing) close(ctx context.Context, devices []ident.Device) (closed []ident.Device, err error) {
	topics := 0
	err = e.s.write(ctx, "close a user's devices", newOp(func(t *tx) error {
		topics, closed = 0, nil
		if err := t.claimUsers(e.app, e.user); err != nil {
			return err
		}
		for _, id := range devices {
			d, err := t.anyDevice(id)
			if err != nil && fault.KindOf(err) != fault.NotFound {
				return err
			}
			if d.User != e.user {
				continue // it was somebody else's by then, or erased
			}
			closed = append(closed, id)
			if !d.UnregisteredAt.IsZero() {
				continue // by one who was cut off
			}
			var own int
			if err := t.get(&own, countOwnTopics, string(id)); err != nil {
				return fmt.Errorf("count a device's topics: %w", err)
			}
			topics += own
			if err := t.unregister(d, e.now); err != nil {
				return err
			}
		}
		return nil
	}).locking(devices...).weighing(len(devices)*leaveBytes))
	if err != nil {
		return nil, err
	}
	e.done.Subscriptions += topics
	return closed, nil
}

// history erases what ever lay in the inboxes of closed devices.
func (e *erasing) history(ctx context.Context, devices []ident.Device) error {
	if !e.s.dialect.shared {
		return e.walk(ctx, devices)
	}
	for _, d := range devices {
		for {
			var seqs []int64
			if err := e.s.reads.list(ctx, &seqs, selectHistory, string(d), purgeAtATime); err != nil {
				return e.s.readError("list a device's deliveries", err)
			}
			if len(seqs) == 0 {
				break
			}
			err := e.s.write(ctx, "erase a device's deliveries", newOp(func(t *tx) error {
				_, err := t.exec(deleteHistory, string(d), seqs[len(seqs)-1])
				return err
			}).locking(d))
			if err != nil {
				return err
			}
			e.done.Deliveries += len(seqs)
		}
	}
	return nil
}

// walk is history where only a walk finds it. No place beyond the newest of now is one of theirs.
func (e *erasing) walk(ctx context.Context, devices []ident.Device) error {
	var newest, after messages.Seq
	if err := e.s.reads.get(ctx, &newest, e.s.dialect.newest); err != nil {
		return e.s.readError("read the sequence counter", err)
	}
	for ; after < newest && len(devices) > 0; after += purgeSpan {
		from, err := e.s.skipEmpty(ctx, after, newest)
		if err != nil {
			return e.s.readError("list devices' deliveries", err)
		}
		after = from
		var seqs []int64
		query, args := forDevices(walkHistory.sizes, devices)
		if err := e.s.reads.list(ctx, &seqs, query, append([]any{int64(after), int64(after + purgeSpan)}, args...)...); err != nil {
			return e.s.readError("list devices' deliveries", err)
		}
		if err := e.s.deleteRows(ctx, "DELETE FROM deliveries WHERE seq IN ", anys(seqs)); err != nil {
			return err
		}
		e.done.Deliveries += len(seqs)
	}
	return nil
}

// remove deletes closed devices. What the lane still holds of them is written first, so that it goes along.
func (e *erasing) remove(ctx context.Context, devices []ident.Device) error {
	for _, d := range devices {
		o := newOp(func(*tx) error { return nil })
		o.lands = d
		if err := e.s.write(ctx, "write what the lane holds", o); err != nil {
			return err
		}
	}
	err := e.s.write(ctx, "erase a user's devices", newOp(func(t *tx) error {
		for _, d := range devices {
			if err := t.deleteDevice(d); err != nil {
				return err
			}
		}
		return nil
	}).locking(devices...))
	if err == nil {
		e.done.Devices += len(devices)
	}
	return err
}

// sentElsewhere erases what was sent to the user on devices that are others' by now, or nobody's.
func (e *erasing) sentElsewhere(ctx context.Context) error {
	for {
		var list []sentRow
		if err := e.s.reads.list(ctx, &list, selectSentTo, string(e.app), e.user, purgeAtATime); err != nil {
			return e.s.readError("list what was sent to a user", err)
		}
		if len(list) == 0 {
			return nil
		}
		devices := make([]ident.Device, len(list))
		for i, r := range list {
			devices[i] = r.Device
		}
		err := e.s.write(ctx, "erase what was sent to a user", newOp(func(t *tx) error { return t.eraseSent(list, e.now) }).locking(devices...))
		if err != nil {
			return err
		}
		e.done.Deliveries += len(list)
	}
}

type sentRow struct {
	Device ident.Device `db:"device"`
	Seq    messages.Seq `db:"seq"`
}

// eraseSent deletes deliveries whose devices are locked. Hardly any can be pending.
func (t *tx) eraseSent(list []sentRow, now time.Time) error {
	if t.w.travels() {
		return t.eraseSentAtOnce(list, now)
	}
	for _, r := range list {
		var pending []ending
		if err := t.list(&pending, selectSent, string(r.Device), int64(r.Seq)); err != nil {
			return fmt.Errorf("read what was sent to a user: %w", err)
		}
		if err := t.endAll(pending, messages.Canceled, userLeft, millis(now)); err != nil {
			return err
		}
		if _, err := t.exec(deleteSent, string(r.Device), int64(r.Seq)); err != nil {
			return fmt.Errorf("erase what was sent to a user: %w", err)
		}
	}
	return nil
}

// eraseSentAtOnce is eraseSent where statements travel.
func (t *tx) eraseSentAtOnce(list []sentRow, now time.Time) error {
	devices, seqs := make([]string, len(list)), make([]int64, len(list))
	for i, r := range list {
		devices[i], seqs[i] = string(r.Device), int64(r.Seq)
	}
	var pending []ending
	if err := t.list(&pending, selectSentAtOnce, devices, seqs); err != nil {
		return fmt.Errorf("read what was sent to a user: %w", err)
	}
	if err := t.endAll(pending, messages.Canceled, userLeft, millis(now)); err != nil {
		return err
	}
	if _, err := t.exec(deleteSentAtOnce, devices, seqs); err != nil {
		return fmt.Errorf("erase what was sent to a user: %w", err)
	}
	return nil
}

// sends erases the records of sends to the user, those for later included.
func (e *erasing) sends(ctx context.Context) error { return e.sendsTo(ctx, toUser, e.user) }

func (e *erasing) sendsTo(ctx context.Context, audience, name string) error {
	for {
		var ids []string
		if err := e.s.reads.list(ctx, &ids, selectAudienceFor, string(e.app), audience, name, purgeAtATime); err != nil {
			return e.s.readError("list sends to a user", err)
		}
		if len(ids) == 0 {
			return nil
		}
		if err := e.s.deleteRows(ctx, "DELETE FROM messages WHERE id IN ", anys(ids)); err != nil {
			return err
		}
		e.done.Messages += len(ids)
	}
}
