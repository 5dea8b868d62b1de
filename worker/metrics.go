package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rouse/providers"
	"rouse/tokens"
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
	refusals  *prometheus.CounterVec
	circuits  *prometheus.GaugeVec
	expiries  *prometheus.GaugeVec

	fanReached prometheus.Counter
	fanJobs    prometheus.Gauge
	fanLag     prometheus.Gauge
	fanPages   prometheus.Histogram
	fanFailed  prometheus.Counter

	// reasons are those counted under their own name so far. Touched by the hub alone.
	reasons map[string]bool
}

// maxReasons bounds the reasons with a count of their own: some are the providers' words, and those are theirs to choose.
const maxReasons = 100

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
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rouse_push_refusals_total", Help: "Pushes that were not taken, by provider and reason.",
		}, []string{"provider", "reason"}),
		circuits: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rouse_circuit_open", Help: "1 for each way to phones that is paused, 0.5 for one that flows while no token is given up; gone when all is well.",
		}, []string{"app", "provider", "environment", "onward", "cause"}),
		expiries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rouse_credential_expires_timestamp_seconds", Help: "When a credential runs out, for those that do.",
		}, []string{"app", "provider"}),
		fanReached: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rouse_fanout_devices_total", Help: "Devices that fan-outs and scheduled sends reached.",
		}),
		fanJobs: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rouse_fanout_jobs", Help: "Sends that are being stored page by page; 0 on nodes without the duty.",
		}),
		fanLag: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rouse_fanout_lag_seconds", Help: "How long the due send that waits longest has waited for its next page.",
		}),
		fanPages: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "rouse_fanout_page_seconds", Help: "Duration of storing one page.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 11),
		}),
		fanFailed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rouse_fanout_failures_total", Help: "Pages that could not be stored; they are tried again.",
		}),
		reasons: map[string]bool{},
	}
	if r != nil {
		r.MustRegister(m.wakes, m.took, m.toFetch, m.devices, m.inFlight, m.paused, m.swept, m.expired, m.tokenDead, m.refusals, m.circuits, m.expiries)
		r.MustRegister(m.fanReached, m.fanJobs, m.fanLag, m.fanPages, m.fanFailed)
	}
	return m
}

func (m *metrics) pushed(provider string, o providers.Outcome) {
	m.wakes.WithLabelValues(provider, string(o.Verdict)).Inc()
	m.took.WithLabelValues(provider).Observe(o.Took.Seconds())
	if o.Verdict == providers.Accepted {
		return
	}
	reason := o.Reason
	if !m.reasons[reason] {
		if len(m.reasons) >= maxReasons {
			reason = "other"
		}
		m.reasons[reason] = true
	}
	m.refusals.WithLabelValues(provider, reason).Inc()
}

// circuit shows what a circuit is now.
func (m *metrics) circuit(c tokens.Circuit) {
	labels := []string{string(c.App), string(c.Provider), string(c.Environment), string(c.Onward), string(c.Cause)}
	switch c.State {
	case tokens.CircuitOpen:
		m.circuits.WithLabelValues(labels...).Set(1)
	case tokens.CircuitWatching:
		m.circuits.WithLabelValues(labels...).Set(0.5)
	case tokens.CircuitClosed:
		m.circuits.DeleteLabelValues(labels...)
	}
}

func (m *metrics) fetched(after time.Duration) { m.toFetch.Observe(after.Seconds()) }

// expire shows when credentials run out.
func (m *metrics) expire(all []tokens.Credential) {
	m.expiries.Reset()
	for _, c := range all {
		m.expiries.WithLabelValues(string(c.App), string(c.Provider)).Set(float64(c.ExpiresAt.Unix()))
	}
}

// fanned counts a page.
func (m *metrics) fanned(reached int, took time.Duration) {
	m.fanReached.Add(float64(reached))
	m.fanPages.Observe(took.Seconds())
}

// fanning shows how many sends are under way and how long the last of them waits.
func (m *metrics) fanning(jobs int, lag time.Duration) {
	m.fanJobs.Set(float64(jobs))
	m.fanLag.Set(lag.Seconds())
}

func (m *metrics) fanIdle() { m.fanning(0, 0) }
