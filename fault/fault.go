// Package fault is the one error that crosses rooms: a kind for the program, a
// sentence for the client, a cause for the log. It knows nothing of HTTP.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what sort of trouble it is; api turns it into a status.
type Kind uint8

// The kinds. Internal is the zero value, so that an unknown error says nothing.
const (
	// Internal is a bug or a broken machine; the client learns nothing more.
	Internal Kind = iota
	// Malformed is input that could not be read at all.
	Malformed
	// Invalid is input that was read and is wrong.
	Invalid
	// Unauthenticated is a missing, misspelt, revoked or expired key.
	Unauthenticated
	// Forbidden is a good key of the wrong kind or scope.
	Forbidden
	// NotFound is an id that this caller has no business knowing.
	NotFound
	// Conflict is a request that does not fit the present state.
	Conflict
	// Gone is something that was there and will not come back.
	Gone
	// TooLarge is a body over its limit.
	TooLarge
	// TooMany is a caller over its limit; RetryAfter says when to come again.
	TooMany
	// Unavailable is trouble that passes; RetryAfter says when to come again.
	Unavailable
)

// Field points at one wrong place in a request body.
type Field struct {
	// Pointer is an RFC 6901 JSON pointer; empty means the whole body.
	Pointer string
	// Detail says what to fix, and never repeats a secret.
	Detail string
}

// Error is an error with a public face. Detail and Fields are shown to the
// client; the cause is for the log alone.
type Error struct {
	Kind Kind
	// Code is a stable snake_case word that programs may switch on.
	Code string
	// Detail is one sentence that says what to fix.
	Detail string
	// RetryAfter is how long to wait, for TooMany and Unavailable.
	RetryAfter time.Duration
	Fields     []Field
	cause      error
}

// New makes an Error of the kind; format and args make its public sentence.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// At returns a copy of e that also points at one place of the request body.
func (e *Error) At(pointer, detail string) *Error {
	next := *e
	next.Fields = append(append([]Field(nil), e.Fields...), Field{Pointer: pointer, Detail: detail})
	return &next
}

// After returns a copy of e that asks the client to wait.
func (e *Error) After(wait time.Duration) *Error {
	next := *e
	next.RetryAfter = wait
	return &next
}

// Because returns a copy of e that carries cause for the log.
func (e *Error) Because(cause error) *Error {
	next := *e
	next.cause = cause
	return &next
}

// Error returns code, sentence and cause, for logs; never send it to a client.
func (e *Error) Error() string {
	s := e.Code + ": " + e.Detail
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap returns the cause, nil if there is none.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is an Error of the same code, so that a plain
// value serves as a sentinel: errors.Is(err, fault.New(kind, code, "")).
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// From returns the Error inside err. Any other error becomes Internal with err
// as its cause; nil stays nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return New(Internal, "internal", "something went wrong on our side").Because(err)
}

// KindOf returns the kind of err; Internal for anything that is not an Error.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
