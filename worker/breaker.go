package worker

import "time"

const (
	// waveWindow is how far back refusals of tokens are counted, in waveSteps steps.
	waveWindow = 10 * time.Minute
	waveSteps  = 10
	// waveSamples is how many answers about tokens it takes to judge their share.
	waveSamples = 50
	// waveShare is the share of refused tokens from which on they are not believed: an app's phones do not
	// die together, but its credential, its environment or its provider may well fail all at once.
	waveShare = 0.2
	// calmShare is the share to which it must fall until they are believed again.
	calmShare = 0.1
	// waveProbes is how many tokens in a row must be refused for a pause to go on.
	waveProbes = 5
)

// breaker tells a wave of refused tokens that is too sudden to be true, from the answers to one app's pushes
// through one provider. It is pure: time comes in.
type breaker struct {
	steps [waveSteps]tally
	// tripped: no token is given up. It ends with waveSamples answers of which few are refusals.
	tripped bool
	since   tally // answers since it tripped, or since they were last judged
}

// tally counts answers about tokens.
type tally struct {
	slot     int64 // which step of time
	all, bad int
}

func (t *tally) count(bad bool) {
	t.all++
	if bad {
		t.bad++
	}
}

func (t tally) wave() bool {
	return t.all >= waveSamples && float64(t.bad) > waveShare*float64(t.all)
}

// note counts one answer about a token. It reports whether the breaker trips with it, or ends.
func (b *breaker) note(bad bool, now time.Time) (trips, ends bool) {
	if b.tripped {
		b.since.count(bad)
		if b.since.all < waveSamples {
			return false, false
		}
		ends = float64(b.since.bad) <= calmShare*float64(b.since.all)
		b.since = tally{}
		if ends {
			*b = breaker{}
		}
		return false, ends
	}
	slot := slotOf(now)
	step := &b.steps[int(slot%waveSteps+waveSteps)%waveSteps]
	if step.slot != slot {
		*step = tally{slot: slot}
	}
	step.count(bad)
	b.tripped = b.sum(slot).wave()
	return b.tripped, false
}

// slotOf returns which step of time now is in.
func slotOf(now time.Time) int64 { return now.UnixNano() / int64(waveWindow/waveSteps) }

// sum adds up the window that ends with a step of time.
func (b *breaker) sum(slot int64) tally {
	var sum tally
	for _, s := range b.steps {
		if s.slot > slot-waveSteps && s.slot <= slot {
			sum.all, sum.bad = sum.all+s.all, sum.bad+s.bad
		}
	}
	return sum
}
