package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"rouse/api/park"
)

// metrics is what api counts. The waiters gauge reads the parker and needs no field.
type metrics struct {
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	displaced prometheus.Counter
}

// newMetrics registers with reg, which may be nil. The error is a name that is taken.
func newMetrics(reg prometheus.Registerer, polls park.Attendance, events *watchers) (metrics, error) {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rouse_http_requests_total", Help: "Calls answered, by operation and status (499: the client left).",
		}, []string{"operation", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rouse_http_request_seconds", Help: "Time to answer, by operation; getInbox includes the wait.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"operation"}),
		displaced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rouse_polls_displaced_total", Help: "Waiting polls answered empty because a newer one took their place.",
		}),
	}
	waiters := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rouse_waiters", Help: "Polls waiting right now.",
	}, func() float64 { return float64(polls.Waiting()) })
	watching := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rouse_event_waiters", Help: "Calls waiting for events right now.",
	}, func() float64 { return float64(events.count()) })
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.displaced, waiters, watching} {
		if err := reg.Register(c); err != nil {
			return metrics{}, err
		}
	}
	return m, nil
}
