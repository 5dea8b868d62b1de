package store

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

// A subscription is a device's own, or it has it through its user, while it is that user's. So who is in an audience is asked of one
// table, and a device may be in it twice.

// subscription is a device's to a topic.
type subscription struct {
	device ident.Device
	topic  string
}

const (
	insertTopic        = "INSERT INTO topics (app, name, created_at) VALUES (?, ?, ?) ON CONFLICT (app, name) DO NOTHING"
	insertTopicsAtOnce = "INSERT INTO topics (app, name, created_at) SELECT ?, n.name, ? FROM unnest(CAST(? AS TEXT[])) AS n (name) ON CONFLICT (app, name) DO NOTHING"

	insertSubscription = `INSERT INTO subscriptions (device, topic, via, app, created_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (device, topic, via) DO NOTHING`
	insertSubscriptionsAtOnce = `INSERT INTO subscriptions (device, topic, via, app, created_at) SELECT n.device, n.topic, ?, ?, ?
		FROM unnest(CAST(? AS TEXT[]), CAST(? AS TEXT[])) AS n (device, topic) ON CONFLICT (device, topic, via) DO NOTHING`

	insertUserTopic = "INSERT INTO user_topics (app, user_id, topic, created_at) VALUES (?, ?, ?, ?) ON CONFLICT (app, user_id, topic) DO NOTHING"
	countUserTopics = "SELECT COUNT(*) FROM user_topics WHERE app = ? AND user_id = ? AND topic <> ?"
	deleteUserTopic = "DELETE FROM user_topics WHERE app = ? AND user_id = ? AND topic = ?"

	selectOwnTopics     = "SELECT topic FROM subscriptions WHERE device = ? AND via = ''"
	deleteSubscriptions = "DELETE FROM subscriptions WHERE device = ?"
	selectTopicsOf      = "SELECT DISTINCT topic FROM subscriptions WHERE device = ? ORDER BY topic"
)

// Statements for up to boxesAtATime devices, and for any number of them.
var (
	registeredOf   = ofDevices("SELECT id AS device FROM devices WHERE app = ? AND unregistered_at IS NULL AND id ", "")
	ownTopicsOf    = ofDevices("SELECT device, COUNT(*) AS own, MAX(CASE WHEN topic = ? THEN 1 ELSE 0 END) AS has FROM subscriptions WHERE via = '' AND device ", " GROUP BY device")
	unsubscribesOf = ofDevices("DELETE FROM subscriptions WHERE topic = ? AND via = ? AND device ", "")
)

// shareTopics keeps topics from being deleted until the commit.
func (t *tx) shareTopics(app ident.App, topics []string) error {
	if !t.w.store.dialect.shared || t.w.store.unlocked || len(topics) == 0 {
		return nil
	}
	locks := make([]int32, 0, len(topics))
	for _, topic := range topics {
		locks = append(locks, topicLock(app, topic))
	}
	slices.Sort(locks)
	if err := t.later(shareTopics, slices.Compact(locks)); err != nil {
		return fmt.Errorf("share topics: %w", err)
	}
	return nil
}

// topicShards bounds how many locks a batch takes that subscribes to many topics: the server has room for some thousand, of all sessions
// together. It may not change while nodes of two versions run.
const topicShards = 256

// Statements that lock topics. shareTopics goes in the order of its array.
var (
	shareTopics = fmt.Sprintf("SELECT pg_advisory_xact_lock_shared(%d, shard) FROM unnest(CAST(? AS INT[])) AS shard", topicLocks)
	claimTopic  = fmt.Sprintf("SELECT pg_advisory_xact_lock(%d, CAST(? AS INT))", topicLocks)
)

func topicLock(app ident.App, topic string) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(string(app) + " " + topic)) // it never fails
	return int32(h.Sum32() % topicShards)
}

// claimTopic has nobody subscribe to a topic until the commit.
func (t *tx) claimTopic(app ident.App, topic string) error {
	if !t.w.store.dialect.shared || t.w.store.unlocked {
		return nil
	}
	return t.later(claimTopic, topicLock(app, topic))
}

// putTopics makes those topics that are not there.
func (t *tx) putTopics(app ident.App, topics []string, now time.Time) error {
	if t.w.store.dialect.shared {
		if _, err := t.exec(insertTopicsAtOnce, string(app), millis(now), topics); err != nil {
			return fmt.Errorf("make topics: %w", err)
		}
		return nil
	}
	for _, topic := range topics {
		if _, err := t.exec(insertTopic, string(app), topic, millis(now)); err != nil {
			return fmt.Errorf("make a topic: %w", err)
		}
	}
	return nil
}

// putSubscriptions stores those subscriptions that are not there; via is the user they are through, or "".
func (t *tx) putSubscriptions(app ident.App, via string, list []subscription, now time.Time) error {
	if len(list) == 0 {
		return nil
	}
	if t.w.store.dialect.shared {
		devices, topics := make([]string, len(list)), make([]string, len(list))
		for i, s := range list {
			devices[i], topics[i] = string(s.device), s.topic
		}
		if _, err := t.exec(insertSubscriptionsAtOnce, via, string(app), millis(now), devices, topics); err != nil {
			return fmt.Errorf("store subscriptions: %w", err)
		}
		return nil
	}
	for _, s := range list {
		if _, err := t.exec(insertSubscription, string(s.device), s.topic, via, string(app), millis(now)); err != nil {
			return fmt.Errorf("store a subscription: %w", err)
		}
	}
	return nil
}

func tooManyTopics(whose string, most int) *fault.Error {
	return fault.New(fault.Invalid, "too_many_topics", "a %s is subscribed to at most %d topics; unsubscribe it from some first", whose, most)
}

// ownSubscriptions returns which of topics the device, which is locked, is not subscribed to itself, sorted; Invalid "too_many_topics"
// if those are more than it may have.
func (t *tx) ownSubscriptions(id ident.Device, topics []string) ([]string, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	var own []string
	if err := t.list(&own, selectOwnTopics, string(id)); err != nil {
		return nil, fmt.Errorf("list a device's topics: %w", err)
	}
	missing := slices.DeleteFunc(slices.Clone(topics), func(topic string) bool { return slices.Contains(own, topic) })
	slices.Sort(missing)
	missing = slices.Compact(missing)
	if len(own)+len(missing) > tokens.MaxDeviceTopics {
		return nil, tooManyTopics("device", tokens.MaxDeviceTopics)
	}
	return missing, nil
}

// subscribeOwn subscribes a device itself.
func (t *tx) subscribeOwn(d tokens.Device, topics []string, now time.Time) error {
	if len(topics) == 0 {
		return nil
	}
	if err := t.shareTopics(d.App, topics); err != nil {
		return err
	}
	if err := t.putTopics(d.App, topics, now); err != nil {
		return err
	}
	list := make([]subscription, 0, len(topics))
	for _, topic := range topics {
		list = append(list, subscription{d.ID, topic})
	}
	return t.putSubscriptions(d.App, "", list, now)
}

// Subscribe subscribes devices themselves to a topic, in one commit, with a result for each: NotFound "device_not_found", Invalid
// "too_many_topics" for one with 200 others. A topic comes to be with its first subscriber. Of up to 500 devices the
// caller has checked the topic's name.
func (s *Store) Subscribe(ctx context.Context, app ident.App, topic string, devices []ident.Device, now time.Time) (each []error, err error) {
	err = s.write(ctx, "subscribe devices", newOp(func(t *tx) (err error) {
		each, err = t.subscribe(app, topic, devices, now)
		return err
	}).locking(devices...).weighing(len(devices)*rowBytes))
	if err != nil {
		return nil, err
	}
	return each, nil
}

func (t *tx) subscribe(app ident.App, topic string, devices []ident.Device, now time.Time) ([]error, error) {
	known, err := t.registered(app, devices)
	if err != nil {
		return nil, err
	}
	full, err := t.fullOf(topic, devices)
	if err != nil {
		return nil, err
	}
	each := make([]error, len(devices))
	var list []subscription
	for i, d := range devices {
		switch {
		case !known[d]:
			each[i] = deviceNotFound()
		case full[d]:
			each[i] = tooManyTopics("device", tokens.MaxDeviceTopics)
		default:
			list = append(list, subscription{d, topic})
		}
	}
	if len(list) == 0 {
		return each, nil
	}
	if err := t.shareTopics(app, []string{topic}); err != nil {
		return nil, err
	}
	if err := t.putTopics(app, []string{topic}, now); err != nil {
		return nil, err
	}
	return each, t.putSubscriptions(app, "", list, now)
}

// registered returns which of the devices, which are locked, are the app's and registered.
func (t *tx) registered(app ident.App, devices []ident.Device) (map[ident.Device]bool, error) {
	known := map[ident.Device]bool{}
	err := t.eachPiece(registeredOf, devices, func(query string, args ...any) error {
		var found []ident.Device
		err := t.list(&found, query, args...)
		for _, d := range found {
			known[d] = true
		}
		return err
	}, string(app))
	if err != nil {
		return nil, fmt.Errorf("look for devices: %w", err)
	}
	return known, nil
}

// fullOf returns which of the devices have as many topics as they may, and not this one.
func (t *tx) fullOf(topic string, devices []ident.Device) (map[ident.Device]bool, error) {
	full := map[ident.Device]bool{}
	err := t.eachPiece(ownTopicsOf, devices, func(query string, args ...any) error {
		var counts []struct {
			Device ident.Device `db:"device"`
			Own    int          `db:"own"`
			Has    int          `db:"has"`
		}
		err := t.list(&counts, query, args...)
		for _, c := range counts {
			full[c.Device] = c.Own >= tokens.MaxDeviceTopics && c.Has == 0
		}
		return err
	}, topic)
	if err != nil {
		return nil, fmt.Errorf("count devices' topics: %w", err)
	}
	return full, nil
}

// Unsubscribe ends devices' own subscriptions to a topic, in one commit, with a result for each: NotFound "device_not_found". What
// they are subscribed to through their user stays. It may be repeated.
func (s *Store) Unsubscribe(ctx context.Context, app ident.App, topic string, devices []ident.Device) (each []error, err error) {
	err = s.write(ctx, "unsubscribe devices", newOp(func(t *tx) error {
		known, err := t.registered(app, devices)
		if err != nil {
			return err
		}
		each = make([]error, len(devices))
		var own []ident.Device
		for i, d := range devices {
			if known[d] {
				own = append(own, d)
			} else {
				each[i] = deviceNotFound()
			}
		}
		return t.unsubscribe(topic, "", own)
	}).locking(devices...).weighing(len(devices)*rowBytes))
	if err != nil {
		return nil, err
	}
	return each, nil
}

func (t *tx) unsubscribe(topic, via string, devices []ident.Device) error {
	return t.eachPiece(unsubscribesOf, devices, func(query string, args ...any) error {
		if _, err := t.exec(query, args...); err != nil {
			return fmt.Errorf("end subscriptions: %w", err)
		}
		return nil
	}, topic, via)
}

// SubscribeUser subscribes all devices of a user, those that come later included, for as long as they are the user's. NotFound
// "app_not_found"; Invalid "too_many_topics" if the user has 100 others.
func (s *Store) SubscribeUser(ctx context.Context, app ident.App, topic, user string, now time.Time) error {
	return s.write(ctx, "subscribe a user", newOp(func(t *tx) error {
		if err := t.shareApp(app); err != nil {
			return err
		}
		if _, err := t.needApp(app); err != nil {
			return err
		}
		if err := t.claimUsers(app, user); err != nil {
			return err
		}
		var others int
		if err := t.get(&others, countUserTopics, string(app), user, topic); err != nil {
			return fmt.Errorf("count a user's topics: %w", err)
		}
		if others >= tokens.MaxUserTopics {
			return tooManyTopics("user", tokens.MaxUserTopics)
		}
		return t.subscribeUser(app, topic, user, now)
	}).weighing(maxUserDevices*rowBytes))
}

func (t *tx) subscribeUser(app ident.App, topic, user string, now time.Time) error {
	if err := t.shareTopics(app, []string{topic}); err != nil {
		return err
	}
	if err := t.putTopics(app, []string{topic}, now); err != nil {
		return err
	}
	if _, err := t.exec(insertUserTopic, string(app), user, topic, millis(now)); err != nil {
		return fmt.Errorf("subscribe a user: %w", err)
	}
	devices, err := t.boundTo(app, user)
	if err != nil {
		return err
	}
	list := make([]subscription, 0, len(devices))
	for _, d := range devices {
		list = append(list, subscription{d, topic})
	}
	return t.putSubscriptions(app, plainText(user), list, now)
}

// boundTo returns the registered devices of a user who is claimed: they stay the user's until the commit.
func (t *tx) boundTo(app ident.App, user string) (list []ident.Device, err error) {
	if err := t.list(&list, selectDevicesOf, string(app), user); err != nil {
		return nil, fmt.Errorf("list a user's devices: %w", err)
	}
	return list, nil
}

// UnsubscribeUser ends that. It may be repeated.
func (s *Store) UnsubscribeUser(ctx context.Context, app ident.App, topic, user string) error {
	return s.write(ctx, "unsubscribe a user", newOp(func(t *tx) error {
		if err := t.claimUsers(app, user); err != nil {
			return err
		}
		if _, err := t.exec(deleteUserTopic, string(app), user, topic); err != nil {
			return fmt.Errorf("unsubscribe a user: %w", err)
		}
		devices, err := t.boundTo(app, user)
		if err != nil {
			return err
		}
		return t.unsubscribe(topic, user, devices)
	}).weighing(maxUserDevices*rowBytes))
}

// DeviceTopics returns what a device is subscribed to, itself or through its user, by name.
func (s *Store) DeviceTopics(ctx context.Context, device ident.Device) (list []string, err error) {
	if err := s.reads.list(ctx, &list, selectTopicsOf, string(device)); err != nil {
		return nil, s.readError("list a device's topics", err)
	}
	return list, nil
}
