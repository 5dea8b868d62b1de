package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rouse/fault"
)

// How long a sender is asked to wait.
const (
	retryOverloaded = time.Second
	retryStorage    = 5 * time.Second
	retryFull       = time.Minute
)

func appNotFound() *fault.Error {
	return fault.New(fault.NotFound, "app_not_found", "there is no such app")
}

func keyNotFound() *fault.Error {
	return fault.New(fault.NotFound, "key_not_found", "there is no such key")
}

func unknownKey() *fault.Error {
	return fault.New(fault.Unauthenticated, "unknown_key", "this key is not known; it may have been deleted")
}

func deviceNotFound() *fault.Error {
	return fault.New(fault.NotFound, "device_not_found", "there is no such device")
}

func deviceGone() *fault.Error {
	return fault.New(fault.Gone, "device_unregistered", "this device was unregistered; register it again")
}

func messageNotFound() *fault.Error {
	return fault.New(fault.NotFound, "message_not_found", "there is no such message")
}

func badCursor() *fault.Error {
	return fault.New(fault.Malformed, "bad_cursor", "that cursor lies beyond anything this inbox ever held; leave it out to start with the oldest message")
}

func overloaded() *fault.Error {
	return fault.New(fault.Unavailable, "overloaded", "more is waiting to be stored than we can hold; come again").After(retryOverloaded)
}

func stopping() *fault.Error {
	return fault.New(fault.Unavailable, "shutting_down", "this server is stopping; come again").After(retryOverloaded)
}

func storageUnavailable(cause error) *fault.Error {
	return fault.New(fault.Unavailable, "storage_unavailable", "the database cannot be used right now; come again").
		After(retryStorage).Because(cause)
}

// readError wraps what went wrong while doing what doing says. Trouble with the machine becomes
// Unavailable; faults and ended contexts pass as they are.
func (s *Store) readError(doing string, err error) error {
	var e *fault.Error
	err = plainly(err)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case s.dialect.storageTrouble(err):
		return storageUnavailable(fmt.Errorf("%s: %w", doing, err))
	}
	return fmt.Errorf("%s: %w", doing, err)
}
