package sim

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// The providers, as Rule, Entry and Delivered name them.
const (
	// APNs is the fake Apple, both environments.
	APNs = "apns"
	// FCM is the fake Google.
	FCM = "fcm"
	// Token is Google's OAuth token endpoint.
	Token = "token"
)

// The faults of an Action. Those marked * do not process the request: nothing is
// delivered and the log entry has status 0.
const (
	// FaultHang never answers this request *.
	FaultHang = "hang"
	// FaultReset ends the TCP connection with RST *.
	FaultReset = "reset"
	// FaultGoaway answers, and says GOAWAY naming this as the last stream.
	FaultGoaway = "goaway"
	// FaultGoawayLower says GOAWAY with a last stream below this one, which stays unanswered *. APNs only.
	FaultGoawayLower = "goaway_lower"
	// FaultGoawayZero says GOAWAY with last stream 0 and the Reason as JSON debug data, and hangs up *. APNs only.
	FaultGoawayZero = "goaway_zero"
	// FaultRSTRefused resets the stream with REFUSED_STREAM *. APNs only.
	FaultRSTRefused = "rst_refused"
	// FaultRSTInternal resets the stream with INTERNAL_ERROR *; on HTTP/1.1 the connection closes.
	FaultRSTInternal = "rst_internal"
	// FaultBlackhole keeps the connection open and neither reads nor writes on it any more *.
	FaultBlackhole = "blackhole"
	// FaultCloseAfter processes the request and closes the connection before the answer.
	FaultCloseAfter = "close_after"
	// FaultSlowBody sends the headers at once and the body a byte at a time, Delay apart (20 ms if 0).
	FaultSlowBody = "slow_body"
)

// clientGone in an Entry means that the client gave up during a Delay.
const clientGone = "client_gone"

// dribbleStep is the pause of FaultSlowBody.
const dribbleStep = 20 * time.Millisecond

var apnsOnly = []string{FaultGoawayLower, FaultGoawayZero, FaultRSTRefused}

var faults = append([]string{"", FaultHang, FaultReset, FaultGoaway, FaultRSTInternal, FaultBlackhole, FaultCloseAfter, FaultSlowBody}, apnsOnly...)

// Rule says which requests go wrong. Every rule counts every request it matches;
// the oldest rule that is due acts, alone.
type Rule struct {
	// Provider is APNs, FCM or Token; empty matches any.
	Provider string `json:"provider,omitempty"`
	// TokenPrefix is how the device token begins; at the token endpoint, the account's e-mail address.
	TokenPrefix string `json:"token_prefix,omitempty"`
	// Nth acts on the nth matching request alone, counted from 1; 0 for all.
	Nth int `json:"nth,omitempty"`
	// Count acts at most so often; 0 for no bound.
	Count int `json:"count,omitempty"`
	// Probability acts on this share of the matching requests, the same ones on every run; 0 for all.
	Probability float64 `json:"probability,omitempty"`
	// Action is what happens.
	Action Action `json:"action"`
}

// Action is what a rule does to a request. Status, Reason or Body replace the
// answer, whatever the request deserved. An Action with only a Delay or a Fault
// leaves the answer as it was.
type Action struct {
	// Delay passes before the request is processed. In JSON a string such as "1.5s".
	Delay time.Duration `json:"-"`
	// Status is the HTTP status; 0 takes the one that belongs to Reason, else 200.
	Status int `json:"status,omitempty"`
	// Reason is the APNs reason, the FCM error code or the OAuth error. FCM also knows
	// UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND, RATE_LIMIT_EXCEEDED and QUOTA_EXCEEDED_DEVICE.
	Reason string `json:"reason,omitempty"`
	// Body replaces the body; text/html if it begins with "<", else JSON.
	Body string `json:"body,omitempty"`
	// RetryAfter is the Retry-After header as it stands.
	RetryAfter string `json:"retry_after,omitempty"`
	// Timestamp goes with an APNs 410; zero leaves it out.
	Timestamp time.Time `json:"timestamp,omitzero"`
	// Fault is one of the Fault constants, or empty.
	Fault string `json:"fault,omitempty"`
}

// plainAction is Action without its methods.
type plainAction Action

// wireAction is how an Action looks in JSON.
type wireAction struct {
	Delay string `json:"delay,omitempty"`
	plainAction
}

// MarshalJSON writes Delay as a string such as "1.5s".
func (a Action) MarshalJSON() ([]byte, error) {
	w := wireAction{plainAction: plainAction(a)}
	if a.Delay != 0 {
		w.Delay = a.Delay.String()
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (a *Action) UnmarshalJSON(data []byte) error {
	var w wireAction
	if err := decodeStrict(data, &w); err != nil {
		return err
	}
	if w.Delay != "" {
		d, err := time.ParseDuration(w.Delay)
		if err != nil {
			return fmt.Errorf("action.delay is %q, not a duration such as \"300ms\"", w.Delay)
		}
		w.plainAction.Delay = d
	}
	*a = Action(w.plainAction)
	return nil
}

// answers reports whether the action replaces the answer.
func (a Action) answers() bool { return a.Status != 0 || a.Reason != "" || a.Body != "" }

// processed reports whether the request has its effect in spite of the fault.
func (a Action) processed() bool {
	switch a.Fault {
	case "", FaultGoaway, FaultCloseAfter, FaultSlowBody:
		return true
	}
	return false
}

// check says what is wrong with the rule.
func (r Rule) check() error {
	switch {
	case !slices.Contains([]string{"", APNs, FCM, Token}, r.Provider):
		return fmt.Errorf("provider is %q, not apns, fcm, token or empty", r.Provider)
	case r.Nth < 0 || r.Count < 0:
		return fmt.Errorf("nth and count must not be negative")
	case r.Probability < 0 || r.Probability > 1:
		return fmt.Errorf("probability is %v, not between 0 and 1", r.Probability)
	case !slices.Contains(faults, r.Action.Fault):
		return fmt.Errorf("action.fault is %q, not one of %s", r.Action.Fault, strings.Join(faults[1:], ", "))
	case slices.Contains(apnsOnly, r.Action.Fault) && r.Provider != APNs && r.Provider != "":
		return fmt.Errorf("action.fault %q needs provider apns", r.Action.Fault)
	case r.Action.Status != 0 && (r.Action.Status < 200 || r.Action.Status > 599):
		return fmt.Errorf("action.status is %d, not between 200 and 599", r.Action.Status)
	case r.Action.Delay < 0:
		return fmt.Errorf("action.delay must not be negative")
	}
	return nil
}

// AddRule puts the rule behind those already there and returns how to remove it.
// It panics on a rule that makes no sense: that is a mistake in the test.
func (s *Sim) AddRule(r Rule) (remove func()) {
	if err := r.check(); err != nil {
		panic("sim: " + err.Error())
	}
	id := s.rules.add(r)
	return func() { s.rules.remove(id) }
}

// ClearRules removes all rules. Requests they already caught stay caught.
func (s *Sim) ClearRules() { s.rules.clear() }

// ruleBook holds the rules in the order they came.
type ruleBook struct {
	mu    sync.Mutex
	last  int
	rules []*liveRule
}

type liveRule struct {
	Rule
	id, seen, fired int
	dice            *rand.Rand
}

func newRuleBook() *ruleBook { return &ruleBook{} }

func (b *ruleBook) add(r Rule) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	b.rules = append(b.rules, &liveRule{Rule: r, id: b.last, dice: rand.New(rand.NewPCG(1, uint64(b.last)))})
	return b.last
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

// fire returns the action for a request, the zero Action if no rule is due.
func (b *ruleBook) fire(provider, token string) Action {
	b.mu.Lock()
	defer b.mu.Unlock()
	var chosen *liveRule
	for _, r := range b.rules {
		if r.matches(provider, token) && r.due() && chosen == nil {
			chosen = r
		}
	}
	if chosen == nil {
		return Action{}
	}
	chosen.fired++
	return chosen.Action
}

func (r *liveRule) matches(provider, token string) bool {
	if r.Provider != "" && r.Provider != provider || !strings.HasPrefix(token, r.TokenPrefix) {
		return false
	}
	return provider == APNs || !slices.Contains(apnsOnly, r.Action.Fault)
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
