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
			return nil, fmt.Errorf("--bus (%s) cannot be used: %w", config.Env("bus"), err)
		}
		return b, nil
	case config.CarrierNATS:
		return bus.NewNATS(string(cfg.Bus.URL), log)
	}
	if cfg.DSN.IsPostgres() {
		log.Warn("the bus is this process's memory: no second node may run on this database, it would hear of nothing; leave out --bus (" + config.Env("bus") + ") for several")
	}
	return &bus.Memory{}, nil
}
