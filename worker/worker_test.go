package worker_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rouse/bus"
	"rouse/ident"
	"rouse/messages"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
	"rouse/worker"
)

// provider stands in for the two companies: it answers what the test says and
// keeps what it was sent. The real ones are met in providers/ and cmd/rouse.
type provider struct {
	mu     sync.Mutex
	pushes []pushed
	answer func(n int, o worker.Outlet, p providers.Push) providers.Outcome
}

type pushed struct {
	providers.Push
	outlet worker.Outlet
	at     time.Time
}

func (p *provider) Push(ctx context.Context, o worker.Outlet, push providers.Push) providers.Outcome {
	p.mu.Lock()
	p.pushes = append(p.pushes, pushed{Push: push, outlet: o, at: time.Now()})
	n, answer := len(p.pushes), p.answer
	p.mu.Unlock()
	if answer == nil {
		return providers.Outcome{Verdict: providers.Accepted, Status: 200}
	}
	out := answer(n, o, push)
	if out.Verdict == "hang" {
		<-ctx.Done()
		return providers.Outcome{Verdict: providers.Unavailable, Reason: "timeout"}
	}
	return out
}

func (p *provider) sent() []pushed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]pushed(nil), p.pushes...)
}

// home is a store, a bus and a worker on virtual time.
type home struct {
	t        *testing.T
	store    *store.Store
	bus      *bus.Memory
	provider *provider
	app      ident.App
	began    time.Time
	stop     func() // ends the worker and waits for it
}

// atHome runs test in a bubble of virtual time with a real store on SQLite.
func atHome(t *testing.T, test func(h *home)) {
	t.Helper()
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rouse.db")
	synctest.Test(t, func(t *testing.T) {
		ring, err := tokens.ParseRing(tokens.NewRingKey("a"))
		must(t, err)
		s, err := store.Open(t.Context(), store.Options{DSN: "sqlite:" + path, Ring: ring})
		must(t, err)
		must(t, s.Migrate(t.Context()))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		h := &home{t: t, store: s, bus: &bus.Memory{}, provider: &provider{}, app: ident.NewApp(), began: time.Now()}
		must(t, s.CreateApp(t.Context(), tokens.App{ID: h.app, Name: "test", InboxOverflow: tokens.OverflowReject, CreatedAt: time.Now()}, nil))
		h.start()
		defer func() {
			h.stop()
			cancel()
			if err := errors.Join(<-ended, s.Close()); err != nil {
				t.Error(err)
			}
		}()
		test(h)
	})
}

// start starts a worker that remembers nothing.
func (h *home) start() { h.startWith(worker.Options{}) }

func (h *home) startWith(o worker.Options) {
	o.Sweeps, o.Expiries, o.Pusher = h.store, h.store, h.provider
	if o.Store == nil {
		o.Store = h.store
	}
	if o.Tokens == nil {
		o.Tokens = h.store
	}
	if o.Circuits == nil {
		o.Circuits = h.store
	}
	if o.Hints == nil {
		o.Hints = h.bus
	}
	w := worker.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
	})
	synctest.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pass lets virtual time go by.
func (h *home) pass(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
	synctest.Wait()
}

func (h *home) device(p tokens.Provider) tokens.Device {
	return h.deviceOf(h.app, p)
}

func (h *home) deviceOf(app ident.App, p tokens.Provider) tokens.Device {
	r := tokens.Registration{App: app, Installation: string(ident.NewDevice()), Platform: tokens.Android, Provider: p}
	switch p {
	case tokens.APNs:
		r.Platform, r.Environment = tokens.IOS, tokens.Production
		r.Token = tokens.Token(fmt.Sprintf("%x", sha256.Sum256([]byte(r.Installation))))
	case tokens.FCM:
		r.Token = tokens.Token("fcm-token-" + r.Installation)
	}
	d, _, err := h.store.Register(h.t.Context(), tokens.Enrol{Registration: r, As: tokens.PublishableKey, ID: ident.NewDevice(), Now: time.Now()})
	must(h.t, err)
	return d
}

func (h *home) send(to ident.Device, u messages.Urgency) messages.Receipt {
	h.t.Helper()
	return h.sendAs(h.app, messages.Send{App: h.app, To: messages.Target{Device: to}, Urgency: u})
}

func (h *home) sendAs(app ident.App, m messages.Send) messages.Receipt {
	h.t.Helper()
	m.App, m.CreatedAt, m.Data = app, time.Now(), []byte(`{"secret":"words"}`)
	if m.TTL == 0 {
		m.TTL = messages.DefaultTTL
	}
	checked, err := messages.New(m)
	must(h.t, err)
	receipt, err := h.store.Accept(h.t.Context(), checked)
	must(h.t, err)
	for _, p := range receipt.Pending {
		h.bus.Hint(messages.Hint{Kind: messages.HintNew, App: app, Device: p.Device, Seq: p.Seq, Class: p.Class})
	}
	synctest.Wait()
	return receipt
}

// fetch does what GET /v1/inbox does for a phone that does not wait, and returns how many it read.
func (h *home) fetch(d ident.Device, ack bool) int {
	h.t.Helper()
	page, err := h.store.Inbox(h.t.Context(), messages.Query{Device: d, Limit: 100, Now: time.Now()})
	must(h.t, err)
	if len(page.Items) == 0 {
		h.bus.Hint(messages.Hint{Kind: messages.HintSeen, Device: d, Seq: page.Seen})
		return 0
	}
	h.bus.Hint(messages.Hint{Kind: messages.HintServed, Device: d, Seq: max(page.Last, page.Seen), More: page.More})
	if ack {
		_, err := h.store.AckUpTo(h.t.Context(), d, page.Last, time.Now())
		must(h.t, err)
		h.bus.Hint(messages.Hint{Kind: messages.HintAcked, Device: d, Seq: page.Last})
	}
	synctest.Wait()
	return len(page.Items)
}

// wants checks how many pushes have gone out since the test began.
func (h *home) wants(n int, why string) {
	h.t.Helper()
	sent := h.provider.sent()
	if len(sent) != n {
		for _, p := range sent {
			h.t.Logf("%s push to %s", p.at.Sub(h.began), p.Device)
		}
		h.t.Fatalf("%d pushes, want %d: %s", len(sent), n, why)
	}
}

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

func TestAHangingProviderOfOneAppDelaysNoOther(t *testing.T) {
	atHome(t, func(h *home) {
		slow := ident.NewApp()
		must(t, h.store.CreateApp(h.t.Context(), tokens.App{ID: slow, Name: "slow", InboxOverflow: tokens.OverflowReject, CreatedAt: time.Now()}, nil))
		h.provider.answer = func(_ int, o worker.Outlet, _ providers.Push) providers.Outcome {
			if o.App == slow {
				return providers.Outcome{Verdict: "hang"}
			}
			return providers.Outcome{Verdict: providers.Accepted}
		}
		for range 400 {
			d := h.deviceOf(slow, tokens.FCM)
			h.sendAs(slow, messages.Send{To: messages.Target{Device: d.ID}, Urgency: messages.High})
		}
		d := h.device(tokens.FCM)
		before := time.Now()
		h.send(d.ID, messages.High)
		sent := h.provider.sent()
		if last := sent[len(sent)-1]; last.Device != d.ID || last.at.Sub(before) > time.Millisecond {
			t.Errorf("the other app's push did not go out at once")
		}
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
