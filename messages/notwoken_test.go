package messages

import (
	"strings"
	"testing"
	"time"
)

func TestWhyNotWokenNamesTheMostLastingReason(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	sleeper := func(change ...func(*Sleeper)) Sleeper {
		s := Sleeper{State: Queued, Class: HighWake, Provider: "fcm", TokenState: "active", HasCredential: true,
			LastContact: now.Add(-time.Hour), Now: now}
		for _, f := range change {
			f(&s)
		}
		return s
	}
	state := func(state State) func(*Sleeper) { return func(s *Sleeper) { s.State = state } }
	token := func(state string) func(*Sleeper) { return func(s *Sleeper) { s.TokenState = state } }
	noProvider := func(s *Sleeper) { s.Provider = "none" }
	noCredential := func(s *Sleeper) { s.HasCredential = false }
	pause := func(cause string) func(*Sleeper) {
		return func(s *Sleeper) { s.Pause = Pause{cause, "Word", now.Add(time.Minute)} }
	}
	failing, wave, throttled := pause("credential"), pause("mass_death"), pause("throttled")
	quiet := func(s *Sleeper) { s.Class = NoWake }
	outstanding := func(s *Sleeper) { s.Woken, s.Seen = 5, 4 }
	answered := func(s *Sleeper) { s.Woken, s.Seen = 5, 5 }
	silent := func(s *Sleeper) { s.LastContact = now.Add(-SilentAfter) }
	failed := func(s *Sleeper) { s.Failed = FailedPush{Verdict: "unavailable", Reason: "timeout"} }
	for _, c := range []struct {
		name string
		s    Sleeper
		want string
	}{
		{"nothing stands in the way", sleeper(), "wake_due"},
		{"its last wake was answered", sleeper(answered), "wake_due"},
		{"the last push failed", sleeper(failed), "wake_due"},
		{"a failure before the pause", sleeper(failed, throttled), "provider_paused"},
		{"acked", sleeper(state(Acked), noProvider), "final"},
		{"expired", sleeper(state(Expired)), "final"},
		{"dropped", sleeper(state(Dropped)), "final"},
		{"fetched by itself", sleeper(state(Fetched), noProvider), "polling"},
		{"no provider", sleeper(noProvider, token("none")), "no_provider"},
		{"a provider, no token", sleeper(token("none")), "no_provider"},
		{"dead token", sleeper(token("dead"), noCredential), "token_dead"},
		{"suspect token", sleeper(token("suspect"), failing), "token_suspect"},
		{"superseded token", sleeper(token("superseded")), "token_superseded"},
		{"no credential", sleeper(noCredential, quiet), "no_credentials"},
		{"failing credential", sleeper(failing, quiet), "provider_failing"},
		{"a wave of refused tokens", sleeper(wave, silent), "provider_paused"},
		{"quiet while throttled", sleeper(quiet, throttled), "rides_along"},
		{"silent while throttled", sleeper(silent, throttled), "silent_device"},
		{"throttled", sleeper(throttled), "provider_paused"},
		{"quiet message", sleeper(quiet, outstanding), "rides_along"},
		{"outstanding wake", sleeper(outstanding, silent), "wake_outstanding"},
		{"silent device", sleeper(silent), "silent_device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := WhyNotWoken(c.s); got.Code != c.want || got.Detail == "" {
				t.Errorf("got %+v, want %s", got, c.want)
			}
		})
	}
}

func TestAReasonSaysWhatEndsIt(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	awake := Sleeper{State: Queued, Class: HighWake, Provider: "apns", TokenState: "active", HasCredential: true, LastContact: now, Now: now}
	paused := func(cause string, until time.Duration) Sleeper {
		s := awake
		s.Pause = Pause{cause, "Word", now.Add(until)}
		return s
	}
	after := func(verdict, reason string, change ...func(*Sleeper)) Sleeper {
		s := awake
		s.Failed = FailedPush{At: now.Add(-time.Minute), Verdict: verdict, Reason: reason}
		for _, f := range change {
			f(&s)
		}
		return s
	}
	earlier := func(s *Sleeper) { s.Failed.Earlier = true }
	google := func(s *Sleeper) { s.Provider = "fcm" }
	doubted := func(s *Sleeper) { s.TokenState, s.TokenReason = "suspect", s.Failed.Reason }
	registered := func(s *Sleeper) { s.RegisteredAt = now.Add(-time.Second) }
	suspect, left := awake, awake
	suspect.TokenState, suspect.TokenReason = "suspect", "BadDeviceToken"
	left.TokenState, left.TokenReason, left.Quarantined = "suspect", "BadDeviceToken", true
	for name, c := range map[string]struct {
		s    Sleeper
		want []string
	}{
		"a refused credential":   {paused("credential", time.Minute), []string{"refuses", "Word", "2026-11-22T12:01:00Z", "puts its credentials"}},
		"a wave":                 {paused("mass_death", time.Minute), []string{"too many", "Word", "2026-11-22T12:01:00Z", "credentials that fit"}},
		"a wish to slow down":    {paused("throttled", time.Minute), []string{"slow down", "Word", "2026-11-22T12:01:00Z"}},
		"a pause that is over":   {paused("throttled", 0), []string{"one push at a time is tried now"}},
		"a first strike":         {suspect, []string{"BadDeviceToken", "once more"}},
		"a token left alone":     {left, []string{"BadDeviceToken", "quarantine", "registers", "puts its credentials"}},
		"nothing but the moment": {awake, []string{"due"}},
		"a push that failed":     {after("connection_lost", "goaway"), []string{"apns", "goaway, connection_lost", "2026-11-22T11:59:00Z", "growing intervals", "7 days"}},
		"an earlier one":         {after("unavailable", "timeout", earlier), []string{"apns", "timeout, unavailable", "2026-11-22T11:59:00Z", "for all that waits"}},
		"a push refused":         {after("rejected", "PayloadTooLarge"), []string{"apns", "PayloadTooLarge", "2026-11-22T11:59:00Z", "newer message"}},
		"an earlier one refused": {after("rejected", "PayloadTooLarge", earlier), []string{"PayloadTooLarge", "earlier message", "due at once"}},
		"an old death":           {after("token_dead", "Unregistered"), []string{"apns", "Unregistered", "not taken as proof", "older than the token's registration", "11:59:00Z"}},
		"a doubted death":        {after("token_dead", "Unregistered", doubted), []string{"Unregistered", "not taken as proof; it is tried once more"}},
		"a death at Google":      {after("token_dead", "UNREGISTERED", google), []string{"fcm", "UNREGISTERED", "not taken as proof; the last push"}},
		"a token since":          {after("token_dead", "Unregistered", registered), []string{"a wake is due: at once"}},
	} {
		got := WhyNotWoken(c.s).Detail
		for _, word := range c.want {
			if !strings.Contains(got, word) {
				t.Errorf("%s: %q does not say %q", name, got, word)
			}
		}
		if strings.Contains(got, "ladder") {
			t.Errorf("%s: %q speaks of a ladder", name, got)
		}
	}
}
