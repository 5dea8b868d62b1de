package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// maxTranscript is how much of it is kept; of more the newest half.
const maxTranscript = 32 << 20

// transcript is what a process or a command wrote so far, for several readers.
type transcript struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced with each write
}

func newTranscript() *transcript { return &transcript{changed: make(chan struct{})} }

func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.changed)
	t.changed = make(chan struct{})
	if t.text.Len() > maxTranscript {
		t.text.Next(maxTranscript / 2)
	}
	return t.text.Write(b)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// await returns the first match of what was written, waiting for it until end closes.
func (t *transcript) await(tt *testing.T, want *regexp.Regexp, end <-chan struct{}) []string {
	tt.Helper()
	deadline := time.After(patient)
	for {
		t.mu.Lock()
		match := want.FindStringSubmatch(t.text.String())
		changed := t.changed
		t.mu.Unlock()
		if match != nil {
			return match
		}
		select {
		case <-changed:
		case <-end:
			tt.Fatalf("it ended before it said %q:\n%s", want, t)
		case <-deadline:
			tt.Fatalf("it never said %q:\n%s", want, t)
		}
	}
}

// running is a subcommand in this process, as a person runs it in a terminal.
type running struct {
	out    *transcript
	cancel context.CancelFunc
	ended  chan struct{}
	code   int // written before ended is closed
}

// startCommand runs a subcommand until it ends or stop is called.
func startCommand(t *testing.T, env []string, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{out: newTranscript(), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.code = run(ctx, args, env, strings.NewReader(""), r.out, r.out)
	}()
	t.Cleanup(func() { r.stop() })
	return r
}

// stop presses Ctrl-C and returns the exit code.
func (r *running) stop() int {
	r.cancel()
	<-r.ended
	return r.code
}

// says waits for a line that matches and returns its groups.
func (r *running) says(t *testing.T, pattern string) []string {
	t.Helper()
	return r.out.await(t, regexp.MustCompile(pattern), r.ended)
}

// command runs a subcommand to its end.
func command(t *testing.T, env []string, args ...string) (code int, out string) {
	t.Helper()
	var b bytes.Buffer
	code = run(t.Context(), args, env, strings.NewReader(""), &b, &b)
	return code, b.String()
}

// mustCommand runs a subcommand that must succeed.
func mustCommand(t *testing.T, env []string, args ...string) string {
	t.Helper()
	code, out := command(t, env, args...)
	if code != exitOK {
		t.Fatalf("rouse %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// firstLine returns the first line of a text.
func firstLine(text string) string {
	line, err := bufio.NewReader(strings.NewReader(text)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	return strings.TrimSpace(line)
}
