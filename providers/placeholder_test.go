package providers

import (
	"slices"
	"strings"
	"testing"
)

func TestPlaceholderCheck(t *testing.T) {
	t.Parallel()
	many := map[string]Text{}
	for i := range maxLocales + 1 {
		many["x"+strings.Repeat("a", i%7+1)+"-"+strings.Repeat("b", i/7%8+1)+"-"+strings.Repeat("c", i/56+1)] = Text{Body: "b"}
	}
	for name, tt := range map[string]struct {
		placeholder Placeholder
		want        []string
	}{
		"nothing":      {Placeholder{}, nil},
		"all of it":    {Placeholder{Text: Text{Title: "t", Body: "b"}, Locales: map[string]Text{"de": {Body: "b"}, "pt_BR": {Title: "t", Body: "b"}}}, nil},
		"only locales": {Placeholder{Locales: map[string]Text{"de": {Body: "b"}}}, nil},
		"title alone":  {Placeholder{Text: Text{Title: "t"}}, []string{"/placeholder/body"}},
		"too long":     {Placeholder{Text: Text{Title: strings.Repeat("t", 201), Body: strings.Repeat("b", 1001)}}, []string{"/placeholder/title", "/placeholder/body"}},
		"at the limit": {Placeholder{Text: Text{Title: strings.Repeat("t", 200), Body: strings.Repeat("b", 1000)}}, nil},
		"locales": {Placeholder{Locales: map[string]Text{"de": {}, "d/e": {Body: "b"}, "fr": {Body: strings.Repeat("b", 1001)}}},
			[]string{"/placeholder/locales", "/placeholder/locales/de/body", "/placeholder/locales/fr/body"}},
		"too many": {Placeholder{Locales: many}, []string{"/placeholder/locales"}},
	} {
		var got []string
		tt.placeholder.Check(func(pointer, detail string) {
			got = append(got, pointer)
			if detail == "" {
				t.Errorf("%s: %s says nothing", name, pointer)
			}
		})
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	if len(many) <= maxLocales {
		t.Errorf("only %d locales", len(many))
	}
}

func TestPlaceholderEmpty(t *testing.T) {
	t.Parallel()
	if !(Placeholder{}).Empty() || (Placeholder{Text: Text{Body: "b"}}).Empty() || (Placeholder{Locales: map[string]Text{"de": {Body: "b"}}}).Empty() {
		t.Error("Empty is wrong")
	}
}

func TestPlaceholderFor(t *testing.T) {
	t.Parallel()
	p := Placeholder{Text: Text{Body: "own"}, Locales: map[string]Text{"pt": {Body: "pt"}, "pt-BR": {Body: "br"}}}
	for locale, want := range map[string]string{"pt-BR": "br", "pt_br": "br", "pt-PT": "pt", "pt": "pt", "de": "own", "": "own"} {
		if got := p.For(locale).Body; got != want {
			t.Errorf("%q: %q, want %q", locale, got, want)
		}
	}
	if got := (Placeholder{}).For("de").Body; got != DefaultPlaceholder {
		t.Errorf("%q", got)
	}
}
