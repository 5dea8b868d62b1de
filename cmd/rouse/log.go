package main

import (
	"io"
	"log/slog"
)

// newLog makes the log of a node: one line an event, times in UTC.
func newLog(w io.Writer, level slog.Level, asJSON bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// parseLevel reads debug, info, warn or error.
func parseLevel(s string) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s)); err != nil {
		return 0, mistake("--log-level is %q; it is one of debug, info, warn, error", s)
	}
	return level, nil
}
