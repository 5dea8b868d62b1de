package worker_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/bus"
	"rouse/ident"
	"rouse/internal/testkit"
	"rouse/messages"
	"rouse/providers"
	"rouse/store"
	"rouse/tokens"
	"rouse/worker"
)

func TestADeviceIsWokenByItsHomeAlone(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		phones := append(append(v.at(0, 5), v.at(1, 5)...), v.at(2, 5)...)
		v.sendAll(phones)
		v.pass(time.Second)
		v.woken(phones, 1, 0, "one node is home to each")
		v.pass(90 * time.Second)
		v.woken(phones, 2, 0, "the ladder's first step, handed to each home once")
	})
}

func TestALossyBusLosesNoWake(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		phones := append(append(v.at(0, 15), v.at(1, 15)...), v.at(2, 15)...)
		v.sendAll(phones)
		v.pass(90 * time.Second)
		n := v.pushes(0)
		if len(n) != len(phones) {
			t.Errorf("%d of %d phones were woken", len(n), len(phones))
		}
		for d, times := range n {
			if times > 2 {
				t.Errorf("%s was pushed %d times: once and by the first step at most", d, times)
			}
		}
	}, lossyLines())
}

// lossyLines gives all nodes one bus that drops half of the hints.
func lossyLines() func(int, *worker.Options) {
	shared := sync.OnceValue(func() worker.Bus { return testkit.NewLossy(&bus.Memory{}, 7) })
	return func(_ int, o *worker.Options) { o.Hints = shared() }
}

func TestADeadBusLosesNoWake(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		for _, l := range v.lines {
			l.lets(nothing)
		}
		phones := append(append(v.at(0, 5), v.at(1, 5)...), v.at(2, 5)...)
		v.sendAll(phones)
		v.pass(time.Second)
		v.woken(v.atOf(phones, 0), 1, 0, "those at home where the message came hear of it")
		v.pass(90 * time.Second)
		if n := v.pushes(0); len(n) != len(phones) {
			t.Errorf("%d of %d phones were woken: the sweep takes in whose home does not answer", len(n), len(phones))
		}
		v.fetchAll(phones)
		v.pass(time.Second)
		from := len(v.provider.sent())
		v.sendAll(v.at(2, 5))
		v.pass(75 * time.Second)
		if n := v.pushes(from); len(n) != 5 {
			t.Errorf("%d of 5 phones were woken", len(n))
		}
	})
}

// atOf picks those that live at a node.
func (v *village) atOf(list []ident.Device, node int) (here []ident.Device) {
	for _, d := range list {
		if v.town.homeOf(d) == node {
			here = append(here, d)
		}
	}
	return here
}

// The homes hear, but the sweep does not hear their answers for a while: told again and again, they call once.
func TestAHomeThatIsToldAgainCallsOnce(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		phones := v.at(1, 20)
		v.sendAll(phones)
		v.pass(time.Second)
		v.woken(phones, 1, 0, "at once")
		v.pass(45 * time.Second)
		lostUntil := time.Now().Add(9 * time.Second)
		v.lines[1].lets(func(h messages.Hint) bool { return h.Kind != messages.HintTaken || time.Now().After(lostUntil) })
		v.pass(3 * time.Minute)
		v.woken(phones, 2, 0, "the step once, also where it came while the home was still being told")
	})
}

// All answers are lost: the sweep takes the phones in beside their homes, and finds in the store that they were called.
func TestAHomeWhoseAnswersAreLostIsNotDoubled(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		phones := v.at(1, 10)
		v.lines[1].lets(func(h messages.Hint) bool { return h.Kind != messages.HintTaken })
		v.sendAll(phones)
		v.pass(2 * time.Minute)
		v.woken(phones, 2, 0, "the push and one step")
	})
}

func TestAnHeirFindsARetryThatOnlyMemoryKnew(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		v.answers(func(int, worker.Outlet, providers.Push) providers.Outcome {
			return providers.Outcome{Verdict: providers.DeviceThrottled, Reason: "QUOTA_EXCEEDED", Status: 429, RetryAfter: 15 * time.Minute}
		})
		phones := v.at(1, 5)
		v.sendAll(phones)
		v.pass(8 * time.Minute) // past the first two steps of the ladder
		v.answers(nil)
		from := len(v.provider.sent())
		v.kill[1]()
		v.live(0, 0)
		v.pass(3 * time.Second)
		v.woken(phones, 1, from, "no push stands for their message")
		v.live(0, 0)
		v.pass(3 * time.Second)
		v.woken(phones, 1, from, "looking again finds nothing to do")
	})
}

func TestAnHeirFindsWhatADeadNodeWasHanded(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		v.lines[0].lets(func(h messages.Hint) bool { return h.Kind != messages.HintNew })
		release := make(chan struct{})
		v.answers(func(int, worker.Outlet, providers.Push) providers.Outcome {
			<-release
			return providers.Outcome{Verdict: providers.Unavailable, Reason: "cut"}
		})
		phones := v.at(2, 5)
		v.sendAll(phones)
		v.pass(80 * time.Second) // handed over, taken, and the cursor has moved
		close(release)
		v.answers(nil)
		v.kill[2]()
		from := len(v.provider.sent())
		v.live(0, 0, 1)
		v.pass(3 * time.Second)
		v.woken(phones, 1, from, "the new homes find them behind the cursor")
	})
}

func TestANodeThatJoinsPushesNobodyTwice(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		v.live(0, 0)
		v.pass(2 * time.Second)
		phones := v.devices(40, tokens.FCM)
		v.sendAll(phones)
		v.pass(100 * time.Millisecond) // the last pushes are not in the store yet
		v.live(0, 0, 1)
		v.pass(20 * time.Second)
		v.woken(phones, 1, 0, "the new home reads what was pushed before it pushes")
		v.live(0, 1)
		v.pass(time.Second)
		more := v.at(1, 3)
		from := len(v.provider.sent())
		v.sendAll(more)
		v.pass(2 * time.Second)
		v.woken(more, 1, from, "and wakes from now on")
	})
}

func TestANodeThatIsHomeToNobodyHoldsNothing(t *testing.T) {
	inVillage(t, 1, func(v *village) {
		v.live(-1)
		phones := v.devices(5, tokens.FCM)
		v.sendAll(phones)
		v.pass(time.Minute)
		v.wants(0, "it holds nothing")
		v.live(-1, 0)
		v.pass(3 * time.Second)
		v.woken(phones, 1, 0, "home again, it looks")
	})
}

func TestDevicesThatMovedAreForgotten(t *testing.T) {
	registry := prometheus.NewRegistry()
	inVillage(t, 1, func(v *village) {
		v.sendAll(v.devices(5, tokens.FCM))
		if n := active(t, registry); n != 5 {
			t.Fatalf("%v devices are remembered, want 5", n)
		}
		v.live(0)
		if n := active(t, registry); n != 0 {
			t.Errorf("%v devices are remembered whose home is elsewhere", n)
		}
	}, func(_ int, o *worker.Options) { o.Metrics = registry })
}

func active(t *testing.T, r *prometheus.Registry) float64 {
	t.Helper()
	all, err := r.Gather()
	must(t, err)
	for _, f := range all {
		if f.GetName() == "rouse_active_devices" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no such metric")
	return 0
}

func TestAPushUnderWayWhenHomesChangeEndsAndIsForgotten(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		started, goOn := v.holdFirst(providers.Outcome{Verdict: providers.Accepted, Status: 200},
			func(int, worker.Outlet) providers.Outcome {
				return providers.Outcome{Verdict: providers.Accepted, Status: 200}
			})
		phone := v.at(1, 1)[0]
		v.sendSoon(phone)
		<-started
		v.live(0, 0)
		v.pass(500 * time.Millisecond)
		close(goOn)
		v.pass(5 * time.Second)
		v.wants(1, "it came back before the new home looked")
		v.send(phone, messages.High)
		v.pass(5 * time.Second)
		v.wants(1, "a wake is outstanding, and the new home knows")
		v.fetch(phone, true)
		v.send(phone, messages.High)
		v.pass(5 * time.Second)
		v.wants(2, "the new home wakes it")
	})
}

// stuckSweeps does not move the first step's cursor.
type stuckSweeps struct{ *store.Store }

func (s stuckSweeps) MoveSweepCursor(ctx context.Context, name string, to messages.Seq) error {
	if name == "high/1m0s" {
		return errors.New("the database is away")
	}
	return s.Store.MoveSweepCursor(ctx, name, to)
}

func TestASweeperThatDiesBeforeItsCursorMovesCallsNobodyTwice(t *testing.T) {
	inVillage(t, 3, func(v *village) {
		v.live(2, 0, 1)
		v.pass(2 * time.Second)
		phones := append(v.at(0, 5), v.at(1, 5)...)
		v.sendAll(phones)
		v.pass(60 * time.Second) // some are handed over, and told once more each second
		v.kill[2]()
		v.live(0, 0, 1)
		v.pass(60 * time.Second)
		v.woken(phones, 2, 0, "the push and one step, whoever swept")
		cursor, err := v.store.SweepCursor(v.t.Context(), "high/1m0s")
		if err != nil || cursor == 0 {
			v.t.Errorf("the cursor is at %d, %v: the next sweeper moves it", cursor, err)
		}
	}, func(i int, o *worker.Options) {
		if i == 2 {
			o.Sweeps = stuckSweeps{o.Sweeps.(*store.Store)}
		}
	})
}

func TestOneNodeClimbsAtATime(t *testing.T) {
	inVillage(t, 2, func(v *village) {
		v.live(-1, 0, 1)
		phones := append(v.at(0, 3), v.at(1, 3)...)
		v.sendAll(phones)
		v.pass(3 * time.Minute)
		v.woken(phones, 1, 0, "nobody leads, nobody climbs")
		v.live(1, 0, 1)
		v.pass(time.Minute)
		v.woken(phones, 2, 0, "who leads climbs for all")
	})
}
