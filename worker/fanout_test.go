package worker_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/store"
	"rouse/tokens"
	"rouse/worker"
)

// many registers n phones of an app behind Google, side by side.
func (h *home) many(app ident.App, n int) []ident.Device {
	h.t.Helper()
	list, aside := make([]ident.Device, n), 64
	var all sync.WaitGroup
	for k := range aside {
		all.Go(func() {
			for i := k; i < n; i += aside {
				r := tokens.Registration{App: app, Installation: string(ident.NewDevice()), Platform: tokens.Android, Provider: tokens.FCM}
				r.Token = tokens.Token("fcm-token-" + r.Installation)
				d, _, err := h.store.Register(context.Background(), tokens.Enrol{Registration: r, As: tokens.PublishableKey, ID: ident.NewDevice(), Now: time.Now()})
				if err != nil {
					h.t.Error(err)
				}
				list[i] = d.ID
			}
		})
	}
	all.Wait()
	h.pass(time.Millisecond)
	return list
}

var everybody = messages.Target{Broadcast: true}

// fan sends what is fanned out, with high urgency unless it says another, and hints as the API does.
func (h *home) fan(m messages.Send) ident.Message {
	h.t.Helper()
	m.CreatedAt, m.Data, m.TTL = time.Now(), []byte(`{"to":"many"}`), messages.DefaultTTL
	if m.App == "" {
		m.App = h.app
	}
	if m.Urgency == 0 {
		m.Urgency = messages.High
	}
	checked, err := messages.New(m)
	must(h.t, err)
	receipt, err := h.store.Accept(h.t.Context(), checked)
	must(h.t, err)
	h.bus.Hint(messages.Hint{Kind: messages.HintFanout, App: m.App})
	return receipt.ID
}

// rate has the app's fan-outs reach so many devices a second.
func (h *home) rate(app ident.App, aSecond int) {
	h.t.Helper()
	_, err := h.store.PatchApp(h.t.Context(), app, tokens.AppPatch{BroadcastRate: &aSecond})
	must(h.t, err)
}

// pushesIn counts the pushes from one time after the beginning until another.
func (h *home) pushesIn(begun time.Time, from, to time.Duration) (n int) {
	for _, p := range h.provider.sent() {
		if at := p.at.Sub(begun); at >= from && at < to {
			n++
		}
	}
	return n
}

func (h *home) summary(app ident.App, id ident.Message) messages.Summary {
	h.t.Helper()
	s, err := h.store.Message(h.t.Context(), app, id)
	must(h.t, err)
	return s
}

// is checks how far a message has come.
func (h *home) is(id ident.Message, status messages.Status, recipients int, why string) {
	h.t.Helper()
	if s := h.summary(h.app, id); s.Status != status || s.Recipients != recipients {
		h.t.Errorf("%s to %d, want %s to %d: %s", s.Status, s.Recipients, status, recipients, why)
	}
}

// oncePushed fails unless exactly these were pushed, each once.
func (h *home) oncePushed(list []ident.Device) {
	h.t.Helper()
	n := map[ident.Device]int{}
	for _, p := range h.provider.sent() {
		n[p.Device]++
	}
	for _, d := range list {
		if n[d] != 1 {
			h.t.Errorf("%s was pushed %d times", d, n[d])
		}
	}
	if len(n) > len(list) {
		h.t.Errorf("%d phones were pushed, want %d", len(n), len(list))
	}
}

func TestABroadcastWakesAtTheAppsPace(t *testing.T) {
	atHome(t, func(h *home) {
		h.prove(tokens.FCM)
		h.rate(h.app, 500)
		h.many(h.app, 1500)
		begun := time.Now()
		id := h.fan(messages.Send{To: everybody})
		h.pass(2400 * time.Millisecond)
		if n := h.pushesIn(begun, 250*time.Millisecond, 2250*time.Millisecond); n < 950 || n > 1050 {
			t.Errorf("%d pushes in 2 s, want 1000 +-5 %%", n)
		}
		h.is(id, messages.FanningOut, h.summary(h.app, id).Recipients, "it goes on")
		h.pass(3 * time.Second)
		h.is(id, messages.Accepted, 1501, "all")
	})
}

func TestTwoAppsBroadcastsGoOnTogether(t *testing.T) {
	atHome(t, func(h *home) {
		other := h.anotherApp()
		h.rate(h.app, 100)
		h.rate(other, 100)
		h.many(h.app, 500)
		h.many(other, 250)
		first := h.fan(messages.Send{To: everybody})
		h.pass(time.Second)
		second := h.fan(messages.Send{App: other, To: everybody})
		h.pass(2700 * time.Millisecond)
		if s := h.summary(other, second); s.Status != messages.Accepted || s.Recipients != 250 {
			t.Errorf("the other app's: %s to %d", s.Status, s.Recipients)
		}
		if s := h.summary(h.app, first); s.Recipients < 350 || s.Recipients > 425 {
			t.Errorf("the first has reached %d after 3.7 s at 100 a second", s.Recipients)
		}
	})
}

func TestASmallSendDoesNotWaitForAHugeOne(t *testing.T) {
	atHome(t, func(h *home) {
		h.rate(h.app, 50)
		list := h.many(h.app, 500)
		h.fan(messages.Send{To: everybody})
		small := h.fan(messages.Send{To: messages.Target{Device: list[499]}, SendAt: time.Now().Add(3 * time.Second)})
		h.pass(4500 * time.Millisecond)
		h.is(small, messages.Accepted, 1, "it takes turns with the broadcast")
	})
}

func TestAScheduledSendGoesOutAtItsSecond(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		at := time.Now().Add(26*time.Hour + 300*time.Millisecond)
		id := h.fan(messages.Send{To: messages.Target{Device: d.ID}, SendAt: at})
		h.is(id, messages.Scheduled, 0, "not yet")
		h.pass(time.Until(at) - time.Millisecond)
		h.wants(0, "its time has not come")
		h.pass(time.Second + 10*time.Millisecond)
		h.wants(1, "within a second of its time")
		h.is(id, messages.Accepted, 1, "sent")
		h.pass(time.Minute / 2)
		h.wants(1, "once")
	})
}

func TestAScheduleSurvivesARestart(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		before, during := time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		h.fan(messages.Send{To: messages.Target{Device: d.ID}, SendAt: before, CollapseKey: "a"})
		h.stop()
		h.start()
		h.pass(time.Hour + time.Second)
		h.wants(1, "the node that runs now knows nothing but the store")
		h.fetch(d.ID, true)
		h.fan(messages.Send{To: messages.Target{Device: d.ID}, SendAt: during})
		h.stop()
		h.pass(2 * time.Hour)
		h.wants(1, "nobody is there")
		h.start()
		h.pass(time.Second)
		h.wants(2, "late, but sent")
	})
}

// offClock is the store to a node whose clock may be wrong.
type offClock struct {
	worker.Fanouts
	by *atomic.Int64
}

func (o offClock) FanJobs(ctx context.Context, now time.Time, limit int) ([]messages.FanJob, error) {
	return o.Fanouts.FanJobs(ctx, now.Add(time.Duration(o.by.Load())), limit)
}

func (o offClock) FanOut(ctx context.Context, m ident.Message, limit int, now time.Time) (messages.FanPage, error) {
	return o.Fanouts.FanOut(ctx, m, limit, now.Add(time.Duration(max(0, o.by.Load())))) // put back, it is the send's own time
}

func TestSchedulesGoByTheClockOnTheWall(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		by := &atomic.Int64{}
		h.startWith(worker.Options{Fanouts: offClock{h.store, by}})
		soon, late := h.device(tokens.FCM), h.device(tokens.FCM)
		h.fan(messages.Send{To: messages.Target{Device: soon.ID}, SendAt: time.Now().Add(time.Hour)})
		h.pass(10 * time.Second)
		h.wants(0, "an hour is left")
		by.Store(int64(2 * time.Hour))
		h.pass(time.Second + time.Millisecond)
		h.wants(1, "the clock was put 2 h ahead: its time has come")
		by.Store(0)
		h.fan(messages.Send{To: messages.Target{Device: late.ID}, SendAt: time.Now().Add(30 * time.Minute)})
		h.pass(29 * time.Minute)
		if n := h.pushesIn(h.began, 0, time.Hour); n < 1 || h.pushed(late.ID) > 0 {
			t.Error("the clock was put back: its time has not come")
		}
		h.pass(time.Minute + time.Second)
		if h.pushed(late.ID) != 1 {
			t.Error("its time has come")
		}
	})
}

// pushed counts the pushes to a device.
func (h *home) pushed(d ident.Device) int {
	return h.through(0, func(p pushed) bool { return p.Device == d })
}

// A broadcast is not held up when the clock is put back in the middle of it.
func TestABroadcastGoesOnWhenTheClockIsPutBack(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		by := &atomic.Int64{}
		h.startWith(worker.Options{Fanouts: offClock{h.store, by}})
		h.rate(h.app, 100)
		h.many(h.app, 500)
		id := h.fan(messages.Send{To: everybody})
		h.pass(2 * time.Second)
		by.Store(int64(-2 * time.Hour))
		h.pass(4 * time.Second)
		h.is(id, messages.Accepted, 500, "all")
	})
}

func TestWhatIsCanceledGoesNoFurther(t *testing.T) {
	atHome(t, func(h *home) {
		d := h.device(tokens.FCM)
		id := h.fan(messages.Send{To: messages.Target{Device: d.ID}, SendAt: time.Now().Add(time.Minute)})
		h.pass(30 * time.Second)
		_, err := h.store.Cancel(h.t.Context(), h.app, id, time.Now())
		must(t, err)
		h.pass(2 * time.Minute)
		h.wants(0, "canceled before its time")
		h.is(id, messages.CanceledStatus, 0, "canceled")
		h.rate(h.app, 100)
		h.many(h.app, 600)
		id = h.fan(messages.Send{To: everybody})
		h.pass(3 * time.Second)
		_, err = h.store.Cancel(h.t.Context(), h.app, id, time.Now())
		must(t, err)
		reached := h.summary(h.app, id).Recipients
		if reached < 200 || reached > 500 {
			t.Errorf("%d devices were reached in 3 s at 100 a second", reached)
		}
		h.pass(time.Minute / 2)
		h.is(id, messages.CanceledStatus, reached, "no page after the cancel")
		if s := h.summary(h.app, id); s.Counters[messages.Canceled] != reached {
			t.Errorf("counters %v: all %d are canceled", s.Counters, reached)
		}
	})
}

func TestWhatWakesNobodyIsStoredAtOnce(t *testing.T) {
	atHome(t, func(h *home) {
		h.rate(h.app, 10)
		h.many(h.app, 1200)
		id := h.fan(messages.Send{To: everybody, Urgency: messages.Low})
		h.pass(100 * time.Millisecond)
		h.is(id, messages.Accepted, 1200, "nobody is woken, so nothing is to be spread")
		h.wants(0, "low urgency")
	})
}

func TestANewLeaderGoesOnWhereTheOldOneWas(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		v.rate(v.app, 80)
		list := v.many(v.app, 400)
		id := v.fan(messages.Send{To: everybody})
		v.pass(2 * time.Second)
		v.live(1, 0, 1)
		v.pass(time.Second)
		v.live(0, 0, 1)
		v.pass(5 * time.Second)
		v.is(id, messages.Accepted, 400, "all")
		v.oncePushed(list)
	})
}

// The store fails for a while, in the middle of it all.
func TestAFanOutOutlivesATroubleOfTheStore(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		ill := &illFanouts{Store: h.store}
		h.startWith(worker.Options{Fanouts: ill})
		h.rate(h.app, 200)
		list := h.many(h.app, 400)
		id := h.fan(messages.Send{To: everybody})
		h.pass(time.Second)
		ill.list.Store(true)
		h.pass(5 * time.Second)
		ill.list.Store(false)
		ill.page.Store(true)
		h.pass(5 * time.Second)
		ill.page.Store(false)
		h.pass(30 * time.Second)
		h.is(id, messages.Accepted, 400, "all")
		h.oncePushed(list)
	})
}

// illFanouts is a store that cannot list, or cannot store.
type illFanouts struct {
	*store.Store
	list, page atomic.Bool
}

func (i *illFanouts) FanJobs(ctx context.Context, now time.Time, limit int) ([]messages.FanJob, error) {
	if i.list.Load() {
		return nil, fmt.Errorf("no list")
	}
	return i.Store.FanJobs(ctx, now, limit)
}

func (i *illFanouts) FanOut(ctx context.Context, m ident.Message, limit int, now time.Time) (messages.FanPage, error) {
	if i.page.Load() {
		return messages.FanPage{}, fmt.Errorf("no page")
	}
	return i.Store.FanOut(ctx, m, limit, now)
}

// A stop waits for the page that is being stored, and its hints are told.
func TestAStopFinishesThePage(t *testing.T) {
	atHome(t, func(h *home) {
		h.stop()
		slow := &slowFanouts{Store: h.store, begun: make(chan struct{}, 1), goOn: make(chan struct{})}
		h.startWith(worker.Options{Fanouts: slow})
		h.many(h.app, 300)
		id := h.fan(messages.Send{To: everybody, Urgency: messages.Low})
		<-slow.begun
		stopped := make(chan struct{})
		go func() { h.stop(); close(stopped) }()
		synctest.Wait()
		select {
		case <-stopped:
			t.Error("the page was left alone")
		default:
		}
		close(slow.goOn)
		<-stopped
		h.is(id, messages.Accepted, 300, "the page is stored")
	})
}

type slowFanouts struct {
	*store.Store
	begun, goOn chan struct{}
}

func (s *slowFanouts) FanOut(ctx context.Context, m ident.Message, limit int, now time.Time) (messages.FanPage, error) {
	s.begun <- struct{}{}
	<-s.goOn
	return s.Store.FanOut(ctx, m, limit, now)
}
