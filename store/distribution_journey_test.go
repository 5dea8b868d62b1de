package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// journey is the store's daily work on a recorded, distributed database: each step says what it is for.
type journey struct {
	t *testing.T
	*recorder
	s    *Store
	ctx  context.Context
	app  ident.App
	now  time.Time
	list []ident.Device
}

// onPieces opens a recorded store on a database that the stand-in has spread.
func onPieces(t *testing.T, change ...func(*Options)) *journey {
	t.Helper()
	dsn := PostgresForTest(t)
	plain := openFile(t, "", func(o *Options) { o.DSN = dsn })
	DistributeForTest(t, plain)
	if err := plain.Close(); err != nil {
		t.Fatal(err)
	}
	j := &journey{t: t, recorder: record(t, dsn), ctx: context.Background(), app: ident.NewApp(), now: time.Now()}
	j.s = unhurried(openFile(t, "", append([]func(*Options){func(o *Options) { o.DSN = j.dsn }}, change...)...))
	start(t, j.s)
	j.must(j.s.CreateApp(j.ctx, tokens.App{ID: j.app, Name: "app", InboxOverflow: tokens.OverflowDropOldest, CreatedAt: j.now}, nil))
	for range 12 {
		j.list = append(j.list, j.register())
	}
	return j
}

// DistributeForTest spreads a migrated database with the stand-in for Citus.
func DistributeForTest(t testing.TB, s *Store) {
	t.Helper()
	s.onWriter(t, standIn)
	if _, err := s.Distribute(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
}

func (j *journey) must(err error) {
	j.t.Helper()
	if err != nil {
		j.t.Fatal(err)
	}
}

func (j *journey) enrol() tokens.Enrol {
	id := ident.NewDevice()
	return tokens.Enrol{Registration: tokens.Registration{App: j.app, Installation: string(id), Platform: tokens.Android, Provider: tokens.FCM,
		Token: tokens.Token("token-of-" + id)}, As: tokens.PublishableKey, ID: id, Secret: sha256.Sum256([]byte(id)), Now: j.now}
}

func (j *journey) register() ident.Device {
	j.t.Helper()
	d, _, err := j.s.Register(j.ctx, j.enrol())
	j.must(err)
	return d.ID
}

func (j *journey) accept(m messages.Send) messages.Receipt {
	j.t.Helper()
	r, err := j.s.Accept(j.ctx, m)
	j.must(err)
	return r
}

func (j *journey) to(d ident.Device, change ...func(*messages.Send)) messages.Send {
	m := sendTo(j.app, d)
	m.CreatedAt = j.now
	for _, f := range change {
		f(&m)
	}
	return m
}

// toUser is a message to a user to whom so many of the devices are bound.
func (j *journey) toUser(devices int) messages.Send {
	j.t.Helper()
	user := fmt.Sprint("user of ", devices)
	for _, d := range j.list[:devices] {
		j.must(j.s.BindUser(j.ctx, j.app, user, d, j.now))
	}
	return j.to("", func(m *messages.Send) { m.To = messages.Target{User: user} })
}

func (j *journey) page(d ident.Device) messages.Page {
	j.t.Helper()
	p, err := j.s.Inbox(j.ctx, messages.Query{Device: d, Limit: 100, Now: j.now})
	j.must(err)
	return p
}

// one walks a message's way to one device: whatever is sent meanwhile concerns that device alone.
func (j *journey) one(d ident.Device) {
	key := func(m *messages.Send) { m.Idempotency.Key = "key of " + string(d) }
	collapsing := func(m *messages.Send) { m.CollapseKey = "news" }
	noted := func(m *messages.Send) { m.Notification = &messages.Notification{Title: "t", Body: "b"} }
	j.during("one: check its secret", func() {
		_, _, _, err := j.s.DeviceAuth(j.ctx, d)
		j.must(err)
	})
	j.during("one: accept", func() {
		j.accept(j.to(d))
		j.accept(j.to(d, key))
		j.accept(j.to(d, key))
		j.accept(j.to(d, collapsing))
		j.accept(j.to(d, collapsing))
		j.accept(j.to(d, noted))
		j.accept(j.to(d, func(m *messages.Send) { m.TTL = 0 }))
	})
	j.during("one: what waits", func() {
		_, _, err := j.s.Waiting(j.ctx, d, j.now)
		j.must(err)
		_, err = j.s.Fresh(j.ctx, []messages.Poll{{Device: d}}, j.now)
		j.must(err)
	})
	var page messages.Page
	j.during("one: fetch", func() {
		page = j.page(d)
		_, err := j.s.Item(j.ctx, d, page.Items[0].ID, j.now)
		j.must(err)
	})
	j.during("one: wake, contact and ack", func() {
		for range 2 {
			j.s.RecordWake(wakeOf(d, page.Last))
		}
		j.s.Contact(d, j.now)
		_, err := j.s.AckIDs(j.ctx, d, []ident.Message{page.Items[0].ID}, j.now)
		j.must(err)
		_, err = j.s.AckIDs(j.ctx, d, []ident.Message{page.Items[1].ID, page.Items[2].ID}, j.now)
		j.must(err)
		j.page(d)
		_, err = j.s.AckUpTo(j.ctx, d, page.Last, j.now)
		j.must(err)
	})
	j.during("one: reports", func() {
		_, err := j.s.Report(j.ctx, d, []messages.Report{{Message: page.Items[0].ID, Kind: messages.Displayed}, {Message: page.Items[0].ID, Kind: messages.Opened}}, j.now)
		j.must(err)
	})
	j.during("one: a verdict and the token again", func() {
		device, err := j.s.Device(j.ctx, j.app, d)
		j.must(err)
		_, err = j.s.MarkToken(j.ctx, tokens.TokenMark{Device: d, Generation: device.Generation, State: tokens.TokenSuspect, Reason: "why", Strike: true, At: j.now})
		j.must(err)
		_, err = j.s.PatchDevice(j.ctx, d, tokens.Patch{Token: &device.Token}, j.now)
		j.must(err)
		j.must(j.s.NotePush(j.ctx, d, true, j.now))
		j.must(j.s.NotePush(j.ctx, d, false, j.now))
		j.must(j.s.RotateSecret(j.ctx, d, tokens.Hash{1}, j.now))
	})
}

// full fills an inbox whose app drops the oldest, so that gaps come and go.
func (j *journey) full(d ident.Device) {
	j.during("one: accept into a full inbox", func() {
		for range 6 {
			j.accept(j.to(d))
		}
	})
	j.during("one: fetch and ack a gap", func() {
		p := j.page(d)
		_, err := j.s.AckUpTo(j.ctx, d, p.Last, j.now)
		j.must(err)
	})
}

// each does something for all devices at once.
func each(devices []ident.Device, do func(ident.Device)) {
	var all sync.WaitGroup
	for _, d := range devices {
		all.Go(func() { do(d) })
	}
	all.Wait()
}

// many has several devices served by the same batches.
func (j *journey) many(devices []ident.Device) {
	j.during("many: accept", func() { each(devices, func(d ident.Device) { j.accept(j.to(d)) }) })
	j.during("many: what waits", func() {
		var polls []messages.Poll
		for _, d := range devices {
			polls = append(polls, messages.Poll{Device: d})
		}
		_, err := j.s.Fresh(j.ctx, polls, j.now)
		j.must(err)
	})
	j.during("many: wake, fetch and ack", func() {
		each(devices, func(d ident.Device) {
			p := j.page(d)
			j.s.RecordWake(wakeOf(d, p.Last))
			_, err := j.s.AckUpTo(j.ctx, d, p.Last, j.now)
			j.must(err)
		})
	})
	j.during("many: send to users", func() {
		j.accept(j.toUser(0))
		j.accept(j.toUser(1))
		j.accept(j.toUser(2))
	})
	j.during("many: fetch and ack what several share", func() {
		for _, d := range j.list[:2] {
			_, err := j.s.AckUpTo(j.ctx, d, j.page(d).Last, j.now)
			j.must(err)
		}
	})
}

// seldom does what is not done for each message.
func (j *journey) seldom() {
	d, later := j.list[3], j.now.Add(40*24*time.Hour)
	j.must(j.s.PutCredential(j.ctx, tokens.Credential{App: j.app, Provider: tokens.FCM, Fingerprint: "f", Secret: []byte("s"), UpdatedAt: j.now}))
	sent := j.accept(j.to(d))
	shared := j.accept(j.toUser(2))
	j.during("seldom: register", func() {
		e := j.enrol()
		_, _, err := j.s.Register(j.ctx, e)
		j.must(err)
		e.As = tokens.SecretKey
		_, _, err = j.s.Register(j.ctx, e)
		j.must(err)
		other := tokens.Token("token-of-" + d)
		_, err = j.s.PatchDevice(j.ctx, e.ID, tokens.Patch{Token: &other}, j.now)
		j.must(err)
		moved, err := j.s.Device(j.ctx, j.app, e.ID)
		j.must(err)
		_, err = j.s.MoveToken(j.ctx, e.ID, moved.Generation, tokens.Sandbox)
		j.must(err)
		j.must(j.s.Unregister(j.ctx, j.app, e.ID, j.now))
	})
	j.during("seldom: ask what became of messages, and cancel one", func() {
		for _, id := range []ident.Message{sent.ID, shared.ID} {
			_, err := j.s.Message(j.ctx, j.app, id)
			j.must(err)
			_, _, err = j.s.Deliveries(j.ctx, j.app, id, "", 10)
			j.must(err)
		}
		_, err := j.s.Cancel(j.ctx, j.app, sent.ID, j.now)
		j.must(err)
	})
	j.during("seldom: sweep, expire, purge, count", func() {
		_, _, _, err := j.s.Sweep(j.ctx, messages.SweepQuery{Class: messages.HighWake, Before: later, Now: later, Limit: 10})
		j.must(err)
		_, err = j.s.Expire(j.ctx, later, 1000)
		j.must(err)
		_, err = j.s.Purge(j.ctx, later.Add(time.Hour), later.Add(time.Hour), 100_000)
		j.must(err)
		_, err = j.s.Pending(j.ctx)
		j.must(err)
	})
	j.during("seldom: a wave of deaths", func() {
		_, err := j.s.TakeBackDeaths(j.ctx, j.app, tokens.FCM, time.UnixMilli(0))
		j.must(err)
	})
	j.during("seldom: delete the app", func() { j.must(j.s.DeleteApp(j.ctx, j.app)) })
}
