package apns

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/sideshow/apns2"

	"rouse/providers"
)

// maxPayload is Apple's limit in bytes.
const maxPayload = 4096

// payload is all that a push says. A struct, so that its bytes are always the same.
type payload struct {
	APS   aps    `json:"aps"`
	Rouse string `json:"rouse"`
	Head  string `json:"head,omitempty"`
}

type aps struct {
	Alert            *providers.Text `json:"alert,omitempty"`
	MutableContent   int             `json:"mutable-content,omitempty"`
	Sound            string          `json:"sound,omitempty"`
	ContentAvailable int             `json:"content-available,omitempty"`
}

// notification makes the SDK's form of p.
func notification(p providers.Push, s secret) (*apns2.Notification, error) {
	n := &apns2.Notification{ApnsID: p.ID, DeviceToken: p.Token, Topic: s.Topic}
	body := payload{Rouse: "1", Head: p.Head}
	if p.Kind == providers.Background {
		n.PushType, n.Priority = apns2.PushTypeBackground, apns2.PriorityLow
		body.APS.ContentAvailable = 1
	} else {
		n.PushType, n.Priority = apns2.PushTypeAlert, apns2.PriorityHigh
		n.CollapseID = p.CollapseID
		body.APS = alert(p, s.Placeholder)
	}
	raw, err := fit(body)
	if err != nil {
		return nil, err
	}
	n.Payload = raw
	return n, nil
}

func alert(p providers.Push, placeholder providers.Placeholder) aps {
	text := placeholder.For(p.Locale)
	if p.Notification != nil {
		text = *p.Notification
	}
	a := aps{Alert: &text, MutableContent: 1}
	if !p.Repeat {
		a.Sound = "default"
	}
	return a
}

// fit returns the JSON of p, with the text cut short where Apple would refuse
// it whole: a wake with half a sentence beats none.
func fit(p payload) ([]byte, error) {
	for {
		raw, err := json.Marshal(p)
		if err != nil || len(raw) <= maxPayload || p.APS.Alert == nil {
			return raw, err
		}
		text := *p.APS.Alert
		over := len(raw) - maxPayload
		if text.Body != "" {
			text.Body = shorten(text.Body, over)
		} else if text.Title != "" {
			text.Title = shorten(text.Title, over)
		} else {
			return raw, nil
		}
		p.APS.Alert = &text
	}
}

// worstEscape is how many bytes of JSON one byte of text can become.
const worstEscape = 6

// shorten drops some of the over bytes from the end of s and marks the place.
// It takes off no more than escapes may account for, so call it until s fits.
func shorten(s string, over int) string {
	const mark = "…"
	s = strings.TrimSuffix(s, mark)
	keep := len(s) - max(over/worstEscape, 1) - len(mark)
	for keep > 0 && !utf8.RuneStart(s[keep]) {
		keep--
	}
	if keep <= 0 {
		return ""
	}
	return s[:keep] + mark
}
