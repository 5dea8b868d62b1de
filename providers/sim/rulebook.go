package sim

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// ruleBook holds the rules in the order they came.
type ruleBook struct {
	seed uint64

	mu    sync.Mutex
	last  int
	rules []*liveRule
	dice  map[string]*rand.Rand // of the providers' own latency
}

type liveRule struct {
	Rule
	id, seen, fired int
	met             int // connections since the rule came, where Connection asks for one
	chosen          int // the number of that one; 0 until it comes
	dice            *rand.Rand
}

// query is what rules look at.
type query struct {
	provider, environment, token string
	wire                         *wire
}

// order is what is to be done with a request.
type order struct {
	Action
	wait time.Duration // before it is processed
}

func newRuleBook(seed uint64) *ruleBook {
	if seed == 0 {
		seed = 1
	}
	b := &ruleBook{seed: seed, dice: map[string]*rand.Rand{}}
	for i, provider := range []string{APNs, FCM, Token} {
		b.dice[provider] = rand.New(rand.NewPCG(seed, uint64(i)<<32))
	}
	return b
}

func (b *ruleBook) add(r Rule) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	b.rules = append(b.rules, &liveRule{Rule: r, id: b.last, dice: rand.New(rand.NewPCG(b.seed, uint64(b.last)))})
	return b.last
}

// replace puts these rules in the place of all others.
func (b *ruleBook) replace(rules []Rule) (ids []int) {
	b.clear()
	ids = []int{}
	for _, r := range rules {
		ids = append(ids, b.add(r))
	}
	return ids
}

func (b *ruleBook) remove(id int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := len(b.rules)
	b.rules = slices.DeleteFunc(b.rules, func(r *liveRule) bool { return r.id == id })
	return len(b.rules) < before
}

func (b *ruleBook) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rules = nil
}

// fire returns what to do with a request. Where the rule that acts has no time of
// its own, the provider's latency passes.
func (b *ruleBook) fire(q query, usual Latency) order {
	b.mu.Lock()
	defer b.mu.Unlock()
	var chosen *liveRule
	for _, r := range b.rules {
		if !r.Action.greets() && r.matches(q) && r.due() && chosen == nil {
			chosen = r
		}
	}
	if chosen == nil {
		return order{wait: usual.draw(b.dice[q.provider])}
	}
	chosen.fired++
	do := order{Action: chosen.Action, wait: chosen.Action.Latency.draw(chosen.dice)}
	if do.Fault != FaultSlowBody {
		do.wait += do.Delay
	}
	if do.Delay == 0 && do.Latency == (Latency{}) {
		do.wait = usual.draw(b.dice[q.provider])
	}
	return do
}

// meet returns what to do with a connection that was just accepted.
func (b *ruleBook) meet(q query) Action {
	b.mu.Lock()
	defer b.mu.Unlock()
	var chosen *liveRule
	for _, r := range b.rules {
		if r.Connection > 0 && r.concerns(q) {
			if r.met++; r.met == r.Connection {
				r.chosen = q.wire.number
			}
		}
		if r.Action.greets() && r.matches(q) && r.due() && chosen == nil {
			chosen = r
		}
	}
	if chosen == nil {
		return Action{}
	}
	chosen.fired++
	return chosen.Action
}

// concerns reports whether the rule is about this provider and environment.
// Connections to the token endpoint are FCM's.
func (r *liveRule) concerns(q query) bool {
	asked := r.Provider == "" || r.Provider == q.provider || r.Provider == Token && q.provider == FCM
	return asked && (r.Environment == "" || r.Environment == q.environment)
}

func (r *liveRule) matches(q query) bool {
	switch {
	case r.Provider != "" && r.Provider != q.provider, r.Environment != "" && r.Environment != q.environment:
		return false
	case !strings.HasPrefix(q.token, r.TokenPrefix):
		return false
	case r.Connection > 0 && r.chosen != q.wire.number, r.OpenOver > 0 && q.wire.place <= r.OpenOver:
		return false
	}
	return q.provider == APNs || !r.Action.onAPNsAlone()
}

// due counts a matching request and says whether the rule wants it.
func (r *liveRule) due() bool {
	r.seen++
	if r.Nth > 0 && r.seen != r.Nth || r.Count > 0 && r.fired >= r.Count {
		return false
	}
	return r.Probability == 0 || r.dice.Float64() < r.Probability
}

// listed is a rule as the control API shows it.
type listed struct {
	ID int `json:"id"`
	// Seen counts the matching requests, Fired those the rule acted on.
	Seen  int  `json:"seen"`
	Fired int  `json:"fired"`
	Rule  Rule `json:"rule"`
}

func (b *ruleBook) list() []listed {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]listed, 0, len(b.rules))
	for _, r := range b.rules {
		all = append(all, listed{ID: r.id, Seen: r.seen, Fired: r.fired, Rule: r.Rule})
	}
	return all
}
