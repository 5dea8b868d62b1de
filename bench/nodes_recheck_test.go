package bench_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rouse/api"
	"rouse/bus"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
)

// recheckShare is how much of the processor, and where a server works for it of the time, that thousands of polls take to look, each by
// itself, it may take to ask about all of them together. Half of that time is rest: after each question it waits for as long as that took.
const recheckShare = 0.2

// counted counts what polls ask the store.
type counted struct {
	api.Inboxes
	looks, asked, polls atomic.Int64
}

func (c *counted) Inbox(ctx context.Context, q messages.Query) (messages.Page, error) {
	defer c.looks.Add(1)
	return c.Inboxes.Inbox(ctx, q)
}

func (c *counted) Fresh(ctx context.Context, polls []messages.Poll, now time.Time) ([]ident.Device, error) {
	defer c.polls.Add(int64(len(polls)))
	c.asked.Add(1)
	return c.Inboxes.Fresh(ctx, polls, now)
}

// losing is a bus that says, when it is told to, that hints were lost.
type losing struct {
	nodesBus
	lose chan struct{}
}

func (l *losing) Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error {
	var mu sync.Mutex // one call at a time
	go func() {
		for {
			select {
			case <-l.lose:
				mu.Lock()
				receive(nil, true)
				mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	}()
	return l.nodesBus.Listen(ctx, func(hints []messages.Hint, lost bool) {
		mu.Lock()
		defer mu.Unlock()
		receive(hints, lost)
	})
}

// hall is polls that wait in this process, without sockets, on one node.
type hall struct {
	store   *store.Store
	api     *api.API
	reads   *counted
	app     ident.App
	keys    map[ident.Device]string
	devices []ident.Device
	served  atomic.Int64 // polls answered with a message
	running sync.WaitGroup
}

func newHall(b *testing.B, s *store.Store, hints nodesBus, n int) *hall {
	h := &hall{store: s, reads: &counted{Inboxes: s}, app: testkit.App(b, s).ID, keys: map[ident.Device]string{}, devices: make([]ident.Device, n)}
	draining := make(chan struct{})
	var err error
	h.api, err = api.New(api.Deps{
		Apps: s, Keys: s, Callers: s, Credentials: s, Devices: s, Users: s, Door: s, Messages: s, Inboxes: h.reads, Circuits: s, Events: s,
		Hints: hints, Draining: draining, Limits: api.Limits{Recheck: time.Hour},
	})
	if err != nil {
		b.Fatal(err)
	}
	aside(b, func(ctx context.Context) error { return h.api.Run(ctx, hints.Listen) })
	b.Cleanup(func() {
		close(draining)
		h.running.Wait()
	})
	var mu sync.Mutex
	if err := share(n, 64, func(i int) error {
		d := testkit.Device(b, s, h.app, func(e *tokens.Enrol) {
			key := tokens.MintKey(tokens.DeviceKey, strings.TrimPrefix(string(e.ID), ident.DevicePrefix))
			e.Secret = tokens.HashOf(key)
			mu.Lock()
			defer mu.Unlock()
			h.keys[e.ID] = string(key)
		})
		h.devices[i] = d.ID
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return h
}

// park has all devices begin to poll.
func (h *hall) park() {
	for _, d := range h.devices {
		h.running.Go(func() {
			r := httptest.NewRequest("GET", "/v1/inbox?wait=55", nil)
			r.Header.Set("Authorization", "Bearer "+h.keys[d])
			w := httptest.NewRecorder()
			h.api.ServeHTTP(w, r)
			if strings.Contains(w.Body.String(), `"data"`) {
				h.served.Add(1)
			}
		})
	}
}

// until waits for done, and fails with what says how far it came.
func until(b *testing.B, done func() bool, far func() string) {
	again, limit := time.NewTicker(time.Millisecond), time.After(40*time.Second)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-limit:
			b.Fatal(far())
		}
	}
}

// spent is time and processor of this process alone: what a database server takes comes on top, and is time.
type spent struct{ time, cpu time.Duration }

func cost(f func()) spent {
	before, began := processor(), time.Now()
	f()
	return spent{time.Since(began), processor() - before}
}

func processor() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRecheck has 15,000 parked polls look whether a message has come: each by itself, as a hint makes them, and all
// together, as after hints were lost; five times. It fails if that is not much cheaper in the median.
//
//	go test ./bench -run '^$' -bench '^BenchmarkRecheck$' -benchtime 1x
func BenchmarkRecheck(b *testing.B) {
	for engine, dsn := range map[string]func(*store.Options){
		"sqlite":   func(*store.Options) {},
		"postgres": func(o *store.Options) { o.DSN = testkit.Postgres(b) },
	} {
		b.Run(engine, func(b *testing.B) {
			const polls = 15_000
			hints := &losing{nodesBus: &bus.Memory{}, lose: make(chan struct{})}
			h := newHall(b, testkit.Store(b, dsn), hints, polls)
			for b.Loop() {
				h.reads.looks.Store(0)
				h.park()
				until(b, func() bool { return h.reads.looks.Load() == polls }, func() string { return fmt.Sprint(h.reads.looks.Load(), " looked") })
				var times, cpus []float64
				for range 5 {
					each, all := h.recheck(b, hints)
					b.Logf("each by itself %v, processor %v; together %v, processor %v, %d statements", each.time.Round(time.Millisecond),
						each.cpu.Round(time.Millisecond), all.time.Round(time.Millisecond), all.cpu.Round(time.Millisecond), h.reads.asked.Load())
					times, cpus = append(times, all.time.Seconds()/each.time.Seconds()), append(cpus, all.cpu.Seconds()/each.cpu.Seconds())
				}
				b.ReportMetric(median(cpus), "cpu-ratio")
				b.ReportMetric(median(times), "time-ratio")
				if got := median(cpus); got > recheckShare {
					b.Errorf("%.2f of the processor, promised %.2f", got, recheckShare)
				}
				if got := median(times); got > recheckShare && engine == "postgres" {
					b.Errorf("%.2f of the time, promised %.2f", got, recheckShare)
				}
			}
		})
	}
}

func (h *hall) recheck(b *testing.B, hints *losing) (each, all spent) {
	n := int64(len(h.devices))
	far := func() string {
		return fmt.Sprintf("%d looked, %d were asked about", h.reads.looks.Load(), h.reads.polls.Load())
	}
	h.reads.looks.Store(0)
	each = cost(func() {
		for _, d := range h.devices {
			hints.Hint(messages.Hint{Kind: messages.HintNew, App: h.app, Device: d})
		}
		until(b, func() bool { return h.reads.looks.Load() == n }, far)
	})
	h.reads.asked.Store(0)
	h.reads.polls.Store(0)
	h.reads.looks.Store(0)
	all = cost(func() {
		hints.lose <- struct{}{}
		until(b, func() bool { return h.reads.polls.Load() == n }, far)
	})
	if looked := h.reads.looks.Load(); looked > 0 {
		b.Errorf("%d polls looked that had nothing to say", looked)
	}
	return each, all
}

// BenchmarkPollsWhileANodeRestarts has 10,000 devices begin to poll on one node while another leaves the bus and comes back as
// a new process. Once homes have changed it must hear of all of them, and each must get the message that it takes in then.
//
//	go test ./bench -run '^$' -bench '^BenchmarkPollsWhileANodeRestarts$' -benchtime 1x
func BenchmarkPollsWhileANodeRestarts(b *testing.B) {
	const polls = 10_000
	dsn, ring := testkit.Postgres(b), testkit.Ring(b)
	open := func(o *store.Options) { o.DSN, o.Ring = dsn, ring }
	mine, err := bus.NewPostgres(dsn, nil)
	if err != nil {
		b.Fatal(err)
	}
	aside(b, mine.Run)
	h, other := newHall(b, testkit.Store(b, open), mine, polls), testkit.Store(b, open)
	for b.Loop() {
		h.restart(b, dsn, func(to ident.Device) error {
			r, err := other.Accept(b.Context(), testkit.Send(h.app, to))
			if err == nil {
				mine.Hint(messages.Hint{Kind: messages.HintNew, App: h.app, Device: to, Class: messages.HighWake, Seq: r.Pending[0].Seq})
			}
			return err
		})
	}
}

func (h *hall) restart(b *testing.B, dsn string, accept func(ident.Device) error) {
	polls := int64(len(h.devices))
	far := func() string { return fmt.Sprintf("%d looked, %d were served", h.reads.looks.Load(), h.served.Load()) }
	leave, _ := joinAndHear(b, dsn)
	h.park()
	leave()
	until(b, func() bool { return h.reads.looks.Load() > polls/2 }, far) // half of them begin while it is away
	leave, known := joinAndHear(b, dsn)
	defer leave()
	until(b, func() bool { return h.reads.looks.Load() >= polls }, far)
	b.ReportMetric(float64(known()), "known-before")
	began := time.Now()
	h.api.Recheck() // as whoever knows that homes have changed does
	until(b, func() bool { return known() == polls }, func() string { return fmt.Sprint("it knows of ", known()) })
	b.ReportMetric(time.Since(began).Seconds()*1000, "known-all-ms")
	if err := share(len(h.devices), 256, func(i int) error { return accept(h.devices[i]) }); err != nil {
		b.Fatal(err)
	}
	until(b, func() bool { return h.served.Load() == polls }, far)
}

// joinAndHear joins the bus as a process does; known is of how many devices it heard that they poll.
func joinAndHear(b *testing.B, dsn string) (leave func(), known func() int64) {
	hints, err := bus.NewPostgres(dsn, nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	gaps := make(chan struct{}, 1) // holds a token when it was told that hints are missing
	polling, n := map[ident.Device]bool{}, new(atomic.Int64)
	running.Go(func() {
		_ = hints.Listen(ctx, func(hints []messages.Hint, lost bool) {
			if lost {
				select {
				case gaps <- struct{}{}:
				default:
				}
			}
			for _, h := range hints {
				if h.Kind == messages.HintPolling {
					polling[h.Device] = true
				}
			}
			n.Store(int64(len(polling)))
		})
	})
	<-gaps // it listens
	running.Go(func() { _ = hints.Run(ctx) })
	<-gaps // it is connected
	return func() {
		cancel()
		running.Wait()
	}, n.Load
}
