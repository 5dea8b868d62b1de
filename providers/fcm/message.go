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
	// maxTitle and maxText, in bytes, keep the whole under Google's 4096.
	maxTitle = 512
	maxText  = 2048
)

// message makes the SDK's form of p. It has no collapse key: Google slows
// collapsible messages down to one in three minutes, and Rouse merges wakes itself.
func message(p providers.Push, now time.Time) *messaging.Message {
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
		m.APNS = appleBlock(p, now)
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

// appleBlock is for devices that Google reaches through Apple. An uploaded
// service account brings no placeholder, so they show the default one.
func appleBlock(p providers.Push, now time.Time) *messaging.APNSConfig {
	headers := map[string]string{"apns-push-type": "background", "apns-priority": "5", "apns-expiration": expiration(p.ExpiresAt, now)}
	aps := &messaging.Aps{ContentAvailable: true}
	if p.Kind == providers.Alert {
		headers["apns-push-type"], headers["apns-priority"] = "alert", "10"
		if p.CollapseID != "" {
			headers["apns-collapse-id"] = p.CollapseID
		}
		aps = &messaging.Aps{Alert: &messaging.ApsAlert{Body: providers.DefaultPlaceholder}, MutableContent: true}
		if p.Notification != nil {
			aps.Alert.Title, aps.Alert.Body = cut(p.Notification.Title, maxTitle), cut(p.Notification.Body, maxText)
		}
		if !p.Repeat {
			aps.Sound = "default"
		}
	}
	return &messaging.APNSConfig{Headers: headers, Payload: &messaging.APNSPayload{Aps: aps}}
}

// expiration is the apns-expiration header; 0 asks for one try and no storing.
func expiration(at, now time.Time) string {
	if !at.After(now) {
		return "0"
	}
	return strconv.FormatInt(at.Unix(), 10)
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

// cut returns at most limit bytes of s, whole characters, with a mark where something is gone.
func cut(s string, limit int) string {
	const mark = "…"
	if len(s) <= limit {
		return s
	}
	keep := limit - len(mark)
	for keep > 0 && !utf8.RuneStart(s[keep]) {
		keep--
	}
	return s[:keep] + mark
}
