package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// countEvery is how often the nodes on the database and those on the bus are counted.
	countEvery = time.Second
	// countPatience is how long fewer may be heard than there are: one that starts has a row before it speaks.
	countPatience = 30 * time.Second
)

// neighbours finds out whether the nodes that share the database share the bus. Hints of one that does not are heard by nobody else,
// and nothing fails.
type neighbours struct {
	nodes interface{ Others() int } // on the database
	bus   connection
	log   *slog.Logger
	// unheard is what is wrong, nil if nothing is.
	unheard atomic.Pointer[string]
}

// run counts until ctx is done.
func (n *neighbours) run(ctx context.Context) error {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	well := time.Now() // when they were as many last
	for {
		select {
		case <-tick.C:
			well = n.look(well, time.Now())
		case <-ctx.Done():
			return nil
		}
	}
}

// look counts, and returns when as many were heard last as there are. While the bus is not connected it is that which is wrong.
func (n *neighbours) look(well, now time.Time) time.Time {
	alive, heard := n.nodes.Others(), n.bus.Others()
	if heard >= alive || !n.bus.Connected() {
		if n.unheard.Swap(nil) != nil {
			n.log.Info("the bus hears of all nodes that share the database, or is not connected")
		}
		return now
	}
	if now.Sub(well) < countPatience {
		return well
	}
	text := fmt.Sprintf("%d nodes share the database, and the bus hears %d of the %d others; see that ROUSE_BUS is the same everywhere", alive+1, heard, alive)
	if n.unheard.Swap(&text) == nil {
		n.log.Warn("the bus does not hear of all nodes; what those accept is found later", "nodes", alive+1, "others", alive, "heard", heard,
			"do", "give every node the same --bus (ROUSE_BUS)")
	}
	return well
}

// wrong says what is, "" if nothing is.
func (n *neighbours) wrong() string {
	if text := n.unheard.Load(); text != nil {
		return *text
	}
	return ""
}

// heardGauge counts the other nodes on the bus.
func heardGauge(bus connection) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rouse_bus_nodes_heard",
		Help: "Other nodes that spoke on the bus in the last 15 s; should be one less than rouse_nodes_alive.",
	}, func() float64 { return float64(bus.Others()) })
}
