package sim

import "time"

// RuleFired tells tests how often the rule with this number acted.
func (s *Sim) RuleFired(id int) int {
	for _, r := range s.rules.list() {
		if r.ID == id {
			return r.Fired
		}
	}
	return -1
}

// Draw takes n times from a latency, as a rule would with this seed.
func Draw(l Latency, seed uint64, n int) []time.Duration {
	b := newRuleBook(seed)
	drawn := make([]time.Duration, n)
	for i := range drawn {
		drawn[i] = b.fire(query{provider: APNs}, l).wait
	}
	return drawn
}

// Faults are all that an Action can name.
func Faults() []string { return faults }
