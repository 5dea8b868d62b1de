package main

import (
	"context"
	"fmt"
	"log/slog"

	"rouse/bus"
	"rouse/config"
	"rouse/messages"
)

// hintBus is the bus of a node.
type hintBus interface {
	Hint(hints ...messages.Hint)
	Listen(ctx context.Context, receive func(hints []messages.Hint, lost bool)) error
	// Run carries hints between this node and the others until ctx is done.
	Run(ctx context.Context) error
	// Connected reports whether it does.
	Connected() bool
	// Others counts the other nodes that were heard of late.
	Others() int
}

// openBus makes the bus that the settings name; nothing is connected yet.
func openBus(cfg config.Serve, log *slog.Logger) (hintBus, error) {
	switch cfg.Bus.Carrier {
	case config.CarrierPostgres:
		b, err := bus.NewPostgres(string(cfg.Bus.URL), log)
		if err != nil {
			// The cause may quote the DSN.
			return nil, fmt.Errorf("--bus (%s) cannot be used: it is not of the form postgres://user:password@host:5432/name", config.Env("bus"))
		}
		return b, nil
	case config.CarrierNATS:
		return bus.NewNATS(string(cfg.Bus.URL), log)
	}
	if cfg.DSN.IsPostgres() {
		log.Warn("the bus is this process's memory: no second node may run on this database, it would hear of nothing; leave out --bus (" + config.Env("bus") + ") for several")
	}
	return &lonely{}, nil
}

// lonely is the bus of a node that has no others.
type lonely struct{ bus.Memory }

// Run waits until ctx is done: there is nobody to carry hints to.
func (*lonely) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Connected reports true: nobody is missed.
func (*lonely) Connected() bool { return true }
