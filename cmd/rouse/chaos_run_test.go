package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// What TestChaos does; `make chaos` runs all of it.
var (
	chaosFaults = flag.String("chaos", "", "the faults of TestChaos, separated by spaces, or all; a few short ones if empty")
	chaosBuses  = flag.String("chaos-bus", "postgres nats", "how the hints of TestChaos travel")
	chaosSeed   = flag.Uint64("chaos-seed", 3, "whom TestChaos hits, and what its phones do")
	chaosPhones = flag.Int("chaos-phones", 160, "phones of TestChaos, a third of them in its short form")
	chaosRate   = flag.Int("chaos-rate", 60, "sends a second of TestChaos, a third of them in its short form")
)

const (
	// calm is how long nothing goes wrong before the next fault; briefCalm in the short form.
	calm      = 20 * time.Second
	briefCalm = 3 * time.Second
	// quietAfter is when the phones stop getting messages that are to be woken by what came before: while the fault lasts.
	quietAfter = 2 * time.Second
	// settling is how long after its end a fault may still make pushes twice: as long as it takes to know who is alive.
	settling = 15 * time.Second
	// needlessLimit is the share of pushes that may be needless while nothing is wrong.
	needlessLimit = 0.01
	// pooled is how many connections to PostgreSQL a node may hold that it did not need at its start; they stay open for minutes.
	pooled = 8
	// needlessFew are too few to be a share of anything.
	needlessFew = 2
)

// TestChaos lets three nodes on one PostgreSQL serve phones under load, and breaks one thing after the other. Every message that got its
// 202 comes, in order; every sleeping phone is woken soon after things are mended; no poll hangs; duties are taken over; calm times
// see no needless pushes; and in the end no node holds more than at its start, and each stops as it should.
func TestChaos(t *testing.T) {
	t.Parallel()
	for _, bus := range strings.Fields(*chaosBuses) {
		t.Run(bus, func(t *testing.T) {
			if *chaosFaults == "" {
				t.Parallel()
			}
			runChaos(t, bus)
		})
	}
}

// trial is one run of TestChaos.
type trial struct {
	t       *testing.T
	fleet   *fleet
	crowd   *crowd
	road    *road
	phones  []*wanderer
	backend *backend
	many    *audiences
	dice    *rand.Rand
	brief   bool
	begun   time.Time
	rough   []span // when something was wrong, or had just been
}

// trialBlows are those that were asked for.
func trialBlows(t *testing.T, bus string) (asked []blow) {
	t.Helper()
	names := strings.Fields(strings.ReplaceAll(*chaosFaults, ",", " "))
	known := []string{"all"}
	for _, b := range blows() {
		known = append(known, b.name)
		wanted := slices.Contains(names, b.name) || slices.Contains(names, "all") || len(names) == 0 && b.briefly == bus
		if wanted && (b.bus == "" || b.bus == bus) {
			asked = append(asked, b)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			t.Fatalf("-chaos: %q is none of %s", name, strings.Join(known, ", "))
		}
	}
	return asked
}

func runChaos(t *testing.T, bus string) {
	blows, size, rate, brief := trialBlows(t, bus), *chaosPhones, *chaosRate, *chaosFaults == ""
	if brief {
		size, rate = size/3, rate/3
	}
	f := newFleet(t, bus)
	c := newCrowd(f.rig, size, *chaosSeed)
	r := &road{fleet: f, under: c.http.Transport}
	x := &trial{t: t, fleet: f, crowd: c, road: r, phones: wanderers(c, r), dice: rand.New(rand.NewPCG(*chaosSeed, 7)), brief: brief, begun: time.Now()}
	events := startReceiver(f.rig)
	start := x.idle()
	c.wander(x.phones)
	x.backend = startBackend(c, x.phones, rate)
	x.many = c.startAudiences(x.backend.halves, func() int { return int(x.backend.half.Load()) })
	for _, b := range blows {
		x.suffer(b)
	}
	x.goOn(x.calm())
	x.backend.end()
	x.many.last()
	lasted := time.Since(x.begun)
	if !c.ledger.await(healLimit) {
		t.Errorf("%d messages did not come within %v%s", c.ledger.owed(), healLimit, c.stories(time.Now()))
	}
	sum := c.ledger.close(t)
	c.ledger.inOrder(t)
	checkTokens(t, c)
	checkApp(t, c)
	judgeEvents(t, c, events)
	c.hangUp()
	events.server.CloseClientConnections()
	x.judgePushes()
	x.judgePolls()
	x.judgeNodes(start)
	x.tell("%s: seed %d, %v, %d phones, %d sends to one, %d to many, in batches or for later: %v", bus, *chaosSeed, lasted.Round(time.Second), size, x.backend.sent.Load(), x.many.sent.Load(), sum)
}

func (x *trial) calm() time.Duration {
	if x.brief {
		return briefCalm
	}
	return calm
}

func (x *trial) goOn(d time.Duration) { goOn(x.t, d) }

// tell logs a line of the report, now: a run may take long.
func (x *trial) tell(format string, args ...any) {
	x.t.Helper()
	x.t.Logf("%s "+format, append([]any{time.Now().Format("15:04:05")}, args...)...)
}

// suffer lets one thing go wrong. Half of the phones get messages before and shortly after it begins, and none from then on: it is those
// messages alone that they have to be woken for.
func (x *trial) suffer(b blow) {
	x.t.Helper()
	ctx := x.t.Context()
	x.many.resting.Store(strings.HasPrefix(b.name, "skew"))
	defer x.many.resting.Store(false)
	x.goOn(x.calm())
	lasts := b.lasts
	if x.brief {
		lasts = b.brief
	}
	was, err := x.fleet.duty(ctx)
	if err != nil {
		x.t.Errorf("asking who sweeps: %v", err)
	}
	sweeper := x.fleet.named(was)
	began := time.Now()
	hit, heal := b.strike(x)
	x.goOn(min(quietAfter, lasts))
	turned := time.Now()
	quiet := x.backend.turn()
	taken := "-"
	if hit != nil && hit == sweeper && !strings.HasPrefix(b.name, "skew") {
		taken = x.fleet.awaitDuty(ctx, was, began)
	}
	x.goOn(time.Until(began.Add(lasts)))
	heal()
	healed := time.Now()
	if hit == nil && was != "" {
		taken = x.fleet.awaitDuty(ctx, "", healed)
	}
	whole := x.awaitWhole(quiet, turned, healed)
	rough := span{began, whole}
	if after := healed.Add(settling); after.After(whole) {
		rough.to = after
	}
	x.rough = append(x.rough, rough)
	on := "all"
	if hit != nil {
		on = "node " + hit.name
	}
	x.tell("%s on %s: lasted %v, sweeps taken over after %s, whole again %v after the heal; %s", b.name, on, healed.Sub(began).Round(100*time.Millisecond), taken,
		whole.Sub(healed).Round(10*time.Millisecond), x.slowest(span{began, whole}))
}

// awaitWhole returns when the quiet phones had all that was promised to them before they were. It fails after healLimit.
func (x *trial) awaitWhole(quiet []*wanderer, turned, healed time.Time) time.Time {
	x.t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		owed := x.crowd.ledger.owedTo(quiet, turned)
		if len(owed) == 0 {
			return time.Now()
		}
		if time.Since(healed) > healLimit {
			slices.Sort(owed)
			x.t.Errorf("%v after the heal %d messages had not come%s", healLimit, len(owed), x.crowd.tales(slices.Compact(owed)))
			return time.Now()
		}
		<-again.C
	}
}

// slowest tells what the slowest message took to each kind of phone.
func (x *trial) slowest(s span) string {
	var parts []string
	for _, kind := range []string{"woken", "parked", "asking"} {
		if d := x.crowd.ledger.delays(x.phones, kind, s); len(d) > 0 {
			parts = append(parts, fmt.Sprintf("%s p50 %v max %v", kind, percentile(d, 0.5).Round(time.Millisecond), slices.Max(d).Round(time.Millisecond)))
		}
	}
	return strings.Join(parts, ", ")
}

// idle lets every phone be reached once, and returns what a node holds that has served all and is idle: of all nodes the most.
func (x *trial) idle() (most vitals) {
	x.t.Helper()
	x.crowd.wander(x.phones)
	dice := rand.New(rand.NewPCG(*chaosSeed, 8))
	first := senders{crowd: x.crowd, api: x.crowd.client(x.fleet.rig.app.SecretKey)}
	for i, w := range x.phones {
		n := w.log.sending()
		w.log.sent(n, first.send(w.crowdPhone, int64(-1-i), dice))
	}
	if !x.crowd.ledger.await(patient) {
		x.t.Fatalf("%d of %d phones were not reached in good weather%s", x.crowd.ledger.owed(), len(x.phones), x.crowd.stories(time.Now()))
	}
	x.crowd.hangUp()
	x.hangUpHTTP()
	for _, m := range x.fleet.nodes {
		m.child.awaitIdle(x.t)
		v := m.child.mustVitals(x.t)
		most.goroutines, most.files = max(most.goroutines, v.goroutines), max(most.files, v.files)
	}
	most.files += pooled
	return most
}

func (x *trial) hangUpHTTP() { x.road.under.(*http.Transport).CloseIdleConnections() }

// judgePushes fails if more than a few of the pushes of calm times were needless.
func (x *trial) judgePushes() {
	x.t.Helper()
	came := func(w *wanderer) func(id string) (time.Time, bool) {
		return func(id string) (time.Time, bool) {
			x.crowd.ledger.mu.Lock()
			defer x.crowd.ledger.mu.Unlock()
			return x.crowd.ledger.cameTo(id, w.crowdPhone)
		}
	}
	count := func(during []span) (pushes int, needless []string) {
		for _, w := range x.phones {
			for _, s := range during {
				n, bad := w.log.needless(s, came(w))
				pushes += n
				for _, b := range bad {
					needless = append(needless, w.name()+" "+b)
				}
			}
		}
		return pushes, needless
	}
	pushes, needless := count(x.smooth())
	if len(needless) > needlessFew && float64(len(needless)) > needlessLimit*float64(pushes) {
		x.t.Errorf("%d of %d pushes in calm times were needless:\n%s", len(needless), pushes, strings.Join(needless[:min(len(needless), 20)], "\n"))
	}
	roughPushes, roughNeedless := count(x.rough)
	x.tell("pushes in calm times %d, needless %d; while something was wrong %d, needless %d", pushes, len(needless), roughPushes, len(roughNeedless))
}

// smooth is when nothing was wrong.
func (x *trial) smooth() (all []span) {
	from := x.begun
	for _, r := range x.rough {
		if from.Before(r.from) {
			all = append(all, span{from, r.from})
		}
		if r.to.After(from) {
			from = r.to
		}
	}
	return append(all, span{from, time.Now()})
}

// judgePolls fails for every poll that was not answered within its wait, unless its node stood still.
func (x *trial) judgePolls() {
	x.t.Helper()
	polls, hung, excused := x.road.hung()
	for i, l := range hung {
		if i == 20 {
			break
		}
		x.t.Errorf("%v", l)
	}
	x.tell("polls %d, hung %d, at a node that stood still %d", polls, len(hung), len(excused))
}

// judgeNodes fails for every node that holds more than one did at the start, and for every one that does not end well.
func (x *trial) judgeNodes(start vitals) {
	x.t.Helper()
	x.hangUpHTTP()
	for _, m := range x.fleet.nodes {
		x.tell("node %s idle again: %v; at the start: %v", m.name, m.child.settled(x.t, start, idleLimit), start)
	}
	for _, m := range x.fleet.nodes {
		m.terminate()
	}
}
