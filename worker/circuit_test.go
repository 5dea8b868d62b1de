package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
	"rouse/worker"
)

var refusedKey = providers.Outcome{Verdict: providers.CredentialBad, Reason: "InvalidProviderToken", Status: 403}

// credential puts a credential, as the API does, hint included.
func (h *home) credential(p tokens.Provider) {
	h.t.Helper()
	must(h.t, h.store.PutCredential(h.t.Context(), tokens.Credential{App: h.app, Provider: p, Fingerprint: "f",
		Public: []byte("{}"), Secret: []byte("{}"), UpdatedAt: time.Now()}))
	h.bus.Hint(messages.Hint{Kind: messages.HintCredential, App: h.app, Provider: string(p)})
	h.pass(time.Millisecond)
}

// circuits are what the store knows to be open.
func (h *home) circuits(want ...tokens.CircuitCause) []tokens.Circuit {
	h.t.Helper()
	got, err := h.store.Circuits(h.t.Context(), h.app)
	must(h.t, err)
	if len(got) != len(want) {
		h.t.Fatalf("circuits %+v, want %v", got, want)
	}
	for i := range got {
		if got[i].Cause != want[i] {
			h.t.Errorf("circuits %+v, want %v", got, want)
		}
	}
	return got
}

// told counts the app's events by type.
func (h *home) told() map[messages.EventType]int {
	h.t.Helper()
	list, _, err := h.store.Events(h.t.Context(), h.app, 0, 1000)
	must(h.t, err)
	n := map[messages.EventType]int{}
	for _, e := range list {
		n[e.Type]++
	}
	return n
}

func (h *home) token(d ident.Device) tokens.Device {
	h.t.Helper()
	dev, err := h.store.Device(h.t.Context(), h.app, d)
	must(h.t, err)
	return dev
}

func (h *home) devices(n int, p tokens.Provider) []ident.Device {
	list := make([]ident.Device, n)
	for i := range list {
		list[i] = h.device(p).ID
	}
	return list
}

func (h *home) sendAll(to []ident.Device) {
	h.t.Helper()
	for _, d := range to {
		h.send(d, messages.High)
	}
}

// Three of ten tokens are called dead, with every proof: that is no life but a mistake somewhere, and nobody dies of it.
func TestAWaveOfDeathsIsNotBelieved(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.APNs)
		phones := h.devices(100, tokens.APNs)
		refused := map[ident.Device]bool{}
		for i, d := range phones {
			refused[d] = i%10 < 3
		}
		var healed atomic.Bool
		h.provider.answer = func(_ int, _ worker.Outlet, p providers.Push) providers.Outcome {
			if refused[p.Device] && !healed.Load() {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "Unregistered", Status: 410, ProviderTime: time.Now().Add(time.Second)}
			}
			return taken
		}
		h.sendAll(phones)
		h.pass(time.Second)
		if n := len(h.provider.sent()); n > 60 {
			t.Errorf("%d pushes went out; it should have paused after some fifty", n)
		}
		for _, d := range phones {
			if s := h.token(d).TokenState; s == tokens.TokenDead {
				t.Fatalf("a token died in the wave")
			}
		}
		c := h.circuits(tokens.CauseMassDeath)[0]
		if c.State != tokens.CircuitOpen || c.Reason != "Unregistered" {
			t.Errorf("circuit %+v", c)
		}
		if n := h.told(); n[messages.CircuitOpened] != 1 || n[messages.CredentialFailing] != 0 {
			t.Errorf("events %v, want one opening", n)
		}
		h.pass(90 * time.Second) // a probe after a minute; one in three is refused, and then it is five minutes
		h.pass(10 * time.Minute)
		for _, d := range phones {
			if !refused[d] && h.fetch(d, true) == 0 {
				t.Error("a message is gone")
			}
		}
		pushed := map[ident.Device]bool{}
		for _, p := range h.provider.sent() {
			pushed[p.Device] = true
		}
		if len(pushed) != len(phones) {
			t.Errorf("%d of %d phones were pushed once it flowed again", len(pushed), len(phones))
		}
		for _, d := range phones {
			if s := h.token(d).TokenState; s == tokens.TokenDead {
				t.Fatalf("a token died while it was watched")
			}
		}
		h.circuits(tokens.CauseMassDeath)
		healed.Store(true) // the app puts the right credential
		before := len(h.provider.sent())
		h.credential(tokens.APNs)
		h.pass(time.Second)
		h.circuits()
		woken := map[ident.Device]bool{}
		for _, p := range h.provider.sent()[before:] {
			woken[p.Device] = true
		}
		for d := range refused {
			if refused[d] && !woken[d] {
				t.Error("a phone that was refused is not woken by the credential")
			}
			if s := h.token(d).TokenState; s != tokens.TokenActive {
				t.Errorf("a token is %s in the end", s)
			}
		}
		if n := h.told(); n[messages.CircuitClosed] != 1 {
			t.Errorf("events %v, want one closing", n)
		}
	})
}

func TestAWaveThatWasTrueEndsByItself(t *testing.T) {
	atHome(t, func(h *home) {
		phones := h.devices(120, tokens.FCM)
		h.provider.answer = func(n int, _ worker.Outlet, p providers.Push) providers.Outcome {
			if n <= 60 && n%2 == 0 {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
			}
			return taken
		}
		h.sendAll(phones[:60])
		h.pass(2 * time.Minute)
		h.sendAll(phones[60:])
		h.pass(time.Second)
		h.circuits()
		if n := h.told(); n[messages.CircuitOpened] != 1 || n[messages.CircuitClosed] != 1 {
			t.Errorf("events %v, want one opening and one closing", n)
		}
	})
}

func TestDeathsFewEnoughAreBelieved(t *testing.T) {
	atHome(t, func(h *home) {
		phones := h.devices(200, tokens.FCM)
		dead := map[ident.Device]bool{}
		for i, d := range phones {
			dead[d] = i%10 == 9
		}
		h.provider.answer = func(_ int, _ worker.Outlet, p providers.Push) providers.Outcome {
			if dead[p.Device] {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "UNREGISTERED", Status: 404}
			}
			return taken
		}
		h.sendAll(phones)
		h.pass(time.Second)
		h.circuits()
		for _, d := range phones {
			if s := h.token(d).TokenState; (s == tokens.TokenDead) != dead[d] {
				t.Errorf("a token is %s", s)
			}
		}
	})
}

// With a wrong key five hundred pushes at once would get the whole address blocked: one finds out.
func TestOnePushFindsOutWhetherACredentialWorks(t *testing.T) {
	atHome(t, func(h *home) {
		release := make(chan struct{})
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				<-release
			}
			return taken
		}
		phones := h.devices(50, tokens.APNs)
		h.sendAll(phones)
		h.wants(1, "nothing is known of this credential")
		close(release)
		h.pass(time.Millisecond)
		h.wants(50, "it works")
		h.sendAll(h.devices(1, tokens.APNs))
		h.wants(51, "and is known to")
	})
}

func TestAHungFirstPushDoesNotHoldUpTheApp(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return providers.Outcome{Verdict: "hang"}
			}
			return taken
		}
		h.sendAll(h.devices(30, tokens.APNs))
		h.pass(1900 * time.Millisecond)
		h.wants(1, "the first may still be answered")
		h.pass(200 * time.Millisecond)
		h.wants(30, "another one tried, and proved it for all")
	})
}

func TestOfACredentialThatHangsAFewAreTried(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return providers.Outcome{Verdict: "hang"} }
		h.sendAll(h.devices(30, tokens.APNs))
		h.pass(14 * time.Second)
		h.wants(4, "two seconds apart, and four at most")
	})
}

func TestCircuitsOutliveTheProcess(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.APNs)
		var works atomic.Bool
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if works.Load() {
				return taken
			}
			return refusedKey
		}
		phones := h.devices(20, tokens.APNs)
		h.sendAll(phones)
		h.pass(90 * time.Second)
		h.wants(2, "the first, and a probe after a minute")
		h.stop()
		h.start()
		h.pass(3 * time.Minute)
		h.wants(2, "the process before has learnt that it is refused: the next probe is not due")
		c := h.circuits(tokens.CauseCredential)[0]
		if c.Environment != tokens.Production || c.Reason != "InvalidProviderToken" || c.Pauses != 2 || !c.OpenedAt.Before(h.began.Add(time.Second)) {
			t.Errorf("circuit %+v", c)
		}
		works.Store(true)
		h.pass(3 * time.Minute)
		h.wants(2+20, "the probe is taken, and all follow")
		h.circuits()
		if n := h.told(); n[messages.CircuitOpened] != 1 || n[messages.CredentialFailing] != 1 || n[messages.CircuitClosed] != 1 {
			t.Errorf("events %v, want one of each", n)
		}
	})
}

func TestACircuitIsNotedWhenTheStoreListensAgain(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		deaf := &deafStore{Store: h.store}
		deaf.deaf.Store(true)
		h.startWith(worker.Options{Circuits: deaf})
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return refusedKey }
		h.sendAll(h.devices(1, tokens.APNs))
		h.pass(time.Second)
		h.circuits()
		deaf.deaf.Store(false)
		h.pass(10 * time.Second)
		h.circuits(tokens.CauseCredential)
	})
}

// deafStore does not take circuits in.
type deafStore struct {
	*store.Store
	deaf atomic.Bool
}

func (d *deafStore) NoteCircuit(ctx context.Context, c tokens.Circuit, now time.Time) error {
	if d.deaf.Load() {
		return errors.New("deaf")
	}
	return d.Store.NoteCircuit(ctx, c, now)
}

func TestAProjectsQuotaPausesAllItsDevicesAndAThirdPartysKeyOnlyThoseBehindIt(t *testing.T) {
	atHome(t, func(h *home) {
		android, iphone := h.device(tokens.FCM), h.behindGoogle(tokens.IOS)
		var quota atomic.Bool
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			switch {
			case quota.Load():
				return providers.Outcome{Verdict: providers.AppThrottled, Reason: "QUOTA_EXCEEDED", Status: 429}
			case o.Onward == tokens.OnwardApple:
				return providers.Outcome{Verdict: providers.CredentialBad, Reason: "THIRD_PARTY_AUTH_ERROR", Status: 401}
			}
			return taken
		}
		h.send(iphone, messages.High)
		h.send(android.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "Apple behind Google is shut, Android is not concerned")
		if c := h.circuits(tokens.CauseCredential)[0]; c.Onward != tokens.OnwardApple {
			t.Errorf("circuit %+v", c)
		}
		h.fetch(android.ID, true)
		quota.Store(true)
		h.pass(20 * time.Second)
		h.send(android.ID, messages.High)
		h.wants(3, "the quota")
		h.pass(45 * time.Second)
		h.wants(3, "all of the project rest for a minute, the probe of the iPhones too")
		h.circuits(tokens.CauseThrottled, tokens.CauseCredential)
	})
}

func (h *home) behindGoogle(p tokens.Platform) ident.Device {
	r := tokens.Registration{App: h.app, Installation: string(ident.NewDevice()), Platform: p, Provider: tokens.FCM}
	r.Token = tokens.Token("fcm-token-" + r.Installation)
	d, _, err := h.store.Register(h.t.Context(), tokens.Enrol{Registration: r, As: tokens.PublishableKey, ID: ident.NewDevice(), Now: time.Now()})
	must(h.t, err)
	return d.ID
}

func TestAProjectThatIsNotThereIsTheAppsTrouble(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			return providers.Outcome{Verdict: providers.Unavailable, Reason: "NOT_FOUND", Status: 404}
		}
		phones := h.devices(20, tokens.FCM)
		h.sendAll(phones)
		h.pass(time.Second)
		h.wants(5, "a few tries, and then it is no outage")
		h.circuits(tokens.CauseCredential)
		for _, d := range phones {
			if s := h.token(d).TokenState; s != tokens.TokenActive {
				t.Errorf("a token is %s", s)
			}
		}
	})
}

func badToken(reason string) providers.Outcome {
	return providers.Outcome{Verdict: providers.TokenSuspect, Reason: reason, Status: 400}
}

func TestATokenOfTheOtherEnvironmentMovesThere(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			if o.Environment == tokens.Production {
				return badToken("BadDeviceToken")
			}
			return taken
		}
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "refused in one environment, taken in the other, at once")
		if dev := h.token(d.ID); dev.Environment != tokens.Sandbox || dev.TokenState != tokens.TokenActive || dev.Strikes != 0 {
			t.Errorf("device %+v", dev)
		}
		h.fetch(d.ID, true)
		h.pass(20 * time.Second)
		h.send(d.ID, messages.High)
		h.wants(3, "from now on straight there")
		if o := h.provider.sent()[2].outlet; o.Environment != tokens.Sandbox {
			t.Errorf("pushed through %+v", o)
		}
	})
}

func TestATokenRefusedEverywhereRestsAfterTwoStrikes(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome { return badToken("BadDeviceToken") }
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.High)
		h.pass(time.Second)
		h.wants(2, "here, and once in the other environment")
		if dev := h.token(d.ID); dev.TokenState != tokens.TokenSuspect || dev.Strikes != 1 || !dev.OtherTried {
			t.Errorf("device %+v", dev)
		}
		h.pass(2 * time.Minute)
		h.wants(3, "the ladder tries here once more, and not elsewhere")
		h.pass(9 * time.Hour)
		h.wants(3, "two strikes: it rests")
		h.pass(6 * time.Hour)
		h.wants(4, "the long steps of the ladder try")
		before := len(h.provider.sent())
		_, err := h.store.PatchDevice(h.t.Context(), d.ID, tokens.Patch{Token: &d.Token}, time.Now())
		must(h.t, err)
		h.bus.Hint(messages.Hint{Kind: messages.HintToken, App: h.app, Device: d.ID})
		h.pass(time.Second)
		if n := len(h.provider.sent()) - before; n != 2 {
			t.Errorf("%d pushes after the token was registered again, want it tried in both environments anew", n)
		}
	})
}

func TestStrikesOfAnotherCredentialDoNotCount(t *testing.T) {
	atHome(t, func(h *home) {
		h.credential(tokens.FCM)
		var right atomic.Bool
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			if right.Load() {
				return taken
			}
			return providers.Outcome{Verdict: providers.TokenSuspect, Reason: "SENDER_ID_MISMATCH", Status: 403}
		}
		phones := h.devices(5, tokens.FCM)
		h.sendAll(phones)
		h.pass(3 * time.Minute)
		h.wants(10, "each twice")
		h.stop() // and nothing is remembered
		h.start()
		h.pass(time.Minute)
		right.Store(true)
		h.credential(tokens.FCM)
		h.pass(time.Second)
		h.wants(15, "the right project's credential wakes all at once")
		for _, d := range phones {
			if dev := h.token(d); dev.TokenState != tokens.TokenActive || dev.Strikes != 0 {
				t.Errorf("device %+v", dev)
			}
		}
	})
}

// A production key asked about sandbox tokens says no for all of them: that is asked once, and no alarm.
func TestAKeyForOneEnvironmentIsNotAskedAboutTheOtherAgainAndAgain(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			if o.Environment == tokens.Sandbox {
				return providers.Outcome{Verdict: providers.CredentialBad, Reason: "BadEnvironmentKeyIdInToken", Status: 403}
			}
			return badToken("BadDeviceToken")
		}
		h.sendAll(h.devices(10, tokens.APNs))
		h.pass(time.Second)
		strangers := 0
		for _, p := range h.provider.sent() {
			if p.outlet.Environment == tokens.Sandbox {
				strangers++
			}
		}
		if strangers != 1 {
			t.Errorf("the sandbox was asked %d times, want once", strangers)
		}
		h.circuits()
		if n := h.told(); len(n) != 0 {
			t.Errorf("events %v, want none", n)
		}
	})
}

func TestADemotedPhoneGetsFewerPushesOfHighPriority(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		var kinds []providers.Kind
		wake := func() {
			h.send(d.ID, messages.High)
			sent := h.provider.sent()
			kinds = append(kinds, sent[len(sent)-1].Kind)
			h.fetch(d.ID, true)
			h.pass(5 * time.Minute)
		}
		report := func(demoted bool) { must(h.t, h.store.NotePush(h.t.Context(), d.ID, demoted, time.Now())) }
		wake()
		report(true)
		for range 4 { // 15 minutes apart at most: at 0, not at 5 and 10, at 15
			wake()
		}
		report(false)
		wake()
		want := []providers.Kind{providers.Alert, providers.Alert, providers.Background, providers.Background, providers.Alert, providers.Alert}
		for i := range want {
			if kinds[i] != want[i] {
				t.Fatalf("kinds %v, want %v", kinds, want)
			}
		}
		report(true)
		h.sendAs(h.app, messages.Send{To: messages.Target{Device: d.ID}, Urgency: messages.High, Notification: &messages.Notification{Body: "seen"}})
		h.fetch(d.ID, true)
		h.pass(time.Minute)
		h.sendAs(h.app, messages.Send{To: messages.Target{Device: d.ID}, Urgency: messages.High, Notification: &messages.Notification{Body: "seen"}})
		if sent := h.provider.sent(); sent[len(sent)-1].Kind != providers.Alert {
			t.Error("a push that shows something is not demoted, and need not be spared")
		}
	})
}

func TestAppsThatHangLeaveRoomForTheOthers(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		h.startWith(worker.Options{Total: 40})
		var busy, peak atomic.Int64
		healthy := h.app
		h.provider.answer = func(n int, o worker.Outlet, _ providers.Push) providers.Outcome {
			peak.Store(max(peak.Load(), busy.Add(1)))
			defer busy.Add(-1)
			if o.App == healthy || n <= 8 {
				return taken
			}
			return providers.Outcome{Verdict: "hang"}
		}
		for range 4 {
			app := ident.NewApp()
			must(h.t, h.store.CreateApp(h.t.Context(), tokens.App{ID: app, Name: "slow", InboxOverflow: tokens.OverflowReject, CreatedAt: time.Now()}, nil))
			for range 100 {
				h.sendAs(app, messages.Send{To: messages.Target{Device: h.deviceOf(app, tokens.FCM).ID}, Urgency: messages.High})
			}
		}
		phones := h.devices(30, tokens.FCM)
		before := time.Now()
		h.sendAll(phones)
		h.pass(time.Millisecond)
		got := map[ident.Device]bool{}
		for _, p := range h.provider.sent() {
			if p.outlet.App == healthy && p.at.Sub(before) < time.Second {
				got[p.Device] = true
			}
		}
		if len(got) != len(phones) {
			t.Errorf("%d of %d phones of the healthy app were pushed at once", len(got), len(phones))
		}
		if n := peak.Load(); n > 40+5*16 {
			t.Errorf("%d pushes under way at once, with room for 40 and 16 for each", n)
		}
	})
}

func TestACredentialThatRunsOutIsTold(t *testing.T) {
	atHome(t, func(h *home) {
		must(h.t, h.store.PutCredential(h.t.Context(), tokens.Credential{App: h.app, Provider: tokens.APNs, Fingerprint: "f",
			Public: []byte("{}"), Secret: []byte("{}"), UpdatedAt: time.Now(), ExpiresAt: time.Now().Add(7*24*time.Hour + 90*time.Minute)}))
		h.bus.Hint(messages.Hint{Kind: messages.HintCredential, App: h.app, Provider: string(tokens.APNs)})
		h.pass(4 * time.Hour)
		list, _, err := h.store.Events(h.t.Context(), h.app, 0, 100)
		must(h.t, err)
		var days []int
		for _, e := range list {
			var data struct{ Days int }
			must(h.t, json.Unmarshal(e.Data, &data))
			days = append(days, data.Days)
		}
		if want := []int{8, 7}; !slices.Equal(days, want) {
			t.Errorf("told %v days before, want %v: at once within thirty, and within seven", days, want)
		}
	})
}
