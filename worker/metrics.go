package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/providers"
)

type metrics struct {
	wakes     *prometheus.CounterVec
	took      *prometheus.HistogramVec
	toFetch   prometheus.Histogram
	devices   prometheus.Gauge
	inFlight  *prometheus.GaugeVec
	paused    *prometheus.GaugeVec
	swept     prometheus.Counter
	expired   prometheus.Counter
	tokenDead *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		wakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rouse_wakes_total", Help: "Pushes sent, by provider and verdict.",
		}, []string{"provider", "verdict"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rouse_push_seconds", Help: "Duration of one push attempt.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}, []string{"provider"}),
		toFetch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rouse_wake_to_fetch_seconds", Help: "From the start of an accepted push to the device's next page.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2.5, 14),
		}),
		devices: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rouse_active_devices", Help: "Devices the worker remembers.",
		}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rouse_pushes_in_flight", Help: "Pushes under way.",
		}, []string{"provider"}),
		paused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rouse_outlets_paused", Help: "App and provider pairs that are paused.",
		}, []string{"provider"}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rouse_swept_total", Help: "Devices the age sweeps handed to the worker.",
		}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rouse_expired_total", Help: "Deliveries that ended un-acked because their life was over.",
		}),
		tokenDead: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rouse_tokens_dead_total", Help: "Tokens given up on a provider's proof.",
		}, []string{"provider"}),
	}
	if r != nil {
		r.MustRegister(m.wakes, m.took, m.toFetch, m.devices, m.inFlight, m.paused, m.swept, m.expired, m.tokenDead)
	}
	return m
}

func (m *metrics) pushed(provider string, o providers.Outcome) {
	m.wakes.WithLabelValues(provider, string(o.Verdict)).Inc()
	m.took.WithLabelValues(provider).Observe(o.Took.Seconds())
}

func (m *metrics) fetched(after time.Duration) { m.toFetch.Observe(after.Seconds()) }
