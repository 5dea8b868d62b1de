package messages

import (
	"time"

	"rouse/ident"
)

// FanJob is a send of which something is still to be stored: it is scheduled, or for an audience that is reached page by page.
type FanJob struct {
	Message ident.Message
	App     ident.App
	// Due is when its next page may be stored.
	Due time.Time
	// Rate is how many devices a second the fan-outs of the app may reach, all together.
	Rate int
	// Wakes reports whether it wakes anybody: what does not need not be paced.
	Wakes bool
}

// FanPage is what one step of a fan-out came to. It is durable.
type FanPage struct {
	// Reached counts the devices of the page, those included whose inbox was full.
	Reached int
	// Pending is where the message lies now: what to hint.
	Pending []Pending
	// Done says that nothing is left to do.
	Done bool
}
