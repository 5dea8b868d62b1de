package bench_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"rouse/api"
	"rouse/bus"
	"rouse/client"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

const (
	// parkedCeiling is what a message may take from its 202 on one node to a phone on another with nothing else to do, 99 times
	// of 100.
	parkedCeiling = 50 * time.Millisecond
	// busShare is how much of what writers accept over the bus of one process they accept over one between nodes.
	busShare = 0.85
)

// nodesBus is a bus as a node has it.
type nodesBus interface {
	Hint(hints ...messages.Hint)
	Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error
}

// carriers make the buses between nodes; each call of what they return is another node's.
var carriers = []struct {
	name string
	open func(b *testing.B, dsn string) func() (nodesBus, error)
}{
	{"postgres", func(_ *testing.B, dsn string) func() (nodesBus, error) {
		return func() (nodesBus, error) { return bus.NewPostgres(dsn, nil) }
	}},
	{"nats", func(b *testing.B, _ string) func() (nodesBus, error) {
		url := startNATS(b)
		return func() (nodesBus, error) { return bus.NewNATS(url, nil) }
	}},
}

func startNATS(b *testing.B) (url string) {
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		b.Fatal(err)
	}
	s.Start()
	b.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		b.Fatal("NATS does not start")
	}
	return "nats://" + s.Addr().String()
}

// aside runs f until the benchmark ends, and waits for it.
func aside(b *testing.B, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
			b.Error(err)
		}
	}()
	b.Cleanup(func() {
		cancel()
		<-done
	})
}

// apiNode is a node without a worker: nobody is pushed.
type apiNode struct {
	store *store.Store
	bus   nodesBus
	api   *api.API
	url   string
	http  *http.Client
}

const nodesAdmin = "correct-horse-battery-staple"

// newAPINode starts a node on the database, in this process.
func newAPINode(b *testing.B, dsn string, ring *tokens.Ring, hints nodesBus) *apiNode {
	n := &apiNode{bus: hints, store: testkit.Store(b, func(o *store.Options) { o.DSN, o.Ring = dsn, ring })}
	if carrier, between := hints.(interface{ Run(context.Context) error }); between {
		aside(b, carrier.Run)
	}
	var err error
	draining := make(chan struct{})
	n.api, err = api.New(api.Deps{
		Apps: n.store, Keys: n.store, Callers: n.store, Credentials: n.store, Devices: n.store, Users: n.store, Door: n.store, Messages: n.store, Inboxes: n.store,
		Circuits: n.store, Events: n.store, Hints: hints, Admin: tokens.HashOf(nodesAdmin), Draining: draining,
	})
	if err != nil {
		b.Fatal(err)
	}
	aside(b, func(ctx context.Context) error { return n.api.Run(ctx, hints.Listen) })
	server := httptest.NewServer(n.api)
	n.url, n.http = server.URL, server.Client()
	b.Cleanup(func() {
		close(draining)
		server.Close()
	})
	return n
}

func (n *apiNode) client(b *testing.B, key string) *client.ClientWithResponses {
	c, err := client.NewClientWithResponses(n.url, client.WithHTTPClient(n.http), client.WithKey(key))
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkAcceptedToParked measures the way of a message over two nodes on one PostgreSQL: posted to one over HTTP, and in the
// hands of a phone whose poll is parked on the other. It fails if it takes longer than promised.
//
//	go test ./bench -run '^$' -bench '^BenchmarkAcceptedToParked$' -benchtime 1x
func BenchmarkAcceptedToParked(b *testing.B) {
	for _, c := range carriers {
		b.Run(c.name, func(b *testing.B) {
			dsn, ring := testkit.Postgres(b), testkit.Ring(b)
			join := c.open(b, dsn)
			var nodes []*apiNode
			for range 2 {
				hints, err := join()
				if err != nil {
					b.Fatal(err)
				}
				nodes = append(nodes, newAPINode(b, dsn, ring, hints))
			}
			for b.Loop() {
				measureParked(b, nodes[0], nodes[1])
			}
		})
	}
}

func measureParked(b *testing.B, from, to *apiNode) {
	const warm, rounds = 50, 1000
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	app, err := from.client(b, nodesAdmin).CreateAppWithResponse(ctx, client.AppCreate{Name: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	backend := from.client(b, app.JSON201.SecretKey)
	device, err := backend.RegisterDeviceWithResponse(ctx, client.DeviceRegistration{InstallationId: "one", Platform: client.Other, Provider: client.None})
	if err != nil {
		b.Fatal(err)
	}
	id := device.JSON201.Id
	parked, arrived := make(chan struct{}, 1), make(chan time.Time, 1)
	var running sync.WaitGroup
	defer running.Wait()
	life, end := context.WithCancel(ctx)
	defer end()
	running.Go(func() { tellParked(life, from.bus, ident.Device(id), parked) })
	running.Go(func() {
		phone := client.Receiver{Client: to.client(b, *device.JSON201.Secret)}
		_ = phone.Run(life, func(context.Context, client.InboxPage) error {
			arrived <- time.Now()
			return nil
		})
	})
	var took, whole []time.Duration
	for n := range warm + rounds {
		<-parked // the node that takes the message in has heard that it polls, on the other
		began := time.Now()
		got, err := backend.SendMessageWithResponse(ctx, nil, client.MessageSend{To: client.Recipient{DeviceId: &id}, Data: []byte(`"hello"`)})
		if err != nil || got.JSON202 == nil {
			b.Fatal(err, got.Status())
		}
		accepted := time.Now()
		select {
		case at := <-arrived:
			if n >= warm {
				took, whole = append(took, max(0, at.Sub(accepted))), append(whole, at.Sub(began))
			}
		case <-ctx.Done():
			b.Fatalf("message %d did not arrive", n)
		}
	}
	p99 := quantile(took, 0.99)
	b.ReportMetric(float64(quantile(took, 0.5).Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(quantile(whole, 0.5).Microseconds())/1000, "with-accept-p50-ms")
	b.ReportMetric(float64(quantile(whole, 0.99).Microseconds())/1000, "with-accept-p99-ms")
	if p99 > parkedCeiling {
		b.Errorf("p99 %v, promised %v", p99, parkedCeiling)
	}
}

// tellParked tells each time the device begins to wait, until ctx is done.
func tellParked(ctx context.Context, hints nodesBus, device ident.Device, parked chan<- struct{}) {
	_ = hints.Listen(ctx, func(hints []messages.Hint, _ bool) {
		for _, h := range hints {
			if h.Kind == messages.HintPolling && h.Device == device {
				parked <- struct{}{}
			}
		}
	})
}

// BenchmarkBusCost measures what a bus costs those who write: messages accepted and hinted by 256 callers on one node while
// another listens, over each bus in turn on one database. It fails if a bus between nodes leaves them less than promised of
// what they accept when hints stay in the process.
//
//	go test ./bench -run '^$' -bench '^BenchmarkBusCost$' -benchtime 1x
func BenchmarkBusCost(b *testing.B) {
	dsn, ring := testkit.Postgres(b), testkit.Ring(b)
	s := testkit.Store(b, func(o *store.Options) { o.DSN, o.Ring, o.InboxMessages, o.InboxBytes = dsn, ring, 1<<20, 1<<40 })
	app := testkit.App(b, s).ID
	to := make([]ident.Device, 2000)
	if err := share(len(to), 64, func(i int) error {
		to[i] = testkit.Device(b, s, app).ID
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	ways := []*way{{name: "memory"}}
	memory := &bus.Memory{}
	ways[0].listen(b, memory)
	ways[0].listen(b, memory)
	for _, c := range carriers {
		join, w := c.open(b, dsn), &way{name: c.name}
		for range 2 {
			hints, err := join()
			if err != nil {
				b.Fatal(err)
			}
			w.listen(b, hints)
		}
		ways = append(ways, w)
	}
	for b.Loop() {
		costs(b, ways, func() error {
			_, err := s.Accept(b.Context(), testkit.Send(app, to[rand.IntN(len(to))]))
			return err
		})
	}
}

// way is a bus that two nodes listen to; the first writes.
type way struct {
	name   string
	writer nodesBus
	heard  [2]atomic.Int64
	joined int
}

func (w *way) listen(b *testing.B, hints nodesBus) {
	if w.writer == nil {
		w.writer = hints
	}
	heard := &w.heard[w.joined]
	w.joined++
	if carrier, between := hints.(interface{ Run(context.Context) error }); between {
		aside(b, carrier.Run)
	}
	aside(b, func(ctx context.Context) error {
		return hints.Listen(ctx, func(hints []messages.Hint, _ bool) { heard.Add(int64(len(hints))) })
	})
}

// meet hints until the other node hears it.
func (w *way) meet(b *testing.B) {
	again, limit := time.NewTicker(10*time.Millisecond), time.After(20*time.Second)
	defer again.Stop()
	for w.heard[1].Load() == 0 {
		select {
		case <-again.C:
			w.writer.Hint(messages.Hint{Kind: messages.HintIdle, Device: "dev_x"})
		case <-limit:
			b.Fatalf("%s: the nodes do not hear each other", w.name)
		}
	}
}

// hears waits until both nodes have heard n hints more than before.
func (w *way) hears(b *testing.B, before [2]int64, n int64) {
	again, limit := time.NewTicker(time.Millisecond), time.After(20*time.Second)
	defer again.Stop()
	for w.heard[0].Load() < before[0]+n || w.heard[1].Load() < before[1]+n {
		select {
		case <-again.C:
		case <-limit:
			b.Fatalf("%s: of %d hints the nodes heard %d and %d", w.name, n, w.heard[0].Load()-before[0], w.heard[1].Load()-before[1])
		}
	}
}

// round returns the messages a second that were accepted and hinted. The hints must arrive, but are not waited for: a phone
// is, and writers are not.
func (w *way) round(b *testing.B, n int, accept func() error) float64 {
	before := [2]int64{w.heard[0].Load(), w.heard[1].Load()}
	runtime.GC()
	began := time.Now()
	err := share(n, 256, func(i int) error {
		err := accept()
		w.writer.Hint(messages.Hint{Kind: messages.HintNew, App: "app_x", Device: ident.NewDevice(), Class: messages.HighWake, Seq: messages.Seq(i + 1)})
		return err
	})
	took := time.Since(began)
	if err != nil {
		b.Fatal(err)
	}
	w.hears(b, before, int64(n))
	return float64(n) / took.Seconds()
}

// costs has the ways take turns, in another order each round.
func costs(b *testing.B, ways []*way, accept func() error) {
	const rounds, messages = 31, 3000
	for _, w := range ways {
		w.meet(b)
		w.round(b, messages, accept)
	}
	speeds := map[string][]float64{}
	for round := range rounds {
		for i := range ways {
			w := ways[(i+round)%len(ways)]
			speeds[w.name] = append(speeds[w.name], w.round(b, messages, accept))
		}
	}
	for _, w := range ways {
		var each []float64
		for i, v := range speeds[w.name] {
			each = append(each, v/speeds["memory"][i])
		}
		got := median(each)
		b.Logf("%-10s %7.0f /s, %.2f of memory (rounds %.2f to %.2f)", w.name, median(speeds[w.name]), got, slices.Min(each), slices.Max(each))
		b.ReportMetric(got, w.name+"/memory")
		if got < busShare {
			b.Errorf("%s: %.2f of what writers do without a bus between nodes, promised %.2f", w.name, got, busShare)
		}
	}
}
