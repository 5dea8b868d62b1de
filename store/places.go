package store

import (
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
	var devices []ident.Device
	asked := map[userKey]bool{}
	for _, o := range ops {
		switch {
		case o.send != nil && o.send.send.To.Device != "":
			devices = append(devices, o.send.send.To.Device)
		case o.send != nil:
			at := userKey{o.send.send.App, o.send.send.To.User}
			if asked[at] {
				continue
			}
			asked[at] = true
			var list []ident.Device
			if err := t.list(&list, selectDevicesOf, string(at.app), at.user); err != nil {
				return fmt.Errorf("list a user's devices: %w", err)
			}
			devices = append(devices, list...)
		case o.lands != "":
			devices = append(devices, o.lands)
		default:
			devices = append(devices, o.locks...)
		}
	}
	return t.lock(slices.AppendSeq(devices, maps.Keys(t.lane)))
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
	if _, err := t.w.exec(lockShards, missing); err != nil {
		return fmt.Errorf("lock shards: %w", err)
	}
	return nil
}

// Statements that lock. lockShards goes in the order of its array, as unnest does.
var (
	lockShards = fmt.Sprintf("SELECT pg_advisory_xact_lock(%d, shard) FROM unnest(CAST(? AS INT[])) AS shard", shardLocks)
	lockApp    = fmt.Sprintf("SELECT pg_advisory_xact_lock(%d, CAST(? AS INT))", appLocks)
	shareApp   = fmt.Sprintf("SELECT pg_advisory_xact_lock_shared(%d, CAST(? AS INT))", appLocks)
)

// lockApp has what concerns an app as a whole happen one after the other: credentials and circuits speak of each other, and its
// events become visible in the order of their places.
func (t *tx) lockApp(app ident.App) error { return t.lockAs(lockApp, app) }

// shareApp keeps the app from being deleted meanwhile.
func (t *tx) shareApp(app ident.App) error { return t.lockAs(shareApp, app) }

func (t *tx) lockAs(query string, app ident.App) error {
	if !t.w.store.dialect.shared {
		return nil
	}
	if _, err := t.w.exec(query, shardOf(string(app))); err != nil {
		return fmt.Errorf("lock an app: %w", err)
	}
	return nil
}

// fetchPlaces takes n places from the sequence. The caller holds the locks of whatever inbox it gives them in.
func (t *tx) fetchPlaces(n int) error {
	if err := t.list(&t.places, "SELECT nextval('places') FROM generate_series(1, ?)", max(n, 1)); err != nil {
		return fmt.Errorf("take places: %w", err)
	}
	slices.Sort(t.places)
	return nil
}

func (t *tx) placeOfSequence() (messages.Seq, error) {
	if len(t.places) == 0 {
		if err := t.fetchPlaces(t.expected); err != nil {
			return 0, err
		}
	}
	seq := t.places[0]
	t.places, t.expected = t.places[1:], t.expected-1
	return messages.Seq(seq), nil
}
