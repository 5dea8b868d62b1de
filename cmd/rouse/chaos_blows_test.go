package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// blow is something that goes wrong in a fleet for a while.
type blow struct {
	name  string
	lasts time.Duration
	// bus is the only one it concerns; empty for any.
	bus string
	// brief is how long it lasts in the short form, 0 if it is not part of that, and briefly the bus with which it is.
	brief   time.Duration
	briefly string
	// strike lets it go wrong and says whom it hit, nil for all nodes. heal mends it, and returns once it is mended.
	strike func(t *trial) (hit *machine, heal func())
}

// blows are all, in the order in which they come.
func blows() []blow {
	return []blow{
		{name: "kill-node", lasts: 15 * time.Second, strike: killing(false)},
		{name: "kill-sweeper", lasts: 20 * time.Second, brief: 10 * time.Second, briefly: "nats", strike: killing(true)},
		{name: "kill-postgres", lasts: 8 * time.Second, brief: 2 * time.Second, briefly: "postgres", strike: killPostgres},
		{name: "kill-nats", bus: "nats", lasts: 20 * time.Second, brief: 3 * time.Second, briefly: "nats", strike: killNATS},
		{name: "freeze-node", lasts: 30 * time.Second, strike: freezing(false)},
		{name: "freeze-sweeper", lasts: 30 * time.Second, brief: 12 * time.Second, briefly: "postgres", strike: freezing(true)},
		{name: "cut-refused", lasts: 30 * time.Second, strike: cutting(linkRefusing)},
		{name: "cut-silent", lasts: 40 * time.Second, strike: cutting(linkSilent)},
		{name: "skew-ahead", lasts: 45 * time.Second, strike: skewing(10 * time.Minute)},
		{name: "skew-behind", lasts: 45 * time.Second, strike: skewing(-10 * time.Minute)},
		{name: "rolling-restart", lasts: time.Second, brief: time.Second, briefly: "nats", strike: rollingRestart},
	}
}

func killing(sweeper bool) func(*trial) (*machine, func()) {
	return func(t *trial) (*machine, func()) {
		m := t.victim(sweeper)
		m.kill()
		return m, m.start
	}
}

func killPostgres(t *trial) (*machine, func()) {
	t.fleet.cluster.Kill(t.t)
	return nil, func() { t.fleet.cluster.Start(t.t) }
}

func killNATS(t *trial) (*machine, func()) {
	t.fleet.nats.kill()
	return nil, t.fleet.nats.start
}

func freezing(sweeper bool) func(*trial) (*machine, func()) {
	return func(t *trial) (*machine, func()) {
		m := t.victim(sweeper)
		m.freeze()
		return m, m.thaw
	}
}

// cutting cuts the sweeper or another node off, as the dice fall.
func cutting(how linkState) func(*trial) (*machine, func()) {
	return func(t *trial) (*machine, func()) {
		m := t.victim(t.dice.IntN(2) == 0)
		m.link.set(how)
		return m, func() { m.link.set(linkOpen) }
	}
}

// skewing restarts a node with a clock that is wrong, and at last with the right one.
func skewing(by time.Duration) func(*trial) (*machine, func()) {
	return func(t *trial) (*machine, func()) {
		m := t.victim(t.dice.IntN(2) == 0)
		restart := func(skew time.Duration) {
			m.terminate()
			m.skewed = skew
			m.start()
		}
		restart(by)
		return m, func() { restart(0) }
	}
}

// rollingRestart stops and starts every node, one after the other.
func rollingRestart(t *trial) (*machine, func()) {
	for _, m := range t.fleet.nodes {
		m.terminate()
		m.start()
	}
	return nil, func() {}
}

// victim is the node that does the sweeps, or one that does not.
func (x *trial) victim(sweeper bool) *machine {
	leader := x.fleet.sweeper(x.t.Context())
	if sweeper && leader != nil {
		return leader
	}
	for {
		if m := x.fleet.nodes[x.dice.IntN(len(x.fleet.nodes))]; m != leader {
			return m
		}
	}
}

// takeover is how long a duty may be nobody's after its node died.
const takeover = 15 * time.Second

// duty is who sweeps by the database, empty if nobody does now.
func (f *fleet) duty(ctx context.Context) (node string, err error) { return f.dutyOf(ctx, "sweeps") }

// dutyOf is who has a duty by the database, empty if nobody does now.
func (f *fleet) dutyOf(ctx context.Context, name string) (node string, err error) {
	rows, err := f.cluster.Ask(ctx, "SELECT node FROM leases WHERE name = '"+name+"' AND until > extract(epoch FROM clock_timestamp()) * 1000")
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return rows[0][0], nil
}

// sweeper is the node that sweeps, nil if none does. A node logs by which name it took the duty.
func (f *fleet) sweeper(ctx context.Context) *machine {
	f.t.Helper()
	id, err := f.duty(ctx)
	if err != nil {
		f.t.Errorf("asking who sweeps: %v", err)
	}
	return f.named(id)
}

func (f *fleet) named(id string) *machine {
	if id == "" {
		return nil
	}
	for _, m := range f.nodes {
		if strings.Contains(m.child.log.String(), `"this node takes a duty" node=`+id) {
			return m
		}
	}
	return nil
}

// awaitDuty returns how long it took until somebody sweeps who is not the node with this id. It fails after the limit.
func (f *fleet) awaitDuty(ctx context.Context, notBy string, since time.Time) string {
	f.t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		id, err := f.duty(ctx)
		switch {
		case err == nil && id != "" && id != notBy:
			return time.Since(since).Round(100 * time.Millisecond).String()
		case time.Since(since) > takeover:
			f.t.Errorf("nobody took the sweeps over within %v (lease: %q, was: %q, %v)", takeover, id, notBy, err)
			return fmt.Sprintf("over %v", takeover)
		}
		<-again.C
	}
}
