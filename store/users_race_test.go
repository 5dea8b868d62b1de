package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// shardWaits waits until somebody waits for the lock of the device's shard.
func shardWaits(t *testing.T, s *Store, d ident.Device) {
	t.Helper()
	query := fmt.Sprintf(`SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %d AND objid = %d AND NOT granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, shardLocks, shardOf(string(d)))
	waitFor(t, func() bool {
		var n int
		if err := s.reads.get(t.Context(), &n, query); err != nil {
			t.Fatal(err)
		}
		return n > 0
	})
}

// lateSend is a send to a user that has seen one of the user's devices, and waits for that one's lock.
type lateSend struct {
	free    chan struct{} // closed: it goes on
	holding chan error    // of who holds the lock
	sent    chan messages.Receipt
}

// sendLate has anna, whose device stays is, sent to by the first node while the third holds her device's lock. comes is registered.
func sendLate(t *testing.T, all []*Store, app ident.App, stays, comes ident.Device) lateSend {
	t.Helper()
	now := time.Now()
	_, _, err := all[0].Register(t.Context(), tokens.Enrol{Registration: tokens.Registration{App: app, Installation: string(comes),
		Platform: tokens.Android, Provider: tokens.NoProvider}, As: tokens.PublishableKey, ID: comes, Now: now})
	if err := errors.Join(err, all[0].BindUser(t.Context(), app, "anna", stays, now)); err != nil {
		t.Fatal(err)
	}
	l := lateSend{free: make(chan struct{}), holding: make(chan error, 1), sent: make(chan messages.Receipt, 1)}
	held := make(chan struct{})
	go func() {
		l.holding <- all[2].write(t.Context(), "hold", newOp(func(x *tx) error {
			if err := x.w.travel(); err != nil {
				return err
			}
			close(held)
			return x.holdOpen(l.free)
		}).locking(stays))
	}()
	<-held
	go func() {
		m := sendTo(app, "")
		m.To.User = "anna"
		r, err := all[0].Accept(t.Context(), m)
		if err != nil {
			t.Error(err)
		}
		l.sent <- r
	}()
	shardWaits(t, all[1], stays)
	return l
}

// A send reads its user's devices before it can lock them. One that was bound after the first look, and unbound before it was locked,
// must not get what was sent: its user had left when that was committed.
func TestASendDoesNotFollowAUserWhoLeftMeanwhile(t *testing.T) {
	t.Parallel()
	all := nodes(t, 3, single)
	startAll(t, all)
	app, stays := populate(t, all[0])
	comes := ident.Device("")
	for comes == "" || shardOf(string(comes)) == shardOf(string(stays)) {
		comes = ident.NewDevice()
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	late := sendLate(t, all, app, stays, comes)
	must(all[1].BindUser(t.Context(), app, "anna", comes, now))
	leaving, go2, left := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		left <- all[1].write(t.Context(), "leave", newOp(func(x *tx) error {
			d, err := x.ownDevice(app, comes)
			if err == nil {
				err = x.bind(&d, "", now)
			}
			if err != nil {
				return err
			}
			close(leaving)
			return x.holdOpen(go2)
		}).locking(comes))
	}()
	<-leaving
	close(late.free)
	shardWaits(t, all[1], comes) // it has seen both, and wants the second
	close(go2)
	must(<-left)
	must(<-late.holding)
	if r := <-late.sent; r.Recipients != 1 || len(r.Pending) != 1 || r.Pending[0].Device != stays {
		t.Errorf("it went to %d: %v", r.Recipients, r.Pending)
	}
	page, err := all[1].Inbox(t.Context(), messages.Query{Device: comes, Limit: 10, Now: now})
	if err != nil || len(page.Items) != 0 {
		t.Errorf("who left is handed %v, %v", page.Items, err)
	}
}

// crossing has two nodes bind devices to a user and subscribe the user to topics at once, while a topic is deleted again and again. It returns
// how many subscriptions of the user's devices are missing, and how many are to what is no topic.
func crossing(t *testing.T, unlocked bool) (missing, orphans int) {
	t.Helper()
	all := nodes(t, 2)
	startAll(t, all)
	app, _ := populate(t, all[0])
	now := time.Now()
	var devices []ident.Device
	for range 16 {
		id := ident.NewDevice()
		_, _, err := all[0].Register(t.Context(), tokens.Enrol{Registration: tokens.Registration{App: app, Installation: string(id),
			Platform: tokens.Android, Provider: tokens.NoProvider}, As: tokens.PublishableKey, ID: id, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		devices = append(devices, id)
	}
	all[0].unlocked, all[1].unlocked = unlocked, unlocked
	var done sync.WaitGroup
	try := func(do func() error) {
		done.Go(func() {
			if err := do(); err != nil && fault.From(err).Code != "topic_not_found" {
				t.Error(err)
			}
		})
	}
	for i, d := range devices {
		s, other := all[i%2], all[(i+1)%2]
		try(func() error { return s.BindUser(t.Context(), app, "anna", d, now) })
		try(func() error { return other.SubscribeUser(t.Context(), app, fmt.Sprint("topic ", i), "anna", now) })
		try(func() error {
			_, err := s.Subscribe(t.Context(), app, "brief", []ident.Device{d}, now)
			return err
		})
		try(func() error { return other.DeleteTopic(t.Context(), app, "brief") })
	}
	done.Wait()
	var have, lost int
	const queryHave = "SELECT COUNT(*) FROM subscriptions WHERE app = ? AND via = 'anna'"
	const queryLost = "SELECT COUNT(*) FROM subscriptions s WHERE s.app = ? AND NOT EXISTS (SELECT 1 FROM topics p WHERE p.app = s.app AND p.name = s.topic)"
	if err := errors.Join(all[0].reads.get(t.Context(), &have, queryHave, string(app)), all[0].reads.get(t.Context(), &lost, queryLost, string(app))); err != nil {
		t.Fatal(err)
	}
	return len(devices)*len(devices) - have, lost
}

func TestAUsersDevicesMissNoTopicOnTwoNodes(t *testing.T) {
	t.Parallel()
	if missing, orphans := crossing(t, false); missing+orphans > 0 {
		t.Errorf("%d subscriptions are missing, %d are to nothing", missing, orphans)
	}
}

// And without the claims some are: that is what the test above would find.
func TestWithoutClaimsAUsersDevicesMissTopics(t *testing.T) {
	t.Parallel()
	for range 5 {
		if missing, orphans := crossing(t, true); missing+orphans > 0 {
			t.Logf("%d subscriptions are missing, %d are to nothing", missing, orphans)
			return
		}
	}
	t.Error("nothing was missed without the claims")
}

// Whoever registers may bring 200 topics, and a batch holds hundreds who do: what they lock must not fill what all sessions share.
func TestManyTopicsTakeFewLocks(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1)[0]
	startAll(t, []*Store{s})
	app, device := populate(t, s)
	held := -1
	err := s.write(t.Context(), "share", newOp(func(x *tx) error {
		topics := make([]string, 5000)
		for i := range topics {
			topics[i] = fmt.Sprint("topic ", i)
		}
		if err := x.shareTopics(app, topics); err != nil {
			return err
		}
		return x.get(&held, "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
	}).locking(device))
	if err != nil || held < topicShards || held > 2*topicShards {
		t.Errorf("%d locks are held: %v", held, err)
	}
}
