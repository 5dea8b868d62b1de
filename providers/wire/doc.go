// Package wire holds the connections to one push provider: it opens them
// gently, fills them only as far as the server allows, and sends every request
// exactly once. What an answer or an error means is for the provider to say.
//
// A cold connection carries one request until its first answer, because Apple
// and Google announce how much they take only then; a burst on a cold
// connection is refused or opens a storm of connections. If that first answer
// takes too long, one more connection is tried. Connections that end before
// they brought anything are replaced at once, then after growing pauses.
//
// Waiting for a slot or for a dial always obeys the caller's context, and costs
// the caller's own goroutine and a place in a list. The HTTP client adds a
// goroutine for each request in flight and one for each connection; a dial has
// one while it lasts, a timer none.
package wire
