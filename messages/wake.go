package messages

import (
	"time"

	"rouse/ident"
)

// Marks is one place for each class that wakes.
type Marks struct {
	Normal Seq
	High   Seq
}

// Of returns the mark of class c, 0 for NoWake.
func (m Marks) Of(c Class) Seq {
	switch c {
	case HighWake:
		return m.High
	case NormalWake:
		return m.Normal
	default:
		return 0
	}
}

// Raise returns m with the mark of c at least seq.
func (m Marks) Raise(c Class, seq Seq) Marks {
	switch c {
	case HighWake:
		m.High = max(m.High, seq)
	case NormalWake:
		m.Normal = max(m.Normal, seq)
	case NoWake: // has no mark
	}
	return m
}

// Max returns the higher mark.
func (m Marks) Max() Seq { return max(m.Normal, m.High) }

// Waiting is what lies un-acked in one inbox, read in one instant: all that a wake needs to know.
// A device without anything pending has zero marks.
type Waiting struct {
	Device ident.Device
	// Head is the newest un-acked place of each class, 0 for none.
	Head Marks
	// Seen is the newest place that was handed to the device.
	Seen Seq
	// Woken is the newest place of each class that an accepted wake stood for (a
	// high wake stands for both classes), WokenAt when the last one was accepted.
	Woken   Marks
	WokenAt time.Time
	// Unanswered counts the wakes accepted since the device was last handed a page.
	Unanswered int
	// Oldest is the oldest un-acked place of a class that wakes and lies beyond Seen, or, where there is none,
	// the oldest un-acked one; a repeated wake keeps its name by it.
	Oldest Seq
	// ExpiresAt is the longest life among what is pending.
	ExpiresAt time.Time
	// Notification is what the newest un-acked message asks to show; nil for nothing.
	Notification *Notification
	// BackgroundAt is when the last background push went out.
	BackgroundAt time.Time
}

// Wake is the record of one push, for timelines and for the next start.
type Wake struct {
	App    ident.App
	Device ident.Device
	At     time.Time
	// Head is the newest place the push stood for, captured before it was sent.
	Head Marks
	// Accepted is whether the provider took it.
	Accepted   bool
	Background bool
	Provider   string
	Verdict    string
	Reason     string
	Took       time.Duration
}

// Rung is one age at which un-acked messages of a class are looked at again.
type Rung struct {
	// Name keys the durable cursor: "high/1m0s".
	Name  string
	Class Class
	Age   time.Duration
}

// SweepQuery asks for the devices behind un-acked messages of one class, oldest first.
type SweepQuery struct {
	Class Class
	// App narrows the scan to one app; empty is all.
	App ident.App
	// Unwoken narrows it to devices with something that no accepted wake stands for.
	Unwoken bool
	// After is the durable cursor: rows at or before it were handed over.
	After Seq
	// Before ends the scan at the first row created after it, unless that row's time lies
	// after Now: the clock went back, and the row counts as old.
	Before time.Time
	Now    time.Time
	Limit  int
}

// Due is a device a sweep found with something un-acked.
type Due struct {
	Device ident.Device
	Class  Class
	Seq    Seq
	// Age is how old the message was.
	Age time.Duration
}
