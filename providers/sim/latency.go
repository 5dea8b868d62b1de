package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// Latency is a time that passes before a request is processed. The zero value is
// none. As text, in JSON and on the command line, it is "50ms" (always that),
// "10ms..90ms" (evenly spread) or "50ms p99=400ms" (half within 50 ms, all but one
// in a hundred within 400 ms, the rest up to ten times that: a log-normal distribution).
type Latency struct {
	// Min and Max bound an even spread; equal, they are a fixed time.
	Min, Max time.Duration
	// Median and P99 shape a log-normal distribution; Min and Max are then 0.
	Median, P99 time.Duration
}

// p99Sigmas is how many standard deviations above the mean 99 % of a normal distribution end.
const p99Sigmas = 2.3263478740408408

// longestDraw bounds a log-normal latency, in multiples of its P99.
const longestDraw = 10

// Fixed is a latency that is always d.
func Fixed(d time.Duration) Latency { return Latency{Min: d, Max: d} }

// ParseLatency reads the text form.
func ParseLatency(text string) (Latency, error) {
	var l Latency
	err := l.UnmarshalText([]byte(text))
	return l, err
}

// UnmarshalText reads the text form.
func (l *Latency) UnmarshalText(text []byte) error {
	var read Latency
	var first, second error
	s := string(text)
	if low, high, ok := strings.Cut(s, ".."); ok {
		read.Min, first = time.ParseDuration(low)
		read.Max, second = time.ParseDuration(high)
	} else if median, p99, ok := strings.Cut(s, " p99="); ok {
		read.Median, first = time.ParseDuration(median)
		read.P99, second = time.ParseDuration(p99)
	} else if s != "" {
		read.Min, first = time.ParseDuration(s)
		read.Max = read.Min
	}
	if first != nil || second != nil {
		return fmt.Errorf("%q is not a latency such as \"50ms\", \"10ms..90ms\" or \"50ms p99=400ms\"", s)
	}
	if err := read.check(); err != nil {
		return err
	}
	*l = read
	return nil
}

// MarshalText writes the text form, empty for none.
func (l Latency) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// String is the text form, empty for none.
func (l Latency) String() string {
	switch {
	case l.P99 > 0:
		return l.Median.String() + " p99=" + l.P99.String()
	case l.Max == 0:
		return ""
	case l.Min == l.Max:
		return l.Max.String()
	}
	return l.Min.String() + ".." + l.Max.String()
}

func (l Latency) check() error {
	switch {
	case l.Min < 0 || l.Max < l.Min || l.Median < 0 || l.P99 < l.Median:
		return errors.New("a latency is not negative, and its second time not below its first")
	case l.P99 > 0 && (l.Max > 0 || l.Median == 0):
		return errors.New("a latency has a range, or a median and a p99, both over 0")
	}
	return nil
}

// draw takes a time from the distribution.
func (l Latency) draw(dice *rand.Rand) time.Duration {
	switch {
	case l.P99 > 0:
		sigma := math.Log(float64(l.P99)/float64(l.Median)) / p99Sigmas
		drawn := float64(l.Median) * math.Exp(sigma*dice.NormFloat64())
		return time.Duration(min(drawn, longestDraw*float64(l.P99)))
	case l.Max > l.Min:
		return l.Min + time.Duration(dice.Int64N(int64(l.Max-l.Min)+1))
	}
	return l.Max
}
