package store

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	"rouse/ident"
	"rouse/messages"
)

// Where several nodes write at once, a device belongs to one of a fixed number of shards, and who gives places in its inbox
// holds the shard's lock from before the first place until the commit. So the places of one device become visible in their
// order, and a cursor never skips.

const (
	// shards may never change while nodes of two versions run: both must mean the same lock.
	shards = 64
	// Classes of advisory locks, which share one space with whatever else runs on the database.
	shardLocks   = 0x526f7501
	appLocks     = 0x526f7502
	migrateLocks = 0x526f7503
	nameLocks    = 0x526f7504
	outboxLocks  = 0x526f7505
	topicLocks   = 0x526f7506
)

func shardOf(name string) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // it never fails
	return int32(h.Sum32() % shards)
}

// lockAll takes the locks of a batch before it reads or writes anything: in one order, so that no two batches wait for each
// other. What an op finds out to need later comes out of order, and the engine may have it done again.
func (t *tx) lockAll(ops []*op) error {
	if !t.w.store.dialect.shared {
		return nil
	}
	if err := t.listUsers(ops); err != nil {
		return err
	}
	devices := devicesIn(ops)
	for _, list := range t.users {
		devices = append(devices, list...)
	}
	for _, o := range ops {
		switch {
		case o.sending():
		case o.lands != "":
			devices = append(devices, o.lands)
		default:
			devices = append(devices, o.locks...)
		}
	}
	return t.lock(slices.AppendSeq(devices, maps.Keys(t.lane)))
}

// listUsers reads the devices of all users that the batch sends to.
func (t *tx) listUsers(ops []*op) error {
	t.users = map[userKey][]ident.Device{}
	for a := range sendsIn(ops) {
		if user, asks := asksUser(&a.send); asks {
			t.users[user] = nil
		}
	}
	if len(t.users) == 0 {
		return nil
	}
	if err := t.askUsers(t.users); err != nil {
		return err
	}
	if err := t.w.travel(); err != nil {
		return fmt.Errorf("list the users' devices: %w", err)
	}
	return nil
}

const selectDevicesOfAll = `SELECT d.app, d.user_id, d.id FROM unnest(CAST(? AS TEXT[]), CAST(? AS TEXT[])) AS n (app, user_id)
	JOIN devices d ON d.app = n.app AND d.user_id = n.user_id WHERE d.user_id <> '' AND d.unregistered_at IS NULL ORDER BY d.id`

// askUsers reads, with the next trip, the devices of the users that are the keys of list.
func (t *tx) askUsers(list map[userKey][]ident.Device) error {
	var apps, users []string
	stored := map[userKey]userKey{} // by its name as the database has it
	for at := range list {
		as := userKey{at.app, plainText(at.user)}
		stored[as] = at
		apps, users = append(apps, string(as.app)), append(users, as.user)
	}
	return t.ask(func(r row) error {
		var as userKey
		var d ident.Device
		err := r.Scan(&as.app, &as.user, &d)
		list[stored[as]] = append(list[stored[as]], d)
		return err
	}, selectDevicesOfAll, apps, users)
}

// lock takes the locks of the devices' shards that the transaction does not have yet.
func (t *tx) lock(devices []ident.Device) error {
	if !t.w.store.dialect.shared {
		return nil
	}
	var missing []int32
	for _, d := range devices {
		if s := shardOf(string(d)); !t.locked[s] {
			t.locked[s] = true
			missing = append(missing, s)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	if t.w.store.unlocked {
		return nil
	}
	return t.later(lockShards, missing)
}

// Statements that lock. lockShards goes in the order of its array, as unnest does.
var (
	lockShards = fmt.Sprintf("SELECT pg_advisory_xact_lock(%d, shard) FROM unnest(CAST(? AS INT[])) AS shard", shardLocks)
	lockApp    = fmt.Sprintf("SELECT pg_advisory_xact_lock(%d, CAST(? AS INT))", appLocks)
	shareApp   = fmt.Sprintf("SELECT pg_advisory_xact_lock_shared(%d, CAST(? AS INT))", appLocks)
	lockName   = fmt.Sprintf("SELECT pg_advisory_xact_lock(%d, CAST(? AS INT))", nameLocks)
)

// lockApp has what concerns an app as a whole happen one after the other: credentials and circuits speak of each other.
func (t *tx) lockApp(app ident.App) error { return t.lockAs(lockApp, app) }

// claim has those who want the same thing, of which there is one - an installation, a token - come one after the other, from their look
// for who has it until they commit. A unique index says the same, but a distributed database cannot have it.
func (t *tx) claim(name []byte) error {
	if !t.w.store.dialect.shared || t.w.store.unlocked {
		return nil
	}
	h := fnv.New32a()
	_, _ = h.Write(name) // it never fails
	return t.later(lockName, int32(h.Sum32()))
}

// shareApp keeps the app from being deleted meanwhile.
func (t *tx) shareApp(app ident.App) error { return t.lockAs(shareApp, app) }

func (t *tx) lockAs(query string, app ident.App) error {
	if !t.w.store.dialect.shared {
		return nil
	}
	return t.later(query, shardOf(string(app)))
}

// askPlaces takes n places from the sequence with the next trip. The locks of whatever inbox they are given in were taken, or travel
// before.
func (t *tx) askPlaces(n int) error {
	return t.ask(func(r row) error {
		var seq int64
		err := r.Scan(&seq)
		t.places = append(t.places, seq) // they come in their order
		return err
	}, "SELECT nextval('places') FROM generate_series(1, CAST(? AS BIGINT))", n)
}

func (t *tx) placeOfSequence() (messages.Seq, error) {
	if len(t.places) == 0 {
		if err := errors.Join(t.askPlaces(1), t.w.travel()); err != nil {
			return 0, fmt.Errorf("take a place: %w", err)
		}
	}
	seq := t.places[0]
	t.places = t.places[1:]
	return messages.Seq(seq), nil
}
