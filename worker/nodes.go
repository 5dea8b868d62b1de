package worker

import (
	"context"
	"time"

	"rouse/ident"
)

// duty is what one node does for all: climbing the ladder, ending lives, purging, warning.
const duty = "sweeps"

// alone is the only node.
type alone struct{}

func (alone) Mine(ident.Device) bool { return true }

// Lead runs work until ctx is done.
func (alone) Lead(ctx context.Context, _ string, work func(context.Context) error) error {
	for {
		if err := work(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(sweepTick):
		case <-ctx.Done():
			return nil
		}
	}
}

// Rehome tells the worker that the set of devices it is home to has changed, or may have. It does not block.
func (w *Worker) Rehome() {
	select {
	case w.rehomed <- struct{}{}:
	default:
	}
}
