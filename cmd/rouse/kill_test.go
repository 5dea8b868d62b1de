package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"rouse/client"
	"rouse/providers/sim"
)

// What TestKillNine does.
const (
	killRounds = 20
	// sharedRounds is how often it does so on PostgreSQL, where a node waits for some seconds after its start: the one before could
	// still be alive.
	sharedRounds = 5
	killPhones   = 24
	sendsASec    = 300
	sendCallers  = 16
)

// load sends to random phones at a steady pace until the server is gone, and
// remembers every message that got its 202.
type load struct {
	rig     *rig
	backend *client.Client
	phones  []*testPhone
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu       sync.Mutex
	accepted map[string][]string // by device, the ids that got a 202
	n        int
	enough   chan struct{} // closed at the given number of 202s
	target   int
}

// startLoad begins to send; enough closes after target answers.
func startLoad(r *rig, phones []*testPhone, target int) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{rig: r, backend: r.backend(), phones: phones, stop: stop, accepted: map[string][]string{}, enough: make(chan struct{}), target: target}
	ticks := make(chan struct{})
	l.done.Go(func() {
		defer close(ticks)
		pace := time.NewTicker(time.Second / sendsASec)
		defer pace.Stop()
		for {
			select {
			case <-pace.C:
			case <-ctx.Done():
				return
			}
			select {
			case ticks <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	})
	for range sendCallers {
		l.done.Go(func() {
			for range ticks {
				l.one(ctx)
			}
		})
	}
	return l
}

func (l *load) one(ctx context.Context) {
	p := l.phones[rand.IntN(len(l.phones))]
	id, err := l.rig.send(ctx, l.backend, p.device, fmt.Sprintf(`{"text":%q}`, secretWords))
	if err != nil {
		return // no 202, no promise
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted[p.device] = append(l.accepted[p.device], id)
	if l.n++; l.n == l.target {
		close(l.enough)
	}
}

// end stops sending and returns what was promised to whom.
func (l *load) end() map[string][]string {
	l.stop()
	l.done.Wait()
	return l.accepted
}

// TestKillNine kills the server in the middle of its work, many times in a row. After each start every message
// that got its 202 is in its inbox, and every phone with something pending was pushed without anyone asking.
func TestKillNine(t *testing.T) {
	t.Parallel()
	onEngines(t, testKillNine)
}

func testKillNine(t *testing.T, on engine) {
	r := newRigOn(t, on)
	var phones []*testPhone
	for i := range killPhones {
		phones = append(phones, r.enrol(fmt.Sprintf("phone-%d", i), []string{"fcm", "apns"}[i%2]))
	}
	rounds := killRounds
	if on.name == onPostgres.name {
		rounds = sharedRounds
	}
	promised, lost := 0, 0
	for round := range rounds {
		// Half of the rounds Google and Apple answer nobody before the kill: all wakes are still owed at the restart.
		heal := func() {}
		if round%2 == 1 {
			heal = r.sim.AddRule(sim.Rule{Action: sim.Action{Status: http.StatusServiceUnavailable}})
		}
		before := map[string]int{}
		for _, p := range phones {
			before[p.device] = r.heard(p)
		}
		l := startLoad(r, phones, 60+rand.IntN(120))
		select {
		case <-l.enough:
		case <-time.After(patient):
			t.Fatal("the server takes no load")
		}
		r.kill() // while the callers go on calling
		accepted := l.end()
		heal()
		r.start()
		for _, p := range phones {
			r.again(p)
			if len(accepted[p.device]) > 0 {
				r.awaitPush(p, before[p.device])
			}
			got := r.drain(p)
			promised += len(accepted[p.device])
			lost += compareIDs(t, round, p.device, accepted[p.device], got)
		}
	}
	t.Logf("%d kills, %d messages promised, %d lost", rounds, promised, lost)
}

// compareIDs fails for every promised message that did not come, and for any that came out of order or twice.
// Messages that were accepted while the connection broke may come besides.
func compareIDs(t *testing.T, round int, device string, promised, got []string) (lost int) {
	t.Helper()
	seen := map[string]bool{}
	for _, id := range got {
		if seen[id] {
			t.Errorf("round %d, %s: %s came twice", round, device, id)
		}
		seen[id] = true
	}
	for _, id := range promised {
		if !seen[id] {
			lost++
			t.Errorf("round %d, %s: %s got its 202 and is lost", round, device, id)
		}
	}
	return lost
}

// TestStopUnderLoad asks the server to stop while it is busy: it exits 0 within 15 s, every
// poll is answered, and every message that got its 202 is there at the next start.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	onEngines(t, testStopUnderLoad)
}

func testStopUnderLoad(t *testing.T, on engine) {
	r := newRigOn(t, on)
	var phones, boxes []*testPhone
	for i := range 8 {
		phones = append(phones, r.enrol(fmt.Sprintf("phone-%d", i), []string{"fcm", "apns"}[i%2]))
	}
	// A provider that never answers is in the way of any stop that waits for it.
	r.sim.AddRule(sim.Rule{Provider: sim.APNs, Action: sim.Action{Fault: sim.FaultHang}})
	answers := make(chan error, 20)
	for i := range cap(answers) {
		box := r.enrol(fmt.Sprintf("box-%d", i), "none")
		boxes = append(boxes, box)
		go func() {
			page, err := box.page(context.Background(), "", maxPage, 55)
			if err == nil && len(page.Messages) > 0 {
				err = fmt.Errorf("%d messages nobody sent", len(page.Messages))
			}
			answers <- err
		}()
	}
	r.awaitMetric("rouse_waiters", float64(len(boxes)))
	l := startLoad(r, phones, 200)
	select {
	case <-l.enough:
	case <-time.After(patient):
		t.Fatal("the server takes no load")
	}
	code, took := r.terminate()
	accepted := l.end()
	if code != exitOK || took > 15*time.Second {
		t.Errorf("exit %d after %v; want 0 within 15 s", code, took)
	}
	for range cap(answers) {
		if err := <-answers; err != nil {
			t.Errorf("a poll was not answered: %v", err)
		}
	}
	t.Logf("stopped in %v with %d polls parked and %d sends/s", took.Round(time.Millisecond), len(boxes), sendsASec)
	r.sim.ClearRules()
	r.start()
	for _, p := range phones {
		r.again(p)
		compareIDs(t, 0, p.device, accepted[p.device], r.drain(p))
	}
}

// percentile returns the value below which the share p of all lies.
func percentile(all []time.Duration, p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}
