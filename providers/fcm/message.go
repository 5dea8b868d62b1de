package fcm

import (
	"strconv"
	"time"
	"unicode/utf8"

	"firebase.google.com/go/v4/messaging"

	"rouse/providers"
)

const (
	// maxTTL is the longest Google stores a message.
	maxTTL = 28 * 24 * time.Hour
	// maxTitle and maxText, in bytes of JSON, keep the whole under Google's 4096.
	maxTitle = 512
	maxText  = 2048
)

// message makes the SDK's form of p. It has no collapse key: Google slows
// collapsible messages down to one in three minutes, and Rouse merges wakes itself.
func message(p providers.Push, placeholder providers.Placeholder, now time.Time) *messaging.Message {
	ttl := min(max(p.ExpiresAt.Sub(now), 0), maxTTL).Truncate(time.Second)
	m := &messaging.Message{
		Token:   p.Token,
		Data:    map[string]string{"rouse": "1"},
		Android: &messaging.AndroidConfig{Priority: "high", TTL: &ttl},
	}
	if p.Head != "" {
		m.Data["head"] = p.Head
	}
	if p.Kind == providers.Background {
		m.Android.Priority = "normal"
	}
	switch p.Platform {
	case "ios", "macos":
		m.APNS = appleBlock(p, placeholder.For(p.Locale), now)
		return m
	case "web":
		m.Webpush = webBlock(p, ttl)
	}
	if p.Kind == providers.Alert && p.Notification != nil {
		m.Notification = &messaging.Notification{Title: cut(p.Notification.Title, maxTitle), Body: cut(p.Notification.Body, maxText)}
		if p.CollapseID != "" {
			m.Android.Notification = &messaging.AndroidNotification{Tag: p.CollapseID}
		}
	}
	return m
}

// appleBlock is for devices that Google reaches through Apple. An alert shows text, unless its owner gave another.
func appleBlock(p providers.Push, text providers.Text, now time.Time) *messaging.APNSConfig {
	headers := map[string]string{"apns-push-type": "background", "apns-priority": "5", "apns-expiration": providers.APNsExpiration(p.ExpiresAt, now)}
	aps := &messaging.Aps{ContentAvailable: true}
	if p.Kind == providers.Alert {
		headers["apns-push-type"], headers["apns-priority"] = "alert", "10"
		if p.CollapseID != "" {
			headers["apns-collapse-id"] = p.CollapseID
		}
		if p.Notification != nil {
			text = *p.Notification
		}
		aps = &messaging.Aps{Alert: &messaging.ApsAlert{Title: cut(text.Title, maxTitle), Body: cut(text.Body, maxText)}, MutableContent: true}
		if !p.Repeat {
			aps.Sound = "default"
		}
	}
	return &messaging.APNSConfig{Headers: headers, Payload: &messaging.APNSPayload{Aps: aps}}
}

func webBlock(p providers.Push, ttl time.Duration) *messaging.WebpushConfig {
	urgency := "high"
	if p.Kind == providers.Background {
		urgency = "normal"
	}
	return &messaging.WebpushConfig{Headers: map[string]string{
		"Urgency": urgency,
		"TTL":     strconv.FormatInt(int64(ttl/time.Second), 10),
	}}
}

// cut returns as much of s as limit bytes of JSON hold, whole characters, with a mark where something is gone.
func cut(s string, limit int) string {
	const mark = "…"
	size, keep := 0, -1
	for at, r := range s {
		size += weight(r)
		if keep < 0 && size > limit-len(mark) {
			keep = at
		}
		if size > limit {
			return s[:keep] + mark
		}
	}
	return s
}

// weight is how many bytes a character takes in the SDK's JSON at most.
func weight(r rune) int {
	switch {
	case r < ' ', r == '<', r == '>', r == '&', r == '\u2028', r == '\u2029', r == utf8.RuneError:
		return len(`\u0000`)
	case r == '"', r == '\\':
		return 2
	default:
		return utf8.RuneLen(r)
	}
}
