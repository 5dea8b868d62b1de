package fcm

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"rouse/providers"
)

var now = time.Unix(1700000000, 0)

func TestMessageGolden(t *testing.T) {
	t.Parallel()
	own := providers.Placeholder{
		Text:    providers.Text{Title: "Example", Body: "Something is new"},
		Locales: map[string]providers.Text{"de": {Body: "Etwas ist neu"}},
	}
	for name, tt := range map[string]struct {
		change func(*providers.Push)
		want   string
	}{
		"alert": {
			func(*providers.Push) {},
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"3600s","priority":"high"},"token":"T"}`,
		},
		"background": {
			func(p *providers.Push) {
				p.Kind, p.Notification = providers.Background, &providers.Text{Body: "not shown"}
			},
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"3600s","priority":"normal"},"token":"T"}`,
		},
		"notification": {
			func(p *providers.Push) { p.Notification = &providers.Text{Title: "Ann", Body: "says hi"} },
			`{"data":{"head":"C1","rouse":"1"},"notification":{"title":"Ann","body":"says hi"},"android":{"ttl":"3600s","priority":"high","notification":{"tag":"rouse-1"}},"token":"T"}`,
		},
		"fraction of a second": {
			func(p *providers.Push) { p.ExpiresAt = now.Add(1999 * time.Millisecond) },
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"1s","priority":"high"},"token":"T"}`,
		},
		"over": {
			func(p *providers.Push) { p.ExpiresAt = now.Add(-time.Hour) },
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"0s","priority":"high"},"token":"T"}`,
		},
		"too long": {
			func(p *providers.Push) { p.ExpiresAt = now.AddDate(1, 0, 0) },
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"2419200s","priority":"high"},"token":"T"}`,
		},
		"ios": {
			func(p *providers.Push) { p.Platform = "ios" },
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"3600s","priority":"high"},` +
				`"apns":{"headers":{"apns-collapse-id":"rouse-1","apns-expiration":"1700003600","apns-priority":"10","apns-push-type":"alert"},` +
				`"payload":{"aps":{"alert":{"title":"Example","body":"Something is new"},"mutable-content":1,"sound":"default"}}},"token":"T"}`,
		},
		"ios in a locale": {
			func(p *providers.Push) { p.Platform, p.Locale = "ios", "de-AT" },
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"3600s","priority":"high"},` +
				`"apns":{"headers":{"apns-collapse-id":"rouse-1","apns-expiration":"1700003600","apns-priority":"10","apns-push-type":"alert"},` +
				`"payload":{"aps":{"alert":{"body":"Etwas ist neu"},"mutable-content":1,"sound":"default"}}},"token":"T"}`,
		},
		"macos, repeated, notification": {
			func(p *providers.Push) {
				p.Platform, p.Repeat, p.Notification = "macos", true, &providers.Text{Title: "Ann", Body: "says hi"}
			},
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"3600s","priority":"high"},` +
				`"apns":{"headers":{"apns-collapse-id":"rouse-1","apns-expiration":"1700003600","apns-priority":"10","apns-push-type":"alert"},` +
				`"payload":{"aps":{"alert":{"title":"Ann","body":"says hi"},"mutable-content":1}}},"token":"T"}`,
		},
		"ios background": {
			func(p *providers.Push) { p.Platform, p.Kind = "ios", providers.Background },
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"3600s","priority":"normal"},` +
				`"apns":{"headers":{"apns-expiration":"1700003600","apns-priority":"5","apns-push-type":"background"},` +
				`"payload":{"aps":{"content-available":1}}},"token":"T"}`,
		},
		"web": {
			func(p *providers.Push) { p.Platform = "web" },
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"3600s","priority":"high"},"webpush":{"headers":{"TTL":"3600","Urgency":"high"}},"token":"T"}`,
		},
		"web background": {
			func(p *providers.Push) { p.Platform, p.Kind = "web", providers.Background },
			`{"data":{"head":"C1","rouse":"1"},"android":{"ttl":"3600s","priority":"normal"},"webpush":{"headers":{"TTL":"3600","Urgency":"normal"}},"token":"T"}`,
		},
	} {
		p := providers.Push{Kind: providers.Alert, Platform: "android", Token: "T", Head: "C1", CollapseID: "rouse-1", ExpiresAt: now.Add(time.Hour)}
		tt.change(&p)
		if got, err := json.Marshal(message(p, own, now)); err != nil || string(got) != tt.want {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, tt.want)
		}
	}
}

func TestLongTextIsCut(t *testing.T) {
	t.Parallel()
	for _, platform := range []string{"android", "ios"} {
		for _, character := range []string{"語", "<", "\x01", `"`, "\u2028", "\xff"} {
			p := providers.Push{Kind: providers.Alert, Platform: platform, Token: strings.Repeat("t", 160), Head: "C1", CollapseID: strings.Repeat("c", 64)}
			p.Notification = &providers.Text{Title: strings.Repeat(character, 3000), Body: strings.Repeat(character, 3000)}
			got, err := json.Marshal(message(p, providers.Placeholder{}, now))
			if err != nil || len(got) > 4096 || !strings.Contains(string(got), "…") {
				t.Errorf("%s, %q: %d bytes, %v", platform, character, len(got), err)
			}
		}
	}
	for _, tt := range []struct{ text, want string }{
		{"exactly", "exactly"}, {"exactly!", "exac…"}, {"語語", "語語"}, {"語語語", "語…"}, {"<", "<"}, {"<<", "…"}, {"", ""},
	} {
		if got := cut(tt.text, 7); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestDefaultPlaceholder(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(message(providers.Push{Kind: providers.Alert, Platform: "ios"}, providers.Placeholder{}, now))
	if err != nil || !strings.Contains(string(got), `"alert":{"body":"You have a new message"}`) {
		t.Errorf("%s, %v", got, err)
	}
}
