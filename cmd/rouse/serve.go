package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"rouse/api"
	"rouse/cluster"
	"rouse/config"
	"rouse/store"
	"rouse/tokens"
	"rouse/webhooks"
	"rouse/worker"
)

type serveCmd struct {
	settings
}

// Run runs a node until ctx ends, and then stops it in order.
func (c *serveCmd) Run(ctx context.Context, term *terminal) error {
	cfg, err := c.check()
	if err != nil {
		return err
	}
	return serve(ctx, cfg, newLog(term.err, cfg.LogLevel, cfg.LogJSON), func(addresses) {})
}

// addresses is where a running node listens, as base URLs.
type addresses struct {
	api string
	ops string
}

// serve runs a node until ctx ends or a part of it fails. ready is called once, when the node answers;
// it must not block. serve returns when everything is stopped and closed, within 15 s of the end of ctx.
func serve(ctx context.Context, cfg config.Serve, log *slog.Logger, ready func(addresses)) (err error) {
	n, err := openNode(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.store.Close()) }()
	parts := newParts()
	if err := n.begin(ctx, parts); err != nil || n.private == nil { // refused, or called off
		parts.end("database")
		return errors.Join(err, parts.failures())
	}
	n.start(ctx, parts)
	at := addresses{api: "http://" + dialable(n.public.Addr()), ops: "http://" + dialable(n.private.Addr())}
	log.Info("serving", "version", versionString(), "api", at.api, "ops", at.ops, "db", cfg.DSN, "bus", cfg.Bus.Carrier, "bus_at", cfg.Bus.URL)
	ready(at)
	return n.stop(parts, parts.wait(ctx))
}

// node is the rooms of one process, wired. It is built by openNode and owned by serve.
type node struct {
	cfg      config.Serve
	log      *slog.Logger
	registry *prometheus.Registry
	store    *store.Store
	hints    hintBus
	nodes    nodes
	pusher   *pusher
	worker   *worker.Worker
	webhooks *webhooks.Poster
	api      *api.API
	others   *neighbours
	health   *health
	// draining is closed when the stop begins: parked polls answer.
	draining        chan struct{}
	public, private net.Listener
	front, ops      *http.Server
}

// openNode builds the node over an opened and migrated database; nothing runs yet.
func openNode(ctx context.Context, cfg config.Serve, log *slog.Logger) (*node, error) {
	ring, file, err := config.Ring(cfg.MasterKeys, cfg.Path)
	if err != nil {
		return nil, &usageError{err}
	}
	if file != "" {
		log.Info("secrets are sealed with the keys of a file; keep it with your backups", "file", file)
	}
	n := &node{cfg: cfg, log: log, registry: prometheus.NewRegistry(), draining: make(chan struct{})}
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if n.hints, err = openBus(cfg, log); err != nil {
		return nil, &usageError{err}
	}
	if n.store, err = store.Open(ctx, store.Options{DSN: string(cfg.DSN), Connections: cfg.DBConns, Ring: ring, Log: log, Metrics: n.registry}); err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	if err = n.build(ctx); err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	return n, nil
}

// build wires what stands on the store.
func (n *node) build(ctx context.Context) (err error) {
	if err = n.store.Migrate(ctx); err != nil {
		return fmt.Errorf("bringing the schema up to date: %w", err)
	}
	n.pusher = newPusher(n.store, openCounted(n.cfg.Endpoints, n.log, countConnections(n.registry)), n.log)
	n.nodes = n.join()
	n.worker = worker.New(worker.Options{
		Store: n.store, Tokens: n.store, Circuits: n.store, Sweeps: n.store, Expiries: n.store, Hints: n.pusher.before(n.hints), Pusher: n.pusher, Fanouts: n.store, Nodes: n.nodes,
		Log: n.log, Metrics: n.registry, Grace: n.cfg.Grace,
	})
	if n.webhooks, err = webhooks.New(webhooks.Options{
		Store: n.store, Hints: n.hints, Nodes: n.nodes, Allow: n.cfg.WebhookAllow, Log: n.log, Metrics: n.registry,
	}); err != nil {
		return fmt.Errorf("building webhooks: %w", err)
	}
	n.api, err = api.New(api.Deps{
		Apps: n.store, Keys: n.store, Callers: n.store, Credentials: n.store, Devices: n.store, Users: n.store, Door: n.store, Messages: n.store, Deliveries: n.store, Inboxes: n.store, Circuits: n.store, Events: n.store,
		IdentityKeys: n.store, Topics: n.store, Subscriptions: n.store, Fleet: n.store, Reports: n.store, Webhooks: n.store, Redeliveries: n.store, Poster: n.webhooks,
		Hints: n.hints, Checker: checker{}, Verifier: n.pusher, Waker: n.pusher, Admin: tokens.HashOf(n.cfg.AdminKey), Draining: n.draining, Log: n.log, Metrics: n.registry,
		Limits: api.Limits{
			Registrations: api.Rate(n.cfg.Registrations), FailedAuth: api.Rate(n.cfg.FailedAuth), Devices: api.Rate(n.cfg.Devices), Addresses: api.Rate(n.cfg.Addresses),
			TrustedProxies: n.cfg.TrustedProxies,
		},
	})
	if err != nil {
		return fmt.Errorf("building the API: %w", err)
	}
	n.others = &neighbours{nodes: n.nodes, bus: n.hints, log: n.log}
	n.health = newHealth(n.store, n.hints, n.others)
	n.registry.MustRegister(pendingGauge(n.store), connectedGauge(n.hints), heardGauge(n.hints))
	return nil
}

// nodes is who else shares the database, and what of the work is this node's.
type nodes interface {
	worker.Nodes
	// Others counts the others that are alive.
	Others() int
	Run(ctx context.Context) error
}

// join makes this node one of those on its database. On SQLite there are no others.
func (n *node) join() nodes {
	if !n.cfg.DSN.IsPostgres() {
		return cluster.Alone{Log: n.log}
	}
	return cluster.New(cluster.Options{Store: n.store, Bus: n.hints, Changed: n.rehome, Log: n.log, Metrics: n.registry})
}

// rehome is called after the set of devices that this node is home to has changed.
func (n *node) rehome() {
	n.worker.Rehome()
	n.api.Recheck()
}

// begin starts the store, waits until it has looked at all that it refuses to run on, and takes the ports. Nothing else runs before: a node
// that cannot start answers nobody, and joins no others. It returns early, without an error and
// the ports, when ctx ends.
func (n *node) begin(ctx context.Context, p *parts) error {
	p.goes(context.WithoutCancel(ctx), "database", n.store.Run)
	select {
	case <-n.store.Started():
		return n.listen(ctx)
	case err := <-p.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// listen takes both ports before anything answers.
func (n *node) listen(ctx context.Context) (err error) {
	var lc net.ListenConfig
	if n.public, err = lc.Listen(ctx, "tcp", n.cfg.Listen); err != nil {
		return fmt.Errorf("listening for the API (--listen): %w", taken(err))
	}
	if n.private, err = lc.Listen(ctx, "tcp", n.cfg.OpsListen); err != nil {
		return errors.Join(fmt.Errorf("listening for operations (--ops-listen): %w", taken(err)), n.public.Close())
	}
	errorLog := slog.NewLogLogger(n.log.Handler(), slog.LevelDebug)
	n.front = &http.Server{
		Handler: n.api, ErrorLog: errorLog, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		// Both count from the end of the headers and must outlast the longest poll, 55 s.
		ReadTimeout: 70 * time.Second, WriteTimeout: 90 * time.Second,
		// HTTP/2 needs TLS, which the proxy in front speaks.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	n.ops = &http.Server{Handler: opsHandler(n.health, n.registry), ErrorLog: errorLog, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	return nil
}

// taken asks who has the port if it is not free.
func taken(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: does another `rouse dev` or `rouse serve` run? Stop it, or choose another address with this flag", err)
	}
	return err
}

// start sets every other part going. The parts do not end with ctx but in the order of stop.
func (n *node) start(ctx context.Context, p *parts) {
	ctx = context.WithoutCancel(ctx)
	p.goes(ctx, "bus", n.hints.Run)
	p.goes(ctx, "cluster", n.nodes.Run)
	p.goes(ctx, "neighbours", n.others.run)
	p.goes(ctx, "api", func(ctx context.Context) error { return n.api.Run(ctx, n.hints.Listen) })
	p.goes(ctx, "worker", n.worker.Run)
	p.goes(ctx, "webhooks", n.webhooks.Run)
	p.goes(ctx, "operations", func(context.Context) error { return ignoreClosed(n.ops.Serve(n.private)) })
	p.goes(ctx, "http", func(context.Context) error { return ignoreClosed(n.front.Serve(n.public)) })
}

// stop ends the parts in the order in which they need each other: no new load, polls answered, calls
// finished, devices and duties left to other nodes, pushes finished, their hints told, and last the store, so that everything that was done is written down.
func (n *node) stop(p *parts, cause error) error {
	begun := time.Now()
	n.health.leave()
	n.log.Info("stopping")
	close(n.draining)
	calls, cancel := context.WithTimeout(context.Background(), n.cfg.DrainTimeout)
	defer cancel()
	p.expect("http")
	if err := n.front.Shutdown(calls); err != nil {
		n.log.Warn("calls were cut off at the end of the drain", "error", err)
		_ = n.front.Close()
	}
	p.end("http")
	p.end("api", "neighbours")
	p.end("cluster", "worker", "webhooks") // the heirs begin while the worker finishes what is in flight
	n.pusher.Close()
	p.end("bus") // the last hints of all above are told before it ends
	p.end("database")
	p.expect("operations")
	_ = n.ops.Close()
	p.end("operations")
	n.log.Info("stopped", "took", time.Since(begun).Round(time.Millisecond))
	return errors.Join(cause, p.failures())
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// dialable turns the address of a listener into one that can be called from this machine.
func dialable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(tcp.Port))
}
