package worker_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/tokens"
	"rouse/worker"
)

func TestAHundredMessagesMakeOnePush(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		for range 100 {
			h.send(d.ID, messages.High)
		}
		h.wants(1, "one outstanding wake for a device")
		if n := h.fetch(d.ID, true); n != 100 {
			t.Errorf("fetched %d, want 100", n)
		}
		h.pass(30 * time.Second)
		h.send(d.ID, messages.High)
		h.wants(2, "the phone has fetched: a new message wakes it again")
	})
}

func TestThePushSaysNothingOfTheMessage(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.High)
		h.wants(1, "a high message")
		if p := h.provider.sent()[0]; strings.Contains(fmt.Sprintf("%+v", p.Push), "words") || p.Notification != nil {
			t.Errorf("the push holds words of the message: %+v", p.Push)
		}
	})
}

func TestTheLadderCallsUntilThePhoneAnswers(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.High)
		for _, step := range []struct {
			until  time.Duration
			pushes int
		}{{40 * time.Second, 1}, {80 * time.Second, 2}, {6 * time.Minute, 3}, {36 * time.Minute, 4}, {37*time.Minute + 3*time.Hour, 5}} {
			h.pass(step.until - time.Since(h.began))
			h.wants(step.pushes, "the ladder by "+step.until.String())
		}
		sent := h.provider.sent()
		if sent[0].Repeat || !sent[1].Repeat || sent[0].CollapseID != sent[1].CollapseID {
			t.Errorf("a repeated wake is silent and takes its predecessor's place: %+v, then %+v", sent[0].Push, sent[1].Push)
		}
		h.fetch(d.ID, true)
		h.pass(4 * time.Hour)
		h.wants(5, "the phone has acked everything")
	})
}

func TestAFetchedPageThatIsNeverAckedIsCalledFor(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		h.send(d.ID, messages.High)
		h.fetch(d.ID, false)
		h.pass(45 * time.Second)
		h.wants(1, "the phone may be working on it")
		h.pass(30 * time.Second)
		h.wants(2, "a minute without an ack; the ladder's first step lies beside it and is the same call")
	})
}

func TestANormalMessageIsABackgroundPushTwentyMinutesApart(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.Normal)
		h.wants(1, "the first")
		h.fetch(d.ID, true)
		h.pass(time.Minute)
		h.send(d.ID, messages.Normal)
		h.pass(18 * time.Minute)
		h.wants(1, "Apple allows two or three an hour")
		h.pass(2 * time.Minute)
		h.wants(2, "postponed, not forgotten")
		if k := h.provider.sent()[0].Kind; k != providers.Background {
			t.Errorf("kind %v, want background", k)
		}
	})
}

func TestLowUrgencyIsNeverWokenFor(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		h.send(d.ID, messages.Low)
		h.send(d.ID, messages.VeryLow)
		h.pass(3 * time.Hour)
		h.wants(0, "low and very-low ride along")
	})
}

func TestARestartWakesWhatWaitsAndNobodyTwice(t *testing.T) {
	atHome(t, func(h *home) {
		woken, waiting := h.device(tokens.FCM), h.device(tokens.FCM)
		h.send(woken.ID, messages.High)
		h.pass(time.Second) // the record of the wake is written lazily
		h.stop()
		h.send(waiting.ID, messages.High) // committed; its hint reaches nobody
		h.wants(1, "nobody is there to push")
		h.start()
		h.pass(time.Second)
		h.wants(2, "the start-up sweep finds what waits, and leaves the outstanding wake alone")
		if got := h.provider.sent()[1].Device; got != waiting.ID {
			t.Errorf("pushed %s, want %s", got, waiting.ID)
		}
	})
}

func TestAStartWithMoreWaitingThanFitsWakesThemAll(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		want := map[ident.Device]bool{}
		for range 300 {
			d := h.device(tokens.FCM)
			h.send(d.ID, messages.High)
			want[d.ID] = true
		}
		h.startWith(worker.Options{Readers: 1, InFlight: 3})
		h.pass(5 * time.Second)
		for _, p := range h.provider.sent() {
			delete(want, p.Device)
		}
		if len(want) > 0 {
			t.Errorf("%d phones were not woken", len(want))
		}
		h.wants(300, "each once")
	})
}

func TestABadCredentialPausesItsOutletAlone(t *testing.T) {
	atHome(t, func(h *home) {
		bad := true
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			if o.Provider == tokens.APNs && bad {
				return providers.Outcome{Verdict: providers.CredentialBad, Reason: "InvalidProviderToken", Status: 403}
			}
			return providers.Outcome{Verdict: providers.Accepted, Status: 200}
		}
		must(t, h.store.PutCredential(h.t.Context(), tokens.Credential{App: h.app, Provider: tokens.APNs, Fingerprint: "f", Public: []byte("{}"), Secret: []byte("{}"), UpdatedAt: time.Now()}))
		var apples []ident.Device
		for range 20 {
			apples = append(apples, h.device(tokens.APNs).ID)
		}
		google := h.device(tokens.FCM)
		for _, d := range apples {
			h.send(d, messages.High)
		}
		h.send(google.ID, messages.High)
		h.wants(2, "one push finds the credential bad, the others wait; Google's is not concerned")
		h.fetch(google.ID, true)
		c, err := h.store.Credential(h.t.Context(), h.app, tokens.APNs)
		must(t, err)
		if c.Failing != "InvalidProviderToken" {
			t.Errorf("the credential's failing reason is %q", c.Failing)
		}
		h.pass(4 * time.Minute)
		h.wants(3, "one probe after a minute, the next five minutes later")
		bad = false
		h.bus.Hint(messages.Hint{Kind: messages.HintCredential, App: h.app, Provider: string(tokens.APNs)})
		h.pass(time.Second)
		h.wants(3+20, "a new credential wakes all that waited, at once")
		for _, d := range apples {
			dev, err := h.store.Device(h.t.Context(), h.app, d)
			must(t, err)
			if dev.TokenState != tokens.TokenActive {
				t.Errorf("token of %s is %s: a bad credential must not touch tokens", d, dev.TokenState)
			}
		}
	})
}

func TestADeadTokenLosesNothingAndANewOneWakesAtOnce(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "Unregistered", Status: 410, ProviderTime: time.Now().Add(time.Second)}
			}
			return providers.Outcome{Verdict: providers.Accepted}
		}
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.High)
		h.pass(2 * time.Hour)
		h.wants(1, "a dead token is left alone")
		next := tokens.Token(strings.Repeat("cd", 32))
		_, err := h.store.PatchDevice(h.t.Context(), d.ID, tokens.Patch{Token: &next}, time.Now())
		must(t, err)
		h.bus.Hint(messages.Hint{Kind: messages.HintToken, App: h.app, Device: d.ID})
		h.pass(time.Millisecond)
		h.wants(2, "the new token is woken for what waits")
		if n := h.fetch(d.ID, true); n != 1 {
			t.Errorf("fetched %d, want the one message", n)
		}
	})
}

func TestAnOlderDeathDoesNotKillANewerRegistration(t *testing.T) {
	atHome(t, func(h *home) {
		h.provider.answer = func(n int, _ worker.Outlet, _ providers.Push) providers.Outcome {
			if n == 1 {
				return providers.Outcome{Verdict: providers.TokenDead, Reason: "Unregistered", Status: 410, ProviderTime: h.began.Add(-time.Hour)}
			}
			return providers.Outcome{Verdict: providers.Accepted}
		}
		d := h.device(tokens.APNs)
		h.send(d.ID, messages.High)
		h.pass(10 * time.Second)
		h.wants(2, "the provider spoke of an earlier life: try again")
	})
}

func TestStoppingLetsAPushInFlightEndAndStartsNoOther(t *testing.T) {
	atHome(t, func(h *home) {
		release, started := make(chan struct{}), make(chan struct{}, 1)
		h.provider.answer = func(int, worker.Outlet, providers.Push) providers.Outcome {
			started <- struct{}{}
			<-release
			return providers.Outcome{Verdict: providers.Accepted}
		}
		d := h.device(tokens.FCM)
		h.send(d.ID, messages.High)
		<-started
		stopped := make(chan struct{})
		go func() { h.stop(); close(stopped) }()
		synctest.Wait()
		select {
		case <-stopped:
			t.Fatal("Run returned with a push in flight")
		default:
		}
		close(release)
		<-stopped
		h.pass(time.Second)
		w, _, err := h.store.Waiting(h.t.Context(), d.ID, time.Now())
		must(t, err)
		if w.Woken.High == 0 {
			t.Error("the push that ended during the stop was not recorded")
		}
	})
}

func TestExpiryIsNoticedWithoutAnyoneAsking(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.NoProvider)
		r := h.sendAs(h.app, messages.Send{To: messages.Target{Device: d.ID}, Urgency: messages.High, TTL: 30 * time.Second})
		h.pass(60 * time.Second)
		m, err := h.store.Message(h.t.Context(), h.app, r.ID)
		must(t, err)
		if m.Counters[messages.Expired] != 1 {
			t.Errorf("counters %v, want one expired within 30 s of its end", m.Counters)
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
