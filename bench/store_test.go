package bench_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

// What the store's benchmark runs.
const (
	rounds   = 7    // measured, after one that warms up
	perRound = 8000 // messages a contender handles in a round
	devices  = 2000 // they go to
	dataSize = 256  // bytes of data in a message

	// push is how long a provider takes to carry a wake: less than any real one. What comes meanwhile is fetched along.
	push = 25 * time.Millisecond
)

// BenchmarkStore pits the store's writer against SQLite written by hand, the contenders taking turns: group commit
// against single-row commits, accepting against a bare loop of inserts, the full cycle of a message against accepting it. It
// fails if a ratio is missed. One iteration is the whole run:
//
//	go test ./bench -run '^$' -bench '^BenchmarkStore$' -benchtime 1x
func BenchmarkStore(b *testing.B) {
	ctx := context.Background()
	for b.Loop() {
		all, err := contenders(ctx, b.TempDir())
		if err == nil {
			var speeds map[string][]float64
			if speeds, err = compete(ctx, all); err == nil {
				report(b, all, speeds)
			}
		}
		for _, x := range all {
			err = errors.Join(err, x.close())
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// contender handles n messages and returns how long that took.
type contender struct {
	name  string
	round func(ctx context.Context, n int) (time.Duration, error)
	close func() error
}

// ratio is what a promise is about: the speed of one contender in those of another.
type ratio struct {
	name, unit, over, under string
	atLeast                 float64
}

// compete has the contenders take turns and returns their messages a second, round by round.
func compete(ctx context.Context, all []contender) (map[string][]float64, error) {
	speeds := map[string][]float64{}
	for round := range rounds + 1 {
		for _, x := range all {
			n := perRound
			if x.name == singleRow {
				n /= 8
			}
			took, err := x.round(ctx, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", x.name, err)
			}
			if round > 0 {
				speeds[x.name] = append(speeds[x.name], float64(n)/took.Seconds())
			}
		}
	}
	return speeds, nil
}

const (
	singleRow = "single-row commits, 64 callers"
	byHand    = "by hand, one goroutine, batches of 128"
	accept64  = "store.Accept, 64 callers"
	accept256 = "store.Accept, 256 callers"
	acceptFew = "store.Accept, 64 callers to 64 devices"
	cycle64   = "accept, wake, fetch, ack, 64 devices"
	cycleOne  = "the same, a fetch and an ack a message"
)

func contenders(ctx context.Context, dir string) ([]contender, error) {
	var all []contender
	for _, make := range []func(string) (contender, error){
		func(path string) (contender, error) { return newSingleRow(ctx, path) },
		func(path string) (contender, error) { return newByHand(ctx, path) },
		func(path string) (contender, error) { return newAccept(ctx, path, accept64, 64, devices) },
		func(path string) (contender, error) { return newAccept(ctx, path, accept256, 256, devices) },
		func(path string) (contender, error) { return newAccept(ctx, path, acceptFew, 64, 64) },
		func(path string) (contender, error) { return newCycle(ctx, path, cycle64, 64, push) },
		func(path string) (contender, error) { return newCycle(ctx, path, cycleOne, devices, 0) },
	} {
		x, err := make(filepath.Join(dir, fmt.Sprintf("%d.db", len(all))))
		if err != nil {
			return all, err
		}
		all = append(all, x)
	}
	return all, nil
}

func report(b *testing.B, all []contender, speeds map[string][]float64) {
	b.Logf("%s, %d CPUs, %s; %d rounds of %d messages of %d bytes to %d devices; synchronous=FULL",
		runtime.GOARCH, runtime.NumCPU(), runtime.Version(), rounds, perRound, dataSize, devices)
	for _, x := range all {
		b.Logf("%-40s %9.0f /s", x.name, median(speeds[x.name]))
	}
	for _, r := range []ratio{
		{"group commit against single-row commits", "group/single", accept64, singleRow, 5},
		{"store accept against the loop by hand", "accept/hand", accept256, byHand, 0.8},
		{"full cycle against accept alone", "cycle/accept", cycle64, acceptFew, 0.6},
		{"at its worst: a fetch and an ack a message", "worst/accept", cycleOne, accept64, 0},
	} {
		var each []float64
		for i := range speeds[r.over] {
			each = append(each, speeds[r.over][i]/speeds[r.under][i])
		}
		got := median(each)
		b.ReportMetric(got, r.unit)
		b.Logf("%-40s %6.2fx  (rounds %.2f to %.2f; at least %.1fx)", r.name, got, slices.Min(each), slices.Max(each), r.atLeast)
		if got < r.atLeast {
			b.Errorf("%s: %.2fx is less than %.1fx", r.name, got, r.atLeast)
		}
	}
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
