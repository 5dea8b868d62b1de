// Package wire holds the connections to one push provider: it opens them
// gently, fills them only as far as the server allows, and sends every request
// exactly once. What an answer or an error means is for the provider to say.
//
// A cold connection carries one request until its first answer, because Apple
// and Google announce how much they take only then; a burst on a cold
// connection is refused or opens a storm of connections. Waiting for a slot or
// for a dial always obeys the caller's context.
package wire
