package providers

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// What a placeholder may hold: bytes of a title, of a body, and how many locales.
const (
	maxPlaceholderTitle = 200
	maxPlaceholderBody  = 1000
	maxLocales          = 100
	maxLocaleTag        = 35
)

var localeTag = regexp.MustCompile(`^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$`)

// Empty reports whether the app gave no text at all.
func (p Placeholder) Empty() bool { return p.Text == Text{} && len(p.Locales) == 0 }

// Check calls wrong for everything that keeps p from being shown, with a JSON pointer below /placeholder and what to do.
func (p Placeholder) Check(wrong func(pointer, detail string)) {
	const at = "/placeholder"
	p.check(at, wrong)
	if p.Title != "" && p.Body == "" {
		wrong(at+"/body", "a placeholder with a title needs a body")
	}
	if len(p.Locales) > maxLocales {
		wrong(at+"/locales", fmt.Sprintf("at most %d locales", maxLocales))
		return
	}
	for _, tag := range slices.Sorted(maps.Keys(p.Locales)) {
		text := p.Locales[tag]
		if !localeTag.MatchString(tag) || len(tag) > maxLocaleTag {
			wrong(at+"/locales", "a locale is a tag such as de or pt-BR")
			continue
		}
		here := at + "/locales/" + tag
		text.check(here, wrong)
		if text.Body == "" {
			wrong(here+"/body", "a placeholder needs a body")
		}
	}
}

func (t Text) check(at string, wrong func(pointer, detail string)) {
	if len(t.Title) > maxPlaceholderTitle {
		wrong(at+"/title", fmt.Sprintf("at most %d bytes", maxPlaceholderTitle))
	}
	if len(t.Body) > maxPlaceholderBody {
		wrong(at+"/body", fmt.Sprintf("at most %d bytes", maxPlaceholderBody))
	}
}
