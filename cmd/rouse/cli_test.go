package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestEveryCommandSpeaksJSON, but those that run until they are stopped.
func TestEveryCommandSpeaksJSON(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&commands{})
	if err != nil {
		t.Fatal(err)
	}
	running := []string{"serve", "dev", "device", "sim", "demo"}
	n := 0
	for _, leaf := range parser.Model.Leaves(true) {
		speaks := slices.ContainsFunc(leaf.Flags, func(f *kong.Flag) bool { return f.Name == "output" && f.Short == 'o' })
		if exempt := slices.Contains(running, leaf.Name) && leaf.Parent == parser.Model.Node; speaks == exempt {
			t.Errorf("rouse %s: -o json is %v", leaf.Path(), speaks)
		}
		if n++; leaf.Help == "" {
			t.Errorf("rouse %s has no help", leaf.Path())
		}
		for _, flag := range leaf.Flags {
			if flag.Help == "" {
				t.Errorf("rouse %s --%s has no help", leaf.Path(), flag.Name)
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d commands were looked at", n)
	}
}

// commandIn runs a subcommand with something on standard input; out and said are what it wrote to standard output and beside it.
func commandIn(t *testing.T, env []string, in string, args ...string) (code int, out, said string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, env, strings.NewReader(in), &o, &e)
	return code, o.String(), e.String()
}

// cursors are places, and may look like the name of what lies there.
var cursors = regexp.MustCompile(`"cursor": "[^"]*"`)

// ids are names of things in an answer.
var ids = regexp.MustCompile(`\b(?:app|dev|msg|key|whk|evt)_[0-9a-v]{26}\b`)

// bothWays runs a subcommand that reads in words and in JSON. Both must name the same things, the JSON must be one document, or with
// --all one a line. It returns the words, and fills into with the JSON, or each of a list with the lines.
func bothWays(t *testing.T, env []string, into any, args ...string) string {
	t.Helper()
	code, words, said := commandIn(t, env, "", args...)
	jcode, doc, jsaid := commandIn(t, env, "", append(slices.Clone(args), "-o", "json")...)
	if code != exitOK || jcode != exitOK {
		t.Fatalf("rouse %s: exit %d and %d\n%s%s%s%s", strings.Join(args, " "), code, jcode, words, said, doc, jsaid)
	}
	if strings.ContainsAny(words, "\x1b\a\r") {
		t.Errorf("rouse %s steers the terminal: %q", strings.Join(args, " "), words)
	}
	in, inDoc := ids.FindAllString(words, -1), ids.FindAllString(cursors.ReplaceAllString(doc, ""), -1)
	for _, list := range []*[]string{&in, &inDoc} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	if !slices.Equal(in, inDoc) {
		t.Errorf("rouse %s names %v in words and %v in JSON\n%s%s", strings.Join(args, " "), in, inDoc, words, doc)
	}
	if slices.Contains(args, "--all") {
		doc = "[" + strings.ReplaceAll(strings.TrimSpace(doc), "\n", ",") + "]"
	}
	unmarshalOne(t, doc, into)
	return words
}

// unmarshalOne reads text that is one document of JSON and nothing else.
func unmarshalOne(t *testing.T, text string, into any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if _, more := dec.Token(); err != nil || !errors.Is(more, io.EOF) {
		t.Fatalf("%v, %v in\n%s", err, more, text)
	}
}

// says fails unless every word is in the text.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("no %q in\n%s", word, text)
		}
	}
}

// refuses fails unless the command exits with the code and says the words.
func refuses(t *testing.T, env []string, code int, want string, args ...string) {
	t.Helper()
	if got, out := command(t, env, args...); got != code || !strings.Contains(out, want) {
		t.Errorf("rouse %s: exit %d, want %d and %q\n%s", strings.Join(args, " "), got, code, want, out)
	}
}
