package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

var tokenTests = map[string]func(*testing.T, *world){
	"the newest registration holds a token":           tokenSuperseded,
	"a refresh with an unchanged token revives it":    tokenRefreshed,
	"what a verdict makes of a token":                 tokenMarked,
	"a verdict on another generation changes nothing": tokenOfAnotherGeneration,
	"strikes are counted until something forgives":    strikesCounted,
	"a new credential forgives, wherever one looks":   strikesForgiven,
	"a death is taken back and forgiven":              deathTakenBack,
	"the deaths since a time are taken back":          deathsTakenBack,
	"a token moves to its environment":                tokenMoved,
	"who registered a moved token last holds it":      tokenMovedOnto,
	"whatever happens, one device holds a token":      tokenHeldOnce,
	"reports of demoted pushes count for a week":      pushesNoted,
}

func (w *world) register(change func(*tokens.Enrol)) tokens.Device {
	w.t.Helper()
	d, _, err := w.Register(w.ctx(), enrol(w.app, change))
	w.must(err)
	return d
}

// mark has a provider's verdict make something of d's token, for the reason "why".
func (w *world) mark(d tokens.Device, state tokens.TokenState, want bool, change ...func(*tokens.TokenMark)) {
	w.t.Helper()
	m := tokens.TokenMark{Device: d.ID, Generation: d.Generation, State: state, Reason: "why", At: w.now}
	if state == tokens.TokenActive {
		m.Reason = ""
	}
	for _, f := range change {
		f(&m)
	}
	if changed, err := w.MarkToken(w.ctx(), m); err != nil || changed != want {
		w.t.Errorf("marked %+v: changed %t, %v", m, changed, err)
	}
}

func strike(m *tokens.TokenMark)    { m.Strike = true }
func elsewhere(m *tokens.TokenMark) { m.OtherTried = true }

func (w *world) credential(p tokens.Provider) {
	w.t.Helper()
	w.must(w.PutCredential(w.ctx(), tokens.Credential{App: w.app, Provider: p, Fingerprint: "f", Secret: []byte("s"), UpdatedAt: w.now}))
}

// everywhere checks that all who read the device see its token as want says: state, reason, strikes and since when.
func (w *world) everywhere(what string, want tokens.Device) {
	w.t.Helper()
	device, err := w.Device(w.ctx(), want.App, want.ID)
	w.must(err)
	auth, _, _, err := w.DeviceAuth(w.ctx(), want.ID)
	w.must(err)
	_, waiting, err := w.Waiting(w.ctx(), want.ID, w.now)
	w.must(err)
	auth.Token, want.LastContact = device.Token, device.LastContact
	for by, got := range map[string]tokens.Device{"Device": device, "DeviceAuth": auth, "Waiting": waiting} {
		if diff := cmp.Diff(want, got); diff != "" {
			w.t.Errorf("%s, by %s: %s", what, by, diff)
		}
	}
}

func deathsTakenBack(t *testing.T, w *world) {
	var devices []tokens.Device
	for i := range 300 {
		devices = append(devices, w.register(func(e *tokens.Enrol) {
			e.Installation, e.Token = fmt.Sprintf("i-%d", i), tokens.Token(fmt.Sprintf("%064x", i))
		}))
	}
	day := w.now
	for i, d := range devices {
		w.mark(d, tokens.TokenDead, true, func(m *tokens.TokenMark) { m.At = day.Add(time.Duration(i) * time.Second) })
	}
	revived := devices[299]
	_, err := w.PatchDevice(w.ctx(), revived.ID, tokens.Patch{Token: &revived.Token}, w.now)
	w.must(err)
	for p, want := range map[tokens.Provider]int{tokens.FCM: 0, tokens.APNs: 289} {
		back, err := w.TakeBackDeaths(w.ctx(), w.app, p, day.Add(10*time.Second))
		if err != nil || len(back) != want {
			t.Errorf("%s: took back %d, %v, want %d", p, len(back), err, want)
		}
	}
	for i, d := range devices {
		want := tokens.TokenSuspect
		switch {
		case i < 10:
			want = tokens.TokenDead
		case i == 299:
			want = tokens.TokenActive
		}
		got, err := w.Device(w.ctx(), w.app, d.ID)
		w.must(err)
		if got.TokenState != want || want == tokens.TokenSuspect && (got.Strikes != 0 || got.TokenReason != "why") {
			t.Fatalf("device %d: %s, %d strikes, %q; want %s", i, got.TokenState, got.Strikes, got.TokenReason, want)
		}
	}
	if back, err := w.TakeBackDeaths(w.ctx(), w.app, tokens.APNs, day.Add(10*time.Second)); err != nil || len(back) != 0 {
		t.Errorf("took back %d once more, %v", len(back), err)
	}
	w.now = day.Add(time.Hour)
	w.credential(tokens.APNs)
	if got, _ := w.Device(w.ctx(), w.app, devices[50].ID); got.TokenState != tokens.TokenActive {
		t.Errorf("after a new credential the token is %s", got.TokenState)
	}
}

func tokenMarked(_ *testing.T, w *world) {
	d := w.register(nil)
	first := w.now
	w.mark(d, tokens.TokenActive, false)
	w.everywhere("an active one stays", d)

	w.mark(d, tokens.TokenSuspect, true, strike)
	suspect := d
	suspect.TokenState, suspect.TokenReason, suspect.Strikes, suspect.StruckAt = tokens.TokenSuspect, "why", 1, first
	w.everywhere("a strike", suspect)

	w.mark(d, tokens.TokenActive, true)
	w.everywhere("accepted after all", d)

	w.mark(d, tokens.TokenSuspect, true, strike)
	w.mark(d, tokens.TokenDead, true)
	w.mark(d, tokens.TokenDead, false)
	w.mark(d, tokens.TokenActive, false)
	dead := suspect
	dead.TokenState = tokens.TokenDead
	w.everywhere("a death is not taken back by what was sent before", dead)

	for what, gone := range map[string]func() tokens.Device{
		"superseded": func() tokens.Device {
			older := w.register(func(e *tokens.Enrol) { e.Installation, e.Token = "older", "0011223344556677" })
			w.mark(older, tokens.TokenSuspect, true, strike, elsewhere)
			w.register(func(e *tokens.Enrol) { e.Installation, e.Token = "newer", "0011223344556677" })
			older.TokenState, older.Token = tokens.TokenSuperseded, ""
			return older
		},
		"no token": func() tokens.Device {
			return w.register(func(e *tokens.Enrol) { e.Installation, e.Token = "without", "" })
		},
	} {
		d := gone()
		for _, state := range []tokens.TokenState{tokens.TokenActive, tokens.TokenSuspect, tokens.TokenDead} {
			w.mark(d, state, false, strike)
		}
		w.everywhere(what, d)
	}
}

func tokenOfAnotherGeneration(_ *testing.T, w *world) {
	d := w.register(nil)
	for _, off := range []int64{-1, 1} {
		other := d
		other.Generation += off
		for _, state := range []tokens.TokenState{tokens.TokenActive, tokens.TokenSuspect, tokens.TokenDead} {
			w.mark(other, state, false, strike)
		}
		if changed, err := w.MoveToken(w.ctx(), d.ID, other.Generation, tokens.Sandbox); changed || err != nil {
			w.t.Errorf("moved: %t, %v", changed, err)
		}
	}
	w.everywhere("untouched", d)
	left := w.register(func(e *tokens.Enrol) { e.Installation, e.Token = "left", "0011223344556677" })
	w.mark(left, tokens.TokenSuspect, true, strike, elsewhere)
	w.must(w.Unregister(w.ctx(), w.app, left.ID, w.now))
	if _, d, err := w.Waiting(w.ctx(), left.ID, w.now); err != nil || d.Strikes != 0 || !d.StruckAt.IsZero() || d.OtherTried {
		w.t.Errorf("what was refused stays with a device that is gone: %+v, %v", d, err)
	}
	for _, gone := range []tokens.Device{{ID: ident.NewDevice(), Generation: 1}, left} {
		w.mark(gone, tokens.TokenDead, false)
		if changed, err := w.MoveToken(w.ctx(), gone.ID, gone.Generation, tokens.Sandbox); changed || err != nil {
			w.t.Errorf("moved one that is gone: %t, %v", changed, err)
		}
	}
}

func strikesCounted(t *testing.T, w *world) {
	d := w.register(nil)
	w.must(w.NotePush(w.ctx(), d.ID, true, w.now))
	d.Demotions, d.DemotedAt = 1, w.now
	w.mark(d, tokens.TokenSuspect, true, strike)
	w.now = w.now.Add(time.Hour)
	w.mark(d, tokens.TokenSuspect, false) // a refusal in a wave is no strike
	w.mark(d, tokens.TokenSuspect, true, elsewhere)
	want := d
	want.TokenState, want.TokenReason, want.Strikes, want.StruckAt, want.OtherTried = tokens.TokenSuspect, "why", 1, d.DemotedAt, true
	w.everywhere("one strike, and refused elsewhere in a wave", want)
	w.mark(d, tokens.TokenSuspect, true, strike)
	want.Strikes, want.StruckAt = 2, w.now
	w.everywhere("two strikes, the second elsewhere", want)
	if !want.Quarantined() {
		t.Error("two strikes are no quarantine")
	}
	locale := "fr"
	got, err := w.PatchDevice(w.ctx(), d.ID, tokens.Patch{Locale: &locale}, w.now)
	w.must(err)
	want.Locale = locale
	if got.LastContact = want.LastContact; !cmp.Equal(want, got) {
		t.Errorf("a patch without a token: %s", cmp.Diff(want, got))
	}
	w.everywhere("a patch without a token", want)

	token, later := d.Token, w.now.Add(time.Minute)
	fresh, err := w.PatchDevice(w.ctx(), d.ID, tokens.Patch{Token: &token}, later)
	w.must(err)
	want.TokenState, want.TokenReason, want.Strikes, want.StruckAt, want.OtherTried = tokens.TokenActive, "", 0, time.Time{}, false
	want.Generation, want.RegisteredAt = d.Generation+1, later
	w.everywhere("registered again by the phone", want)

	w.mark(fresh, tokens.TokenSuspect, true, strike, elsewhere)
	own := w.register(func(e *tokens.Enrol) { e.As, e.Device, e.Locale, e.Now = tokens.DeviceKey, d.ID, "fr", later })
	want.Generation++
	w.everywhere("registered again by the app", want)
	if own.Generation != want.Generation {
		t.Errorf("registered again: %+v", own)
	}
}

func strikesForgiven(_ *testing.T, w *world) {
	w.credential(tokens.APNs)
	w.now = w.now.Add(time.Minute)
	d := w.register(nil)
	w.mark(d, tokens.TokenSuspect, true, strike)
	w.mark(d, tokens.TokenSuspect, true, strike, elsewhere)
	want := d
	want.TokenState, want.TokenReason, want.Strikes, want.StruckAt, want.OtherTried = tokens.TokenSuspect, "why", 2, w.now, true
	w.everywhere("refused since the app put its credential", want)
	w.now = w.now.Add(time.Minute)
	w.credential(tokens.FCM)
	w.everywhere("another provider's credential", want)
	w.credential(tokens.APNs)
	w.everywhere("forgiven", d)
	r := w.accept(d.ID)
	if list, _, err := w.Deliveries(w.ctx(), w.app, r.ID, "", 1); err != nil || list[0].NotWoken.Code != "wake_due" {
		w.t.Errorf("the reason why it is not woken: %+v, %v", list, err)
	}
	w.now = w.now.Add(time.Minute)
	w.mark(d, tokens.TokenSuspect, true, strike)
	want.Strikes, want.StruckAt, want.OtherTried = 1, w.now, false
	w.everywhere("the first strike under the new credential", want)
}

func deathTakenBack(_ *testing.T, w *world) {
	w.credential(tokens.APNs)
	d := w.register(nil)
	w.now = w.now.Add(time.Minute)
	w.mark(d, tokens.TokenDead, true)
	dead := d
	dead.TokenState, dead.TokenReason, dead.StruckAt = tokens.TokenDead, "why", w.now
	w.everywhere("dead", dead)
	w.mark(d, tokens.TokenSuspect, true)
	doubted := dead
	doubted.TokenState, doubted.StruckAt = tokens.TokenSuspect, w.now
	w.everywhere("taken back without a strike", doubted)
	w.now = w.now.Add(time.Minute)
	w.credential(tokens.APNs)
	w.everywhere("a new credential", d)

	w.mark(d, tokens.TokenSuspect, true, strike)
	w.mark(d, tokens.TokenDead, true)
	dead.Strikes, dead.StruckAt = 1, w.now
	w.everywhere("dead after a strike", dead)
	w.now = w.now.Add(time.Minute)
	w.credential(tokens.APNs)
	dead.Strikes, dead.StruckAt = 0, time.Time{}
	w.everywhere("a new credential does not raise the dead, but the old one's strikes are gone", dead)
	w.mark(d, tokens.TokenSuspect, true, strike)
	dead.TokenState, dead.Strikes, dead.StruckAt = tokens.TokenSuspect, 1, w.now
	w.everywhere("taken back with a strike", dead)
}

func pushesNoted(t *testing.T, w *world) {
	d := w.register(nil)
	report := func(demoted bool, count int, at time.Time) {
		t.Helper()
		w.must(w.NotePush(w.ctx(), d.ID, demoted, w.now))
		d.Demotions, d.DemotedAt = count, at
		w.everywhere("reported", d)
	}
	report(false, 0, time.Time{})
	report(true, 1, w.now)
	w.now = w.now.Add(tokens.DemotionLife - time.Millisecond)
	report(true, 2, w.now)
	w.now = w.now.Add(tokens.DemotionLife)
	report(true, 1, w.now) // the others are forgotten
	token := d.Token
	fresh, err := w.PatchDevice(w.ctx(), d.ID, tokens.Patch{Token: &token}, w.now)
	w.must(err)
	d.Generation, d.RegisteredAt = fresh.Generation, w.now
	w.everywhere("Google counts by installation: a new token changes nothing", d)
	report(false, 0, time.Time{})
	w.refused(w.NotePush(w.ctx(), ident.NewDevice(), true, w.now), fault.NotFound, "device_not_found")
	w.must(w.Unregister(w.ctx(), w.app, d.ID, w.now))
	w.refused(w.NotePush(w.ctx(), d.ID, true, w.now), fault.Gone, "device_unregistered")
}
