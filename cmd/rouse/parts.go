package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// parts is the goroutines of a node, each with a name, a context and an end of
// its own, so that they can be stopped one after the other.
type parts struct {
	failed chan error // gets the first part that ended unasked; holds one

	mu   sync.Mutex
	all  map[string]*part
	errs []error
}

type part struct {
	cancel context.CancelFunc
	done   chan struct{}
	asked  bool // guarded by parts.mu
}

func newParts() *parts {
	return &parts{failed: make(chan error, 1), all: map[string]*part{}}
}

// goes starts a part under ctx. run must return soon after its context ends, or after whatever else stops it.
func (p *parts) goes(ctx context.Context, name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	one := &part{cancel: cancel, done: make(chan struct{})}
	p.mu.Lock()
	p.all[name] = one
	p.mu.Unlock()
	go func() {
		defer close(one.done)
		p.ended(name, one, run(ctx))
	}()
}

// ended notes how a part ended. One that ended unasked, even without an error, takes the node down.
func (p *parts) ended(name string, one *part, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one.asked && (err == nil || errors.Is(err, context.Canceled)) {
		return
	}
	if err == nil {
		err = errors.New("ended by itself")
	}
	err = fmt.Errorf("%s: %w", name, err)
	if one.asked {
		p.errs = append(p.errs, err)
		return
	}
	select {
	case p.failed <- err:
	default:
		p.errs = append(p.errs, err)
	}
}

// wait returns nil when ctx ends, or the failure of the first part that ended before.
func (p *parts) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-p.failed:
		return err
	}
}

// expect says that a part may end now: something else than its context is about to stop it.
func (p *parts) expect(name string) *part {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.all[name]
	one.asked = true
	return one
}

// end asks parts to stop, in this order, and returns when all have.
func (p *parts) end(names ...string) {
	var asked []*part
	for _, name := range names {
		one := p.expect(name)
		one.cancel()
		asked = append(asked, one)
	}
	for _, one := range asked {
		<-one.done
	}
}

// failures joins what went wrong at or after the stop.
func (p *parts) failures() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case err := <-p.failed:
		p.errs = append(p.errs, err)
	default:
	}
	return errors.Join(p.errs...)
}
