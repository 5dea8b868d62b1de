package worker

import (
	"testing"
	"time"

	"rouse/providers"
	"rouse/tokens"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	registered := time.Unix(2_000_000, 0)
	now := registered.Add(24 * time.Hour)
	at := func(v providers.Verdict, changes ...func(*attempt)) attempt {
		a := attempt{outcome: providers.Outcome{Verdict: v, Reason: "r"}, provider: tokens.APNs, registered: registered, now: now}
		for _, change := range changes {
			change(&a)
		}
		return a
	}
	google := func(a *attempt) { a.provider = tokens.FCM }
	since := func(since time.Time) func(*attempt) { return func(a *attempt) { a.outcome.ProviderTime = since } }
	failures := func(n int) func(*attempt) { return func(a *attempt) { a.failures = n } }
	pauses := func(n int) func(*attempt) { return func(a *attempt) { a.pauses = n } }
	after := func(d time.Duration) func(*attempt) { return func(a *attempt) { a.outcome.RetryAfter = d } }
	suspect := func(a *attempt) { a.suspect = true }
	tripped := func(a *attempt) { a.tripped = true }
	lost := func(n int) func(*attempt) { return func(a *attempt) { a.lost = n } }
	bad := func(a *attempt) { a.outcome.Reason = "BadDeviceToken" }
	elsewhere := func(a *attempt) { a.elsewhere = true }
	tried := func(a *attempt) { a.otherTried = true }
	shut := func(a *attempt) { a.otherShut = true }
	dead := decision{block: true, works: true, token: tokens.TokenDead}
	struck := decision{refuse: true, works: true, token: tokens.TokenSuspect, strike: true}
	spared := decision{refuse: true, works: true, token: tokens.TokenSuspect}
	refused := func(pause time.Duration) decision {
		return decision{retry: pause, pause: pause, cause: tokens.CauseCredential}
	}
	slower := func(pause time.Duration, wide bool) decision {
		return decision{retry: pause, pause: pause, cause: tokens.CauseThrottled, wide: wide}
	}
	for name, c := range map[string]struct {
		in   attempt
		want decision
	}{
		"accepted":                                  {at(providers.Accepted), decision{done: true, works: true}},
		"accepted by a suspect":                     {at(providers.Accepted, suspect), decision{done: true, works: true, token: tokens.TokenActive}},
		"dead at Google":                            {at(providers.TokenDead, google), dead},
		"dead since later than our word":            {at(providers.TokenDead, since(registered.Add(time.Second))), dead},
		"dead, without a time from Apple":           {at(providers.TokenDead), struck},
		"dead in the far future":                    {at(providers.TokenDead, since(now.Add(time.Hour))), struck},
		"dead in a future of minutes":               {at(providers.TokenDead, since(now.Add(time.Minute))), dead},
		"dead before it was registered":             {at(providers.TokenDead, since(registered.Add(-time.Second))), decision{works: true, retry: 5 * time.Second}},
		"dead at that very moment":                  {at(providers.TokenDead, since(registered)), decision{works: true, retry: 5 * time.Second}},
		"dead before it was registered, still":      {at(providers.TokenDead, since(registered), failures(1)), decision{works: true, refuse: true}},
		"dead among too many":                       {at(providers.TokenDead, since(registered.Add(time.Second)), tripped), spared},
		"suspect":                                   {at(providers.TokenSuspect), struck},
		"suspect among too many":                    {at(providers.TokenSuspect, tripped), spared},
		"perhaps of the other environment":          {at(providers.TokenSuspect, bad), decision{elsewhere: true, works: true}},
		"perhaps, among too many":                   {at(providers.TokenSuspect, bad, tripped), spared},
		"of neither environment, known":             {at(providers.TokenSuspect, bad, tried), struck},
		"other environment cannot be asked":         {at(providers.TokenSuspect, bad, shut), struck},
		"Google has one environment":                {at(providers.TokenSuspect, bad, google), struck},
		"it is of the other environment":            {at(providers.Accepted, elsewhere), decision{done: true, works: true, move: true}},
		"it is not":                                 {at(providers.TokenSuspect, bad, elsewhere), decision{refuse: true, works: true, token: tokens.TokenSuspect, strike: true, otherTried: true}},
		"dead there costs no token here":            {at(providers.TokenDead, since(registered.Add(time.Second)), elsewhere), decision{refuse: true, works: true, token: tokens.TokenSuspect, strike: true, otherTried: true}},
		"our credential is not for there":           {at(providers.CredentialBad, elsewhere), decision{refuse: true, token: tokens.TokenSuspect, strike: true, otherTried: true}},
		"nobody there right now":                    {at(providers.Unavailable, elsewhere), decision{retry: 5 * time.Second}},
		"nobody there for long":                     {at(providers.Unavailable, elsewhere, failures(10)), decision{refuse: true, token: tokens.TokenSuspect, strike: true}},
		"too much there":                            {at(providers.AppThrottled, elsewhere, after(10*time.Minute)), slower(10*time.Minute, false)},
		"bad credential":                            {at(providers.CredentialBad), refused(time.Minute)},
		"bad credential, again":                     {at(providers.CredentialBad, pauses(2)), refused(15 * time.Minute)},
		"bad credential, for ever":                  {at(providers.CredentialBad, pauses(99)), refused(time.Hour)},
		"Apple throttles a connection":              {at(providers.AppThrottled), slower(time.Minute, false)},
		"Google throttles a project":                {at(providers.AppThrottled, google, after(7*time.Second)), slower(7*time.Second, true)},
		"device throttled":                          {at(providers.DeviceThrottled), decision{works: true, retry: time.Minute}},
		"device throttled, again":                   {at(providers.DeviceThrottled, failures(1)), decision{works: true, retry: 2 * time.Minute}},
		"connection lost":                           {at(providers.ConnectionLost), decision{retry: atOnce}},
		"connection lost, again":                    {at(providers.ConnectionLost, failures(1)), decision{retry: 10 * time.Second}},
		"unavailable, Apple":                        {at(providers.Unavailable), decision{retry: 5 * time.Second}},
		"unavailable, Google":                       {at(providers.Unavailable, google), decision{retry: 10 * time.Second}},
		"unavailable, for long":                     {at(providers.Unavailable, failures(9)), decision{retry: 15 * time.Minute}},
		"unavailable, for so long it is a ladder's": {at(providers.Unavailable, failures(10)), decision{refuse: true}},
		"unavailable, told how long":                {at(providers.Unavailable, after(121*time.Second)), decision{retry: 121 * time.Second}},
		"unavailable, told nonsense":                {at(providers.Unavailable, after(1000*time.Hour)), decision{retry: time.Hour}},
		"nothing where we send it":                  {at(providers.Unavailable, google, lost(4)), decision{retry: 10 * time.Second}},
		"still nothing":                             {at(providers.Unavailable, google, lost(5)), refused(time.Minute)},
		"our request was wrong":                     {at(providers.Rejected), decision{refuse: true}},
		"a verdict nobody knows":                    {at("sunny"), decision{refuse: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := decide(c.in, 0); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// Whatever comes back, only one verdict may cost a token, and every decision says what is next.
func TestOnlyProofCostsAToken(t *testing.T) {
	t.Parallel()
	registered := time.Unix(2_000_000, 0)
	now := registered.Add(time.Hour)
	every := []providers.Verdict{
		providers.Accepted, providers.TokenDead, providers.TokenSuspect, providers.Rejected, providers.CredentialBad,
		providers.DeviceThrottled, providers.AppThrottled, providers.Unavailable, providers.ConnectionLost, "", "new",
	}
	reasons := []string{"", "BadDeviceToken", "Unregistered"}
	times := []time.Time{{}, registered.Add(-time.Hour), registered, registered.Add(time.Minute), now.Add(1000 * time.Hour)}
	killed := 0
	for n := range len(every) * len(reasons) * len(times) * 20 * 32 {
		pick := func(of int) int { i := n % of; n /= of; return i }
		yes := func() bool { return pick(2) == 1 }
		a := attempt{
			outcome:  providers.Outcome{Verdict: every[pick(len(every))], Reason: reasons[pick(len(reasons))], ProviderTime: times[pick(len(times))]},
			failures: pick(20), provider: tokens.FCM, registered: registered, now: now,
			suspect: yes(), elsewhere: yes(), otherTried: yes(), tripped: yes(),
		}
		if yes() {
			a.provider = tokens.APNs
		}
		a.elsewhere = a.elsewhere && a.provider == tokens.APNs
		d := decide(a, 0.999)
		if d.token == tokens.TokenDead {
			killed++
			proof := a.outcome.Verdict == providers.TokenDead && !a.tripped && !a.elsewhere &&
				(a.provider == tokens.FCM && a.outcome.ProviderTime.IsZero() || a.outcome.ProviderTime.Equal(registered.Add(time.Minute)))
			if !proof {
				t.Fatalf("costs the token: %+v", a)
			}
		}
		said := 0
		for _, b := range []bool{d.done, d.refuse, d.block, d.retry > 0, d.elsewhere} {
			if b {
				said++
			}
		}
		if said != 1 {
			t.Fatalf("%+v decides %d things: %+v", a, said, d)
		}
	}
	if killed == 0 {
		t.Error("no token ever died: nothing was tested")
	}
}

func TestJitterSpreadsUpwardsByAFifthAtMost(t *testing.T) {
	t.Parallel()
	a := attempt{outcome: providers.Outcome{Verdict: providers.Unavailable, RetryAfter: 100 * time.Second}}
	if low, high := decide(a, 0).retry, decide(a, 0.9999).retry; low != 100*time.Second || high <= 119*time.Second || high > 120*time.Second {
		t.Errorf("retries spread from %s to %s, want 100 s to just under 120 s: never before what the provider asked", low, high)
	}
}
