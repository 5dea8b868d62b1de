package main

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rouse/client"
)

// What TestSoak does; `make soak` runs it for ten minutes.
var (
	soakFor    = flag.Duration("soak", 16*time.Second, "how long TestSoak makes trouble, the kill included")
	soakRate   = flag.Int("soak-rate", 500, "sends a second of TestSoak")
	soakPhones = flag.Int("soak-phones", 300, "phones of TestSoak")
	soakSeed   = flag.Uint64("soak-seed", 3, "which trouble comes when in TestSoak")
)

const (
	// healLimit is how long the world may take to be whole once nothing goes wrong any more.
	healLimit = 60 * time.Second
	// tardyAfter is when a message that still did not come is worth a story.
	tardyAfter = 20 * time.Second
	// usualDelay is what half of the messages may take in the midst of it all.
	usualDelay = 10 * time.Second
	// idleLimit is how long the server may take to let go of what it held: a dead connection shows after 20 s.
	idleLimit = 45 * time.Second
	// deafness is the share of pushes that get lost between the provider and the app. In a short soak none are: only the ladder
	// calls again for those, and its first step takes a minute.
	deafness = 0.01
	// ladderTime is when it has called again for all.
	ladderTime = 2 * time.Minute
)

// TestSoak sends at a steady pace while everything goes wrong that may go wrong at Apple and Google, and kills the server in the
// middle. In the end every message that got its 202 was fetched by the phone it was for, and no other; no token that works is given
// up; and the server holds no more goroutines, files or memory than before.
func TestSoak(t *testing.T) {
	t.Parallel()
	r := newRig(t, "--log-level", "info", "--webhook-allow", "127.0.0.0/8")
	c := newCrowd(r, *soakPhones, *soakSeed)
	events := startReceiver(r)
	k := newKeys(t, c, "SOAKKEY001")
	start := idleAfterWakes(c)
	c.wakeUp()
	begun := time.Now()
	c.deaf.Store(*soakFor/2 > ladderTime)
	load, trouble := c.startSenders(*soakRate), c.startChaos(k)
	var turn atomic.Int64
	many := c.startAudiences(c.halves(), func() int { return int(turn.Add(1) % 2) })

	goOn(t, *soakFor/2)
	c.deaf.Store(false)
	before := r.mustVitals()
	r.kill()
	r.start()
	c.follow()
	goOn(t, *soakFor/8)
	early := r.mustVitals()
	goOn(t, *soakFor*3/8)
	late := r.mustVitals()
	load.end()
	many.last()
	lasted := time.Since(begun)
	trouble.end()
	healed := time.Now()
	c.ledger.await(healLimit)
	t.Logf("whole again %v after the last trouble%s", time.Since(healed).Round(time.Millisecond), c.stories(healed.Add(tardyAfter)))
	trouble.count()

	sum := c.ledger.close(t)
	states := checkTokens(t, c)
	checkApp(t, c)
	judgeEvents(t, c, events)
	c.hangUp()
	events.server.CloseClientConnections()
	c.http.CloseIdleConnections()
	end := r.child.settled(t, start, idleLimit)
	flat(t, early, late)
	if *soakFor > ladderTime { // a short soak runs beside other tests, which take the time they take
		inTime(t, sum, lasted)
	}
	t.Logf("seed %d, %v with 1 kill, %d phones: %v, %d turned away by a full inbox, %d to many, in batches or for later", *soakSeed, lasted.Round(time.Second), len(c.phones), sum, load.full.Load(), many.sent.Load())
	t.Logf("tokens: %s; pushes %s; %v", tallied(states), tallied(merged(before.wakes, r.mustVitals().wakes)), trouble)
	t.Logf("server at its start: %v; a quarter into its second life: %v; at its end: %v; idle again: %v", start, early, late, end)
}

// halves are the phones, every other one in the same.
func (c *crowd) halves() (both [2][]*wanderer) {
	for i, p := range c.phones {
		both[i%2] = append(both[i%2], &wanderer{crowdPhone: p})
	}
	return both
}

// inTime checks what depends on the machine.
func inTime(t *testing.T, sum tally, lasted time.Duration) {
	t.Helper()
	if usual := percentile(sum.delays, 0.5); usual > usualDelay {
		t.Errorf("half of the messages took %v and more: they waited for the end of the troubles", usual)
	}
	if rate := float64(sum.promised) / lasted.Seconds(); rate < float64(*soakRate)/2 {
		t.Errorf("%.0f sends/s were accepted; want %d", rate, *soakRate)
	}
}

// stories tells what the server knows of messages that did not come by a time, a few of them.
func (c *crowd) stories(by time.Time) string {
	const few = 4
	return c.tales(c.ledger.tardy(by, few))
}

// tales tells what the server knows of messages, a few of them.
func (c *crowd) tales(ids []string) string {
	const few = 4
	var b strings.Builder
	api := c.client(c.rig.app.SecretKey)
	for _, id := range ids[:min(few, len(ids))] {
		told, err := trace(c.rig.t.Context(), api, id)
		if err != nil {
			fmt.Fprintf(&b, "\n%s: %v", id, err)
			continue
		}
		b.WriteString("\n")
		told.write(&b)
	}
	return b.String()
}

// idleAfterWakes lets every phone be woken once, and returns the vitals of a server that has served all and is idle.
func idleAfterWakes(c *crowd) vitals {
	c.rig.t.Helper()
	c.wakeUp()
	api := c.client(c.rig.app.SecretKey)
	for _, p := range c.phones {
		m, err := answer[client.MessageAccepted](api.SendMessage(c.rig.t.Context(), &client.SendMessageParams{}, client.MessageSend{
			To: client.Recipient{DeviceId: &p.device}, Data: []byte(`"first"`),
		}))
		if err != nil {
			c.rig.t.Fatal(err)
		}
		c.ledger.promise(m.Id, p, time.Now())
	}
	if !c.ledger.await(patient) {
		c.rig.t.Fatalf("%d of %d phones were not woken in good weather", c.ledger.owed(), len(c.phones))
	}
	c.hangUp()
	c.http.CloseIdleConnections()
	c.rig.child.awaitIdle(c.rig.t)
	return c.rig.mustVitals()
}

// awaitIdle returns once the server has noticed that its clients hung up.
func (c *child) awaitIdle(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for was := c.mustVitals(t); ; {
		<-tick.C
		now := c.mustVitals(t)
		if now.goroutines == was.goroutines && now.files == was.files {
			return
		}
		was = now
	}
}

// goOn lets the soak go on for d.
func goOn(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// checkTokens fails for every token that the server gave up: all that are left work. It counts them by state.
func checkTokens(t *testing.T, c *crowd) map[string]int {
	t.Helper()
	states := map[string]int{}
	for _, p := range c.phones {
		state, err := p.tokenState(t.Context())
		if err != nil {
			t.Errorf("%s: %v", p.name(), err)
			continue
		}
		states[state]++
		if state == "dead" || state == "superseded" {
			t.Errorf("%s: its token works, and the server calls it %s", p.name(), state)
		}
	}
	return states
}

// checkApp fails if anything of the app still counts as broken.
func checkApp(t *testing.T, c *crowd) {
	t.Helper()
	admin := c.client(c.rig.admin)
	list, err := answer[client.CredentialList](admin.ListCredentials(t.Context(), c.rig.app.Id))
	if err != nil {
		t.Fatal(err)
	}
	for _, credential := range list.Credentials {
		if credential.Failing != nil {
			t.Errorf("the %s credential works and counts as refused: %s", credential.Provider, *credential.Failing)
		}
	}
	app, err := answer[client.App](admin.GetApp(t.Context(), c.rig.app.Id))
	if err != nil {
		t.Fatal(err)
	}
	if app.Circuits != nil && len(*app.Circuits) > 0 {
		t.Errorf("all is well, and these circuits are not closed: %+v", *app.Circuits)
	}
}

// merged adds the counts of two processes up.
func merged(a, b map[string]int) map[string]int {
	sum := maps.Clone(a)
	for what, n := range b {
		sum[what] += n
	}
	return sum
}

func tallied(counts map[string]int) string {
	var rows []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		rows = append(rows, fmt.Sprintf("%s %d", what, counts[what]))
	}
	return strings.Join(rows, ", ")
}
