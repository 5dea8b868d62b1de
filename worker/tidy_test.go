package worker

import (
	"testing"
	"time"

	"rouse/tokens"
)

func TestOutletsThatNobodyUsesAreForgotten(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	key := tokens.Outlet{App: "app_1", Provider: tokens.APNs, Environment: tokens.Production}
	for name, c := range map[string]struct {
		use  func(h *hub, o *outlet)
		kept bool
	}{
		"nothing":                      {func(*hub, *outlet) {}, false},
		"a device":                     {func(h *hub, o *outlet) { h.remember("dev_1").outlet = o }, true},
		"a push under way":             {func(_ *hub, o *outlet) { o.inFlight++ }, true},
		"a queue":                      {func(_ *hub, o *outlet) { o.queue = append(o.queue, place{}) }, true},
		"a pause":                      {func(_ *hub, o *outlet) { o.circuit.pauses = 1 }, true},
		"a pause the store knows":      {func(_ *hub, o *outlet) { o.circuit.noted.State = tokens.CircuitOpen }, true},
		"a note under way":             {func(_ *hub, o *outlet) { o.circuit.noting = true }, true},
		"a place in the line":          {func(_ *hub, o *outlet) { o.thirsty = true }, true},
		"a refusal of strangers":       {func(_ *hub, o *outlet) { o.strangersFrom = now.Add(time.Minute) }, true},
		"a refusal of strangers, over": {func(_ *hub, o *outlet) { o.strangersFrom = now }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(New(Options{}), t.Context(), func() {})
			o := h.outlet(key)
			c.use(h, o)
			h.sweepOutlets(now)
			if _, kept := h.outlets[key]; kept != c.kept || (len(o.family.outlets) == 1) != c.kept || (len(h.families) == 1) != c.kept {
				t.Errorf("outlets %d, of its family %d, families %d; want it kept: %v", len(h.outlets), len(o.family.outlets), len(h.families), c.kept)
			}
		})
	}
}

func TestAFamilyWithAWaveIsRemembered(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	h := newHub(New(Options{}), t.Context(), func() {})
	f := h.familyOf(tokens.Outlet{App: "app_1", Provider: tokens.FCM})
	f.breaker.note(true, now)
	if h.sweepOutlets(now.Add(waveWindow - time.Minute)); len(h.families) != 1 {
		t.Error("a refusal of this window was forgotten")
	}
	f.breaker.tripped = true
	if h.sweepOutlets(now.Add(24 * time.Hour)); len(h.families) != 1 {
		t.Error("a wave was forgotten")
	}
	f.breaker = breaker{}
	if h.sweepOutlets(now.Add(24 * time.Hour)); len(h.families) != 0 {
		t.Error("a family that nobody uses is kept")
	}
}
