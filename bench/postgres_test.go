package bench_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"rouse/internal/testkit"
)

// What the benchmark on PostgreSQL runs.
const (
	pgRounds  = 7                      // measured, after two that warm up
	pgTurn    = 400 * time.Millisecond // about how long a contender's turn takes
	pgCallers = 256                    // of each node
	pgByHand  = 128                    // messages in a batch of the loop by hand
)

const (
	pgSingle = "single INSERTs, 256 callers"
	pgHand   = "by hand, one goroutine, unnest of 128"
	pgOne    = "store.Accept, 256 callers"
	pgTwo    = "store.Accept on two nodes, 256 callers each"
	pgCycle  = "accept, wake, fetch, ack, 256 devices"
)

// BenchmarkPostgres pits the store's writers against PostgreSQL written by hand, the contenders taking turns: a server of its own, with
// fsync and synchronous_commit on, over a Unix socket. It fails if a ratio is missed, in twice as many turns too. One iteration is the whole
// run, 30 to 60 s:
//
//	go test ./bench -run '^$' -bench '^BenchmarkPostgres$' -benchtime 1x
func BenchmarkPostgres(b *testing.B) {
	ctx := context.Background()
	for b.Loop() {
		all, err := pgContenders(ctx, b)
		speeds, many := map[string][]float64{}, map[string]int{}
		if err == nil {
			err = pgCompete(ctx, all, speeds, many)
		}
		if err == nil && len(pgMissed(speeds)) > 0 { // by chance, on a busy machine: as many turns again
			err = pgCompete(ctx, all, speeds, many)
		}
		if err == nil {
			pgReport(b, all, speeds)
		}
		for _, x := range all {
			err = errors.Join(err, x.close())
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func pgContenders(ctx context.Context, b *testing.B) (all []contender, err error) {
	server := testkit.NewCluster(b)
	for _, make := range []func(context.Context, string) (contender, error){newPGSingle, newPGByHand, newPGAccept, newPGTwo, newPGCycle} {
		x, err := make(ctx, server.Database(b))
		if err != nil {
			return all, err
		}
		all = append(all, x)
	}
	return all, nil
}

// pgCompete has the contenders take turns, in another order each round, and adds their messages a second to speeds. many is how many
// messages make a turn; who has none warms up first.
func pgCompete(ctx context.Context, all []contender, speeds map[string][]float64, many map[string]int) error {
	warm := 0
	if len(many) == 0 {
		warm = 2
	}
	for round := range pgRounds + warm {
		for i := range all {
			x := all[(i+round)%len(all)]
			n := max(many[x.name], pgByHand*2)
			runtime.GC()
			took, err := x.round(ctx, n)
			if err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			speed := float64(n) / took.Seconds()
			many[x.name] = int(speed * pgTurn.Seconds())
			if round >= warm {
				speeds[x.name] = append(speeds[x.name], speed)
			}
		}
	}
	return nil
}

var pgRatios = []ratio{
	{"store accept against single INSERTs", "accept/single", pgOne, pgSingle, 3},
	{"store accept against the loop by hand", "accept/hand", pgOne, pgHand, 0.8},
	{"two nodes against one", "two/one", pgTwo, pgOne, 0.9},
	{"full cycle against accept alone", "cycle/accept", pgCycle, pgOne, 0},
}

// pgMeasured returns a ratio turn by turn: of turns that came one after the other.
func pgMeasured(r ratio, speeds map[string][]float64) (each []float64) {
	for i := range speeds[r.over] {
		each = append(each, speeds[r.over][i]/speeds[r.under][i])
	}
	return each
}

func pgMissed(speeds map[string][]float64) (missed []ratio) {
	for _, r := range pgRatios {
		if median(pgMeasured(r, speeds)) < r.atLeast {
			missed = append(missed, r)
		}
	}
	return missed
}

func pgReport(b *testing.B, all []contender, speeds map[string][]float64) {
	b.Logf("%s, %d CPUs, %s; turns of %s, messages of %d bytes to %d devices; fsync and synchronous_commit on",
		runtime.GOARCH, runtime.NumCPU(), runtime.Version(), pgTurn, dataSize, devices)
	for _, x := range all {
		b.Logf("%-44s %9.0f /s  (rounds %.0f to %.0f)", x.name, median(speeds[x.name]), slices.Min(speeds[x.name]), slices.Max(speeds[x.name]))
	}
	for _, r := range pgRatios {
		each := pgMeasured(r, speeds)
		got := median(each)
		b.ReportMetric(got, r.unit)
		b.Logf("%-44s %6.2fx  (turns %.2f to %.2f; at least %.1fx)", r.name, got, slices.Min(each), slices.Max(each), r.atLeast)
		if got < r.atLeast {
			b.Errorf("%s: %.2fx is less than %.1fx", r.name, got, r.atLeast)
		}
	}
}

// newPGAccept is one node; its callers send to devices at random.
func newPGAccept(ctx context.Context, dsn string) (contender, error) {
	h, err := newHouseOn(ctx, dsn, devices)
	if err != nil {
		return contender{}, err
	}
	return contender{name: pgOne, close: h.close, round: func(ctx context.Context, n int) (time.Duration, error) {
		return acceptOn(ctx, n, h)
	}}, nil
}

// newPGTwo is two nodes on one database, each with its callers.
func newPGTwo(ctx context.Context, dsn string) (contender, error) {
	first, err := newHouseOn(ctx, dsn, devices)
	if err != nil {
		return contender{}, err
	}
	second, err := first.neighbour(ctx, dsn)
	if err != nil {
		return contender{}, errors.Join(err, first.close())
	}
	both := func() error { return errors.Join(first.close(), second.close()) }
	return contender{name: pgTwo, close: both, round: func(ctx context.Context, n int) (time.Duration, error) {
		return acceptOn(ctx, n, first, second)
	}}, nil
}

// acceptOn has pgCallers for each node accept n messages, by turns on each of the nodes.
func acceptOn(ctx context.Context, n int, nodes ...*house) (time.Duration, error) {
	data := dataOf(dataSize)
	started := time.Now()
	err := share(n, pgCallers*len(nodes), func(i int) error {
		h := nodes[i%len(nodes)]
		_, err := h.store.Accept(ctx, h.send(h.devices[rand.IntN(len(h.devices))], data))
		return err
	})
	return time.Since(started), err
}

func newPGCycle(ctx context.Context, dsn string) (contender, error) {
	return newCycleOn(ctx, dsn, pgCycle, 256, push)
}
