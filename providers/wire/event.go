package wire

import "strings"

// EventKind is what happened to a connection. The kinds are stable and end up in metrics.
type EventKind string

// The kinds.
const (
	// ConnOpened: a connection was opened, TLS included.
	ConnOpened EventKind = "opened"
	// ConnFailed: none came about; the reason is ConnectTimeout, ConnectFailed or UntrustedCertificate.
	ConnFailed EventKind = "failed"
	// ConnGoAway: the server ended one in an orderly way, told once for each; the reason is the server's own word, empty if it gave none.
	ConnGoAway EventKind = "goaway"
	// ConnRefused: the server took the connection's request back unread; the reason is StreamRefused or EnhanceYourCalm.
	ConnRefused EventKind = "refused"
	// ConnLost: one broke, told once for each; the reason is ConnectionReset, or Timeout if the other side fell silent.
	ConnLost EventKind = "lost"
)

// Kinds lists them all, for whoever counts.
func Kinds() []EventKind {
	return []EventKind{ConnOpened, ConnFailed, ConnGoAway, ConnRefused, ConnLost}
}

// Event is something that happened to a connection.
type Event struct {
	Kind EventKind
	// Reason is why, in a word of at most 64 letters, digits and underscores; may be empty.
	Reason string
}

// tell hands the event to whoever observes. The caller does not hold mu.
func (o Options) tell(kind EventKind, reason string) {
	if o.Observe != nil {
		o.Observe(Event{Kind: kind, Reason: Word(reason)})
	}
}

// Word lets through what can be a reason, at most 64 letters, digits and underscores, so that nothing else reaches a log.
func Word(s string) string {
	letter := func(r rune) bool {
		return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_'
	}
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return !letter(r) }) {
		return ""
	}
	return s
}
