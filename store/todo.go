package store

import (
	"context"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/tokens"
)

// What is not built yet: whoever builds one takes it out of here.

func notBuilt() error { return fault.New(fault.Unavailable, "not_built", "this is not built yet") }

// EraseUser is not built yet.
func (s *Store) EraseUser(context.Context, ident.App, string, time.Time) (tokens.Erasure, error) {
	return tokens.Erasure{}, notBuilt()
}
