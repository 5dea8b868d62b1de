package store

import (
	"context"
	"fmt"

	"rouse/ident"
	"rouse/messages"
)

// devicesAtATime bounds how many devices one operation of DeleteApp removes.
const devicesAtATime = 32

// DeleteApp removes an app and all that is its: for everyone who asks at once, then piece by piece. If it is
// interrupted, calling it again, or Purge, finishes. NotFound "app_not_found".
func (s *Store) DeleteApp(ctx context.Context, id ident.App) error {
	err := s.write(ctx, "delete an app", newOp(func(t *tx) error {
		if err := t.lockApp(id); err != nil { // a registration under way comes first, and is deleted
			return err
		}
		n, err := t.exec("UPDATE apps SET deleting = 1 WHERE id = ?", string(id))
		if err != nil {
			return err
		}
		if n == 0 {
			return appNotFound()
		}
		for _, query := range []string{"DELETE FROM keys WHERE app = ?", "DELETE FROM credentials WHERE app = ?", "DELETE FROM circuits WHERE app = ?",
			"DELETE FROM identity_keys WHERE app = ?", stopWebhooks} {
			if _, err := t.exec(query, string(id)); err != nil {
				return err
			}
		}
		return nil
	}))
	if err != nil {
		return err
	}
	_, err = s.finishDelete(ctx, id)
	return err
}

// finishDeletes goes on with whatever DeleteApp was interrupted at.
func (s *Store) finishDeletes(ctx context.Context) (int, error) {
	var apps []ident.App
	if err := s.reads.list(ctx, &apps, "SELECT id FROM apps WHERE deleting = 1"); err != nil {
		return 0, s.readError("list apps to be deleted", err)
	}
	total := 0
	for _, app := range apps {
		n, err := s.finishDelete(ctx, app)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

// finishDelete removes an app's rows: inboxes first, so that nothing new is accepted, the app itself last.
func (s *Store) finishDelete(ctx context.Context, app ident.App) (int, error) {
	total, err := s.deleteDevices(ctx, app)
	if err != nil {
		return total, err
	}
	n, err := s.deleteDeliveries(ctx, app)
	if total += n; err != nil {
		return total, err
	}
	for _, query := range []string{
		"DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE app = ? LIMIT 0 + ?)",
		"DELETE FROM idempotency WHERE (app, key) IN (SELECT app, key FROM idempotency WHERE app = ? LIMIT 0 + ?)",
		appsEvents, appsRetries, appsWebhooks,
		"DELETE FROM user_topics WHERE (app, user_id, topic) IN (SELECT app, user_id, topic FROM user_topics WHERE app = ? LIMIT 0 + ?)",
		"DELETE FROM topics WHERE (app, name) IN (SELECT app, name FROM topics WHERE app = ? LIMIT 0 + ?)",
	} {
		n, err := s.deletePieces(ctx, app, query)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, s.write(ctx, "delete an app", newOp(func(t *tx) error {
		_, err := t.exec("DELETE FROM apps WHERE id = ? AND deleting = 1", string(app))
		return err
	}))
}

// deletePieces repeats query, whose parameters are the app and a bound, until it finds nothing.
func (s *Store) deletePieces(ctx context.Context, app ident.App, query string) (int, error) {
	total := 0
	for {
		var n int64
		err := s.write(ctx, "delete an app", newOp(func(t *tx) (err error) {
			n, err = t.exec(query, string(app), purgeAtATime)
			return err
		}))
		if err != nil || n == 0 {
			return total, err
		}
		total += int(n)
	}
}

func (s *Store) deleteDevices(ctx context.Context, app ident.App) (int, error) {
	total := 0
	for {
		var devices []ident.Device
		const query = "SELECT id FROM devices WHERE app = ? ORDER BY id LIMIT 0 + ?"
		if err := s.reads.list(ctx, &devices, query, string(app), devicesAtATime); err != nil {
			return total, s.readError("list an app's devices", err)
		}
		if len(devices) == 0 {
			return total, nil
		}
		err := s.write(ctx, "delete an app's devices", newOp(func(t *tx) error {
			for _, d := range devices {
				if err := t.deleteDevice(d); err != nil {
					return err
				}
			}
			return nil
		}).locking(devices...))
		if err != nil {
			return total, err
		}
		total += len(devices)
	}
}

func (t *tx) deleteDevice(id ident.Device) error {
	for _, query := range []string{
		"DELETE FROM wakes WHERE device = ?1 AND id IN (" + wakeChain + " SELECT id FROM chain)",
		"DELETE FROM inboxes WHERE device = ?1", "DELETE FROM gaps WHERE device = ?1",
		"DELETE FROM subscriptions WHERE device = ?1", "DELETE FROM devices WHERE id = ?1",
	} {
		if _, err := t.exec(query, string(id)); err != nil {
			return fmt.Errorf("delete a device: %w", err)
		}
	}
	t.forget(id)
	return nil
}

// deleteDeliveries goes through all places once: what is the app's was committed before its inboxes went.
func (s *Store) deleteDeliveries(ctx context.Context, app ident.App) (int, error) {
	var newest, after messages.Seq
	if err := s.reads.get(ctx, &newest, s.dialect.newest); err != nil {
		return 0, s.readError("read the sequence counter", err)
	}
	total := 0
	for ; after < newest; after += purgeSpan {
		from, err := s.skipEmpty(ctx, after, newest)
		if err != nil {
			return total, s.readError("list an app's deliveries", err)
		}
		after = from
		var seqs []int64
		const query = "SELECT seq FROM deliveries WHERE seq > ? AND seq <= ? AND app = ?"
		if err := s.reads.list(ctx, &seqs, query, int64(after), int64(after+purgeSpan), string(app)); err != nil {
			return total, s.readError("list an app's deliveries", err)
		}
		if err := s.deleteRows(ctx, "DELETE FROM deliveries WHERE seq IN ", anys(seqs)); err != nil {
			return total, err
		}
		total += len(seqs)
	}
	return total, nil
}
