package main

import (
	"errors"
	"strings"

	"github.com/alecthomas/kong"
)

// astray refuses what would become a step in the path of a URL, or nothing: the call would go elsewhere, where deleting deletes something
// else. It looks at all arguments but those tagged `free`, and at flags tagged `segment`.
func astray(parsed *kong.Context) error {
	for _, el := range parsed.Path {
		var v *kong.Value
		switch {
		case el.Positional != nil && !el.Positional.Tag.Has("free"):
			v = el.Positional
		case el.Flag != nil && el.Flag.Tag.Has("segment"):
			v = el.Flag.Value
		default:
			continue
		}
		for _, word := range wordsOf(v) {
			switch word {
			case "":
				return mistake("%s is empty", v.ShortSummary())
			case ".", "..":
				return mistake("%s is %q, which leads elsewhere in a URL: no command can name that one", v.ShortSummary(), word)
			}
		}
	}
	return nil
}

// wordsOf is what was given for a flag or an argument of words.
func wordsOf(v *kong.Value) []string {
	switch given := v.Target.Interface().(type) {
	case string:
		return []string{given}
	case []string:
		return given
	}
	return nil
}

// helpFor is the command whose help says what was wrong with the arguments.
func helpFor(err error) string {
	words := []string{"rouse"}
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && wrong.Context != nil {
		for _, el := range wrong.Context.Path {
			if el.Command != nil {
				words = append(words, el.Command.Name)
			}
		}
	}
	return strings.Join(append(words, "--help"), " ")
}
