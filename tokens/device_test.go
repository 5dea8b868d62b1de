package tokens_test

import (
	"testing"
	"time"

	"rouse/tokens"
)

func TestReportsOfDemotedPushesSpaceWhatFollows(t *testing.T) {
	t.Parallel()
	reported := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		reports int
		after   time.Duration
		want    time.Duration
	}{
		{0, 0, 0},
		{1, 0, 15 * time.Minute},
		{1, tokens.DemotionLife - 1, 15 * time.Minute},
		{1, tokens.DemotionLife, 0},
		{2, time.Hour, 30 * time.Minute},
		{4, time.Hour, 2 * time.Hour},
		{5, time.Hour, 4 * time.Hour},
		{6, time.Hour, 4 * time.Hour},
		{1 << 30, time.Hour, 4 * time.Hour},
		{1, -time.Hour, 15 * time.Minute}, // the clock went back
	} {
		d := tokens.Device{Demotions: c.reports, DemotedAt: reported}
		if got := d.HighSpacing(reported.Add(c.after)); got != c.want {
			t.Errorf("%d reports, the last %s ago: %s, want %s", c.reports, c.after, got, c.want)
		}
	}
}

func TestOnlySuspectsAreQuarantined(t *testing.T) {
	t.Parallel()
	for state, want := range map[tokens.TokenState]bool{tokens.TokenSuspect: true, tokens.TokenActive: false, tokens.TokenDead: false,
		tokens.TokenNone: false, tokens.TokenSuperseded: false} {
		d := tokens.Device{TokenState: state, Strikes: tokens.Quarantine - 1}
		if d.Quarantined() {
			t.Errorf("a %s token with one strike is in quarantine", state)
		}
		d.Strikes = tokens.Quarantine
		if d.Quarantined() != want {
			t.Errorf("a %s token with two strikes: in quarantine %t, want %t", state, !want, want)
		}
	}
}
