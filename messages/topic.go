package messages

import (
	"strings"

	"rouse/fault"
)

// TopicForm says what the name of a topic looks like.
const TopicForm = "1 to 128 characters of A-Z, a-z, 0-9 and . _ : -, other than . and .."

// CheckTopic checks the name of a topic: 1 to MaxTopic characters of A-Z, a-z, 0-9 and . _ : -, other than "." and "..", which many a client
// takes out of a path before it sends it. Invalid "invalid_topic".
func CheckTopic(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > MaxTopic || strings.ContainsFunc(name, notOfTopic) {
		return fault.New(fault.Invalid, "invalid_topic", "the name of a topic is %s", TopicForm)
	}
	return nil
}

func notOfTopic(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == ':', r == '-':
		return false
	}
	return true
}
