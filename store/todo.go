package store

import (
	"context"
	"time"

	"rouse/fault"
	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// What is not built yet: whoever builds one takes it out of here.

func notBuilt() error { return fault.New(fault.Unavailable, "not_built", "this is not built yet") }

// EraseUser is not built yet.
func (s *Store) EraseUser(context.Context, ident.App, string, time.Time) (tokens.Erasure, error) {
	return tokens.Erasure{}, notBuilt()
}

// Devices is not built yet.
func (s *Store) Devices(context.Context, tokens.DeviceQuery) (tokens.DeviceList, error) {
	return tokens.DeviceList{}, notBuilt()
}

// Standing is not built yet.
func (s *Store) Standing(context.Context, ident.App, ident.Device) (tokens.Standing, error) {
	return tokens.Standing{}, notBuilt()
}

// Messages is not built yet.
func (s *Store) Messages(context.Context, messages.ListQuery) (messages.MessageList, error) {
	return messages.MessageList{}, notBuilt()
}
