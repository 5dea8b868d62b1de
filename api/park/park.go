// Package park keeps polls that wait: one a device, each woken when its inbox may have
// something new, when its time is up, when a newer poll takes its place or when the server stops.
package park

import (
	"context"
	"net/http"
	"time"

	"rouse/ident"
	"rouse/messages"
	"rouse/tokens"
)

// End says why a poll ended without a message.
type End uint8

// The ends.
const (
	// TimedOut: the wait is over.
	TimedOut End = iota + 1
	// Displaced: a newer poll of the same device took its place.
	Displaced
	// Drained: the server is stopping; the reply says when to come back.
	Drained
	// Left: the client is gone; there is nobody to reply to.
	Left
)

// Reply is a whole answer: a parker may have to write it where no ResponseWriter is left.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
	// Idle says that a poll which had parked ends with this without having been served.
	Idle bool
}

// WriteTo writes the reply.
func (p Reply) WriteTo(w http.ResponseWriter) {
	for name, values := range p.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(p.Status)
	// The client may be gone: it reads the same page again, nothing is lost.
	_, _ = w.Write(p.Body)
}

// Poll is one call that is willing to wait. A parker calls its functions one at a time, but Parked at any.
type Poll struct {
	Device ident.Device
	// After is the place the poll reads on from, 0 for everything un-acked, and Proof the hash of the key it came with: the
	// parker only tells them, see Parker.Polls.
	After messages.Seq
	Proof tokens.Hash
	// Wait is how long, at most; a parker takes it as it is.
	Wait time.Duration
	// Look reads the inbox; done means that reply is the answer. parked says that the poll has
	// been waiting. It is called after the poll is registered, and again whenever something may have changed.
	Look func(ctx context.Context, parked bool) (reply Reply, done bool)
	// Parked is called when the poll begins to wait, with its number and the time at which it will end, and again by
	// Parker.Announce.
	Parked func(number int64, until time.Time)
	// Idle is called when a poll that had parked ends without being served, unless a poll elsewhere took its place. Its
	// order against Parked of the device's next poll is kept. Both must be quick and must not call the parker.
	Idle func(number int64)
	// Empty makes the answer of a poll that ended for the reason, which is never Left.
	Empty func(End) Reply
}

// Attendance tells who waits.
type Attendance interface {
	// Polls lists all polls.
	Polls() []messages.Poll
	// Present reports whether the device has a poll here right now.
	Present(ident.Device) bool
	// Waiting is the number of polls that have parked: they have looked, and it was told that they wait.
	Waiting() int
}

// Parker keeps polls. It is safe for concurrent use.
type Parker interface {
	Attendance
	// Park takes the call over, and answers it once. Whether it returns before that is its own affair.
	Park(w http.ResponseWriter, r *http.Request, p Poll)
	// Wake makes the polls of the devices look again.
	Wake(devices ...ident.Device)
	// Displace ends the device's poll if its number is less than that of a poll elsewhere, and reports whether it is that
	// very poll.
	Displace(device ident.Device, number int64) (own bool)
	// Announce calls Parked anew for those of the devices whose polls wait.
	Announce(devices ...ident.Device)
}
