package apns

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"rouse/providers"
)

func TestPayloadGolden(t *testing.T) {
	t.Parallel()
	own := providers.Placeholder{
		Text:    providers.Text{Title: "Example", Body: "Something is new"},
		Locales: map[string]providers.Text{"de": {Body: "Etwas ist neu"}},
	}
	push := func(change func(*providers.Push)) providers.Push {
		p := providers.Push{Kind: providers.Alert, Head: "C1", CollapseID: "c"}
		change(&p)
		return p
	}
	for name, tt := range map[string]struct {
		push        providers.Push
		placeholder providers.Placeholder
		want        string
	}{
		"alert": {
			push(func(*providers.Push) {}), own,
			`{"aps":{"alert":{"title":"Example","body":"Something is new"},"mutable-content":1,"sound":"default"},"rouse":"1","head":"C1"}`,
		},
		"no placeholder": {
			push(func(*providers.Push) {}), providers.Placeholder{},
			`{"aps":{"alert":{"body":"You have a new message"},"mutable-content":1,"sound":"default"},"rouse":"1","head":"C1"}`,
		},
		"locale": {
			push(func(p *providers.Push) { p.Locale = "de_AT" }), own,
			`{"aps":{"alert":{"body":"Etwas ist neu"},"mutable-content":1,"sound":"default"},"rouse":"1","head":"C1"}`,
		},
		"repeat": {
			push(func(p *providers.Push) { p.Repeat = true }), own,
			`{"aps":{"alert":{"title":"Example","body":"Something is new"},"mutable-content":1},"rouse":"1","head":"C1"}`,
		},
		"notification": {
			push(func(p *providers.Push) { p.Notification = &providers.Text{Title: "Ann", Body: `says <"hi">`} }), own,
			`{"aps":{"alert":{"title":"Ann","body":"says \u003c\"hi\"\u003e"},"mutable-content":1,"sound":"default"},"rouse":"1","head":"C1"}`,
		},
		"background": {
			push(func(p *providers.Push) {
				p.Kind, p.Notification = providers.Background, &providers.Text{Body: "not shown"}
			}), own,
			`{"aps":{"content-available":1},"rouse":"1","head":"C1"}`,
		},
		"no head": {
			push(func(p *providers.Push) { p.Kind, p.Head = providers.Background, "" }), own,
			`{"aps":{"content-available":1},"rouse":"1"}`,
		},
	} {
		n, err := notification(tt.push, secret{Topic: "com.example.app", Placeholder: tt.placeholder})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// The SDK marshals once more: this is what goes on the wire.
		if got, err := json.Marshal(n); err != nil || string(got) != tt.want {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, tt.want)
		}
	}
}

func TestLongTextIsCutToFit(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]providers.Text{
		"long body":  {Title: "Ann", Body: strings.Repeat("x", 9000)},
		"escapes":    {Title: "Ann", Body: strings.Repeat("<", 5000)},
		"wide":       {Title: "Ann", Body: strings.Repeat("語", 4000)},
		"long title": {Title: strings.Repeat("語", 4000), Body: "b"},
		"both":       {Title: strings.Repeat("&", 4000), Body: strings.Repeat("\u2028", 4000)},
	} {
		n, err := notification(providers.Push{Kind: providers.Alert, Head: "C1", Notification: &text}, secret{})
		if err != nil {
			t.Fatal(err)
		}
		wire, err := json.Marshal(n)
		if err != nil || len(wire) > maxPayload {
			t.Errorf("%s: %d bytes, %v", name, len(wire), err)
		}
		if !utf8.Valid(wire) || !strings.Contains(string(wire), `"head":"C1"`) || !strings.Contains(string(wire), "…") {
			t.Errorf("%s: cut badly: %s", name, wire[:80])
		}
	}
}
