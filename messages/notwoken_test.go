package messages

import (
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
	failing := func(s *Sleeper) { s.Failing = "InvalidProviderToken" }
	quiet := func(s *Sleeper) { s.Class = NoWake }
	outstanding := func(s *Sleeper) { s.Woken, s.Seen = 5, 4 }
	answered := func(s *Sleeper) { s.Woken, s.Seen = 5, 5 }
	silent := func(s *Sleeper) { s.LastContact = now.Add(-SilentAfter) }
	for _, c := range []struct {
		name string
		s    Sleeper
		want string
	}{
		{"nothing stands in the way", sleeper(), "wake_due"},
		{"its last wake was answered", sleeper(answered), "wake_due"},
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
