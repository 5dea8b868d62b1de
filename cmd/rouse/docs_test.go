package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// settingsOf collects the environment variables that the flags of a command struct name.
func settingsOf(t reflect.Type, into map[string]bool) {
	if t.Kind() != reflect.Struct {
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if name := f.Tag.Get("setting"); name != "" {
			into[name] = true
		}
		settingsOf(f.Type, into)
	}
}

// TestDocsNameRealSettings: what the pages and the container files tell people to set exists, and what exists is told.
func TestDocsNameRealSettings(t *testing.T) {
	t.Parallel()
	known := map[string]bool{"ROUSE_PROFILE": true}
	settingsOf(reflect.TypeFor[commands](), known)
	name := regexp.MustCompile(`ROUSE_[A-Z_]*[A-Z]`)
	for _, file := range []string{"README.md", "SECURITY.md", "Dockerfile", "docker-compose.yml", "docs/operations.md", "docs/architecture.md", "docs/cli.md"} {
		for _, used := range name.FindAllString(readPage(t, file), -1) {
			if !known[used] {
				t.Errorf("%s tells of %s, which nothing reads", file, used)
			}
		}
	}
	page := readPage(t, "docs/operations.md")
	for i := range reflect.TypeFor[settings]().NumField() {
		f := reflect.TypeFor[settings]().Field(i)
		if _, hidden := f.Tag.Lookup("hidden"); !hidden && !strings.Contains(page, "`"+f.Tag.Get("setting")+"`") {
			t.Errorf("docs/operations.md says nothing about %s", f.Tag.Get("setting"))
		}
	}
}

// readPage reads a file of the repository.
func readPage(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestCommandsOfThePagesParse: every rouse line of the README and of the page about the command is one that the program understands.
func TestCommandsOfThePagesParse(t *testing.T) {
	t.Parallel()
	for page, least := range map[string]int{"README.md": 8, "docs/cli.md": 30} {
		testCommandsOfAPage(t, page, least)
	}
}

func testCommandsOfAPage(t *testing.T, page string, least int) {
	t.Helper()
	parser, err := kong.New(&commands{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, node := range parser.Model.Children {
		names = append(names, node.Name)
	}
	lines := regexp.MustCompile(`(?m)(?:\./rouse|cmd/rouse|(?:^ +|\| )rouse) ((?:`+strings.Join(names, "|")+`)\b[^\n|#)]*)`).FindAllStringSubmatch(readPage(t, page), -1)
	if len(lines) < least {
		t.Fatalf("only %d commands found in %s", len(lines), page)
	}
	for _, line := range lines {
		words := strings.Fields(strings.Trim(line[1], "` "))
		// --help after the command's own words checks that the command and its flags exist, and runs nothing.
		var flags []string
		for _, word := range words {
			if strings.HasPrefix(word, "--") {
				flags = append(flags, word)
			}
		}
		code, out := command(t, nil, append(leading(words), "--help")...)
		if code != exitOK {
			t.Errorf("rouse %s: exit %d\n%s", line[1], code, out)
		}
		for _, flag := range flags {
			if !strings.Contains(out, flag) {
				t.Errorf("rouse %s: the help knows no %s", line[1], flag)
			}
		}
	}
}

// leading returns the words of a command that choose it: at most three, none with capitals, quotes or ids.
func leading(words []string) []string {
	plain := regexp.MustCompile(`^[a-z][a-z-]*$`)
	n := 0
	for n < len(words) && n < 3 && plain.MatchString(words[n]) {
		n++
	}
	return words[:n]
}
