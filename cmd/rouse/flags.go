package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"rouse/client"
)

// maxSecret is the most that is read of a file with a key.
const maxSecret = 64 << 10

// open opens a file of the caller's choice, standard input for "-". Closing that leaves it open.
func (t *terminal) open(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(t.in), nil
	}
	return os.Open(path)
}

// secretFile reads a file of the caller's choice, standard input for "-", without the line feed at its end.
func (t *terminal) secretFile(path string) (string, error) {
	in, err := t.open(path)
	if err != nil {
		return "", fmt.Errorf("reading the file: %w", err)
	}
	defer func() { _ = in.Close() }()
	content, err := io.ReadAll(io.LimitReader(in, maxSecret+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading %s: %w", orStdin(path), err)
	case len(content) > maxSecret:
		return "", mistake("%s holds more than %d bytes, so it is no key", orStdin(path), maxSecret)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if text == "" {
		return "", mistake("%s is empty", orStdin(path))
	}
	return text, nil
}

func orStdin(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

// rateOf reads PER_SECOND or PER_SECOND:BURST, or off for no limit. Nothing given is nil.
func rateOf(words string) (*client.RateLimitSetting, error) {
	switch words {
	case "":
		return nil, nil
	case "off":
		return &client.RateLimitSetting{}, nil
	}
	wrong := mistake("--rate-limit is %q; give PER_SECOND, PER_SECOND:BURST, such as 100:1000, or off", words)
	second, burst, both := strings.Cut(words, ":")
	n, err := strconv.ParseFloat(second, 32)
	if err != nil || n < 0 || math.IsNaN(n) {
		return nil, wrong
	}
	rate := &client.RateLimitSetting{PerSecond: float32(n)}
	if both {
		b, err := strconv.Atoi(burst)
		if err != nil || b < 1 {
			return nil, wrong
		}
		rate.Burst = &b
	}
	return rate, nil
}

// rateWords shows a limit as rateOf reads it.
func rateWords(r *client.RateLimitView) string {
	if r == nil || r.PerSecond == 0 {
		return "off"
	}
	return strconv.FormatFloat(float64(r.PerSecond), 'g', -1, 32) + ":" + strconv.Itoa(r.Burst)
}

// future reads a time, or +2h for so long from now. The flag is for the error.
func future(flag, words string, now time.Time) (time.Time, error) {
	if span, ok := strings.CutPrefix(words, "+"); ok {
		if d, err := time.ParseDuration(span); err == nil && d >= 0 {
			return now.Add(d), nil
		}
	}
	if t, err := time.Parse(time.RFC3339, words); err == nil {
		return t, nil
	}
	return time.Time{}, mistake("%s is %q; give a time such as 2030-01-02T08:00:00Z, or +2h for two hours from now", flag, words)
}

// past reads a time, or 2h for so long ago. The flag is for the error.
func past(flag, words string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(words); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, words); err == nil {
		return t, nil
	}
	return time.Time{}, mistake("%s is %q; give a time such as 2030-01-02T08:00:00Z, or 2h for two hours ago", flag, words)
}

// pastIf is past, and nil for nothing.
func pastIf(flag, words string, now time.Time) (*time.Time, error) {
	if words == "" {
		return nil, nil
	}
	t, err := past(flag, words, now)
	return &t, err
}

// seconds are those of a flag, nil if it was left out.
func seconds(d *time.Duration) *int64 {
	if d == nil {
		return nil
	}
	return new(int64(*d / time.Second))
}

// given is a flag's words, nil if they were left out.
func given(words string) *string {
	if words == "" {
		return nil
	}
	return &words
}

// atIf shows a time that may be missing.
func atIf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return at(*t)
}

// during says what went wrong, if anything did.
func during(doing string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}
