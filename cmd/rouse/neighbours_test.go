package main

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rouse/bus"
	"rouse/providers"
)

// TestNodesOnDifferentBusesAreTold: both do their work, and neither hears of the other.
func TestNodesOnDifferentBusesAreTold(t *testing.T) {
	t.Parallel()
	v := newSeveral(t, 1, "postgres")
	nats := strings.Replace(newNATSProcess(t).url(), "://", "://rouse:"+dbPassword+"@", 1)
	v.db = append(v.db, "ROUSE_BUS="+nats)
	v.nodes = append(v.nodes, v.begin())
	v.awaitHomes(2)
	const said = "2 nodes share the database, and the bus hears 0 of the 1 others"
	for n := range v.nodes {
		v.child = &child{at: v.nodes[n].at}
		eventually(t, countPatience+patient, func() (bool, string) {
			ready := v.get("/readyz")
			return strings.HasPrefix(ready, "200 ok\ndegraded: "+said), ready
		})
		v.nodes[n].awaitMetric(t, "rouse_bus_nodes_heard", 0)
		const warning = "level=WARN msg=\"the bus does not hear of all nodes"
		v.nodes[n].says(t, warning) // after /readyz does
		if log := v.nodes[n].out.String(); strings.Count(log, warning) != 1 {
			t.Errorf("it is not told once in\n%s", log)
		}
	}
	if log := v.nodes[1].out.String(); !strings.Contains(log, "bus=nats bus_at=nats://rouse@") && !strings.Contains(log, "bus=nats bus_at=\"nats://rouse@") {
		t.Errorf("which bus is not told in\n%s", log)
	}
	_, x := v.doctor("--offline", "--ops-listen", strings.TrimPrefix(v.nodes[0].at.ops, "http://"))
	if f := x.want(t, "server", providers.FindingWarn, "degraded"); !strings.Contains(f.Cause, "ROUSE_BUS") {
		t.Errorf("doctor says %q", f.Cause)
	}
	v.db = append(v.db, "ROUSE_BUS=postgres")
	if code := v.nodes[1].stop(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	v.nodes[1] = v.begin()
	for _, node := range v.nodes {
		node.awaitMetric(t, "rouse_bus_nodes_heard", 1)
	}
	v.child = &child{at: v.nodes[0].at}
	eventually(t, patient, func() (bool, string) {
		said := v.get("/readyz")
		return said == "200 ok\n", said
	})
}

// company is a count that a test sets.
type company int

func (c *company) Others() int { return int(*c) }

// TestANodeThatComesIsGivenTimeToSpeak: what lasts for less than 30 s is not told.
func TestANodeThatComesIsGivenTimeToSpeak(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var others company
		n := &neighbours{nodes: &others, bus: &bus.Memory{}, log: slog.New(slog.DiscardHandler)}
		well := n.look(time.Now(), time.Now())
		others = 2
		for range 30 {
			well = n.look(well, time.Now())
			if n.wrong() != "" {
				t.Fatalf("told after %v", time.Since(well))
			}
			<-time.After(time.Second)
		}
		well = n.look(well, time.Now())
		if said := n.wrong(); !strings.HasPrefix(said, "3 nodes share the database, and the bus hears 0 of the 2 others") {
			t.Errorf("after 30 s it says %q", said)
		}
		others = 0
		if n.look(well, time.Now()); n.wrong() != "" {
			t.Error("it is told when it is over")
		}
	})
}
