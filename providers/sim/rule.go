package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
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

// Rule says which requests go wrong. Every rule counts every request it matches;
// the oldest rule that is due acts, alone. A rule whose fault meets connections
// counts those instead.
type Rule struct {
	// Provider is APNs, FCM or Token; empty matches any.
	Provider string `json:"provider,omitempty"`
	// TokenPrefix is how the device token begins; at the token endpoint, the account's e-mail address.
	TokenPrefix string `json:"token_prefix,omitempty"`
	// Nth acts on the nth matching request alone, counted from 1; 0 for all.
	Nth int `json:"nth,omitempty"`
	// Count acts at most so often; 0 for no bound.
	Count int `json:"count,omitempty"`
	// Probability acts on this share of the matching requests, the same ones on every run with the same Options.Seed; 0 for all.
	Probability float64 `json:"probability,omitempty"`
	// Action is what happens.
	Action Action `json:"action"`
	// Environment matches Production or Sandbox of APNs alone; empty matches both, and everything else.
	Environment string `json:"environment,omitempty"`
	// Connection matches the nth connection alone that the provider accepts after the rule was added; 0 for all.
	Connection int `json:"connection,omitempty"`
	// OpenOver matches connections that were accepted while their listener had so many open already; 0 for all.
	OpenOver int `json:"open_over,omitempty"`
}

// check says all that is wrong with the rule.
func (r Rule) check() error {
	if wrong := r.mistakes(); len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// mistakes are sentences about what is wrong with the rule.
func (r Rule) mistakes() []string {
	var wrong []string
	is := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	onAPNs := r.Provider == APNs || r.Provider == ""
	is(!slices.Contains([]string{"", APNs, FCM, Token}, r.Provider), "provider is %q, not apns, fcm, token or empty", r.Provider)
	is(!slices.Contains([]string{"", Production, Sandbox}, r.Environment), "environment is %q, not production, sandbox or empty", r.Environment)
	is(r.Environment != "" && !onAPNs, "environment needs provider apns")
	is(r.Nth < 0, "nth is %d, not 0 or more", r.Nth)
	is(r.Count < 0, "count is %d, not 0 or more", r.Count)
	is(r.Connection < 0, "connection is %d, not 0 or more", r.Connection)
	is(r.OpenOver < 0, "open_over is %d, not 0 or more", r.OpenOver)
	is(r.Probability < 0 || r.Probability > 1, "probability is %v, not between 0 and 1", r.Probability)
	is(r.Action.greets() && r.TokenPrefix != "", "action.fault %q meets connections, which have no token_prefix", r.Action.Fault)
	is(r.Action.greets() && r.Provider == Token, "action.fault %q meets connections; those of the token endpoint are provider fcm", r.Action.Fault)
	is(slices.Contains(apnsOnly, r.Action.Fault) && !onAPNs, "action.fault %q needs provider apns", r.Action.Fault)
	is(r.Action.onAPNsAlone() && !onAPNs, "action.streams, code, debug and then need provider apns")
	return append(wrong, r.Action.mistakes()...)
}

// checkAll says what is wrong with each of the rules, which it numbers from 1.
func checkAll(rules []Rule) error {
	var wrong []error
	for i, r := range rules {
		wrong = append(wrong, numbered(i+1, r.mistakes())...)
	}
	return errors.Join(wrong...)
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
