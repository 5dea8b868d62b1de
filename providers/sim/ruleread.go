package sim

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// ReadRules reads a file of rules, {"rules": [...]}. It is checked whole: the error
// has a line for each mistake, with the number of the rule from 1.
func ReadRules(data []byte) ([]Rule, error) {
	if err := checkJSON(data); err != nil {
		return nil, fmt.Errorf("not a file of rules, {\"rules\": [...]}: %w", err)
	}
	var raws []json.RawMessage
	var wrong []error
	for _, sentence := range readObject(data, "", []member{{"rules", &raws, "a list of rules"}}) {
		wrong = append(wrong, errors.New("not a file of rules, {\"rules\": [...]}: "+sentence))
	}
	if raws == nil && len(wrong) == 0 {
		wrong = append(wrong, errors.New("not a file of rules: the member \"rules\" is missing"))
	}
	rules := make([]Rule, len(raws))
	for i, raw := range raws {
		var sentences []string
		rules[i], sentences = readRule(raw)
		wrong = append(wrong, numbered(i+1, sentences)...)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return rules, nil
}

// checkJSON says in which line the data stop being one JSON value.
func checkJSON(data []byte) error {
	var whole json.RawMessage
	err := json.Unmarshal(data, &whole)
	if at := (*json.SyntaxError)(nil); errors.As(err, &at) {
		read := data[:min(int(at.Offset), len(data))]
		return fmt.Errorf("line %d is not JSON, or the end is missing", 1+strings.Count(string(read), "\n"))
	}
	return err
}

// numbered are mistakes with the number of their rule.
func numbered(rule int, sentences []string) (wrong []error) {
	for _, sentence := range sentences {
		wrong = append(wrong, fmt.Errorf("rule %d: %s", rule, sentence))
	}
	return wrong
}

// readRule reads one rule and returns a sentence for each mistake in it: those of
// form and those of sense. A rule without an action is one.
func readRule(data []byte) (r Rule, wrong []string) {
	var action json.RawMessage
	members := append(r.members(), member{"action", &action, "an object"})
	if wrong = readObject(data, "", members); !isObject(data) {
		return r, wrong
	}
	before := len(wrong)
	if action != nil {
		wrong = append(wrong, readObject(action, "action.", r.Action.members())...)
	}
	if r.Action == (Action{}) && len(wrong) == before {
		wrong = append(wrong, "action is missing or says nothing; it is what happens, such as {\"status\": 503}")
	}
	return r, append(wrong, r.mistakes()...)
}

// member is what a JSON object may have: a name, where the value goes, and what
// the value has to be.
type member struct {
	name string
	to   any
	is   string
}

// What members have to be.
const (
	aText     = "a text"
	aCount    = "a whole number"
	aSwitch   = "true or false"
	aDuration = `a duration such as "300ms"`
	aLatency  = `a latency such as "50ms", "10ms..90ms" or "50ms p99=400ms", its second time not below its first`
	aTime     = `a time such as "2026-01-02T03:04:05Z"`
)

func (r *Rule) members() []member {
	return []member{
		{"provider", &r.Provider, aText}, {"environment", &r.Environment, aText}, {"token_prefix", &r.TokenPrefix, aText},
		{"connection", &r.Connection, aCount}, {"open_over", &r.OpenOver, aCount}, {"nth", &r.Nth, aCount}, {"count", &r.Count, aCount},
		{"probability", &r.Probability, "a number"},
	}
}

func (a *Action) members() []member {
	return []member{
		{"delay", (*span)(&a.Delay), aDuration}, {"latency", &a.Latency, aLatency},
		{"status", &a.Status, aCount}, {"reason", &a.Reason, aText}, {"body", &a.Body, aText},
		{"retry_after", &a.RetryAfter, aText}, {"retry_after_date", (*span)(&a.RetryAfterDate), aDuration},
		{"timestamp", &a.Timestamp, aTime}, {"timestamp_in", (*span)(&a.TimestampIn), aDuration}, {"timestamp_text", &a.TimestampText, aSwitch},
		{"streams", &a.Streams, aCount}, {"location", &a.Location, aText}, {"gzip", &a.Gzip, aSwitch},
		{"fault", &a.Fault, aText}, {"code", &a.Code, aText}, {"debug", &a.Debug, aText}, {"then", &a.Then, aText},
	}
}

// readObject reads a JSON object, goes on after a mistake, and returns a sentence
// for each. within is what the names begin with in them, such as "action.".
func readObject(data []byte, within string, members []member) (wrong []string) {
	if !isObject(data) {
		return []string{fmt.Sprintf("%s is %s, not a JSON object", cmp.Or(strings.TrimSuffix(within, "."), "it"), excerpt(data))}
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(data, &given); err != nil {
		return []string{err.Error()}
	}
	var known []string
	for _, m := range members {
		known = append(known, m.name)
		value, ok := given[m.name]
		delete(given, m.name)
		if ok && string(value) != "null" && json.Unmarshal(value, m.to) != nil {
			wrong = append(wrong, fmt.Sprintf("%s%s is %s, not %s", within, m.name, excerpt(value), m.is))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		wrong = append(wrong, fmt.Sprintf("%s%s is unknown; there are %s", within, name, strings.Join(known, ", ")))
	}
	return wrong
}

func isObject(data []byte) bool { return strings.HasPrefix(strings.TrimSpace(string(data)), "{") }

// excerpt is the beginning of a JSON value.
func excerpt(value []byte) string {
	const enough = 40
	if len(value) > enough {
		return strings.ToValidUTF8(string(value[:enough]), "") + "..."
	}
	return string(value)
}

// span is a duration that JSON writes as a string such as "1.5s"; empty is 0.
type span time.Duration

// UnmarshalJSON reads the string.
func (d *span) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil || text == "" {
		return err
	}
	read, err := time.ParseDuration(text)
	*d = span(read)
	return err
}
