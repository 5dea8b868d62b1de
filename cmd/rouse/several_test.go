package main

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"rouse/client"
)

// TestTwoNodes: what is done on one node shows on the other, at once, on either bus.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	onBuses(t, func(t *testing.T, bus string) {
		v := newSeveral(t, 2, bus, "--grace", neighbourlyGrace.String())
		for _, one := range []struct {
			name string
			does func(*testing.T, *several)
		}{
			{"accept there, polled here", acceptedThere},
			{"registered here, woken from there", wokenFromThere},
			{"acked there, not woken again", ackedThere},
			{"fetched there, woken anew", fetchedThere},
			{"TTL 0 to who polls there", momentaryThere},
			{"keys revoked there", revokedThere},
			{"unregistered there while polling here", unregisteredThere},
			{"credential put there", credentialThere},
		} {
			begun := time.Now()
			one.does(t, v)
			t.Logf("%s: %v", one.name, time.Since(begun).Round(time.Millisecond))
		}
	})
}

const (
	// neighbourlyGrace is how long a phone that was served may stay silent in these tests.
	neighbourlyGrace = time.Second
	// someDevices are so many that each of two nodes is home to one of them.
	someDevices = 8
	// soon is what "at once" takes more often than not while other tests run, under the race detector.
	soon = 2 * time.Second
	// parkedFor is what the polls of these tests wait, in seconds. untold is when a poll that nobody told of what happened would still
	// wait, however slow the machine is: it looks for itself at its end.
	parkedFor = 50
	untold    = parkedFor * time.Second * 3 / 4
	// forgets is how long a node may believe a key that was revoked on another.
	forgets = 5 * time.Second
)

// acceptedThere measures how long a message that one node accepts takes to a poll that waits on the other.
func acceptedThere(t *testing.T, v *several) {
	box := v.enrol("box", "none")
	here := v.nodes[1].moved(t, box)
	there := v.nodes[0].as(t, v.app.SecretKey)
	var took []time.Duration
	for range 20 {
		got := v.park(t, 1, here)
		begun := time.Now()
		id := v.mustSendBy(there, box.device, `1`)
		page := <-got
		took = append(took, time.Since(begun))
		if page.err != nil || len(page.Messages) != 1 || page.Messages[0].Id != id || took[len(took)-1] > untold {
			t.Fatalf("after %v the poll answered %+v, %v", took[len(took)-1], page.InboxPage, page.err)
		}
		if _, err := here.ackAll(t.Context(), page.Cursor); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("accepted there, in hand here: p50 %v, p99 %v", percentile(took, 0.5), percentile(took, 0.99))
	if usual := percentile(took, 0.5); usual > soon {
		t.Errorf("p50 is %v", usual)
	}
}

// polled is what a poll answered.
type polled struct {
	client.InboxPage
	err error
}

// park has a phone poll its node, and returns once the node counts it among those that wait.
func (v *several) park(t *testing.T, node int, p *testPhone) <-chan polled {
	t.Helper()
	got := make(chan polled, 1)
	go func() {
		page, err := p.page(t.Context(), "", maxPage, parkedFor)
		got <- polled{page, err}
	}()
	v.nodes[node].awaitMetric(t, "rouse_waiters", 1)
	return got
}

// wokenFromThere registers phones on one node, and sends on the other: whichever is home, each is pushed, once.
func wokenFromThere(t *testing.T, v *several) {
	there := v.nodes[1].as(t, v.app.SecretKey)
	for n := range someDevices {
		p := v.enrol(fmt.Sprintf("phone-%d", n), []string{"fcm", "apns"}[n%2])
		v.mustSendBy(there, p.device, `1`)
		push := v.awaitPush(p, 0)
		v.noPush(p, push.N, 50*time.Millisecond)
	}
}

// ackedThere serves phones on polls of one node and has them ack on the other: none is pushed after the grace. A phone that took longer
// than that to ack may be.
func ackedThere(t *testing.T, v *several) {
	backend := v.backend()
	var phones []*testPhone
	for n := range someDevices {
		p := v.enrol(fmt.Sprintf("acks-there-%d", n), "fcm")
		got := v.park(t, 0, p)
		begun := time.Now()
		v.mustSendBy(backend, p.device, `1`)
		page := <-got
		if page.err != nil || len(page.Messages) != 1 {
			t.Fatalf("the poll answered %+v, %v", page.InboxPage, page.err)
		}
		if _, err := v.nodes[1].moved(t, p).ackAll(t.Context(), page.Cursor); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > neighbourlyGrace {
			t.Logf("a phone took %v to ack", took)
			continue
		}
		phones = append(phones, p)
	}
	for n, p := range phones {
		wait := time.Duration(0)
		if n == 0 {
			wait = 3 * neighbourlyGrace
		}
		v.noPush(p, 0, wait+time.Millisecond)
	}
}

// fetchedThere wakes phones, has them fetch on the other node, and sends once more: what they fetched there counts here.
func fetchedThere(t *testing.T, v *several) {
	backend := v.backend()
	for n := range someDevices {
		p := v.enrol(fmt.Sprintf("fetches-there-%d", n), "fcm")
		heard := 0
		for range 2 {
			v.mustSendBy(backend, p.device, `1`)
			heard = v.awaitPush(p, heard).N
			if _, err := v.nodes[1].moved(t, p).empty(t.Context(), func(fetched) {}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// momentaryThere sends what lives for no time to a phone that polls on the other node: it gets it while it polls, and not afterwards.
func momentaryThere(t *testing.T, v *several) {
	box := v.enrol("momentary", "none")
	there, none := v.nodes[0].as(t, v.app.SecretKey), int64(0)
	send := func() (string, string) {
		m, err := answer[client.MessageAccepted](there.SendMessage(t.Context(), &client.SendMessageParams{}, client.MessageSend{
			To: client.Recipient{DeviceId: &box.device}, Data: []byte(`1`), Ttl: &none,
		}))
		if err != nil {
			t.Fatal(err)
		}
		told, err := trace(t.Context(), there, m.Id)
		if err != nil || len(told.Deliveries) != 1 {
			t.Fatalf("%+v, %v", told, err)
		}
		return m.Id, told.Deliveries[0].State
	}
	got := v.park(t, 1, v.nodes[1].moved(t, box))
	var id string
	eventually(t, untold, func() (bool, string) { // that it polls is on its way to the other node
		sent, state := send()
		id = sent
		return state != "dropped", "it was dropped"
	})
	page := <-got
	if page.err != nil || len(page.Messages) != 1 || page.Messages[0].Id != id {
		t.Errorf("the poll answered %+v, %v; want %s", page.InboxPage, page.err, id)
	}
	if _, err := box.ackAll(t.Context(), page.Cursor); err != nil {
		t.Fatal(err)
	}
	eventually(t, untold, func() (bool, string) { // and so is that it no longer does
		_, state := send()
		return state == "dropped", "it was taken for somebody who polls"
	})
}

// revokedThere takes a key away on one node, which the other has just let in.
func revokedThere(t *testing.T, v *several) {
	admin := v.nodes[0].as(t, v.admin)
	made, err := answer[client.KeyCreated](admin.CreateKey(t.Context(), v.app.Id, client.KeyCreate{Kind: "secret"}))
	if err != nil {
		t.Fatal(err)
	}
	v.secret(made.Key)
	here, box := v.nodes[1].as(t, made.Key), v.enrol("for-a-key", "none")
	use := func() error {
		_, err := v.send(t.Context(), here, box.device, `1`)
		return err
	}
	if err := use(); err != nil {
		t.Fatal(err)
	}
	if _, err := answer[nothing](admin.DeleteKey(t.Context(), v.app.Id, made.Id)); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	eventually(t, patient, func() (bool, string) {
		begun := time.Now()
		err := use()
		if worked := begun.Sub(revoked); err == nil && worked > forgets {
			t.Errorf("the key works for a call that begins %v after it was revoked", worked)
		}
		return hasStatus(err, http.StatusUnauthorized), fmt.Sprintf("the key still works (%v)", err)
	})
}

// unregisteredThere removes a device on one node while it polls the other: the poll ends, and says so.
func unregisteredThere(t *testing.T, v *several) {
	box := v.enrol("leaves", "none")
	got := v.park(t, 1, v.nodes[1].moved(t, box))
	begun := time.Now()
	if _, err := answer[nothing](box.api.DeleteOwnDevice(t.Context())); err != nil {
		t.Fatal(err)
	}
	page := <-got
	if took := time.Since(begun); !isGone(page.err) || took > untold {
		t.Errorf("the poll answered %v after %v", page.err, took)
	}
}

// credentialThere makes an app without credentials, lets pushes fail for the want of them, and puts them on one node: phones of both are woken.
func credentialThere(t *testing.T, v *several) {
	admin := v.nodes[0].as(t, v.admin)
	bare, err := answer[client.AppCreated](admin.CreateApp(t.Context(), client.AppCreate{Name: "without credentials"}))
	if err != nil {
		t.Fatal(err)
	}
	v.secret(bare.SecretKey, bare.PublishableKey)
	other := &several{rig: &rig{t: t, sim: v.sim, app: bare, child: v.child}, nodes: v.nodes}
	var phones []*testPhone
	for n := range someDevices {
		p := other.enrol(fmt.Sprintf("waits-%d", n), "fcm")
		other.mustSend(p.device, `1`)
		phones = append(phones, p)
	}
	eventually(t, patient, func() (bool, string) {
		app, err := answer[client.App](admin.GetApp(t.Context(), bare.Id))
		if err != nil {
			t.Fatal(err)
		}
		return app.Circuits != nil && len(*app.Circuits) > 0, "no circuit opened"
	})
	if err := putDemoCredentials(t.Context(), v.nodes[1].as(t, v.admin), v.sim, bare.Id); err != nil {
		t.Fatal(err)
	}
	for _, p := range phones {
		other.awaitPush(p, 0)
	}
	v.secret(other.secrets...)
}

const (
	// rollPhones and rollRate are the load under which nodes are replaced.
	rollPhones = 64
	rollRate   = 150
	// stalled is how long a message may take to a phone that polls while its node is replaced.
	stalled = 5 * time.Second
)

// TestRollingRestart replaces three nodes, one after the other, behind a load balancer and under load: nothing is lost, every phone is woken, and no poll stalls.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	onBuses(t, func(t *testing.T, bus string) {
		v := newSeveral(t, 3, bus)
		b, front := startBalancer(t, v.nodes)
		v.child = &child{at: addresses{api: front, ops: v.nodes[0].at.ops}}
		c := newCrowd(v.rig, rollPhones, 1)
		c.wakeUp()
		load := c.startSenders(rollRate)
		goOn(t, time.Second)
		for i := range v.nodes {
			old := v.nodes[i]
			v.nodes[i] = v.begin()
			b.to(append(v.nodes, old))
			begun := time.Now()
			if code := old.stop(); code != exitOK {
				t.Errorf("node %d: exit %d", i, code)
			}
			if took := time.Since(begun); took > 15*time.Second {
				t.Errorf("node %d took %v to stop", i, took)
			}
			b.to(v.nodes)
			v.awaitHomes(len(v.nodes))
		}
		goOn(t, time.Second)
		load.end()
		ended := time.Now()
		if !c.ledger.await(healLimit) {
			t.Error("some messages were not called for:", c.stories(ended.Add(pushedWithin)))
		}
		sum := c.ledger.close(t)
		for p, slowest := range c.ledger.slowest() {
			if p.way.Provider == "none" && slowest > stalled {
				t.Errorf("%s: a message took %v", p.name(), slowest)
			}
		}
		t.Logf("three nodes replaced under %d sends/s: %v", rollRate, sum)
		c.hangUp()
	})
}

// slowest is how long the slowest message of each phone took.
func (l *ledger) slowest() map[*crowdPhone]time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[*crowdPhone]time.Duration{}
	for id, p := range l.promised {
		if came := l.came[id]; len(came) > 0 {
			all[p.phone] = max(all[p.phone], came[0].at.Sub(p.at))
		}
	}
	return all
}
