package webhooks

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"rouse/messages"
)

const (
	// leastPause and mostPause bound how long a webhook that takes nothing is left alone.
	leastPause = 5 * time.Second
	mostPause  = time.Hour
)

// steps is when an event is posted again that others did not share the fate of; the last repeats.
var steps = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 8 * time.Hour}

// pauseAfter is how long a webhook is left alone that has taken nothing n times, n from 1.
func pauseAfter(n int) time.Duration {
	pause := mostPause
	if n < 12 {
		pause = min(leastPause<<(max(n, 1)-1), mostPause)
	}
	return jitter(pause)
}

// retryIn is when one event is posted again after n attempts, n from 1.
func retryIn(n int) time.Duration { return jitter(steps[min(max(n, 1), len(steps))-1]) }

// jitter is up to a fifth more or less, so that those that failed together do not come back together.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + time.Duration(rand.Int64N(int64(2*d/5)+1))
}

// atMost is the most that jitter makes of it.
func atMost(d time.Duration) time.Duration { return d + d/5 }

// days says a time of whole days in words.
func days(d time.Duration) string { return strconv.Itoa(int(d/(24*time.Hour))) + " days" }

// givenUp reports whether an event was offered for long enough.
func givenUp(r messages.WebhookRetry, now time.Time) bool {
	return !now.Before(r.FirstAt.Add(messages.EventPatience))
}

// retryAfter reads Retry-After, seconds or a date: from 1 s to mostPause, 0 if it is neither.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
		return max(time.Duration(min(n, int64(mostPause/time.Second)))*time.Second, time.Second)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), time.Second), mostPause)
}
