package store

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/messages"
)

type metrics struct {
	batch    prometheus.Histogram
	commit   prometheus.Histogram
	ack      prometheus.Histogram
	accepted *prometheus.CounterVec
}

// newMetrics makes the store's metrics and registers them, if reg is not nil.
func newMetrics(reg prometheus.Registerer, queued func() float64) (*metrics, error) {
	m := &metrics{
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rouse_store_batch_size",
			Help: "Operations committed together.", Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512}}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rouse_store_commit_seconds",
			Help: "Time to make a batch durable, from its first statement.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		ack: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "rouse_insert_to_ack_seconds",
			Help: "Time from accepting a message to its ack.", Buckets: prometheus.ExponentialBuckets(0.005, 3, 14)}),
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rouse_accepted_total",
			Help: "Messages accepted."}, []string{"urgency"}),
	}
	queue := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "rouse_store_queue_length",
		Help: "Operations waiting for the writer."}, queued)
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.batch, m.commit, m.ack, m.accepted, queue} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the store's metrics: %w", err)
		}
	}
	return m, nil
}

// settled is what a batch did, counted once it is durable.
type settled struct {
	acked    []time.Duration
	accepted []messages.Urgency
}

func (m *metrics) observe(batch int, took time.Duration, done settled) {
	m.batch.Observe(float64(batch))
	m.commit.Observe(took.Seconds())
	for _, d := range done.acked {
		m.ack.Observe(d.Seconds())
	}
	for _, u := range done.accepted {
		m.accepted.WithLabelValues(u.String()).Inc()
	}
}
