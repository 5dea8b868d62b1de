package messages

import (
	"fmt"
	"time"
)

// Urgency is RFC 8030's: how much a message may cost the phone's battery.
type Urgency int8

// The urgencies, in order. The zero value is Normal.
const (
	VeryLow Urgency = -2
	Low     Urgency = -1
	Normal  Urgency = 0
	High    Urgency = 1
)

// ParseUrgency reads the wire word; empty is High, the default of a send.
func ParseUrgency(s string) (Urgency, error) {
	switch s {
	case "very-low":
		return VeryLow, nil
	case "low":
		return Low, nil
	case "normal":
		return Normal, nil
	case "high", "":
		return High, nil
	}
	return 0, fmt.Errorf("urgency is one of very-low, low, normal, high")
}

// String returns the wire word.
func (u Urgency) String() string {
	switch u {
	case VeryLow:
		return "very-low"
	case Low:
		return "low"
	case Normal:
		return "normal"
	default:
		return "high"
	}
}

// Class is how a device is woken: each class has watermarks and a ladder of its own.
type Class int8

// The classes.
const (
	// NoWake rides along with others: low, very-low and TTL 0.
	NoWake Class = iota
	// NormalWake may be delayed by the phone.
	NormalWake
	// HighWake is at once.
	HighWake
)

// Class returns how a message of the urgency wakes its device.
func (u Urgency) Class() Class {
	switch {
	case u >= High:
		return HighWake
	case u == Normal:
		return NormalWake
	default:
		return NoWake
	}
}

// Ladder returns the ages of an un-acked message at which its device is woken
// again: after the last, every 24 h as long as the message lives.
func (c Class) Ladder() []time.Duration {
	switch c {
	case HighWake:
		return []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute, 3 * time.Hour, 12 * time.Hour}
	case NormalWake:
		return []time.Duration{20 * time.Minute, 2 * time.Hour, 12 * time.Hour}
	default:
		return nil
	}
}

// SilentAfter is how long a device may stay without contact before its ladder ends.
const SilentAfter = 7 * 24 * time.Hour
