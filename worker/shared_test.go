package worker_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rouse/bus"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
	"rouse/worker"
)

func TestMain(m *testing.M) {
	// Two goroutines of a bubble that meet a timer which has ended at once may crash the race detector (golang/go#78156): none run at once.
	runtime.GOMAXPROCS(1)
	goleak.VerifyTestMain(m)
}

// machine is one node of several on a PostgreSQL of their own, in real time: its store, its end of the bus, its worker.
type machine struct {
	store *store.Store
	bus   worker.Bus
}

// onPostgres runs n nodes on one database, with a bus over it that drops half of what is said. kill ends one as a crash
// would, as far as hints and homes are concerned.
func onPostgres(t *testing.T, n int, p *provider) (nodes []machine, town *town, kill func(i int)) {
	t.Helper()
	dsn, ring := testkit.MigratedPostgres(t), testkit.Ring(t)
	town = newTown()
	var stops []func()
	for i := range n { // before any of them asks
		town.homes = append(town.homes, i)
	}
	for i := range n {
		m, stop := onePostgres(t, dsn, ring, citizen{town, i}, p)
		nodes, stops = append(nodes, m), append(stops, stop)
	}
	t.Cleanup(func() {
		for _, stop := range stops {
			stop()
		}
	})
	return nodes, town, func(i int) { stops[i]() }
}

func onePostgres(t *testing.T, dsn string, ring *tokens.Ring, c citizen, p *provider) (m machine, stop func()) {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{DSN: dsn, Ring: ring})
	must(t, err)
	must(t, s.Migrate(t.Context()))
	far, err := bus.NewPostgres(dsn, nil)
	must(t, err)
	m = machine{store: s, bus: testkit.NewLossy(far, uint64(c.number)+1)}
	w := worker.New(worker.Options{Store: s, Tokens: s, Circuits: s, Sweeps: s, Expiries: s, Pusher: p, Fanouts: s, Hints: m.bus, Nodes: c})
	c.town.joins(w)
	ends := []func(){runs(t, "store", s.Run), runs(t, "bus", far.Run), runs(t, "worker", w.Run)}
	return m, sync.OnceFunc(func() {
		for i := len(ends) - 1; i >= 0; i-- {
			ends[i]()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// runs runs one part and returns what ends it.
func runs(t *testing.T, what string, run func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// accepts has a node accept a message that is older than the ladder's first step, so that the sweeps come for it at once, and that has more
// than two minutes to the next.
func (m machine) accepts(t *testing.T, app ident.App, to ident.Device) {
	t.Helper()
	r := testkit.Accept(t, m.store, testkit.Send(app, to, func(s *messages.Send) { s.CreatedAt = time.Now().Add(-75 * time.Second) }))
	for _, p := range r.Pending {
		m.bus.Hint(messages.Hint{Kind: messages.HintNew, App: app, Device: p.Device, Seq: p.Seq, Class: p.Class})
	}
}

// patience is how long anything may take on a machine that does other things too.
const patience = time.Minute

// eventually waits for real engines.
func eventually(t *testing.T, within time.Duration, what func() (bool, string)) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, is := what()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after %s %s", within, is)
		}
	}
}

func TestThreeNodesOnPostgreSQLWakeEveryPhoneOverALossyBus(t *testing.T) {
	t.Parallel()
	p := &provider{}
	nodes, town, kill := onPostgres(t, 3, p)
	app := testkit.App(t, nodes[0].store).ID
	var phones []ident.Device
	batch := func() {
		for i := range 60 {
			d := testkit.Device(t, nodes[0].store, app).ID
			phones = append(phones, d)
			nodes[i%2].accepts(t, app, d)
		}
	}
	allWoken := func() (bool, string) {
		n := map[ident.Device]bool{}
		for _, push := range p.sent() {
			n[push.Device] = true
		}
		return len(n) == len(phones), fmt.Sprintf("%d of %d phones were woken", len(n), len(phones))
	}
	batch()
	eventually(t, patience, allWoken)
	batch()
	kill(2)
	town.set(1, 0, 1)
	batch()
	eventually(t, patience, allWoken)
	if n, most := len(p.sent()), 2*len(phones); n > most {
		t.Errorf("%d pushes to %d phones", n, len(phones))
	}
}

// The duty goes to and fro while a broadcast is under way, without waiting for the page of the one before.
func TestTwoNodesOnPostgreSQLFanOutToEveryoneOnce(t *testing.T) {
	t.Parallel()
	const n = 300
	nodes, town, _ := onPostgres(t, 2, &provider{})
	s := nodes[0].store
	app := testkit.App(t, s).ID
	rate := 200
	_, err := s.PatchApp(t.Context(), app, tokens.AppPatch{BroadcastRate: &rate})
	must(t, err)
	var phones []ident.Device
	for range n {
		phones = append(phones, testkit.Device(t, s, app).ID)
	}
	m, err := messages.New(messages.Send{App: app, To: everybody, Urgency: messages.High, Data: []byte("1"), TTL: messages.DefaultTTL, CreatedAt: time.Now()})
	must(t, err)
	r := testkit.Accept(t, s, m)
	reached := func(least int) func() (bool, string) {
		return func() (bool, string) {
			now, err := s.Message(t.Context(), app, r.ID)
			must(t, err)
			return now.Recipients >= least, fmt.Sprintf("%d of %d were reached", now.Recipients, n)
		}
	}
	for i, least := range []int{1, n / 3, 2 * n / 3} {
		eventually(t, patience, reached(least))
		town.set((i+1)%2, 0, 1)
	}
	eventually(t, patience, reached(n))
	for _, d := range phones {
		page, err := s.Inbox(t.Context(), messages.Query{Device: d, Limit: 10, Now: time.Now()})
		must(t, err)
		if len(page.Items) != 1 || page.Items[0].ID != r.ID {
			t.Errorf("%s has %d messages", d, len(page.Items))
		}
	}
}
