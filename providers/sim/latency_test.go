package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rouse/providers/sim"
)

func TestLatencyAsText(t *testing.T) {
	t.Parallel()
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for text, want := range map[string]sim.Latency{
		"":               {},
		"50ms":           sim.Fixed(ms(50)),
		"10ms..90ms":     {Min: ms(10), Max: ms(90)},
		"0s..1s":         {Max: time.Second},
		"50ms p99=400ms": {Median: ms(50), P99: ms(400)},
	} {
		got, err := sim.ParseLatency(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%q: %+v %q %v", text, got, got, err)
		}
	}
	for _, text := range []string{"fast", "-1ms", "90ms..10ms", "50ms p99=10ms", "50ms p99=", "0s p99=1s", "1ms..2ms p99=3ms"} {
		if got, err := sim.ParseLatency(text); err == nil {
			t.Errorf("%q was taken: %+v", text, got)
		}
	}
}

// TestLatencyDistributions draws many times: the shape is what was asked for, and the same seed draws the same.
func TestLatencyDistributions(t *testing.T) {
	t.Parallel()
	const n = 20000
	quantile := func(sorted []time.Duration, q float64) time.Duration { return sorted[int(q*float64(len(sorted)-1))] }
	for text, row := range map[string]struct{ median, p99, most time.Duration }{
		"50ms":           {50 * time.Millisecond, 50 * time.Millisecond, 50 * time.Millisecond},
		"10ms..90ms":     {50 * time.Millisecond, 89 * time.Millisecond, 90 * time.Millisecond},
		"50ms p99=400ms": {50 * time.Millisecond, 400 * time.Millisecond, 4 * time.Second},
	} {
		l, err := sim.ParseLatency(text)
		if err != nil {
			t.Fatal(err)
		}
		first, again, other := sim.Draw(l, 7, n), sim.Draw(l, 7, n), sim.Draw(l, 8, n)
		if !slices.Equal(first, again) {
			t.Errorf("%s: the same seed draws something else", text)
		}
		if text != "50ms" && slices.Equal(first, other) {
			t.Errorf("%s: another seed draws the same", text)
		}
		slices.Sort(first)
		near := func(got, want time.Duration) bool { return got > want*9/10 && got < want*11/10 }
		if median, p99 := quantile(first, 0.5), quantile(first, 0.99); !near(median, row.median) || !near(p99, row.p99) || first[n-1] > row.most {
			t.Errorf("%s: median %v, p99 %v, most %v", text, median, p99, first[n-1])
		}
	}
}

func TestLatencyPasses(t *testing.T) {
	t.Parallel()
	const wait = 60 * time.Millisecond
	s := start(t, sim.Options{APNsLatency: sim.Fixed(wait), TokenLatency: sim.Fixed(wait)})
	a := newApple(t, s)
	took := func(what func()) time.Duration {
		began := time.Now()
		what()
		return time.Since(began)
	}
	push := func() { a.push(ask{}) }
	if d := took(push); d < wait {
		t.Errorf("the provider's latency: %v", d)
	}
	var g *google
	if d := took(func() { g = newGoogle(t, s) }); d < wait {
		t.Errorf("the token endpoint's: %v", d)
	}
	remove := s.AddRule(sim.Rule{Provider: sim.FCM, Action: sim.Action{Latency: sim.Fixed(wait)}})
	if d := took(func() { g.send(g.message("")) }); d < wait {
		t.Errorf("a rule's: %v", d)
	}
	remove()
	// A rule with a time of its own replaces the provider's; one without does not.
	settings := s.Settings()
	settings.APNsLatency = sim.Fixed(time.Hour)
	if err := s.Adjust(settings); err != nil {
		t.Fatal(err)
	}
	remove = s.AddRule(sim.Rule{Action: sim.Action{Delay: time.Millisecond}})
	push()
	remove()
	s.AddRule(sim.Rule{Action: sim.Action{Status: 503}})
	if _, err := a.try(within(t, wait), ask{}); err == nil {
		t.Error("an answer came before the provider's latency was over")
	}
}

// TestSeedChoosesTheRequests: another seed lets probability pick others.
func TestSeedChoosesTheRequests(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) string {
		s := start(t, sim.Options{Seed: seed, Rules: []sim.Rule{{Probability: 0.5, Action: sim.Action{Status: 503}}}})
		a := newApple(t, s)
		var got strings.Builder
		for range 60 {
			fmt.Fprint(&got, a.push(ask{}).status/100)
		}
		return got.String()
	}
	one, two := run(1), run(2)
	if one != run(0) || one == two {
		t.Errorf("%s\n%s", one, two)
	}
}
