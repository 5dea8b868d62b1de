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

// connection is how the bus tells whether it reaches the other nodes.
type connection interface {
	Connected() bool
	// Others counts those of them that were heard of late.
	Others() int
}

// health is what a load balancer wants to know.
type health struct {
	store   readiness
	bus     connection
	others  *neighbours
	leaving atomic.Bool
}

func newHealth(store readiness, bus connection, others *neighbours) *health {
	return &health{store: store, bus: bus, others: others}
}

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

// degraded says what does not work as it should while the node does its work, "" if all does. Without its bus it finds by itself, later,
// what other nodes would have told it: taking its calls away would only make that worse.
func (h *health) degraded() string {
	if !h.bus.Connected() {
		return "degraded: the bus is not connected; what other nodes accept is found later\n"
	}
	if wrong := h.others.wrong(); wrong != "" {
		return "degraded: " + wrong + "\n"
	}
	return ""
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
		sayPlain(w, http.StatusOK, "ok\n"+h.degraded())
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	return mux
}

func sayPlain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// connectedGauge tells whether the bus reaches the other nodes.
func connectedGauge(bus connection) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rouse_bus_connected",
		Help: "1 while hints go to and come from the other nodes, or there are none to be had; 0 while they are looked for by themselves.",
	}, func() float64 {
		if bus.Connected() {
			return 1
		}
		return 0
	})
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
