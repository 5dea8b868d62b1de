package messages

import (
	"time"

	"rouse/ident"
)

// HintKind says what may have changed.
type HintKind uint8

// The kinds of hint. Any may be lost: whoever listens also looks by itself, only later.
const (
	// HintNew: something was committed to the inbox; Seq and Class are set.
	HintNew HintKind = iota + 1
	// HintPolling: the device began to wait on a poll that ends at Until. Seq numbers the poll: a later one of the device has a
	// greater number, on whichever node. It may be told again.
	HintPolling
	// HintServed: a page up to Seq was handed out; Parked says that the device had been waiting for it
	// (its connection may be dead), More that it will come for another page.
	HintServed
	// HintSeen: the device asked, and up to Seq nothing waits for it any more.
	HintSeen
	// HintIdle: the poll of number Seq ended without a message; the device is no longer waiting, unless on a later one.
	HintIdle
	// HintAcked: everything up to Seq is acked; Seq 0 means some of it, look.
	HintAcked
	// HintToken: the device has a new or a confirmed token: wake it if anything is un-acked.
	HintToken
	// HintCredential: the app put a credential: close circuits, wake what waits.
	HintCredential
	// HintGone: the device was unregistered.
	HintGone
	// HintDue: the sweep found the device due for a wake of Class for what lies up to Seq and is Age old, at Until, or at once
	// if that is zero; its home answers with HintTaken.
	HintDue
	// HintTaken: the device's home has taken in what a HintDue of the same Class, Seq and Until said.
	HintTaken
	// HintCircuit: circuits of App and Provider were noted in the store.
	HintCircuit
	// HintNodes: a node joined or left: look who is alive.
	HintNodes
	// HintEvents: events of App were stored; without one, of any app.
	HintEvents
	// HintFanout: there is something to fan out, or to send at its time, for App.
	HintFanout

	lastHint = HintFanout
)

// Known reports whether k is one of the kinds above: another version of Rouse may speak of others.
func (k HintKind) Known() bool { return k > 0 && k <= lastHint }

// Hint says "look again". It carries no content of a message.
type Hint struct {
	Kind   HintKind
	App    ident.App
	Device ident.Device
	Class  Class
	Seq    Seq
	Parked bool
	More   bool
	// Until is by the clock of who holds the hint: it travels as a time from now.
	Until time.Time
	// Age is set on HintDue: how old the oldest message is that calls.
	Age time.Duration
	// Provider is set on HintCredential and HintCircuit.
	Provider string
}
