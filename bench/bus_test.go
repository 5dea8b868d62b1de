package bench_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"rouse/bus"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
)

// busCeiling is what a hint to a node with nothing else to do may take, 99 times of 100.
const busCeiling = 50 * time.Millisecond

// carrier is a bus between nodes.
type carrier interface {
	Hint(hints ...messages.Hint)
	Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error
	Run(ctx context.Context) error
}

// BenchmarkBus measures the way of one hint from node to node, nothing else under way, and then how many a second
// arrive when they come as fast as they can. It fails if the first takes longer than promised.
func BenchmarkBus(b *testing.B) {
	b.Run("postgres", func(b *testing.B) {
		dsn := testkit.Postgres(b)
		measureBus(b, func() (carrier, error) { return bus.NewPostgres(dsn, nil) })
	})
	b.Run("nats", func(b *testing.B) {
		url := startNATS(b)
		measureBus(b, func() (carrier, error) { return bus.NewNATS(url, nil) })
	})
}

func measureBus(b *testing.B, join func() (carrier, error)) {
	heard := make(chan []messages.Hint, 1<<16)
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	start := func(receive func([]messages.Hint)) carrier {
		n, err := join()
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() {
			_ = n.Listen(ctx, func(hints []messages.Hint, _ bool) {
				receive(hints)
			})
		})
		running.Go(func() { _ = n.Run(ctx) })
		return n
	}
	from := start(func([]messages.Hint) {})
	start(func(hints []messages.Hint) { heard <- hints })
	meet(from, heard)
	for b.Loop() {
		idle(b, from, heard)
		flood(b, from, heard)
	}
}

// meet hints until the other node hears it.
func meet(from carrier, heard <-chan []messages.Hint) {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case hints := <-heard:
			if len(hints) > 0 {
				return
			}
		case <-again.C:
			from.Hint(messages.Hint{Kind: messages.HintIdle, Device: "dev_x"})
		}
	}
}

// idle sends one hint after the other has arrived.
func idle(b *testing.B, from carrier, heard <-chan []messages.Hint) {
	var took []time.Duration
	for n := range 2000 {
		began := time.Now()
		from.Hint(messages.Hint{Kind: messages.HintNew, App: "app_x", Device: ident.NewDevice(), Seq: messages.Seq(n + 1)})
		for arrived := false; !arrived; {
			arrived = slices.ContainsFunc(<-heard, func(h messages.Hint) bool { return h.Seq == messages.Seq(n+1) })
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
	if p99 > busCeiling {
		b.Errorf("p99 %v, promised %v", p99, busCeiling)
	}
}

// flood sends in batches, as a writer's commits do, at most half of what a node remembers ahead of the other.
func flood(b *testing.B, from carrier, heard <-chan []messages.Hint) {
	const total, commit, ahead = 300_000, 100, 32_768
	began, arrived := time.Now(), 0
	for sent := 0; arrived < total; {
		if sent < total && sent-arrived < ahead {
			hints := make([]messages.Hint, commit)
			for i := range hints {
				hints[i] = messages.Hint{Kind: messages.HintNew, App: "app_x", Device: ident.NewDevice(), Seq: messages.Seq(sent + i + 1)}
			}
			from.Hint(hints...)
			sent += commit
		}
		arrived += gathered(heard, sent == total || sent-arrived >= ahead)
	}
	b.ReportMetric(total/time.Since(began).Seconds(), "hints/s")
}

// gathered counts what has arrived; it waits for the first if there is nothing else to do.
func gathered(heard <-chan []messages.Hint, wait bool) (n int) {
	if wait {
		n = len(<-heard)
	}
	for {
		select {
		case hints := <-heard:
			n += len(hints)
		default:
			return n
		}
	}
}
