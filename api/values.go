package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"rouse/fault"
)

// undecodable is a body that passed its schema and still does not fit its Go type: a number such as 1.0
// where a whole one is wanted.
func undecodable(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return invalidBody().At("/"+strings.ReplaceAll(wrong.Field, ".", "/"), "must be a whole number, written without fraction or exponent").Because(err)
	}
	return fault.New(fault.Malformed, "malformed_json", "the body cannot be decoded").Because(err)
}

const (
	defaultLimit = 50
	maxLimit     = 100
)

// limitOf checks the size of a page.
func limitOf(asked *int) (int, error) {
	if asked == nil {
		return defaultLimit, nil
	}
	if *asked < 1 || *asked > maxLimit {
		return 0, badQuery(fmt.Sprintf("limit: 1 to %d", maxLimit))
	}
	return *asked, nil
}

// badQuery is for a parameter; detail begins with its name.
func badQuery(detail string) *fault.Error {
	return fault.New(fault.Malformed, "bad_query", "%s", detail)
}

func badCursor() *fault.Error {
	return fault.New(fault.Malformed, "bad_cursor", "that cursor did not come from here; leave it out to start at the beginning")
}

// stamp is a time as the wire has it: UTC, milliseconds.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// stampIf leaves out a time that is not set.
func stampIf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}

// some leaves out what is empty.
func some[T ~string](s T) *string {
	if s == "" {
		return nil
	}
	plain := string(s)
	return &plain
}

// or is the value behind p, or the zero one.
func or[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// orElse is the value behind p, or another one.
func orElse[T any](p *T, other T) T {
	if p == nil {
		return other
	}
	return *p
}

// listed is a list as the wire has it: never null.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
