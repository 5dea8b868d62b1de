package cluster

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	leading  *prometheus.GaugeVec
	skew     prometheus.Gauge
	failures prometheus.Counter
}

// newMetrics makes the node's metrics and registers them, if r is not nil. What depends on the view is asked of it when it is read: it ends
// without anything happening.
func newMetrics(r prometheus.Registerer, view func() *view) *metrics {
	m := &metrics{
		leading: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rouse_duty_held", Help: "1 for each duty that this node does for all.",
		}, []string{"duty"}),
		skew: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rouse_clock_skew_seconds", Help: "How far this node's clock is ahead of the database's.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rouse_node_beats_failed_total", Help: "Times this node could not say that it lives.",
		}),
	}
	if r != nil {
		r.MustRegister(m.leading, m.skew, m.failures, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "rouse_nodes_alive", Help: "Nodes that this one knows to live, itself included; 0 while it knows of none, as without the database.",
		}, func() float64 {
			if v := view(); v.fresh(time.Now()) {
				return float64(v.alive())
			}
			return 0
		}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "rouse_node_home", Help: "1 while this node is home to devices.",
		}, func() float64 {
			if view().home(time.Now()) {
				return 1
			}
			return 0
		}))
	}
	return m
}
