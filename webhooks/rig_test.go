package webhooks_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"rouse/bus"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
	"rouse/webhooks"
)

func TestMain(m *testing.M) {
	// Two goroutines of a bubble that meet a timer which has ended at once may crash the race detector (golang/go#78156): none run at once.
	runtime.GOMAXPROCS(1)
	goleak.VerifyTestMain(m)
}

// inside is what the operator of these tests allows.
var inside = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}

// alone leads as the only node does.
type alone struct{}

func (alone) Lead(ctx context.Context, _ string, work func(context.Context) error) error {
	return work(ctx)
}

// office is a store, a bus, a poster and receivers on virtual time.
type office struct {
	t      *testing.T
	dsn    string
	ring   *tokens.Ring
	store  *store.Store
	bus    *bus.Memory
	poster *webhooks.Poster
	app    ident.App
	log    journal
	stop   func() // ends the poster
	close  func() // ends the store
	// receivers by their address.
	receivers map[string]*receiver
}

// inOffice runs test in a bubble of virtual time with a real store on SQLite.
func inOffice(t *testing.T, test func(o *office)) {
	t.Helper()
	dsn := testkit.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		o := &office{t: t, dsn: dsn, ring: testkit.Ring(t), bus: &bus.Memory{}, receivers: map[string]*receiver{}}
		o.open()
		o.app = testkit.App(t, o.store).ID
		o.start()
		defer func() {
			o.stop()
			o.close()
			for _, r := range o.receivers {
				r.end()
			}
		}()
		test(o)
	})
}

// open opens the store and runs it.
func (o *office) open() {
	o.t.Helper()
	s, err := store.Open(context.Background(), store.Options{DSN: o.dsn, Ring: o.ring})
	must(o.t, err)
	must(o.t, s.Migrate(context.Background()))
	stop := testkit.Run(o.t, s)
	o.store = s
	o.close = func() {
		stop()
		if err := s.Close(); err != nil {
			o.t.Error(err)
		}
	}
}

// start starts a poster; change may set options.
func (o *office) start(change ...func(*webhooks.Options)) {
	o.t.Helper()
	options := webhooks.Options{Store: o.store, Hints: o.bus, Nodes: alone{}, Allow: inside, Dial: o.dial, Log: slog.New(slog.NewTextHandler(&o.log, nil))}
	for _, f := range change {
		f(&options)
	}
	p, err := webhooks.New(options)
	must(o.t, err)
	o.poster, o.stop = p, run(o.t, p)
}

// run runs a poster and returns what ends it.
func run(t *testing.T, p *webhooks.Poster) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// skip lets time go by without a poster.
func (o *office) skip(d time.Duration) {
	o.stop()
	o.pass(d)
	o.start()
}

// dial leads to the receivers.
func (o *office) dial(ctx context.Context, _, address string, control func(string) error) (net.Conn, error) {
	if err := control(address); err != nil {
		return nil, err
	}
	r := o.receivers[address]
	if r == nil || r.isDown() {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	select {
	case r.calls <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// journal is a log.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pass lets virtual time go by.
func (o *office) pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // time is virtual here
	synctest.Wait()
}

// device registers a device.
func (o *office) device() ident.Device { return testkit.Device(o.t, o.store, o.app).ID }

// happen makes n events of the device, one after the other.
func (o *office) happen(d ident.Device, n int) {
	o.t.Helper()
	for range n {
		seq := accept(o.t, o.store, o.app, d)
		_, err := o.store.AckUpTo(context.Background(), d, seq, time.Now())
		must(o.t, err)
		o.bus.Hint(messages.Hint{Kind: messages.HintAcked, App: o.app, Device: d})
	}
}

// accept has a message wait for the device, and returns the place up to which it has some.
func accept(t *testing.T, s *store.Store, app ident.App, d ident.Device) messages.Seq {
	t.Helper()
	testkit.Accept(t, s, testkit.Send(app, d))
	page, err := s.Inbox(context.Background(), messages.Query{Device: d, Limit: 100, Now: time.Now()})
	must(t, err)
	return page.Items[len(page.Items)-1].Seq
}

// hook adds a webhook for all events that leads to the receiver.
func (o *office) hook(r *receiver, events ...string) ident.Webhook {
	o.t.Helper()
	if len(events) == 0 {
		events = []string{"*"}
	}
	id := addHook(o.t, o.store, o.app, r, events...)
	o.bus.Hint(messages.Hint{Kind: messages.HintEvents, App: o.app})
	return id
}

func addHook(t *testing.T, s *store.Store, app ident.App, r *receiver, events ...string) ident.Webhook {
	t.Helper()
	secret := sha256.Sum256([]byte(r.address))
	h := messages.Webhook{ID: ident.NewWebhook(), App: app, URL: "http://" + r.address + "/hook?token=of-the-receiver", Events: events, CreatedAt: time.Now()}
	must(t, s.AddWebhook(context.Background(), h, secret[:]))
	r.secrets = [][]byte{secret[:]}
	return h.ID
}

// webhook reads what a webhook is.
func (o *office) webhook(id ident.Webhook) messages.Webhook {
	o.t.Helper()
	list, err := o.store.Webhooks(context.Background(), o.app)
	must(o.t, err)
	i := slices.IndexFunc(list, func(h messages.Webhook) bool { return h.ID == id })
	if i < 0 {
		o.t.Fatalf("there is no webhook %s", id)
	}
	return list[i]
}

// events are all that the app has.
func (o *office) events() []messages.Event {
	o.t.Helper()
	return eventsOf(o.t, o.store, o.app)
}

func eventsOf(t *testing.T, s *store.Store, app ident.App) (all []messages.Event) {
	t.Helper()
	for page := (messages.EventPage{More: true}); page.More; {
		var err error
		page, err = s.EventPage(context.Background(), messages.EventQuery{App: app, After: page.Next, Limit: 500})
		must(t, err)
		all = append(all, page.Events...)
	}
	return all
}
