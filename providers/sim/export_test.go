package sim

// RuleFired tells tests how often the rule with this number acted.
func (s *Sim) RuleFired(id int) int {
	for _, r := range s.rules.list() {
		if r.ID == id {
			return r.Fired
		}
	}
	return -1
}
