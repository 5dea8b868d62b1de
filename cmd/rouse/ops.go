package main

import (
	"context"
	"errors"
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readiness is how the store tells whether it can do its work.
type readiness interface {
	Ready(ctx context.Context) error
}

// health is what a load balancer wants to know.
type health struct {
	store   readiness
	leaving atomic.Bool
}

func newHealth(store readiness) *health { return &health{store: store} }

// leave makes the node not ready from now on.
func (h *health) leave() { h.leaving.Store(true) }

// readyLimit is how long the database may take to answer.
const readyLimit = 2 * time.Second

// ready returns why the node should get no calls, nil if it should.
func (h *health) ready(ctx context.Context) error {
	if h.leaving.Load() {
		return errors.New("stopping")
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	return h.store.Ready(ctx)
}

// opsHandler is the private listener: /livez says that the process serves, /readyz that
// it should get calls, /metrics everything else.
func opsHandler(h *health, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { sayPlain(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := h.ready(r.Context()); err != nil {
			sayPlain(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
			return
		}
		sayPlain(w, http.StatusOK, "ok\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	return mux
}

func sayPlain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// pendingCounter is how the store tells how much lies un-acked.
type pendingCounter interface {
	Pending(ctx context.Context) (int64, error)
}

// pendingGauge counts un-acked deliveries when it is asked; NaN while the database does not answer.
func pendingGauge(store pendingCounter) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rouse_deliveries_pending",
		Help: "Deliveries that are neither acked nor ended.",
	}, func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), readyLimit)
		defer cancel()
		n, err := store.Pending(ctx)
		if err != nil {
			return math.NaN()
		}
		return float64(n)
	})
}
