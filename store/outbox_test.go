package store

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// allEvents reads all events of an app, a few at a time.
func allEvents(t testing.TB, s *Store, q messages.EventQuery) (list []messages.Event) {
	t.Helper()
	for q.Limit = 7; ; {
		p, err := s.EventPage(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p.Events...)
		if q.After = p.Next; !p.More {
			return list
		}
	}
}

// aboutMessage is the data of an event of a delivery.
type aboutMessage struct {
	Message     ident.Message `json:"message_id"`
	Device      ident.Device  `json:"device_id"`
	Correlation string        `json:"correlation_id"`
	Reason      string        `json:"reason"`
	ReplacedBy  ident.Message `json:"replaced_by"`
}

func about(t testing.TB, e messages.Event) (d aboutMessage) {
	t.Helper()
	if err := json.Unmarshal(e.Data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// eachEndIsToldOnce compares the events of an app with what is in its inboxes.
func eachEndIsToldOnce(t testing.TB, s *Store, app ident.App) (ends map[messages.EventType]int) {
	t.Helper()
	var rows []struct {
		Device  ident.Device   `db:"device"`
		Message ident.Message  `db:"message"`
		Ended   messages.State `db:"ended"`
		Reason  string         `db:"reason"`
		Corr    string         `db:"correlation_id"`
	}
	const ended = `SELECT device, message, ended, COALESCE(reason, '') AS reason, COALESCE(correlation_id, '') AS correlation_id
		FROM deliveries WHERE app = ? AND ended_at IS NOT NULL`
	if err := s.reads.list(context.Background(), &rows, ended, string(app)); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for _, r := range rows {
		want[fmt.Sprint(eventOf[r.Ended], r.Device, r.Message, r.Reason, plainText(r.Corr))]++
	}
	ends = map[messages.EventType]int{}
	for _, e := range allEvents(t, s, messages.EventQuery{App: app, Types: messages.EventFilter{"message.*"}}) {
		d := about(t, e)
		if e.Device != d.Device || (d.ReplacedBy != "") != (e.Type == messages.MessageReplaced) {
			t.Errorf("%s: %s of %q", e.Type, e.Data, e.Device)
		}
		want[fmt.Sprint(e.Type, d.Device, d.Message, d.Reason, d.Correlation)]--
		ends[e.Type]++
	}
	for what, n := range want {
		if n != 0 {
			t.Errorf("%d ends more than events of %s", n, what)
		}
	}
	return ends
}

// play does whatever ends deliveries, in whatever order, from several callers at once.
type play struct {
	s       *Store
	app     ident.App
	started time.Time

	mu      sync.Mutex
	devices []ident.Device // guarded by mu, as the next
	sent    []ident.Message
}

const playUser = "anna"

func newPlay(t testing.TB, s *Store, overflow tokens.Overflow) *play {
	t.Helper()
	p := &play{s: s, app: ident.NewApp(), started: time.Now()}
	if err := s.CreateApp(context.Background(), tokens.App{ID: p.app, InboxOverflow: overflow, CreatedAt: p.started}, nil); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		p.register()
	}
	return p
}

func (p *play) register() {
	id := ident.NewDevice()
	_, _, err := p.s.Register(context.Background(), tokens.Enrol{Registration: tokens.Registration{App: p.app, Installation: string(id),
		Provider: tokens.NoProvider}, As: tokens.PublishableKey, ID: id, Now: p.started})
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil || len(p.devices) == 0 {
		p.devices = append(p.devices, id)
	}
}

func one[T any](list []T) T { return list[rand.IntN(len(list))] }

func (p *play) device() ident.Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	return one(p.devices)
}

// step does one thing. What it is refused is of no interest.
func (p *play) step() {
	ctx, d := context.Background(), p.device()
	now := p.started.Add(time.Duration(rand.IntN(60)) * time.Second)
	switch rand.IntN(12) {
	case 0, 1, 2, 3, 4:
		m := sendTo(p.app, d)
		if rand.IntN(3) == 0 {
			m.To = one([]messages.Target{{User: playUser}, {Broadcast: true}})
		}
		m.CreatedAt, m.CorrelationID = now, one([]string{"", "order 1", "\"\\\n\u00e9\u2028\xff"})
		m.TTL, m.CollapseKey = one([]time.Duration{time.Second, time.Hour}), one([]string{"", "k", "k", "l"})
		if m.To.Device != "" && rand.IntN(4) == 0 {
			m.TTL = 0
		}
		if _, err := p.s.Accept(ctx, m); err != nil {
			return
		}
		p.mu.Lock()
		p.sent = append(p.sent, m.ID)
		p.mu.Unlock()
	case 5:
		page, err := p.s.Inbox(ctx, messages.Query{Device: d, Limit: 3, Now: now})
		if err == nil && len(page.Items) > 0 {
			_, _ = p.s.AckUpTo(ctx, d, page.Last, now)
		}
	case 6:
		page, err := p.s.Inbox(ctx, messages.Query{Device: d, Limit: 2, Now: now})
		for _, item := range page.Items {
			if err == nil {
				_, _ = p.s.AckIDs(ctx, d, []ident.Message{item.ID, item.ID}, now)
			}
		}
	case 7:
		p.mu.Lock()
		sent := slices.Clone(p.sent)
		p.mu.Unlock()
		if len(sent) > 0 {
			_, _ = p.s.Cancel(ctx, p.app, one(sent), now)
		}
	case 8:
		_, _ = p.s.Expire(ctx, now, 50)
	case 9:
		_ = p.s.Unregister(ctx, p.app, d, now)
		p.register()
	case 10:
		_ = p.s.BindUser(ctx, p.app, one([]string{playUser, playUser, "bert"}), d, now)
	case 11:
		_ = p.s.UnbindUser(ctx, p.app, "", d, now)
	}
	p.fanOut(now)
}

func (p *play) fanOut(now time.Time) {
	jobs, _ := p.s.FanJobs(context.Background(), now.Add(time.Hour), 10)
	for _, j := range jobs {
		_, _ = p.s.FanOut(context.Background(), j.Message, 2, now.Add(time.Hour))
	}
}

func (p *play) run(steps int) {
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for range steps {
				p.step()
			}
		})
	}
	all.Wait()
}

func eachEndIsTold(t *testing.T, s *Store, overflow tokens.Overflow) {
	p := newPlay(t, s, overflow)
	p.run(150)
	ends := eachEndIsToldOnce(t, s, p.app)
	for _, kind := range eventOf {
		if ends[kind] == 0 {
			t.Errorf("nothing was told as %s", kind)
		}
	}
	devices := map[messages.EventType]int{}
	for _, e := range allEvents(t, s, messages.EventQuery{App: p.app, Types: messages.EventFilter{"device.*"}}) {
		devices[e.Type]++
	}
	if devices[messages.DeviceRegistered] != len(p.devices) || devices[messages.DeviceUnregistered] == 0 {
		t.Errorf("of %d devices was told %v", len(p.devices), devices)
	}
}

func fourMessages(o *Options) { o.InboxMessages = 4 }

// However a delivery ends, one event tells of it, and nothing else does.
func TestEachEndIsToldOnce(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) *Store{
		"sqlite":   func(t *testing.T) *Store { return openFile(t, "", fourMessages) },
		"postgres": func(t *testing.T) *Store { return nodes(t, 1, fourMessages)[0] },
	} {
		for _, overflow := range []tokens.Overflow{tokens.OverflowReject, tokens.OverflowDropOldest} {
			t.Run(name+" "+string(overflow), func(t *testing.T) {
				t.Parallel()
				s := open(t)
				start(t, s)
				eachEndIsTold(t, s, overflow)
			})
		}
	}
}

// A kill in the middle leaves no ending without its event, and no event without its ending.
func TestAKillLeavesEachEndTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from.db"), filepath.Join(dir, "to.db")
	s := openFile(t, from, fourMessages)
	start(t, s)
	s.connection(t)("wal_autocheckpoint = 0") // so that the log and the file belong together at any moment
	p := newPlay(t, s, tokens.OverflowDropOldest)
	played := make(chan struct{})
	go func() { p.run(60); close(played) }()
	waitFor(t, func() bool {
		kinds := map[messages.EventType]bool{}
		for _, e := range allEvents(t, s, messages.EventQuery{App: p.app, Types: messages.EventFilter{"message.*"}}) {
			kinds[e.Type] = true
		}
		return len(kinds) > 2
	})
	for _, suffix := range []string{"-wal", ""} {
		if err := copyFile(from+suffix, to+suffix); err != nil {
			t.Error(err)
		}
	}
	<-played
	left := openFile(t, to)
	start(t, left)
	if ends := eachEndIsToldOnce(t, left, p.app); len(ends) < 3 {
		t.Errorf("too little had happened: %v", ends)
	}
	eachEndIsToldOnce(t, s, p.app)
}

// A batch that is done again, since its connection broke, tells what it comes to in the end.
func TestBrokenConnectionsLeaveEachEndTold(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1, fourMessages)[0]
	start(t, s)
	p := newPlay(t, s, tokens.OverflowDropOldest)
	var broken atomic.Int64
	played := make(chan struct{})
	go func() {
		defer close(played)
		p.run(25)
		for broken.Load() == 0 {
			p.run(1)
		}
	}()
	for over := false; !over; {
		var n int
		const cut = `SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
			AND state <> 'idle'`
		if err := s.reads.get(context.Background(), &n, cut); err == nil {
			broken.Add(int64(n))
		}
		select {
		case <-played:
			over = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.reads.db.SetMaxIdleConns(0) // one that was broken when it had just answered does not know it yet
	waitFor(t, func() bool { return s.Ready(context.Background()) == nil })
	eachEndIsToldOnce(t, s, p.app)
}
