package bench_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rouse/providers/sim"
)

// What the benchmark of the providers runs. Turns are short and alternate: what else goes on in the machine meets everybody alike.
const (
	turnTime = 500 * time.Millisecond // how long a contender pushes in a turn
	callers  = 500                    // pushes in flight
	pushTime = 58 * time.Second       // bound on the whole run
)

// pusher is a contender: it makes one push for caller i of callers, and says why if it was not accepted.
type pusher struct {
	name  string
	push  func(ctx context.Context, caller int) error
	close func()
}

// BenchmarkPush pits each provider against the bare SDK at its best, the contenders taking turns against the same fake at 50 ms
// of latency with 500 pushes in flight. It fails if a provider makes less than 0.9 of the pushes. One iteration is the whole run:
//
//	go test ./bench -run '^$' -bench '^BenchmarkPush$' -benchtime 1x
func BenchmarkPush(b *testing.B) {
	ctx, cancel := context.WithTimeout(b.Context(), pushTime)
	defer cancel()
	b.Logf("%s, %d CPUs, %s; turns of %v, %d in flight", runtime.GOARCH, runtime.NumCPU(), runtime.Version(), turnTime, callers)
	for b.Loop() {
		for _, h := range heats {
			if end, _ := ctx.Deadline(); h.atLeast == 0 && time.Until(end) < 2*h.share {
				b.Logf("no time left for %s on a machine as busy as this", h.name)
				continue
			}
			b.Run(h.name, func(b *testing.B) { race(ctx, b, h) })
		}
	}
}

// heat is a comparison: what a promise is about, or what is good to know.
type heat struct {
	name     string
	provider string
	// latency is how long the fake takes for each push.
	latency time.Duration
	// turns each contender takes; if ours misses atLeast, as many again, and the median is that of all. On a machine too
	// busy for them they are fewer: no turn begins after share.
	turns   int
	share   time.Duration
	atLeast float64
	// contenders are the loops to beat, and last the provider.
	contenders []newPusher
}

var heats = []heat{
	{"APNs", sim.APNs, 50 * time.Millisecond, 8, 15 * time.Second, 0.9, []newPusher{newBareAPNs, newOurAPNs}},
	{"FCM", sim.FCM, 50 * time.Millisecond, 8, 22 * time.Second, 0.9, []newPusher{newBareFCM, newSpreadFCM, newOurFCM}},
	// Nobody waits for an answer: these show what the work alone costs.
	{"APNs/no_latency", sim.APNs, 0, 4, 5 * time.Second, 0, []newPusher{newBareAPNs, newOurAPNs}},
	{"FCM/no_latency", sim.FCM, 0, 4, 7 * time.Second, 0, []newPusher{newBareFCM, newSpreadFCM, newOurFCM}},
}

// newPusher makes a contender that pushes to the fake.
type newPusher func(s *sim.Sim, roots *x509.CertPool) (pusher, error)

// race has the contenders take turns, and holds the last, ours, against the best of the others.
func race(ctx context.Context, b *testing.B, h heat) {
	s, err := sim.Start(ctx, sim.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	var all []pusher
	for _, make := range h.contenders {
		x, err := make(s, roots)
		if err != nil {
			b.Fatal(err)
		}
		defer x.close()
		all = append(all, x)
	}
	t := table{heat: h, until: time.Now().Add(h.share), all: all, speeds: make([][]float64, len(all))}
	if err := t.warmUp(ctx); err != nil {
		b.Fatal(err)
	}
	for range 2 {
		if err := t.play(ctx, s); err != nil {
			b.Fatal(err)
		}
		if got, _ := t.ratio(); got >= h.atLeast {
			break
		}
	}
	t.report(b)
}

// table keeps the pushes a second of each contender, turn by turn.
type table struct {
	heat
	until  time.Time
	all    []pusher
	speeds [][]float64
}

// warmUp makes one push before the first rush, as a cold connection knows nothing of its limits, and rushes once for the runtime's sake.
func (t *table) warmUp(ctx context.Context) error {
	for _, x := range t.all {
		if err := x.push(ctx, 0); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		if _, err := rush(ctx, x); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
	}
	return nil
}

// play lets everybody take their turns, each from the same start; nobody always comes after the same.
func (t *table) play(ctx context.Context, s *sim.Sim) error {
	for turn := range t.turns {
		if time.Now().After(t.until) && len(t.speeds[0]) > 2 {
			return nil
		}
		for i := range t.all {
			i = (i + turn) % len(t.all)
			s.Reset()
			s.AddRule(sim.Rule{Provider: t.provider, Action: sim.Action{Delay: t.latency}})
			runtime.GC()
			speed, err := rush(ctx, t.all[i])
			if err != nil {
				return fmt.Errorf("%s: %w", t.all[i].name, err)
			}
			t.speeds[i] = append(t.speeds[i], speed)
		}
	}
	return nil
}

// rush lets all callers push for a turn and returns how many pushes a second that made.
func rush(ctx context.Context, x pusher) (float64, error) {
	begun := time.Now()
	var made atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, callers)
	for caller := range callers {
		all.Go(func() {
			for time.Since(begun) < turnTime {
				if err := x.push(ctx, caller); err != nil {
					failed <- err
					return
				}
				made.Add(1)
			}
		})
	}
	all.Wait()
	if len(failed) > 0 {
		return 0, fmt.Errorf("%d of %d callers failed, one with: %w", len(failed), callers, <-failed)
	}
	return float64(made.Load()) / time.Since(begun).Seconds(), nil
}

// best is the fastest of the loops to beat, which are all but the last.
func (t *table) best() (best int) {
	for i := range t.all[:len(t.all)-1] {
		if median(t.speeds[i]) > median(t.speeds[best]) {
			best = i
		}
	}
	return best
}

// ratio is the median of how much ours made of the pushes of the best, turn by turn.
func (t *table) ratio() (got float64, each []float64) {
	best, ours := t.speeds[t.best()], t.speeds[len(t.all)-1]
	for turn := range ours {
		each = append(each, ours[turn]/best[turn])
	}
	return median(each), each
}

// report says how fast everybody was, and fails if ours falls behind.
func (t *table) report(b *testing.B) {
	for i, x := range t.all {
		b.Logf("%-42s %8.0f /s  (turns %.0f to %.0f)", x.name, median(t.speeds[i]), slices.Min(t.speeds[i]), slices.Max(t.speeds[i]))
	}
	got, each := t.ratio()
	b.ReportMetric(got, "ours/bare")
	b.Logf("%-42s %8.2fx  (%d turns, %.2f to %.2f; at least %.1fx)", "against "+t.all[t.best()].name, got, len(each), slices.Min(each), slices.Max(each), t.atLeast)
	if got < t.atLeast {
		b.Errorf("%.2fx is less than %.1fx of %s", got, t.atLeast, t.all[t.best()].name)
		if ceiling := callers / t.latency.Seconds(); median(t.speeds[t.best()]) < ceiling/2 {
			b.Logf("but the machine is too busy to tell: even the bare loop makes less than half of the %.0f /s that the latency allows", ceiling)
		}
	}
}
