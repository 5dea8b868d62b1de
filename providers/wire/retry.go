package wire

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter keeps a server's typing error from silencing an app for good.
const maxRetryAfter = 24 * time.Hour

// RetryAfter reads the header in seconds or as an HTTP date; 0 if it is
// missing, unreadable or in the past, and a day at most.
func RetryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if header == "" {
		return 0
	}
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		return clamp(min(seconds, int64(maxRetryAfter/time.Second)))
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

func clamp(seconds int64) time.Duration {
	return time.Duration(max(seconds, 0)) * time.Second
}
