package bench_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"rouse/providers/sim"
)

// What BenchmarkIsolation does.
const (
	// neighbourDevices are woken in turn, so that no wake is held back for the one before it.
	neighbourDevices = 900
	neighbourRate    = 60 // wakes a second of app B
	troubledDevices  = 1000
	troubledRate     = 100 // sends a second to app A, besides one to each of its devices at the beginning
	// calm is how long B is measured alone, before and after each trouble.
	calm = 4 * time.Second
	// onset is when a trouble has had its full effect; what B sees from then on counts.
	onset = time.Second
	// attempt is how long a push may hang: so long after a trouble its last traces are gone.
	attempt = 11 * time.Second
	// isolationTime bounds a run, the building of the server aside.
	isolationTime = 85 * time.Second
	// timesIdle is the promise: B's p99 while A is in trouble against B's own when A is quiet.
	timesIdle = 2.0
)

// plague is what befalls app A: its tokens begin with mark, and so nobody else is hit.
type plague struct {
	name  string
	rules []sim.Rule
	// inFlight is how many pushes must be under way at the beginning: the trouble is as bad as it can be.
	inFlight float64
	// lasts is how long it is measured.
	lasts time.Duration
	// traces is how long to wait until it is over.
	traces time.Duration
}

// mark begins every token of app A. A real token has 64 random digits.
const mark = "aaaaaaaaaaaaaaaa"

func both(apns, fcm sim.Action) []sim.Rule {
	return []sim.Rule{{Provider: sim.APNs, TokenPrefix: mark, Action: apns}, {Provider: sim.FCM, TokenPrefix: mark, Action: fcm}}
}

var plagues = []plague{
	{name: "its quotas are used up", lasts: 6 * time.Second, traces: time.Second, rules: both(
		sim.Action{Reason: "TooManyRequests", RetryAfter: "5"}, sim.Action{Reason: "QUOTA_EXCEEDED_DEVICE", RetryAfter: "5"})},
	{name: "its credentials are refused", lasts: 6 * time.Second, traces: time.Second, rules: both(
		sim.Action{Reason: "InvalidProviderToken"}, sim.Action{Reason: "UNAUTHENTICATED"})},
	{name: "its providers hang", inFlight: 700, lasts: 15 * time.Second, traces: attempt, rules: both(
		sim.Action{Fault: sim.FaultHang}, sim.Action{Fault: sim.FaultHang})},
}

// BenchmarkIsolation measures how long a wake of app B takes, from the beginning of the send until the push is at the provider, while
// app A on the same server is in trouble under full load, and while it is quiet. It fails if trouble costs B more than twice. A machine that
// is busy with something else is allowed for by a twin of B on a server of its own. One iteration is the whole run:
//
//	go test ./bench -run '^$' -bench '^BenchmarkIsolation$' -benchtime 1x
func BenchmarkIsolation(b *testing.B) {
	for b.Loop() {
		if err := isolate(b.Context(), b); err != nil {
			b.Fatal(err)
		}
	}
}

func isolate(ctx context.Context, b *testing.B) error {
	binary, err := buildServer(ctx, b)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, isolationTime)
	defer cancel()
	var pair neighbours
	s, err := startShared(ctx, b, binary)
	if err != nil {
		return err
	}
	if pair.beside, err = s.newTenant(ctx, "b", neighbourDevices, ""); err != nil {
		return err
	}
	alone, err := startShared(ctx, b, binary)
	if err != nil {
		return err
	}
	if pair.alone, err = alone.newTenant(ctx, "c", neighbourDevices, ""); err != nil {
		return err
	}
	if _, err := pair.measure(ctx, calm/2); err != nil { // warms up
		return err
	}
	before, err := pair.measure(ctx, calm)
	if err != nil {
		return err
	}
	for i, p := range plagues {
		during, err := s.strike(ctx, pair, p, fmt.Sprintf("a%d", i))
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		after, err := pair.measure(ctx, calm)
		if err != nil {
			return err
		}
		judge(b, i, during, slices.Concat(before.beside, after.beside))
		before = after
	}
	return nil
}

// neighbours are app B on the server that it shares with A, and its twin on a server of its own. Both are measured at the same
// time: what else goes on in the machine meets them alike.
type neighbours struct{ beside, alone *tenant }

// delays are how long their wakes took.
type delays struct{ beside, alone []time.Duration }

func (n neighbours) measure(ctx context.Context, d time.Duration) (delays, error) {
	var took delays
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		took.beside, err = n.beside.measure(inner, d)
		return err
	})
	group.Go(func() (err error) {
		took.alone, err = n.alone.measure(inner, d)
		return err
	})
	err := group.Wait()
	return took, err
}

// judge compares B beside the trouble with its idle figure, or with its twin's at the same moment where the machine was so busy that
// the twin was slower than that.
func judge(b *testing.B, i int, during delays, idle []time.Duration) {
	b.Helper()
	got, own, twin := quantile(during.beside, 0.99), quantile(idle, 0.99), quantile(during.alone, 0.99)
	ratio := float64(got) / float64(max(own, twin))
	b.ReportMetric(ratio, fmt.Sprintf("p99-%d/idle", i))
	b.Logf("%-28s B's wakes p50 %v p99 %v (%d); idle p50 %v p99 %v (%d); its twin's at the same time p50 %v p99 %v: %.2fx", plagues[i].name,
		quantile(during.beside, 0.5), got, len(during.beside), quantile(idle, 0.5), own, len(idle), quantile(during.alone, 0.5), twin, ratio)
	if ratio > timesIdle {
		b.Errorf("%s: B's p99 is %.2fx its idle figure, more than %.1fx", plagues[i].name, ratio, timesIdle)
	}
}

// strike puts a new app A under full load and in trouble, measures B, and takes A away again.
func (s *shared) strike(ctx context.Context, pair neighbours, p plague, name string) (delays, error) {
	victim, err := s.newTenant(ctx, name, troubledDevices, mark)
	if err != nil {
		return delays{}, err
	}
	if err := victim.prove(ctx); err != nil {
		return delays{}, err
	}
	for _, r := range p.rules {
		defer s.sim.AddRule(r)()
	}
	if err := victim.sendToAll(ctx); err != nil {
		return delays{}, err
	}
	loading, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- victim.load(loading, troubledRate) }()
	defer func() {
		stop()
		<-ended
	}()
	if err := pass(ctx, onset); err != nil {
		return delays{}, err
	}
	v, err := s.vitals(ctx)
	if err != nil {
		return delays{}, err
	}
	if v.inFlight < p.inFlight {
		return delays{}, fmt.Errorf("%.0f pushes are under way, want %.0f: the app is not in trouble", v.inFlight, p.inFlight)
	}
	took, err := pair.measure(ctx, p.lasts)
	if err != nil {
		return delays{}, err
	}
	stop()
	if err := victim.remove(ctx); err != nil {
		return delays{}, err
	}
	return took, pass(ctx, p.traces)
}

// quantile is the value below which the share p of all lies.
func quantile(all []time.Duration, p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))].Round(10 * time.Microsecond)
}

// pass lets time pass.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// What BenchmarkPendingMemory does.
const (
	pendingDevices = 20_000
	// perPending is how much memory a device may take that waits for a provider which hangs.
	perPending = 4 << 10
)

// BenchmarkPendingMemory measures what a server holds in memory for each device that waits for a wake while the provider hangs.
func BenchmarkPendingMemory(b *testing.B) {
	for b.Loop() {
		if err := pend(b.Context(), b); err != nil {
			b.Fatal(err)
		}
	}
}

func pend(ctx context.Context, b *testing.B) error {
	binary, err := buildServer(ctx, b)
	if err != nil {
		return err
	}
	s, err := startShared(ctx, b, binary)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, isolationTime)
	defer cancel()
	victim, err := s.newTenant(ctx, "a", pendingDevices, mark)
	if err != nil {
		return err
	}
	if err := victim.prove(ctx); err != nil {
		return err
	}
	for _, r := range plagues[len(plagues)-1].rules {
		s.sim.AddRule(r)
	}
	idle, err := s.vitals(ctx)
	if err != nil {
		return err
	}
	if err := victim.sendToAll(ctx); err != nil {
		return err
	}
	if err := pass(ctx, onset); err != nil {
		return err
	}
	now, err := s.vitals(ctx)
	if err != nil {
		return err
	}
	each := (now.heap - idle.heap) / pendingDevices
	b.ReportMetric(each, "heap-bytes/device")
	b.Logf("%d devices wait for a provider that hangs: resident %.0f -> %.0f MiB, live heap %.0f -> %.0f MiB, %.0f bytes each, so %.0f MiB for 100,000; %d -> %d goroutines with %.0f pushes in flight", pendingDevices,
		idle.resident/mebi, now.resident/mebi, idle.heap/mebi, now.heap/mebi, each, each*100_000/mebi, idle.goroutines, now.goroutines, now.inFlight)
	if each > perPending {
		b.Errorf("a pending device takes %.0f bytes of heap, more than %d", each, perPending)
	}
	if more := now.goroutines - idle.goroutines; more > 3*int(now.inFlight)+200 || now.inFlight < 700 {
		b.Errorf("%d goroutines more than idle with %.0f pushes in flight: they grow with what is pending", more, now.inFlight)
	}
	return nil
}

const mebi = 1 << 20
