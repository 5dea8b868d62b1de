package api

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"rouse/fault"
)

func TestReadLine(t *testing.T) {
	t.Parallel()
	full := strings.Repeat("x", maxBody)
	for text, want := range map[string][]string{
		"":                              {""},
		"a":                             {"a"},
		"a\n":                           {"a\n", ""},
		"a\r\n\nb":                      {"a\r\n", "\n", "b"},
		full + "\r\n" + full:            {full + "\r\n", full},
		full + "xxx\na\n":               {"too long", "a\n", ""},
		full + full + full + "\n" + "b": {"too long", "b"},
		full + full:                     {"too long"},
	} {
		for name, from := range map[string]io.Reader{"at once": strings.NewReader(text), "in halves": iotest.HalfReader(strings.NewReader(text))} {
			in := bufio.NewReaderSize(from, 4096)
			var err error
			for i := 0; err == nil; i++ {
				var line item
				if line, err = readLine(in); i >= len(want) {
					t.Fatalf("%.20q %s: more than %d lines", text, name, len(want))
				}
				got := string(line.raw)
				if line.err != nil {
					got = "too long"
				}
				if got != want[i] || line.err != nil && fault.From(line.err).Code != "body_too_large" || (err != nil) != (i == len(want)-1) {
					t.Errorf("%.20q %s: line %d is %.20q, %v, %v", text, name, i, got, line.err, err)
				}
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("%.20q %s: %v", text, name, err)
			}
		}
	}
	in := bufio.NewReader(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if line, err := readLine(in); string(line.raw) != "a\n" || err != nil {
		t.Errorf("got %q %v", line.raw, err)
	}
	if line, err := readLine(in); line.raw != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a line is %q %v", line.raw, err)
	}
}

func TestLargeBatchesWaitInLine(t *testing.T) {
	t.Parallel()
	var l batchLine
	var leave []func()
	for range inHand / maxBatch {
		done, err := l.enter(t.Context(), "app_1", maxBatch)
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, done)
	}
	if _, err := l.enter(t.Context(), "app_1", 0); err != nil {
		t.Errorf("a small one waits: %v", err)
	}
	if done, err := l.enter(t.Context(), "app_2", maxBatch); err != nil {
		t.Errorf("another app waits: %v", err)
	} else {
		done()
	}
	came := make(chan error)
	go func() {
		done, err := l.enter(t.Context(), "app_1", maxBatch)
		if err == nil {
			done()
		}
		came <- err
	}()
	select {
	case err := <-came:
		t.Fatalf("one too many does not wait: %v", err)
	default:
	}
	for _, done := range leave {
		done()
	}
	if err := <-came; err != nil {
		t.Error(err)
	}
	if len(l.by) != 0 {
		t.Errorf("%d apps are kept", len(l.by))
	}
}
