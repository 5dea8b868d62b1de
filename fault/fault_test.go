package fault_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"rouse/fault"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	base := fault.New(fault.TooMany, "inbox_full", "%d messages", 1000)
	e := base.At("/to", "x").At("/data", "y").After(time.Minute).Because(io.EOF)
	if len(base.Fields) != 0 || base.RetryAfter != 0 || base.Unwrap() != nil {
		t.Error("the original was changed")
	}
	wrapped := fmt.Errorf("accepting: %w", e)
	got := fault.From(wrapped)
	if got != e || fault.KindOf(wrapped) != fault.TooMany || len(got.Fields) != 2 || got.RetryAfter != time.Minute {
		t.Errorf("%+v", got)
	}
	if !errors.Is(wrapped, io.EOF) || !errors.Is(wrapped, fault.New(fault.TooMany, "inbox_full", "")) || errors.Is(wrapped, fault.New(fault.TooMany, "other", "")) {
		t.Error("errors.Is goes by cause and code")
	}
	if s := e.Error(); !strings.Contains(s, "inbox_full: 1000 messages") || !strings.Contains(s, "EOF") {
		t.Errorf("for the log: %s", s)
	}
}

func TestUnknownErrorsAreInternalAndSayNothing(t *testing.T) {
	t.Parallel()
	e := fault.From(errors.New("password is hunter2"))
	if e.Kind != fault.Internal || e.Code != "internal" || strings.Contains(e.Detail, "hunter2") || !strings.Contains(e.Error(), "hunter2") {
		t.Errorf("%+v", e)
	}
	if fault.From(nil) != nil || fault.KindOf(nil) != fault.Internal {
		t.Error("nil")
	}
}

// TestFieldsAreNotShared: two copies of one fault must not write into one array.
func TestFieldsAreNotShared(t *testing.T) {
	t.Parallel()
	base := fault.New(fault.Invalid, "x", "x").At("/a", "").At("/b", "").At("/c", "")
	one, two := base.At("/one", ""), base.At("/two", "")
	if one.Fields[3].Pointer != "/one" || two.Fields[3].Pointer != "/two" {
		t.Errorf("%v %v", one.Fields, two.Fields)
	}
}
