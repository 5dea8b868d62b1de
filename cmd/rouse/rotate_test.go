package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rouse/providers/sim"
)

// What TestRotation does.
const (
	rotations    = 6
	fewRotations = 2
	rotateGap    = 900 * time.Millisecond
	rotatePhones = 160
	rotateRate   = 300
	// rotateDelay keeps some pushes under way on the old connections at any time.
	rotateDelay = 200 * time.Millisecond
	// pushedWithin is how long a message may take to a sleeping phone: a burst's pushes lie 3 s apart, and one that was cut off twice is sent
	// again after 12 s at most. What the ladder has to call for, or the end of a pause, takes longer, and most messages far less.
	pushedWithin = ladderGap
	// lastConnections is how many each fake may still hold in the end: those of the last credential, in each environment.
	lastConnections = 4
)

// TestRotation replaces Apple's key and Google's account under load, several times. Every other time the old ones are revoked once the
// new ones are in place, as in an orderly change, else a moment before, as after a leak. No wake is lost or late, no token suffers, nothing
// is refused for good, and the old connections are closed.
func TestRotation(t *testing.T) {
	t.Parallel()
	onEngines(t, testRotation)
}

func testRotation(t *testing.T, on engine) {
	r := newRigOn(t, on, "--log-level", "info")
	rotations := rotations
	if on.name == onPostgres.name {
		rotations = fewRotations // the engine has little to do with it
	}
	c := newCrowd(r, rotatePhones, 1)
	for _, provider := range []string{sim.APNs, sim.FCM} {
		r.sim.AddRule(sim.Rule{Provider: provider, Action: sim.Action{Delay: rotateDelay}})
	}
	k := newKeys(t, c, "ROTATE0000")
	c.wakeUp()
	load := c.startSenders(rotateRate)
	for i := range rotations {
		goOn(t, rotateGap)
		if leaked := i%2 == 1; leaked {
			k.revoke(t, r.sim)
			goOn(t, rotateDelay)
			k = newKeys(t, c, fmt.Sprintf("ROTATE%04d", i+1))
			continue
		}
		old := k
		k = newKeys(t, c, fmt.Sprintf("ROTATE%04d", i+1))
		old.revoke(t, r.sim)
	}
	goOn(t, rotateGap)
	load.end()
	c.ledger.await(pushedWithin)
	if late := c.stories(time.Now()); late != "" {
		t.Error("some messages were not called for:", late)
	}
	sum := c.ledger.close(t)
	if slowest := slices.Max(sum.delays); slowest > pushedWithin {
		t.Errorf("a message took %v to its phone", slowest)
	}
	if usual := percentile(sum.delays, 0.5); usual > usualDelay {
		t.Errorf("half of the messages took %v and more", usual)
	}
	for state, n := range checkTokens(t, c) {
		if state != "active" && state != "none" {
			t.Errorf("%d tokens are %s", n, state)
		}
	}
	checkApp(t, c)
	stats := r.awaitConnections(lastConnections)
	wakes := r.mustVitals().wakes
	for what, n := range wakes {
		if !slices.ContainsFunc([]string{"accepted", "connection_lost", "credential_bad"}, func(v string) bool { return strings.Contains(what, `"`+v+`"`) }) {
			t.Errorf("%d pushes came to %s", n, what)
		}
	}
	if opened := stats.APNs.ConnectionsOpened; opened < rotations {
		t.Errorf("%d connections to Apple for %d keys: a connection is tied to its first key", opened, rotations+1)
	}
	t.Logf("%d rotations of both under %d sends/s: %v; %s; connections opened: Apple %d, Google %d", rotations, rotateRate, sum, tallied(wakes), stats.APNs.ConnectionsOpened, stats.FCM.ConnectionsOpened)
}

// revoke makes both credentials useless, at once.
func (k keys) revoke(t *testing.T, s *sim.Sim) {
	t.Helper()
	_ = s.NewAPNsKey(demoTeam, *k.apns.KeyId, demoTopic) // another key under the same id: the signature of the old one is wrong
	var account struct {
		Email string `json:"client_email"`
	}
	if err := json.Unmarshal(k.fcm.ServiceAccount, &account); err != nil || account.Email == "" {
		t.Fatalf("the service account is not one: %v", err)
	}
	s.AddRule(sim.Rule{Provider: sim.Token, TokenPrefix: account.Email, Action: sim.Action{Reason: "invalid_grant"}})
	s.RevokeAccessTokens()
}

// awaitConnections returns the simulator's counters once neither fake has more connections than most.
func (r *rig) awaitConnections(most int) sim.Stats {
	r.t.Helper()
	deadline := time.After(patient)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		stats := r.sim.Stats()
		if stats.APNs.ConnectionsOpen <= most && stats.FCM.ConnectionsOpen <= most {
			return stats
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Errorf("connections of credentials that are gone stay open: Apple %d, Google %d", stats.APNs.ConnectionsOpen, stats.FCM.ConnectionsOpen)
			return stats
		}
	}
}
