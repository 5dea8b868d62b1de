package providertest

import (
	"context"
	"sync"
	"testing"
)

// Expiring is a context whose deadline passes when Expire is called, at the latest when the test ends.
type Expiring struct {
	context.Context
	Expire func()

	over chan struct{}
}

// NewExpiring makes one.
func NewExpiring(t testing.TB) Expiring {
	t.Helper()
	over := make(chan struct{})
	e := Expiring{Context: t.Context(), Expire: sync.OnceFunc(func() { close(over) }), over: over}
	t.Cleanup(e.Expire)
	return e
}

// Done is closed when the deadline has passed.
func (e Expiring) Done() <-chan struct{} { return e.over }

// Err says that it has.
func (e Expiring) Err() error {
	select {
	case <-e.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}
